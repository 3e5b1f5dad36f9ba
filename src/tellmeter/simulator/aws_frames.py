"""Messages of Amazon's event streams (`application/vnd.amazon.eventstream`), written.

A message is a prelude (its length, that of its headers, their CRC32), headers, a payload and the CRC32 of it all:
https://smithy.io/2.0/aws/amazon-eventstream.html. Numbers are big-endian.
"""

from __future__ import annotations

import struct
from zlib import crc32

_STRING = 7  # the type of a header's value
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_BEFORE_HEADERS = _PRELUDE.size + _CRC.size


def frame(headers: bytes, payload: bytes = b"") -> bytes:
    """A message around headers that are already encoded."""
    size = _BEFORE_HEADERS + len(headers) + len(payload) + _CRC.size
    prelude = _PRELUDE.pack(size, len(headers))
    body = prelude + _CRC.pack(crc32(prelude)) + headers + payload
    return body + _CRC.pack(crc32(body))


def _message(kind: str, name: str, payload: bytes) -> bytes:
    headers = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    return frame(b"".join(map(_header, headers, headers.values())), payload)


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes([len(key)]) + key + bytes([_STRING]) + struct.pack(">H", len(text)) + text


def event(name: str, payload: bytes) -> bytes:
    """An event with JSON in it."""
    return _message("event", name, payload)


def exception(name: str, payload: bytes) -> bytes:
    """An exception in the place of an event."""
    return _message("exception", name, payload)


def is_frame(data: bytes) -> bool:
    """Whether these bytes begin as a message below 16 MiB does, and no text."""
    return data[:1] == b"\0"


def cut_off(data: bytes) -> bytes:
    """The message with its payload broken off, and all lengths and checksums right."""
    _, size = _PRELUDE.unpack_from(data)
    start = _BEFORE_HEADERS + size
    payload = data[start : -_CRC.size]
    return frame(data[_BEFORE_HEADERS:start], payload[: len(payload) * 2 // 3])
