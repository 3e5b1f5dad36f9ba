"""Playing a reply: silence, headers, events at their pace, with what a fault does to them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple, NoReturn

import msgspec

from .answer import Event
from .faults import OK, Fault, HangUp, Stall, in_pieces, spoil
from .traffic import Pace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEADERS_SHARE = 0.4  # of the time to the first token: what a provider takes to accept a stream
_GARBAGE = b"<html><body>502 Bad Gateway</body></html>"
_OF_STREAMS = {"no-terminator", "error-event"}  # what cannot happen to a body that is not streamed
_OF_WHOLE_BODIES = {"ok", "status", "no-usage"}  # what happens to no body on its way


class Served(msgspec.Struct, kw_only=True):
    """What the simulator knows about one request that it answered: the truth that a meter is held against.

    `attempt` counts from 0, where the SDK says it (Google's does not). `status` is 0 until the headers are sent.
    `request_id` is in a header, with Gemini the answer's `responseId`. Tokens are those that the whole answer is billed
    with: cached and written ones inside `input_tokens`, reasoning inside `output_tokens`; 0 for an error and for a
    recording. `events` counts what was handed to the network (a body that is not streamed is one event); `whole` says
    that nothing is missing.
    """

    path: str
    model: str = ""
    stream: bool = False
    attempt: int = 0
    status: int = 0
    fault: str = "ok"
    request_id: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    events: int = 0
    whole: bool = False


class Reply(NamedTuple):
    """What goes over the wire: `wait` seconds of silence, headers, then `events`.

    They come at `pace`, or with `pause` seconds between them. `failure` is an error inside this stream.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    events: Iterable[Event]
    wait: float = 0.0
    pace: Pace | None = None
    pause: float = 0.0
    failure: tuple[Event, ...] = ()


async def play(scope: Scope, reply: Reply, send: Send, served: Served, fault: Fault = OK) -> None:
    """Send `reply`, spoilt by `fault`, and note in `served` what was sent.

    Events keep to a timetable: what a busy machine delays is not added to the waiting.
    """
    clock = asyncio.get_running_loop().time
    headers, events = reply.headers, reply.events
    if not served.stream and fault.kind in _OF_STREAMS:
        fault = OK
    if not served.stream and fault.kind not in _OF_WHOLE_BODIES:
        body = _GARBAGE if fault.kind == "garbage" else b"".join(event.data for event in events)
        events = in_pieces(body)
        headers = [pair for pair in headers if fault.kind != "garbage" or pair[0] != b"content-length"]
    due = clock() + reply.wait
    await asyncio.sleep(reply.wait)
    if fault.kind == "hang":
        await asyncio.sleep(fault.seconds)
        await _hang_up(scope, reset=False)
    first_token = 0.0 if reply.pace is None or not served.stream else reply.pace.first * (1 - HEADERS_SHARE)
    for item in spoil(events, fault, reply.failure):
        if isinstance(item, HangUp):
            await _hang_up(scope, reset=item.reset)
        if isinstance(item, Stall):
            await asyncio.sleep(item.seconds)
            due = clock()
            continue
        if not served.status:
            await _start(reply, headers, send, served)
        if served.stream:
            if item.tokens:
                due, first_token = due + first_token, 0.0
            due += reply.pause if reply.pace is None else reply.pace.gap(item.tokens)
            await asyncio.sleep(max(0.0, due - clock()))
        served.events += 1
        await send({"type": "http.response.body", "body": item.data, "more_body": True})
    if not served.status:  # a body without events
        await _start(reply, headers, send, served)
    served.whole = fault.kind not in {"no-terminator", "error-event", "garbage"}
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _start(reply: Reply, headers: list[tuple[bytes, bytes]], send: Send, served: Served) -> None:
    served.status = reply.status
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})


async def _hang_up(scope: Scope, *, reset: bool) -> NoReturn:
    """End the connection under the response. Does not return: the disconnect that follows ends the answer."""
    transport = scope.get("state", {}).get("transport")
    if transport is None:
        raise ConnectionAbortedError("told to hang up")  # another server than ours: it closes on what raises
    while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)  # what was sent before the end is to arrive
    if reset:
        linger = struct.pack("ii", 1, 0)  # closing drops the connection: RST, not FIN
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
