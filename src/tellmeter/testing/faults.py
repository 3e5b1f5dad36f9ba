"""What a FaultServer may do with a request: answer well, late, slowly, by halves, or not at all."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO

_LINE_BYTES = 64 * 1024
_HEADERS = 200
_LINGER_NOT = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_BODY_BYTES = 64 * 1024 * 1024  # of one request


@dataclass(frozen=True)
class Request:
    """One request: `path` with its query, headers by their names in lower case, `body` bytes as sent.

    `at` is `time.monotonic()` of its arrival, `connection` the number of its connection, from 1.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    connection: int

    @property
    def content(self) -> bytes:
        """The body without its gzip."""
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body

    def json(self) -> Any:
        """The content as JSON."""
        return json.loads(self.content)


class Fault:
    """What a server may do with a request. Derive one's own by overriding `play`."""

    def play(self, talk: Talk, request: Request) -> bool:
        """Answer, or not; whether the connection goes on to its next request."""
        raise NotImplementedError


@dataclass(frozen=True)
class Answer(Fault):
    """A correct answer, after `delay` seconds."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0

    def play(self, talk: Talk, request: Request) -> bool:
        """Send all of it."""
        talk.wait(self.delay)
        talk.send(self.head() + self.content(request))
        return True

    def content(self, request: Request) -> bytes:
        """The body, where this answer has one."""
        return b"" if request.method == "HEAD" or self.status in (204, 304) else self.body

    def head(self) -> bytes:
        """The status line and the headers; Content-Length is the body's unless it was given."""
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        fields = dict(self.headers)
        if self.status not in (204, 304) and "content-length" not in {name.lower() for name in fields}:
            fields["Content-Length"] = str(len(self.body))
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class Hang(Fault):
    """No answer, until the client goes away or the server is closed."""

    def play(self, talk: Talk, request: Request) -> bool:
        """Read on and say nothing."""
        talk.read_to_the_end()
        return False


@dataclass(frozen=True)
class Dribble(Fault):
    """An answer one byte at a time; with `body_only` its head comes at once."""

    bytes_per_second: float = 10.0
    answer: Answer = field(default_factory=Answer)
    body_only: bool = False

    def play(self, talk: Talk, request: Request) -> bool:
        """Send byte by byte."""
        head, body = self.answer.head(), self.answer.content(request)
        if self.body_only:
            talk.send(head)
            head = b""
        for byte in head + body:
            talk.send(bytes([byte]))
            talk.wait(1 / self.bytes_per_second)
        return True


@dataclass(frozen=True)
class Reset(Fault):
    """The connection is reset (RST) when the request has arrived."""

    def play(self, talk: Talk, request: Request) -> bool:
        """Reset."""
        talk.reset()
        return False


@dataclass(frozen=True)
class HalfBody(Fault):
    """An answer whose Content-Length is `missing` bytes more than what is sent; then the connection is closed."""

    status: int = 200
    body: bytes = b"half"
    missing: int = 100

    def play(self, talk: Talk, request: Request) -> bool:
        """Send less than was promised."""
        promised = {"Content-Length": str(len(self.body) + self.missing)}
        talk.send(Answer(self.status, headers=promised).head() + self.body)
        return False


@dataclass(frozen=True)
class TooBig(Fault):
    """413 for a body (as sent) of more than `limit` bytes, else `answer`."""

    limit: int
    answer: Answer = field(default_factory=Answer)

    def play(self, talk: Talk, request: Request) -> bool:
        """Measure and answer."""
        return (Answer(413) if len(request.body) > self.limit else self.answer).play(talk, request)


@dataclass(frozen=True)
class Garbage(Fault):
    """Bytes that are no HTTP; then the connection is closed."""

    data: bytes = b"\x00\xffthis is no HTTP\r\n\r\n"

    def play(self, talk: Talk, request: Request) -> bool:
        """Send them."""
        talk.send(self.data)
        return False


Play = Fault | Callable[[Request], Fault]


class Talk:
    """One connection, as faults use it."""

    def __init__(self, client: socket.socket, reading: BinaryIO, closed: threading.Event) -> None:
        self._client = client
        self._reading = reading
        self._closed = closed

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._client.sendall(data)

    def wait(self, seconds: float) -> None:
        """Wait, until the server is closed at most."""
        if seconds > 0:
            self._closed.wait(seconds)

    def read_to_the_end(self) -> None:
        """Read and forget whatever comes, until the client goes away or the server is closed."""
        while self._client.recv(65536):
            pass

    def reset(self) -> None:
        """Close with RST."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._reading.close()
        self._client.close()

    def read_request(self, connection: int) -> Request | None:
        """The next request; None at the end of the connection. ValueError for what is no HTTP."""
        words = self._reading.readline(_LINE_BYTES).decode("latin-1").split()
        if not words:
            return None
        method, path, version = words
        if not version.startswith("HTTP/"):
            raise ValueError("no HTTP")
        headers: dict[str, str] = {}
        while line := self._reading.readline(_LINE_BYTES).strip():
            name, _, value = line.decode("latin-1").partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if len(headers) > _HEADERS:
                raise ValueError("too many headers")
        at = time.monotonic()
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, path, headers, self._body(headers), at, connection)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = bytearray()
            while size := self._sized(int(self._reading.readline(_LINE_BYTES).split(b";")[0], 16), len(body)):
                body += self._exactly(size)
                self._reading.readline(_LINE_BYTES)
            while self._reading.readline(_LINE_BYTES).strip():  # trailers
                pass
            return bytes(body)
        return self._exactly(self._sized(int(headers.get("content-length", 0))))

    def _sized(self, size: int, before: int = 0) -> int:
        if not 0 <= size <= _BODY_BYTES - before:
            self.send(Answer(413, headers={"Connection": "close"}).head())
            raise ValueError("too large")
        return size

    def _exactly(self, size: int) -> bytes:
        data = self._reading.read(size)
        if len(data) < size:
            raise ValueError("cut off")
        return data
