from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tellmeter import AgentMetrics, MetricsCollector, MetricsSink


class AsyncSink:
    """The custom sinks guide's shape: buffers, flushes when full, locks."""

    def __init__(self) -> None:
        self.buffer: list[AgentMetrics] = []
        self.sent: list[AgentMetrics] = []
        self.loops: set[int] = set()
        self.log: list[str] = []

    async def record(self, metrics: AgentMetrics) -> None:
        self.loops.add(id(asyncio.get_running_loop()))
        self.buffer.append(metrics)
        if len(self.buffer) >= 3:
            await self.flush()

    async def flush(self) -> None:
        self.sent += self.buffer
        self.buffer = []

    async def initialize(self) -> None:
        self.log.append("initialize")

    async def cleanup(self) -> None:
        self.log.append("cleanup")


def deliver(sink: Any, number: int = 7) -> MetricsCollector:
    collector = MetricsCollector(sinks=[sink])
    for _ in range(number):
        collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(20).complete
    return collector


def test_an_async_sink_of_the_guide_works_unchanged() -> None:
    sink = AsyncSink()
    collector = deliver(sink)
    assert len(sink.sent) == 7
    assert len(sink.loops) == 1
    collector.shutdown_sync(20)
    assert sink.log == ["initialize", "cleanup"]


def test_a_sink_derived_from_ours_may_be_synchronous() -> None:
    class Sink(MetricsSink):
        def __init__(self) -> None:
            self.kept: list[AgentMetrics] = []

        def record(self, metrics: AgentMetrics) -> None:  # type: ignore[override]
            self.kept.append(metrics)

    sink = Sink()
    deliver(sink)
    assert len(sink.kept) == 7


def test_record_batch_gets_whole_batches() -> None:
    class Sink:
        def __init__(self) -> None:
            self.batches: list[int] = []

        async def record_batch(self, batch: list[AgentMetrics]) -> None:
            self.batches.append(len(batch))

    sink = Sink()
    deliver(sink)
    assert sum(sink.batches) == 7


def test_a_record_that_raises_is_counted_alone() -> None:
    class Sink:
        async def record(self, metrics: AgentMetrics) -> None:
            if metrics.model == "bad":
                raise ValueError

        async def flush(self) -> None:
            raise OSError

    collector = MetricsCollector(sinks=[Sink()])
    for model in ("good", "bad", "good"):
        collector.record(AgentMetrics(model=model))
    assert collector.flush_sync(20).complete
    stats = collector.stats()
    assert stats.sinks["Sink"].delivered == 2 and stats.sinks["Sink"].dropped == {"sink_error": 1} and stats.balanced


def test_it_works_beside_a_running_loop_and_across_several() -> None:
    sink = AsyncSink()
    collector = MetricsCollector(sinks=[sink])

    async def main() -> None:
        for _ in range(5):
            collector.record(AgentMetrics(model="m"))
        report = await collector.flush(20)
        assert report.complete

    for _ in range(5):
        asyncio.run(main())
    assert len(sink.sent) == 25


@pytest.mark.parametrize("nothing", [object(), 3, "unknown://x"])
def test_what_is_no_sink_is_refused_with_a_reason(nothing: Any) -> None:
    with pytest.raises(ValueError, match="sink|unknown"):
        MetricsCollector(sinks=[nothing])
