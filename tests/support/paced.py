"""Answers whose parts come at told moments: through a real socket, and from memory where there are many."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import httpx

from tellmeter.testing.faults import Fault, Request, Talk
from tests.support.sse import SSE

PATIENCE = 60.0  # a test that needs longer hangs

# bytes are sent, seconds passed, an event waited for; RESET breaks the connection, HANG says nothing until the client goes.
Step = bytes | float | threading.Event | str
RESET, HANG = "reset", "hang"


@dataclass(frozen=True)
class Paced(Fault):
    """A streamed answer over a socket, in chunks of HTTP, step by step."""

    steps: Sequence[Step]
    headers: Mapping[str, str] = field(default_factory=lambda: SSE)

    def play(self, talk: Talk, request: Request) -> bool:
        """Play the steps; the connection goes on where nothing ended it."""
        head = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in self.headers.items())]
        talk.send("\r\n".join([*head, "transfer-encoding: chunked", "", ""]).encode())
        for step in self.steps:
            if isinstance(step, bytes):
                talk.send(b"%x\r\n%b\r\n" % (len(step), step))
            elif isinstance(step, float):
                talk.wait(step)
            elif isinstance(step, threading.Event):
                step.wait(PATIENCE)
            elif step == RESET:
                talk.reset()
                return False
            else:
                talk.read_to_the_end()
                return False
        talk.send(b"0\r\n\r\n")
        return True


def from_memory(
    http: ModuleType, steps: Callable[[], Sequence[Step]], headers: Mapping[str, str] = SSE, status: int = 200
) -> tuple[Any, Any]:
    """A sync and an async transport of an HTTP library whose every answer plays what `steps()` gives."""

    class Body(http.SyncByteStream, http.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __iter__(self) -> Iterator[bytes]:
            for step in steps():
                if isinstance(step, bytes):
                    yield step
                elif isinstance(step, float):
                    time.sleep(step)
                elif isinstance(step, threading.Event):
                    step.wait(PATIENCE)
                elif step == RESET:
                    raise http.ReadError("reset")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for step in steps():
                if isinstance(step, bytes):
                    yield step
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, threading.Event):
                    await asyncio.to_thread(step.wait, PATIENCE)
                elif step == RESET:
                    raise http.ReadError("reset")
                else:
                    await asyncio.Event().wait()

    class Sync(http.BaseTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> Any:
            return http.Response(status, headers=dict(headers), stream=Body())

    class Async(http.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            return http.Response(status, headers=dict(headers), stream=Body())

    return Sync(), Async()


ASKED: Any = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
URL = "https://api.openai.com/v1/chat/completions"


def client_of(*steps: Step) -> httpx.Client:
    """A client whose every answer plays these steps."""
    return httpx.Client(transport=from_memory(httpx, lambda: steps)[0])


def read(client: httpx.Client, meet: Callable[[], object] = lambda: None) -> bytes:
    """One stream, to its end; `meet` is called after each piece."""
    got = []
    with client.stream("POST", URL, json=ASKED) as response:
        for part in response.iter_raw():
            got.append(part)
            meet()
    return b"".join(got)


async def read_async(*steps: Step) -> bytes:
    """As `read`, with a client of its own."""
    async with (
        httpx.AsyncClient(transport=from_memory(httpx, lambda: steps)[1]) as client,
        client.stream("POST", URL, json=ASKED) as response,
    ):
        return b"".join([part async for part in response.aiter_raw()])
