"""The ways in which streams are metered here, and how a program reads a stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle, islice

from _subjects import MESSAGES, MODEL, PEERS, STREAMED, TOKENS, URL, Subject, bare, compact, events, tellmeter

REQUEST = compact({"model": MODEL, "messages": MESSAGES, **STREAMED})
TEXTS = events()[1:TOKENS]
reports = [0]  # how many a callback got


def show(report) -> None:
    """A callback that does nothing more than a program's own would."""
    reports[0] += 1


def uninstrumented() -> Subject:
    """Metered once, and no more: what a program pays that thought better of it."""
    metered = tellmeter()
    return Subject(lambda: (metered.on(), metered.off()), metered.off)


PLAIN, OURS = "no metering", "tellmeter"
DISABLED, NOISE = "tellmeter, enabled=False", "tellmeter, uninstrumented"
SUBJECTS: dict[str, Callable[[], Subject]] = {
    PLAIN: bare,
    OURS: tellmeter,
    "tellmeter, callback at 100 ms": partial(tellmeter, stream_callback=show, stream_interval_ms=100),
    "tellmeter, callback at 1 s": partial(tellmeter, stream_callback=show, stream_interval_ms=1000),
    DISABLED: partial(tellmeter, enabled=False),
    NOISE: uninstrumented,
    **{name: set_up for name, (_, set_up) in PEERS.items()},
}


def chunks(number: int) -> list[bytes]:
    """A stream of about `number` chunks, which takes no more memory than 200 do."""
    first, *_ = made = events()
    return [first, *islice(cycle(TEXTS), number - 3), *made[TOKENS:]]


def read_sdk(call, client) -> None:
    for _ in call(client, True):
        pass


async def aread_sdk(call, client) -> None:
    async for _ in await call(client, True):
        pass


def _asked() -> dict:
    return {"url": f"{URL}/chat/completions", "content": REQUEST, "headers": {"content-type": "application/json"}}


def read_lines(client) -> None:
    with client.stream("POST", **_asked()) as response:
        for _ in response.iter_lines():
            pass


async def aread_lines(client) -> None:
    async with client.stream("POST", **_asked()) as response:
        async for _ in response.aiter_lines():
            pass
