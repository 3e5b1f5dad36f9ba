"""A provider of the LLMClient before a server that does as told, metered as the client meters it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tellmeter import InMemoryMetricsSink, MetricsCollector
from tellmeter.client.ask import Ask
from tellmeter.client.providers.base import Access, metering
from tellmeter.secret import Secret
from tellmeter.testing import FaultServer
from tellmeter.wire.calls import begin

HELLO = ({"role": "user", "content": "hello"},)
FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds things.",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
    },
}


@dataclass
class Heard:
    """What came of one Ask: texts, `calls` as (id, name, arguments), the deltas of a stream, and the exception."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    deltas: list[Any] = field(default_factory=list)
    raw: Any = None
    error: BaseException | None = None


class Bench:
    """`make(access)` makes the provider; its calls are metered as those of `name`."""

    def __init__(self, make: Callable[[Access], Any], server: FaultServer, name: str) -> None:
        self.make = make
        self.server = server
        self.name = name
        self.sink = InMemoryMetricsSink()
        self.collector = MetricsCollector(sinks=[self.sink])

    def provider(self, **access: Any) -> Any:
        """A provider of the running event loop."""
        given = {"provider": self.name, "api_key": Secret("k"), "base_url": self.server.url, **access}
        return self.make(Access(**given))

    @contextmanager
    def metered(self) -> Iterator[None]:
        """What the client does around each call."""

        def attempt(request: Any) -> Any:
            exchange = begin(lambda: self.collector, request)
            if exchange is not None:
                exchange.call.known_provider = self.name
            return exchange

        token = metering.set(attempt)
        try:
            yield
        finally:
            metering.reset(token)

    async def records(self) -> list[Any]:
        """The records of what was asked since the last time, the oldest first."""
        await self.collector.flush()
        found = list(reversed(await self.sink.get_metrics()))
        await self.sink.clear()
        return found

    async def hear(self, provider: Any, ask: Ask, *, stream: bool) -> Heard:
        """Ask, and hear it out."""
        heard = Heard()
        try:
            with self.metered():
                if stream:
                    async with aclosing(provider.stream(ask)) as deltas:
                        async for delta in deltas:
                            heard.deltas.append(delta)
                else:
                    reply = await provider.generate(ask)
                    heard.text, heard.raw = reply.text, reply.raw
                    heard.calls = [(call.id, call.name, call.arguments) for call in reply.tool_calls]
        except Exception as error:
            heard.error = error
        if stream:
            heard.text = "".join(delta.text for delta in heard.deltas)
            heard.reasoning = "".join(delta.reasoning for delta in heard.deltas)
            heard.calls = joined(heard.deltas)
        return heard

    def leave(self, ask: Ask) -> Callable[[Any], Any]:
        """For `run`: hear the first delta and close the generator; that delta, and the records that there are then."""

        async def work(provider: Any) -> Any:
            with self.metered():
                deltas = provider.stream(ask)
                first = await anext(deltas)
                await deltas.aclose()
            # Not awaited: what the loop would still have to do for it has not happened yet.
            self.collector.flush_sync()
            return first, await self.sink.get_metrics()

        return work

    def run(self, work: Callable[[Any], Any], **access: Any) -> Any:
        """`await work(provider)` on a loop of its own."""

        async def main() -> Any:
            provider = self.provider(**access)
            try:
                return await work(provider)
            finally:
                await provider.aclose()

        return asyncio.run(main())


def joined(deltas: list[Any]) -> list[tuple[str, str, str]]:
    """The calls whose pieces are in the deltas; the first piece of each has its id and name, and no other has."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if delta.tool_index is not None:
            piece = delta.tool
            call = calls.setdefault(delta.tool_index, [piece.id, piece.name, ""])
            assert call[2] == "" or not (piece.id or piece.name)
            call[2] += piece.arguments
    return [(call, name, arguments) for call, name, arguments in calls.values()]


@contextmanager
def bench(make: Callable[[Access], Any], name: str) -> Iterator[Bench]:
    """A bench whose server is closed at the end, with a collector whose account adds up."""
    with FaultServer() as server:
        made = Bench(make, server, name)
        yield made
        made.collector.shutdown_sync()
        assert made.collector.stats().balanced
