"""Cohere's chat, version 1: one message and a history.

https://docs.cohere.com/v1/reference/chat and .../v1/docs/streaming. A stream is JSON lines, or server-sent events with
one line of data each (header `Accepts`); its last event repeats the whole answer, which names no model.
"""

from __future__ import annotations

import msgspec

from ..answer import Answer, Asked, Format
from ..events_or_lines import EventsOrLinesReader
from ..json_lines import first_line
from ..message import begins_event_stream
from ..sse import CONTENT, IGNORED, OTHER, PLAIN, Template, text_template
from .bodies import MAX_NAMES, Body, fail, present, read_whole, size_of_text
from .cohere_end import CohereUsage, note_end

NAME = "cohere_v1_chat"

_TEXT = frozenset({"text-generation", "tool-calls-chunk"})


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    message: str | None = None
    stream: bool | None = None


class _Call(msgspec.Struct, gc=False):
    name: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct, gc=False):
    """A whole answer. Recorded traffic and the SDK know it by its generation."""

    generation_id: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    tool_calls: list[_Call] | None = None
    meta: CohereUsage | None = None


class _Event(_Answer, gc=False):
    event_type: str | None = None
    text: msgspec.Raw = msgspec.Raw()
    tool_call_delta: _Call | None = None
    response: _Answer | None = None
    message: msgspec.Raw = msgspec.Raw()  # of an error, which has no type


_requests = Body(_Request, NAME)
_answers = Body(_Answer, NAME)
_events = Body(_Event, NAME)


def read_request(body: bytes) -> Asked | None:
    """A message, which is text and may be empty beside results of tools, and a model."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model or request.message is None:
        return None
    return Asked(model=request.model, stream=request.stream is True)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader, begins_stream)


def begins_stream(body: bytes) -> bool:
    """Whether a body is a stream, of lines or of events; a whole answer has no event's type."""
    if begins_event_stream(body):
        return True
    event = _events.read(first_line(body), quiet=True)
    return event is not None and event.event_type is not None


def _read(data: bytes) -> Answer:
    answer = Answer()
    body = _answers.read(data)
    if body is not None:
        _note(answer, body)
    return answer


def _note(answer: Answer, body: _Answer) -> None:
    """Take over what an answer or an event says. Tool calls come as a whole list, in a stream twice."""
    answer.response_id = body.generation_id or answer.response_id or body.response_id
    note_end(answer, body.finish_reason, body.meta)
    if body.tool_calls:
        answer.tools = [call.name for call in body.tool_calls if call.name][:MAX_NAMES]


class Reader(EventsOrLinesReader):
    """Events are what the API calls so. Content is text, the plan before a tool's call, and the call.

    A call comes in pieces and then whole, or from older models whole only. Searches and citations are no content.
    """

    __slots__ = ("_pieces",)

    format_name = NAME
    final_events = (b"stream-end",)  # with the whole answer, its documents and history

    def __init__(self) -> None:
        super().__init__()
        self._pieces = False  # whether calls came in pieces

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        event = _events.read(data, quiet=not whole)
        if event is None:
            return OTHER if whole else IGNORED
        _note(self.answer, event)
        if event.response is not None:
            _note(self.answer, event.response)
        kind = event.event_type
        if kind is None and present(event.message):
            fail(self.answer, None)
        if kind == "stream-end":
            self.done = True
        size = self._size(event)
        self.text_size += size
        if not size:
            return OTHER
        return CONTENT if event.tool_calls else PLAIN

    def template(self, event: bytes) -> Template | None:  # noqa: D102
        return text_template(event, _MARKS)

    def _size(self, event: _Event) -> int:
        """Bytes of what the model wrote in an event."""
        calls = []
        if event.tool_call_delta is not None:
            self._pieces = True
            calls = [event.tool_call_delta]
        elif event.event_type == "tool-calls-generation" and not self._pieces:
            calls = event.tool_calls or []
        size = size_of_text(event.text) if event.event_type in _TEXT else 0
        return size + sum(size_of_text(call.parameters) for call in calls)


_MARKS = (b'"text":"', b'"text": "', b'"parameters":"', b'"parameters": "')

FORMAT = Format(
    name=NAME,
    operation="chat",
    read_request=read_request,
    read_answer=read_answer,
    new_reader=Reader,
    stream_types=("application/stream+json", "text/event-stream", "application/x-ndjson"),
    begins_stream=begins_stream,
)
"""Version 1."""
