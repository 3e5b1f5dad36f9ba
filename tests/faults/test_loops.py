"""Event loops that end, many of them, and tasks that are cancelled: nothing of ours belongs to a loop."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections import Counter
from typing import Any

import pytest

from tellmeter import AgentMetrics, InMemoryMetricsSink, MetricsCollector, MetricsConfig, MetricsSink
from tellmeter.registry.registry import MetricsRegistry


class Buffered(MetricsSink):
    """The guides' sink, which makes its lock and its buffer belong to the loop that it runs on."""

    def __init__(self) -> None:
        self.lock: asyncio.Lock | None = None
        self.loops: set[int] = set()
        self.kept: list[str] = []
        self.closed = 0

    async def record(self, metrics: AgentMetrics) -> None:
        self.loops.add(id(asyncio.get_running_loop()))
        self.lock = self.lock or asyncio.Lock()
        async with self.lock:
            await asyncio.sleep(0)
            self.kept.append(metrics.id)

    async def flush(self) -> None:
        self.lock = self.lock or asyncio.Lock()
        async with self.lock:
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def sink() -> Buffered:
    return Buffered()


@pytest.fixture
def collector(sink: Buffered) -> Any:
    one = MetricsCollector(sinks=[sink], registry=MetricsRegistry())
    yield one
    assert one.shutdown_sync(30).complete
    assert sink.closed == 1
    ledger = one.stats().sinks["Buffered"]
    assert not ledger.dropped and ledger.delivered == len(sink.kept) == len(set(sink.kept))
    assert len(sink.loops) == 1  # a loop of the lane's own


async def some_calls(collector: MetricsCollector, number: int, *, flush: bool) -> None:
    async def call() -> None:
        async with collector.track_request("openai", "gpt-4o"):
            await asyncio.sleep(0)

    await asyncio.gather(*(call() for _ in range(number)))
    if flush:
        assert (await collector.flush(30)).complete


@pytest.mark.fault(13)
def test_a_hundred_loops_in_series(sink: Buffered, collector: MetricsCollector) -> None:
    for number in range(100):
        asyncio.run(some_calls(collector, 5, flush=number % 2 == 0))
    assert collector.flush_sync(30).complete
    assert len(sink.kept) == 500


@pytest.mark.fault(13)
def test_threads_that_each_have_a_loop(sink: Buffered, collector: MetricsCollector) -> None:
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(5):
                asyncio.run(some_calls(collector, 10, flush=number % 2 == 0))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems
    assert collector.flush_sync(30).complete
    assert len(sink.kept) == 8 * 5 * 10


@pytest.mark.fault(13)
def test_a_loop_that_is_closed_while_records_wait(sink: Buffered, collector: MetricsCollector) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(some_calls(collector, 20, flush=False))
    loop.close()
    assert collector.flush_sync(30).complete
    assert len(sink.kept) == 20


@pytest.mark.fault(13)
def test_questions_of_many_loops() -> None:
    memory = InMemoryMetricsSink()
    collector = MetricsCollector(sinks=[memory], registry=MetricsRegistry())

    async def ask(expected: int) -> None:
        await some_calls(collector, 5, flush=False)
        assert len(await memory.get_metrics()) == expected

    for number in range(1, 51):
        asyncio.run(ask(5 * number))
    assert collector.shutdown_sync(30).complete


@pytest.mark.fault(13, 27)
def test_a_flush_that_is_cancelled_harms_nobody(sink: Buffered, collector: MetricsCollector) -> None:
    async def main() -> None:
        for _ in range(20):
            await some_calls(collector, 3, flush=False)
            flush = asyncio.create_task(collector.flush(30))
            await asyncio.sleep(0)
            flush.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flush

    asyncio.run(main())
    assert collector.flush_sync(30).complete
    assert len(sink.kept) == 60


CANCELS = 10_000


@pytest.mark.fault(24)
def test_ten_thousand_calls_have_one_record_each_however_they_end() -> None:
    memory = InMemoryMetricsSink(max_size=2 * CANCELS)
    registry = MetricsRegistry()
    collector = MetricsCollector(MetricsConfig(max_queue=2 * CANCELS), sinks=[memory], registry=registry)
    chosen = random.Random(7)
    # What ends a call, and what its record then says.
    expected: dict[str, str] = {}

    async def call(name: str, ending: str) -> None:
        async with collector.track_request("openai", "gpt-4o", request_id=name):
            await asyncio.sleep(0)
            if ending == "fails":
                raise ValueError(name)
            if ending == "times out":
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            if ending in ("cancelled", "cancelled by a group"):
                await asyncio.Event().wait()

    async def stream(name: str) -> Any:
        async with collector.track_request("openai", "gpt-4o", request_id=name):
            for number in range(3):
                await asyncio.sleep(0)
                yield number

    async def one(name: str, ending: str) -> None:
        if ending == "closed early":
            expected[name] = "cancelled"
            items = stream(name)
            assert await anext(items) == 0
            await items.aclose()
        elif ending == "left":  # the loop closes the generator when nobody has it any more
            expected[name] = "cancelled"
            items = stream(name)
            assert await anext(items) == 0
            del items
        elif ending == "cancelled by a group":
            expected[name], expected[f"{name}-fails"] = "cancelled", "error"
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(call(name, ending))
                    group.create_task(call(f"{name}-fails", "fails"))
        else:
            expected[name] = {"succeeds": "success", "fails": "error", "times out": "timeout"}.get(ending, "cancelled")
            task = asyncio.create_task(call(name, ending))
            for _ in range(chosen.randrange(1, 4)):
                await asyncio.sleep(0)
            if ending == "cancelled":
                task.cancel()
            try:
                await task
            except (ValueError, TimeoutError, asyncio.CancelledError):
                pass

    endings = ["succeeds", "fails", "times out", "cancelled", "closed early", "left", "cancelled by a group"]

    async def main() -> None:
        for start in range(0, CANCELS, 500):
            await asyncio.gather(*(one(f"{number}", chosen.choice(endings)) for number in range(start, start + 500)))

    asyncio.run(main())
    gc.collect()
    assert collector.flush_sync(60).complete
    records = asyncio.run(memory.get_metrics(limit=4 * CANCELS))
    assert len(records) == len(expected) == len({record.request_id for record in records})
    found = {record.request_id: record.status for record in records}
    wrong = Counter((expected[name], status) for name, status in found.items() if expected[name] != status)
    assert not wrong
    stats = collector.stats()
    assert stats.recorded == len(expected) and not stats.dropped
    assert collector.shutdown_sync(30).complete
