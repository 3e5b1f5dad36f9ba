"""One connection of the standalone server: one request, one answer, within a time that the client cannot stretch."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .page import Answer, line

HEAD_BYTES = 16 * 1024
HEAD_SECONDS = 5.0
ANSWER_SECONDS = 10.0
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 64 * 1024

_FIRST_LINE = re.compile(r"([A-Z]{1,20}) ([!-~]+) HTTP/1\.[01]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NEVER_IN_A_VALUE = re.compile(r"[\x00\r\n]")


class Request(NamedTuple):
    """What a client asks. Headers by their names in lower case, several of one name joined by commas."""

    method: str
    path: str
    headers: Mapping[str, str]


def serve(client: socket.socket, respond: Callable[[Request], Answer]) -> None:
    """Read a request, send what `respond` says to it, and end the connection. Raises OSError where the client is gone.

    Whatever the client does, it takes at most `HEAD_SECONDS` and `ANSWER_SECONDS` beside what `respond` takes.
    """
    method = "GET"
    try:
        head = _read_head(client)
    except TimeoutError:
        answer = line(408, "the request took too long")
    else:
        if not head:
            return
        request = parse(head)
        if request is not None:
            method = request.method
            answer = respond(request)
        elif len(head) > HEAD_BYTES:
            answer = line(431, "the request is too long")
        else:
            answer = line(400, "this is no HTTP request")
    _send(client, answer, method)
    client.shutdown(socket.SHUT_WR)
    if answer.status != 200:
        _read_rest(client)


def parse(head: bytes) -> Request | None:
    """The request whose first line and headers, up to the empty line, begin `head`; None where that is none.

    Strict: what two readers could read in two ways is refused.
    """
    text, end, _ = head.partition(b"\r\n\r\n")
    first, *rest = text.decode("latin-1").split("\r\n")
    begin = _FIRST_LINE.fullmatch(first)
    if begin is None or not end or len(text) > HEAD_BYTES:
        return None
    headers: dict[str, str] = {}
    for one in rest:
        name, colon, value = one.partition(":")
        if not colon or not _NAME.fullmatch(name) or _NEVER_IN_A_VALUE.search(value):
            return None
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(begin[1], begin[2].partition("?")[0], headers)


def _read_head(client: socket.socket) -> bytes:
    """Up to the empty line, or more than `HEAD_BYTES`; nothing where the client asks nothing."""
    deadline = time.monotonic() + HEAD_SECONDS
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= HEAD_BYTES:
        piece = _within(client, deadline).recv(HEAD_BYTES)
        if not piece:
            break
        head += piece
    return head


def _send(client: socket.socket, answer: Answer, method: str) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    headers = [f"{name}: {value}" for name, value in (*answer.headers, ("connection", "close"))]
    head = "\r\n".join([f"HTTP/1.1 {answer.status_line}", *headers, "\r\n"])
    for piece in (head.encode("latin-1"), *answer.body(method)):
        _within(client, deadline).sendall(piece)


def _read_rest(client: socket.socket) -> None:
    """Take what a refused client still sends: closing a connection with unread bytes can take the answer back."""
    deadline = time.monotonic() + _LINGER_SECONDS
    left = _LINGER_BYTES
    while left > 0 and (piece := _within(client, deadline).recv(left)):
        left -= len(piece)


def _within(client: socket.socket, deadline: float) -> socket.socket:
    """The socket, whose next call takes until the deadline at most; a timeout of its own would begin anew each time."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    client.settimeout(left)
    return client
