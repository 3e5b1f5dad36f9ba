"""What a FaultServer streams: pieces of a body in chunks of HTTP, up to an end as told."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tellmeter.testing.faults import Answer, Fault, Request, Talk

from .exchanges import parts

Ending = Literal["whole", "reset", "close", "hang"]


@dataclass
class Streamed(Fault):
    """Sends `pieces`, the ones from `after` on when `go` is set; then ends as told.

    whole: with the last chunk of HTTP. reset, close: the connection ends without it. hang: nothing more comes.
    `sent` counts the pieces that the network took.
    """

    pieces: Sequence[bytes]
    ending: Ending = "whole"
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 1 << 60
    go: threading.Event = field(default_factory=threading.Event)
    sent: int = 0

    def play(self, talk: Talk, request: Request) -> bool:
        talk.send(head({"content-type": self.content_type, **self.headers}))
        for number, piece in enumerate(self.pieces):
            if number >= self.after:
                self.go.wait(30)
            talk.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.sent += 1
        if self.ending == "whole":
            talk.send(b"0\r\n\r\n")
            return True
        if self.ending == "reset":
            talk.reset()
        elif self.ending == "hang":
            talk.read_to_the_end()
        return False


@dataclass
class Flood(Fault):
    """Sends the same piece again and again, and notes how far it came when the network first took no more."""

    piece: bytes
    number: int
    took: int | None = None
    full: threading.Event = field(default_factory=threading.Event)

    def play(self, talk: Talk, request: Request) -> bool:
        chunk = b"%x\r\n%s\r\n" % (len(self.piece), self.piece)
        talk.send(head({"content-type": "text/event-stream"}))
        for number in range(self.number):
            if self.took is None and not select.select([], [talk._client], [], 1.0)[1]:
                self.took = number
                self.full.set()
            talk.send(chunk)
        self.full.set()
        talk.send(b"0\r\n\r\n")
        return True


def head(headers: Mapping[str, str]) -> bytes:
    """The head of an answer that is streamed."""
    lines = [f"{name}: {value}" for name, value in {**headers, "transfer-encoding": "chunked"}.items()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()


def recorded(exchange: Any, cut: int = 700) -> Fault:
    """A recorded exchange, cut into pieces of `cut` bytes."""
    given = {name.lower(): value for name, value in exchange.headers.items()}
    kind = given.get("content-type", "")
    if exchange.status != 200:
        return Answer(exchange.status, exchange.body, {"content-type": kind} if kind else {})
    return Streamed(list(parts(exchange.body, cut)), content_type=kind or "application/octet-stream")


def sse(*data: str) -> list[bytes]:
    """Events of these data."""
    return [f"data: {one}\n\n".encode() for one in data]


def chat(*texts: str, usage: str = "") -> Iterable[bytes]:
    """The events of a chat completion that says `texts`."""
    body = '{"id":"c","model":"m-1","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}'
    last = '{"id":"c","model":"m-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]%s}' % (
        usage and f',"usage":{usage}'
    )
    return sse(*(body % text for text in texts), last, "[DONE]")
