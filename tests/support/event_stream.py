"""Messages of Amazon's event streams, encoded as a server does."""

import base64
import json
import struct

from tellmeter.simulator import aws_frames
from tellmeter.simulator.aws_frames import frame

_FIXED = {2: ">b", 3: ">h", 4: ">i", 5: ">q", 8: ">q", 9: "16s"}


def header(name, value, kind=None):
    """One header; `kind` is the protocol's type, without it that of the value's own type."""
    if kind is None:
        kind = {bool: 1 - value if isinstance(value, bool) else 0, int: 5, bytes: 6, str: 7}[type(value)]
    data = value.encode() if isinstance(value, str) else value
    if kind in (0, 1):
        tail = b""
    elif kind in _FIXED:
        tail = struct.pack(_FIXED[kind], data)
    else:
        tail = struct.pack(">H", len(data)) + data
    return bytes([len(name.encode())]) + name.encode() + bytes([kind]) + tail


def encode(headers, payload=b""):
    """A message with headers by name."""
    return frame(b"".join(header(name, value) for name, value in headers.items()), payload)


def event(name, body):
    """An event with JSON in it."""
    return aws_frames.event(name, json.dumps(body, separators=(",", ":")).encode())


def exception(name, body):
    """An exception in the place of an event."""
    return aws_frames.exception(name, json.dumps(body).encode())


def chunk(body, **more):
    """An event of InvokeModelWithResponseStream."""
    return event("chunk", {"bytes": base64.b64encode(json.dumps(body).encode()).decode(), "p": "abc", **more})
