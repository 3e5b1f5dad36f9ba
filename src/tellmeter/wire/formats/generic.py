"""The format of an endpoint that no other format knows: whatever streams, read by the shapes that are known.

Nothing but the StreamEngine asks for it: it takes every path and every body for a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ...counts import count
from ...usage import Usage
from ..answer import Answer, Asked, Format, StreamReader
from ..event_stream import CONTENT_TYPE, EventStreamReader, begins_frames
from ..json_array import JsonObjects
from ..json_lines import JsonLinesReader
from ..message import EVENT_STREAM, begins_event_stream
from ..pieces import chunk_of, error_of, shape_of
from ..shapes import text_of, unwrapped, usage_of
from ..sse import CONTENT, IGNORED, OTHER, SseReader
from .bodies import add_tool, fail, untyped

NAME = "generic"

Framing = Literal["events", "lines", "objects", "amazon"]

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:")

# Where the counts of tokens stand: OpenAI, Anthropic, Bedrock, Gemini, Ollama, the families behind InvokeModel.
_INPUT = (
    "prompt_tokens",
    "input_tokens",
    "inputTokens",
    "promptTokenCount",
    "prompt_eval_count",
    "inputTokenCount",
    "prompt_token_count",
)
_OUTPUT = (
    "completion_tokens",
    "output_tokens",
    "outputTokens",
    "candidatesTokenCount",
    "eval_count",
    "outputTokenCount",
    "generation_token_count",
)
# Anthropic and Bedrock state these beside the input, Gemini beside input or output.
_READ = ("cache_read_input_tokens", "cacheReadInputTokens")
_WRITTEN = ("cache_creation_input_tokens", "cacheWriteInputTokens")
_TOOLS = ("toolUsePromptTokenCount",)
_THOUGHTS = ("thoughtsTokenCount",)
# OpenAI states these inside.
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")


def framing_of(head: bytes) -> Framing | None:
    """How a stream that begins with `head` is framed; None while no byte tells."""
    head = head.removeprefix(_BOM).lstrip()
    if not head or _BOM.startswith(head) or any(field.startswith(head) and field != head for field in _FIELDS):
        return None
    if begins_frames(head):
        return "amazon"
    if begins_event_stream(head):
        return "events"
    return "objects" if head.startswith((b"{", b"[")) else "lines"


def read_request(body: bytes) -> Asked:
    """Whatever is asked; "" where no model is named."""
    request = untyped(body)
    asked = request if isinstance(request, dict) else {}
    return Asked(model=text_of(asked.get("model")), stream=asked.get("stream") is True)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer is a stream of one event."""
    reader = Reader()
    reader.feed(body)
    reader.finish()
    answer = reader.answer
    if status_code >= 400 and not answer.failed:
        fail(answer, untyped(body))
    return answer


class _Said:
    """What the events of one stream say, whatever they are framed in: the half of a reader that is not the framing."""

    answer: Answer
    text_size: int

    def __init__(self) -> None:
        super().__init__()
        self._stated: dict[str, Any] = {}
        self._calls: set[Any] = set()

    def said(self, data: bytes, whole: bool = True) -> int:
        """Take what an event says. Content is text, reasoning or a piece of a tool call, and whatever nobody knows."""
        event = unwrapped(untyped(data))
        if event is None and data.startswith((b"{", b"[")):
            return OTHER if whole else IGNORED
        if not isinstance(event, dict):
            self.text_size += len(data)
            return CONTENT
        if error_of(event) is not None:
            fail(self.answer, event)
            return OTHER
        if event.get("type") == "ping":
            return IGNORED
        self._note(event)
        chunk = chunk_of(event)
        if chunk is None:
            return OTHER if shape_of(event) is not None else CONTENT
        self.answer.finish_reason = chunk.finish_reason or self.answer.finish_reason
        self.text_size += _size(chunk.content) + _size(chunk.reasoning)
        for call in chunk.tool_calls:
            self.text_size += _size(text_of(call.get("arguments")))
            key = (chunk.index, call.get("index"), call.get("id"))
            if key not in self._calls and add_tool(self.answer, text_of(call.get("name"))):
                self._calls.add(key)
        return CONTENT if chunk.content or chunk.reasoning or chunk.tool_calls else OTHER

    def _note(self, event: dict[str, Any]) -> None:
        answer = self.answer
        for place in (event, event.get("message"), event.get("response")):
            if isinstance(place, dict):
                model = text_of(place.get("model")) or text_of(place.get("modelVersion"))
                answer.response_model = answer.response_model or model or None
                said = text_of(place.get("id")) or text_of(place.get("responseId"))
                answer.response_id = answer.response_id or said or None
        stated = usage_of(event)
        if stated is not None:
            # Counts are cumulative; what a later event leaves out stays as it was.
            self._stated.update((name, value) for name, value in stated.items() if value is not None)
            answer.usage = _usage(self._stated) or answer.usage


def _size(text: str) -> int:
    return len(msgspec.json.encode(text)) - 2 if text else 0


def _usage(stated: dict[str, Any]) -> Usage | None:
    billed = stated.get("billed_units")  # Cohere
    stated = billed if isinstance(billed, dict) else stated
    given, made = _number(stated, _INPUT), _number(stated, _OUTPUT)
    if given is None and made is None:
        return None
    read, written, thoughts = (_number(stated, names) or 0 for names in (_READ, _WRITTEN, _THOUGHTS))
    inside = _number(_details(stated, _INPUT_DETAILS), ("cached_tokens",))
    reasoning = _number(_details(stated, _OUTPUT_DETAILS), ("reasoning_tokens",))
    return Usage(
        input_tokens=(given or 0) + read + written + (_number(stated, _TOOLS) or 0),
        output_tokens=(made or 0) + thoughts,
        cached_tokens=read or inside or _number(stated, ("cachedContentTokenCount",)) or 0,
        cache_write_tokens=written,
        reasoning_tokens=thoughts or reasoning or 0,
    )


def _number(stated: dict[str, Any], names: tuple[str, ...]) -> int | None:
    found = map(stated.get, names)
    return next((int(value) for value in found if isinstance(value, (int, float)) and 0 <= value < 2**53), None)


def _details(stated: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return next((details for name in names if isinstance(details := stated.get(name), dict)), {})


# ------------------------------------------------------------------ the readers of the framings


class _Sse(_Said, SseReader):
    format_name = NAME
    final_events = (b"",)  # any event may be large

    def read(self, name: bytes, data: bytes, whole: bool) -> int:
        if name == b"error":
            fail(self.answer, untyped(data))
            return OTHER
        return self.said(data, whole)


class _Lines(_Said, JsonLinesReader):
    format_name = NAME

    def read(self, data: bytes, whole: bool) -> int:
        return self.said(data, whole)


class _Amazon(_Said, EventStreamReader):
    format_name = NAME

    def read(self, name: bytes, data: bytes) -> int:
        return self.said(data)

    def fail(self, name: str, data: bytes) -> None:
        fail(self.answer, {"type": name})


class _Plain:
    """What a reader tells, of a stream that says nothing yet."""

    def __init__(self) -> None:
        self.events = 0
        self.content_events = 0
        self.text_size = 0
        self.done = False
        self.answer = Answer()


class _Objects(_Said, _Plain):
    """Objects in a row."""

    def __init__(self) -> None:
        super().__init__()
        self._objects = JsonObjects()

    def feed(self, data: bytes) -> None:
        try:
            for found in self._objects.feed(data):
                self._take(found)
        except Exception:
            count("unreadable_stream", NAME)

    def finish(self) -> None:
        """An object that breaks off is no event."""

    def _take(self, found: bytes | None) -> None:
        kind = OTHER
        if found is None:
            count("oversize_event", NAME)
        else:
            kind = self.said(found)
        self.events += kind != IGNORED
        self.content_events += kind >= CONTENT


_READERS: dict[Framing, Callable[[], StreamReader]] = {
    "events": _Sse,
    "lines": _Lines,
    "objects": _Objects,
    "amazon": _Amazon,
}


class Reader(_Plain):
    """Finds out by its first bytes how the stream is framed, and reads it so."""

    def __init__(self) -> None:
        super().__init__()
        self._begin: bytes = b""
        self._stream: StreamReader | None = None

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        if self._stream is None:
            data = self._begin + data
            framing = framing_of(data)
            if framing is None:
                self._begin = data.lstrip()
                return
            self._stream = _READERS[framing]()
        self._stream.feed(data)
        self._tell(self._stream)

    def finish(self) -> None:
        """Read what is left."""
        if self._stream is not None:
            self._stream.finish()
            self._tell(self._stream)

    def _tell(self, stream: StreamReader) -> None:
        self.events = stream.events
        self.content_events = stream.content_events
        self.text_size = stream.text_size
        self.done = stream.done
        self.answer = stream.answer


def _begins_stream(body: bytes) -> bool:
    return begins_event_stream(body) or begins_frames(body)


_STREAM_TYPES = (
    "",
    EVENT_STREAM,
    CONTENT_TYPE,
    "application/json",
    "application/jsonl",
    "application/ndjson",
    "application/octet-stream",
    "application/stream+json",
    "application/x-ndjson",
    "text/plain",
)

FORMAT = Format(
    name=NAME,
    operation="chat",
    read_request=read_request,
    read_answer=read_answer,
    new_reader=Reader,
    stream_types=_STREAM_TYPES,
    begins_stream=_begins_stream,
)
"""Whatever streams."""
