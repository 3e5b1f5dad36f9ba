"""Amazon's event streams (`application/vnd.amazon.eventstream`), read in bounded memory however the bytes are cut.

A message is a prelude (its length, that of its headers, their CRC32), headers, a payload and the CRC32 of it all:
https://smithy.io/2.0/aws/amazon-eventstream.html. Numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple
from zlib import crc32

from ..counts import count
from .answer import Answer
from .sse import CONTENT, IGNORED, OTHER

CONTENT_TYPE = "application/vnd.amazon.eventstream"

MAX_HEADERS = 128 * 1024
"""Bytes of the headers of one message: the protocol's own bound."""
_PRELUDE = struct.Struct(">III")
_OVERHEAD = _PRELUDE.size + 4  # the prelude and the last CRC
MAX_MESSAGE = (24 << 20) + MAX_HEADERS + _OVERHEAD
"""Bytes of one message that are kept until it is whole: the protocol's own bounds, of which 24 MiB are the payload."""

HeaderValue = bool | int | bytes | str

# The types of a header's value. A timestamp is in milliseconds since the epoch, a UUID its 16 bytes.
_BOOLEANS = {0: True, 1: False}
_FIXED = {
    2: struct.Struct(">b"),
    3: struct.Struct(">h"),
    4: struct.Struct(">i"),
    5: struct.Struct(">q"),
    8: struct.Struct(">q"),
    9: struct.Struct("16s"),
}
_BYTES, _STRING = 6, 7
_SIZE = struct.Struct(">H")

_ERROR_NAMES = {"exception": ":exception-type", "error": ":error-code"}


class Message(NamedTuple):
    """One message of a stream."""

    headers: Mapping[str, HeaderValue]
    payload: bytes

    @property
    def event_type(self) -> str:
        """The name of the event; "" where the message is none."""
        return str(self.headers.get(":event-type", ""))

    @property
    def error(self) -> str | None:
        """The short name of the exception or error that the message tells, perhaps ""; None for an event."""
        header = _ERROR_NAMES.get(str(self.headers.get(":message-type")))
        return None if header is None else str(self.headers.get(header, ""))


class Frames:
    """Cuts the bytes of one stream into messages.

    What is larger than `limit` bytes is skipped and counted (`oversize_event`). After a wrong checksum or an impossible
    length nothing can be found any more: that is counted (`unreadable_stream`), and the rest of the stream ignored.
    """

    __slots__ = ("_headers", "_limit", "_name", "_need", "_rest", "_skip", "broken", "skipped")

    def __init__(self, name: str = "event_stream", limit: int = MAX_MESSAGE) -> None:
        self.broken = False
        self.skipped = 0
        self._name = name
        self._limit = limit
        self._rest = bytearray()  # of a message whose end has not come yet
        self._need = _PRELUDE.size  # bytes that `_rest` must have before it is looked at again
        self._skip = 0  # bytes to come of a message that is too large
        self._headers: tuple[bytes, Mapping[str, HeaderValue]] = (b"", MappingProxyType({}))

    def feed(self, data: bytes) -> list[Message]:
        """Read the next bytes: the messages that end in them. Never raises."""
        found: list[Message] = []
        try:
            if not self.broken:
                self._read(data, found)
        except (ValueError, IndexError, struct.error):  # headers that do not add up, or are no UTF-8
            self._break()
        return found

    def _read(self, data: bytes, found: list[Message]) -> None:
        if self._skip:
            skip = self._skip
            self._skip = max(0, skip - len(data))
            data = data[skip:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at = 0
        size = len(data)
        self._need = _PRELUDE.size
        while size - at >= _PRELUDE.size:
            total, headers, crc = _PRELUDE.unpack_from(data, at)
            if crc32(data[at : at + 8]) != crc or headers > min(total - _OVERHEAD, MAX_HEADERS):
                self._break()
                return
            end = at + total
            if total > self._limit:
                self.skipped += 1
                count("oversize_event", self._name)
                self._skip = max(0, end - size)
                at = min(end, size)
                continue
            if end > size:
                self._need = total
                break
            # The CRC of the first eight bytes is known: the whole one goes on from there.
            if crc32(data[at + 8 : end - 4], crc) != int.from_bytes(data[end - 4 : end], "big"):
                self._break()
                return
            at += _PRELUDE.size
            found.append(Message(self._headers_in(data[at : at + headers]), data[at + headers : end - 4]))
            at = end
        self._rest += data[at:]

    def _headers_in(self, data: bytes) -> Mapping[str, HeaderValue]:
        """The headers; most messages have those of the one before."""
        if data != self._headers[0]:
            self._headers = (data, MappingProxyType(_headers(data)))
        return self._headers[1]

    def _break(self) -> None:
        self.broken = True
        self._rest.clear()
        count("unreadable_stream", self._name)


def _headers(data: bytes) -> dict[str, HeaderValue]:
    """Headers by name; raises ValueError, IndexError or struct.error for what does not add up."""
    found: dict[str, HeaderValue] = {}
    at = 0
    while at < len(data):
        start = at + 1
        at = start + data[at]
        name = data[start:at].decode()
        kind = data[at]
        at += 1
        if kind in _BOOLEANS:
            found[name] = _BOOLEANS[kind]
        elif kind in _FIXED:
            (found[name],) = _FIXED[kind].unpack_from(data, at)
            at += _FIXED[kind].size
        elif kind in (_BYTES, _STRING):
            start = at + _SIZE.size
            at = start + _SIZE.unpack_from(data, at)[0]
            value = data[start:at]
            found[name] = value if kind == _BYTES else value.decode()
        else:
            raise ValueError(kind)
    if at > len(data):
        raise ValueError(at)
    return found


def begins_frames(body: bytes) -> bool:
    """Whether a body begins as an event stream: with a length below 32 MiB, and no text with such a byte."""
    return body[:1] in (b"\x00", b"\x01")


class EventStreamReader:
    """Reads one stream; a format derives from it and gives `read` and `fail`. `StreamReader` says what it tells."""

    __slots__ = ("_frames", "answer", "content_events", "done", "events", "text_size")

    format_name: ClassVar[str] = ""

    def __init__(self) -> None:
        self.events = 0
        self.content_events = 0
        self.text_size = 0
        self.done = False
        self.answer = Answer()
        self._frames = Frames(self.format_name)

    # ------------------------------------------------------------------ what a format gives

    def read(self, name: bytes, data: bytes) -> int:
        """Take what an event says into `answer`: its type and its payload. Gives IGNORED, OTHER or CONTENT."""
        raise NotImplementedError

    def fail(self, name: str, data: bytes) -> None:
        """Take an exception into `answer`: its short name, perhaps "", and its payload."""
        self.answer.failed = True

    # ------------------------------------------------------------------ bytes

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        try:
            skipped = self._frames.skipped
            for message in self._frames.feed(data):
                self._take(message)
            self.events += self._frames.skipped - skipped
        except Exception:
            count("unreadable_stream", self.format_name)

    def finish(self) -> None:
        """The stream is over: a message that breaks off is no event."""

    def _take(self, message: Message) -> None:
        try:
            error = message.error
            if error is None:
                kind = self.read(message.event_type.encode(), message.payload)
            else:
                self.fail(error, message.payload)
                kind = OTHER
        except Exception:
            count("unreadable_event", self.format_name)
            kind = OTHER
        if kind == IGNORED:
            return
        self.events += 1
        if kind >= CONTENT:
            self.content_events += 1
