"""Items of a stream of any kind, read as the chunks of its meter: how long they are, and whether they bring content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from ..counts import count
from ..errors import ConfigError
from ..guard import note
from ..streams.meter import StreamMeter
from ..wire.answer import Answer
from .lookup import SILENT, get, is_a
from .lookup import text as text_of
from .usage import Reading, has_content

TextOf = Callable[[Any], object]

_PLAIN = frozenset(
    {str, bytes}
)  # what may wait for its reading: it is small, and nobody asks whether it is still there
_NO_KIND: frozenset[type] = frozenset()
_MOST_PARTS = 64  # of a list in an item
_MOST_TOOLS = 64
# What has a name where a tool has it may say that it is none: a text, or a tool that the provider uses itself.
_TOOL_TYPES = frozenset({None, "function", "function_call", "custom_tool_call", "tool_use", "tool_call_chunk"})
_BYTES_LIKE = (bytes, bytearray, memoryview)


class Seen(NamedTuple):
    """What is known of an item that was read when it came: bytes of the item and of its text, the bytes themselves."""

    size: int
    text_size: int
    has_content: bool
    raw: bytes | None = None


class Items:
    """What the items of a stream state and bring; the reader of its meter."""

    __slots__ = ("_reading", "content_events", "events", "text_of", "text_size", "tools")

    def __init__(self, text: TextOf | None) -> None:
        self.events = 0
        self.content_events = 0
        self.text_size = 0
        self.text_of = text
        self.tools: dict[str, None] = {}  # their names, in the order of their first use
        self._reading = Reading()

    @property
    def answer(self) -> Answer:
        """What the items state."""
        answer = self._reading.answer
        answer.tools = list(self.tools)
        return answer

    def feed(self, data: bytes) -> None:
        """Nothing: `ItemMeter` reads items, not bytes."""

    def finish(self) -> None:
        """Nothing is left."""

    def add(self, events: int, content_events: int, text_size: int) -> None:
        """Count items."""
        self.events += events
        self.content_events += content_events
        self.text_size += text_size

    def look_at(self, item: object) -> Seen:
        """Read an item, of which nothing is kept."""
        self._reading.take(item)
        if self.text_of is not None:
            text = _size_of(_told(self.text_of, item))
            return Seen(_size_of(item) or text, text, text > 0)
        if is_a(item, (str, *_BYTES_LIKE)):
            size = _size_of(item)
            return Seen(size, size, size > 0)
        content = has_content(item) and not _is_frame(item)
        text = 0
        for name, place in _PLACES.items():
            part = get(item, name)
            if part:
                text = self._text_in(part, place)
                break  # some SDKs' objects give the same text again, under a simpler name
        return Seen(text if content else 0, text if content else 0, content)

    def _text_in(self, value: Any, place: Place) -> int:
        """Bytes of the text in a value, as its place says where; names of tools are noted on the way."""
        kind = type(value)
        if kind is str:
            return utf8_length(value)
        if kind is list or kind is tuple:
            return sum(self._text_in(part, place) for part in value[:_MOST_PARTS])
        size = 0
        for name, inner in place.items():
            part = get(value, name)
            if not part:
                continue
            if inner is _TOOL:
                self._note_tool(value, part)
            else:
                size += self._text_in(part, inner)
        return size

    def _note_tool(self, tool: Any, name: Any) -> None:
        named = text_of(name)
        if named and text_of(get(tool, "type")) in _TOOL_TYPES and len(self.tools) < _MOST_TOOLS:
            self.tools[named] = None


class ItemMeter(StreamMeter):
    """Measures a stream whose chunks are items: texts and bytes as they are, others as what was `Seen` of them."""

    __slots__ = ("items", "plain")

    def __init__(self, started: int, wall: float, text: TextOf | None = None) -> None:
        self.items = Items(text)
        super().__init__(self.items, started, wall)
        self.plain = _PLAIN if text is None else _NO_KIND

    def look_at(self, item: object) -> Seen:
        """What waits in place of an item that is not plain."""
        try:
            seen = self.items.look_at(item)
            if self.raw is None:
                return seen
            return seen._replace(raw=_raw(item))
        except Exception as error:
            note("stream_item", error)
            return Seen(0, 0, True)

    def _read(self, chunks: list[Any]) -> int:
        if set(map(type, chunks)) == {str}:  # nearly all streams of one's own code
            size = utf8_length("".join(chunks))
            self.items.add(len(chunks), len(chunks) - chunks.count(""), size)
        else:
            size = sum(map(self._read_one, chunks))
        self.bytes += size
        if self.raw is not None:
            raw = [chunk.raw if type(chunk) is Seen else _raw(chunk) for chunk in chunks]
            self._keep([data for data in raw if data is not None])
            for _ in range(raw.count(None)):
                count("raw_chunks_left_out")
        return size

    def _read_one(self, chunk: Any) -> int:
        if type(chunk) is Seen:
            self.items.add(1, chunk.has_content, chunk.text_size)
            return chunk.size
        size = _size_of(chunk)
        self.items.add(1, size > 0, size)
        return size


def text_finder(text: Any) -> TextOf | None:
    """What finds the text of an item: a function, or the path of an attribute or key, as `choices.0.delta.content`.

    Raises:
        ConfigError: neither of them.
    """
    if text is None:
        return None
    if callable(text):
        return cast("TextOf", text)
    if not isinstance(text, str) or not all(text.split(".")):
        raise ConfigError("text = ...: it must be a function, or a path as 'choices.0.delta.content'")
    path = text.split(".")
    return lambda item: "".join(found for found in _found(item, path) if is_a(found, str))


def utf8_length(text: str) -> int:
    """How many bytes a text is in UTF-8."""
    return str.__len__(text) if str.isascii(text) else len(str.encode(text, "utf-8", "surrogatepass"))


def _told(text_of: TextOf, item: object) -> object:
    try:
        return text_of(item)
    except Exception as error:
        note("stream_text", error)
        return None


def _size_of(value: Any) -> int:
    """The bytes of a text, or of bytes; 0 for what is neither."""
    if is_a(value, str):
        return utf8_length(value)
    if is_a(value, memoryview):
        return int(value.nbytes)
    return len(value) if is_a(value, _BYTES_LIKE) else 0


def _raw(item: Any) -> bytes | None:
    if is_a(item, str):
        return str.encode(item, "utf-8", "surrogatepass")
    return bytes(item) if is_a(item, _BYTES_LIKE) else None


# ---------------------------------------------------------------------- where items have their text


def _found(value: Any, path: list[str]) -> list[Any]:
    """What is at the end of a path; of a list each part, unless the path says which one."""
    if is_a(value, (list, tuple)):
        if path and path[0].isdecimal():
            place = int(path[0])
            return _found(value[place], path[1:]) if place < len(value) else []
        return [found for part in value[:_MOST_PARTS] for found in _found(part, path)]
    if not path:
        return [value]
    return [] if type(value) in SILENT else _found(get(value, path[0]), path[1:])


def _is_frame(item: object) -> bool:
    """Whether an event only keeps the stream alive, begins or ends something, or is an SDK's that says all again."""
    kind = text_of(get(item, "type")) or ""
    if kind == "ping" or kind.endswith(("-start", "-end")):  # Anthropic, Cohere
        return True
    return "delta" not in kind and get(item, "snapshot") is not None


Place = Mapping[str, Any]
_TEXT: Place = {}  # a text, or a list of texts
_TOOL: Place = {"": _TEXT}  # the name of a tool
_TEXTS: Place = {"text": _TEXT, "thinking": {"text": _TEXT}}  # a text, or parts that have one
_FUNCTION: Place = {"name": _TOOL, "arguments": _TEXT}
_CALLS: Place = {"function": _FUNCTION}
_CALLED: Place = {"name": _TOOL}
_PLACES: Place = {
    "choices": {  # OpenAI, and all that speak it
        "delta": {
            "content": _TEXTS,
            "reasoning_content": _TEXT,
            "reasoning": _TEXT,
            "refusal": _TEXT,
            "tool_calls": _CALLS,
            "function_call": _FUNCTION,
        },
        "text": _TEXT,
    },
    "delta": {  # the Responses API, where it is the text, Anthropic, Cohere
        "text": _TEXT,
        "thinking": _TEXT,
        "partial_json": _TEXT,
        "message": {"content": _TEXTS, "tool_plan": _TEXT, "tool_calls": _CALLS},
    },
    "content_block": {"text": _TEXT, "thinking": _TEXT, "name": _TOOL},
    "item": _CALLED,
    "candidates": {"content": {"parts": {"text": _TEXT, "function_call": _CALLED, "functionCall": _CALLED}}},  # Gemini
    "contentBlockDelta": {  # Bedrock
        "delta": {"text": _TEXT, "toolUse": {"input": _TEXT}, "reasoningContent": {"text": _TEXT}},
    },
    "contentBlockStart": {"start": {"toolUse": _CALLED}},
    "message": {"content": _TEXTS, "thinking": _TEXT, "tool_calls": _CALLS},  # Ollama
    "response": _TEXT,
    "tool_call_chunks": {"name": _TOOL, "args": _TEXT},  # LangChain
    "content": _TEXTS,
    "text": _TEXT,  # one's own
    "value": _TEXT,
    "thinking": _TEXT,
    "token": _TEXTS,
}
