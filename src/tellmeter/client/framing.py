"""Where one event of a stream ends and the next begins: bytes, cut anywhere, become events for the application.

How a stream is framed is seen by its first bytes, because content types are often missing or wrong: server-sent events
(WHATWG HTML, section 9.2), JSON lines, a JSON array or other objects in a row, or Amazon's event stream. What the end
of the stream cuts off in the middle of its JSON is no event; an event that only lacks its blank line or line feed is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import msgspec

from ..counts import count
from ..errors import StreamEngineError
from ..wire.event_stream import Frames
from ..wire.formats.generic import Framing, framing_of
from ..wire.json_array import JsonObjects
from ..wire.sse import split_event

MAX_EVENT = 16 << 20
"""Bytes of one event. A larger one is an error: half of it would be worse than none."""

_BOM = b"\xef\xbb\xbf"
# Where the content type tells more than the first bytes: arrays, one a line; events that begin with an unknown field.
_SAID: dict[tuple[str, Framing], Framing] = {
    ("application/x-ndjson", "objects"): "lines",
    ("application/ndjson", "objects"): "lines",
    ("application/jsonl", "objects"): "lines",
    ("text/event-stream", "lines"): "events",
}


class StreamEvent(NamedTuple):
    """One event: its data without framing, its name, and whether it tells that the stream failed."""

    data: str
    name: str = ""
    failed: bool = False


class Splitter(Protocol):
    """Cuts one framing."""

    @property
    def done(self) -> bool:
        """Whether the stream said that it is over."""

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        """The events that end in `data`; to be read to its end before the next bytes are fed."""

    def finish(self) -> Iterator[StreamEvent]:
        """What is left, as no more bytes come."""


class EventDecoder:
    """Cuts the bytes of one stream into events, whatever its framing; `content_type` helps where they do not tell.

    Raises:
        StreamEngineError: from `feed` and `finish`: an event is too large, or the framing is broken.
    """

    def __init__(self, content_type: str = "") -> None:
        self._content_type = content_type.partition(";")[0].strip().lower()
        self._begin = b""
        self._splitter: Splitter | None = None

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        """The events that end in `data`; to be read to its end before the next bytes are fed."""
        if self._splitter is None:
            self._begin += data
            framing = framing_of(self._begin)
            if framing is None:
                self._begin = self._begin.lstrip()
                return
            data, self._begin = self._begin, b""
            self._splitter = _SPLITTERS[_SAID.get((self._content_type, framing), framing)]()
        yield from self._splitter.feed(data)

    @property
    def done(self) -> bool:
        """Whether the stream said that it is over (`[DONE]`), which is no event."""
        return self._splitter is not None and self._splitter.done

    def finish(self) -> Iterator[StreamEvent]:
        """What is left, as no more bytes come."""
        if self._splitter is not None:
            yield from self._splitter.finish()


class _Rest:
    """Bytes until a mark that ends an event; only what is new is searched: a large event costs its size once."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._rest = bytearray()

    def cut(self, data: bytes) -> Iterator[bytes]:
        """The parts that end in `data`, without their marks."""
        rest, mark = self._rest, self._mark
        searched = max(0, len(rest) - len(mark) + 1)
        rest += data
        start = 0
        while (end := rest.find(mark, searched)) >= 0:
            _check(end - start)
            yield bytes(rest[start:end])
            start = searched = end + len(mark)
        del rest[:start]
        _check(len(rest))

    def left(self) -> bytes:
        """What no mark has ended."""
        left = bytes(self._rest)
        self._rest.clear()
        return left


class _ServerSentEvents:
    """Events end with a blank line. Comments, `id` and `retry` are read over, and so is what ends OpenAI's streams."""

    def __init__(self) -> None:
        self.done = False
        self._events = _Rest(b"\n\n")
        self._begun = False
        self._held = False  # the last byte was a carriage return: a line feed that follows belongs to it

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        if self._held and data.startswith(b"\n"):
            data = data[1:]
            self._held = False
        if data:
            self._held = data.endswith(b"\r")
        for event in self._events.cut(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")):
            yield from self._read(event)

    def finish(self) -> Iterator[StreamEvent]:
        for event in self._read(self._events.left()):
            if not _is_torn(event.data):
                yield event

    def _read(self, event: bytes) -> Iterator[StreamEvent]:
        if not self._begun:
            self._begun = True
            event = event.removeprefix(_BOM)
        name, data = split_event(event.strip(b"\n"))
        if data.startswith(b"[DONE]"):
            self.done = True
        elif data:
            kind = _text(name)
            yield StreamEvent(_text(data), kind, kind == "error")


class _Lines:
    """One value a line."""

    done = False

    def __init__(self) -> None:
        self._lines = _Rest(b"\n")
        self._begun = False

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        for line in self._lines.cut(data):
            yield from self._read(line)

    def finish(self) -> Iterator[StreamEvent]:
        for event in self._read(self._lines.left()):
            if not _is_torn(event.data):
                yield event

    def _read(self, line: bytes) -> Iterator[StreamEvent]:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        text = _text(line).strip()
        if text and text != "[DONE]":
            yield StreamEvent(text)


class _Objects:
    """JSON objects in a row: those of an array, one a line, or a single one over many lines."""

    done = False

    def __init__(self) -> None:
        self._objects = JsonObjects(MAX_EVENT)

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        for found in self._objects.feed(data):
            if found is None:
                raise _too_large()
            yield StreamEvent(_text(found))

    def finish(self) -> Iterator[StreamEvent]:
        return iter(())


class _AmazonEvents:
    """Messages of Amazon's event stream; what InvokeModel wraps in base64 comes without it."""

    done = False

    def __init__(self) -> None:
        self._frames = Frames("stream_engine", MAX_EVENT)

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        for message in self._frames.feed(data):
            name, error = message.event_type, message.error
            payload = _chunk(message.payload) if name == "chunk" else message.payload
            yield StreamEvent(_text(payload), error or name, error is not None)
        if self._frames.skipped:
            raise _too_large()
        if self._frames.broken:
            raise StreamEngineError("the stream is broken: a checksum or length of its framing is wrong")

    def finish(self) -> Iterator[StreamEvent]:
        return iter(())


class _Chunk(msgspec.Struct, gc=False):
    bytes: str


def _chunk(payload: bytes) -> bytes:
    try:
        return base64.b64decode(msgspec.json.decode(payload, type=_Chunk).bytes)
    except (ValueError, RecursionError):
        return payload


_SPLITTERS: dict[Framing, Callable[[], Splitter]] = {
    "events": _ServerSentEvents,
    "lines": _Lines,
    "objects": _Objects,
    "amazon": _AmazonEvents,
}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _is_torn(data: str) -> bool:
    """Whether the end of the stream cut this JSON off, which is counted."""
    if not data.startswith(("{", "[")):
        return False
    try:
        msgspec.json.decode(data)
    except (ValueError, RecursionError):
        count("torn_event", "stream_engine")
        return True
    return False


def _check(size: int) -> None:
    if size > MAX_EVENT:
        raise _too_large()


def _too_large() -> StreamEngineError:
    return StreamEngineError(f"an event of the stream is larger than {MAX_EVENT >> 20} MiB")
