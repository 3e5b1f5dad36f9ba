from __future__ import annotations

import asyncio
import http.server
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from tellmeter import AgentMetrics, Delivered, MetricsCollector, MetricsSink, Partial
from tellmeter.pipeline.adapt import RecordSink


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


@pytest.mark.fault(13)
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


class Managed(MetricsSink):
    """The guide's sink with resources."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def initialize(self) -> None:
        self.log.append("initialize")

    async def cleanup(self) -> None:
        await self.flush()
        self.log.append("cleanup")

    async def record(self, metrics: AgentMetrics) -> None:
        self.log.append("record")

    async def __aenter__(self) -> Any:
        await self.initialize()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.cleanup()


def test_a_sink_with_resources_is_begun_and_ended() -> None:
    sink = Managed()
    deliver(sink, 1).shutdown_sync(20)
    assert sink.log == ["initialize", "record", "cleanup"]


def test_a_sink_that_the_program_entered_is_left_to_it() -> None:
    async def main() -> list[str]:
        async with Managed() as sink:
            collector = MetricsCollector(sinks=[sink])
            collector.record(AgentMetrics(model="m"))
            assert (await collector.shutdown(20)).complete
        return sink.log

    assert asyncio.run(main()) == ["initialize", "record", "cleanup"]


def test_the_guides_buffered_sink_with_a_lock_loses_nothing() -> None:
    class Buffered(MetricsSink):
        def __init__(self, batch_size: int = 100) -> None:
            self.batch_size = batch_size
            self.buffer: list[AgentMetrics] = []
            self.lock = asyncio.Lock()
            self.sent: list[AgentMetrics] = []

        async def record(self, metrics: AgentMetrics) -> None:
            async with self.lock:
                self.buffer.append(metrics)
                if len(self.buffer) >= self.batch_size:
                    await self._flush_buffer()

        async def flush(self) -> None:
            async with self.lock:
                await self._flush_buffer()

        async def _flush_buffer(self) -> None:
            if not self.buffer:
                return
            await asyncio.sleep(0)
            self.sent += self.buffer
            self.buffer.clear()

    sink = Buffered(batch_size=10)
    deliver(sink, 25)
    assert len(sink.sent) == 25


def test_a_coroutine_that_hangs_is_cancelled_at_its_deadline_and_the_rest_tried_again() -> None:
    class Sink:
        def __init__(self) -> None:
            self.cancelled = 0
            self.kept: list[str] = []

        async def record(self, metrics: AgentMetrics) -> None:
            if metrics.model == "hangs" and not self.cancelled:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            self.kept.append(metrics.model)

    sink = Sink()
    adapted = RecordSink(sink)
    batch = [AgentMetrics(model=model) for model in ("first", "hangs", "last")]
    assert adapted.send(batch, time.monotonic() + 0.05) == Partial(retry=(1, 2), rejected=(), reason="timeout")
    assert adapted.send(batch[1:], time.monotonic() + 20) == Delivered()
    assert sink.kept == ["first", "hangs", "last"] and sink.cancelled == 1
    adapted.close()


def test_a_timeout_of_the_sinks_own_is_its_answer() -> None:
    class Sink:
        async def record(self, metrics: AgentMetrics) -> None:
            raise TimeoutError

    adapted = RecordSink(Sink())
    assert adapted.send([AgentMetrics(model="m")], time.monotonic() + 20) == Partial(rejected=(0,), reason="sink_error")
    adapted.close()


AT_EXIT = """
import asyncio, logging, sys
import httpx
from tellmeter import AgentMetrics, MetricsCollector, MetricsSink

class Async(MetricsSink):
    def __init__(self):
        self.session = httpx.AsyncClient(trust_env=False)

    async def record(self, metrics):
        # a host name: it is resolved in the loop's executor
        answer = await self.session.post(f"http://localhost:{sys.argv[1]}/", json={"id": metrics.id})
        print(answer.status_code, flush=True)

    async def aclose(self):
        await self.session.aclose()
        print("closed", flush=True)

logging.basicConfig()
collector = MetricsCollector(sinks=[Async()])
collector.record(AgentMetrics(model="m"))
"""


def test_an_async_client_delivers_when_the_program_has_ended() -> None:
    """Python's own executor refuses to resolve names once the main thread has ended."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            done = subprocess.run(
                [sys.executable, "-c", AT_EXIT, str(server.server_port)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            server.shutdown()
            thread.join()
    assert (done.stdout.split(), done.stderr) == (["204", "closed"], "")
