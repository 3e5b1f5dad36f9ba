"""The pipeline: `collector.record()` from 1 to 8 threads, records a second to each sink, and memory a queued record.

    python benchmarks/pipeline.py

The peer in the same run is the standard library's `logging.handlers.QueueHandler` with its `QueueListener`: the usual way
to hand something to another thread.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

from tellmeter import (
    AgentMetrics,
    InMemoryMetricsSink,
    JSONLMetricsSink,
    MetricsCollector,
    MetricsConfig,
    SQLiteMetricsSink,
)

NUMBER = 200_000


def records(number: int) -> list[AgentMetrics]:
    return [
        AgentMetrics(
            model="gpt-4o-mini",
            provider="openai",
            latency_ms=500.0 + index % 977,
            input_tokens=1200,
            output_tokens=200,
            cost_usd=0.0003,
            request_id=f"req_{index}",
            tags={"feature": "search"},
        )
        for index in range(number)
    ]


def put_cost(threads: int, put) -> float:
    """Nanoseconds of CPU a put, in the putting threads."""
    each = 100_000 // threads
    barrier = threading.Barrier(threads)
    took = []

    def work():
        barrier.wait()
        started = time.thread_time()
        for _ in range(each):
            put()
        took.append((time.thread_time() - started) / each)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return sum(took) / len(took) * 1e9


def throughput(sink, made: list[AgentMetrics]) -> float:
    collector = MetricsCollector(
        MetricsConfig(max_queue=1_000_000, max_queue_bytes=2**34, batch_size=500), sinks=[sink]
    )
    started = time.perf_counter()
    for record in made:
        collector.record(record)
    report = collector.flush_sync(300)
    took = time.perf_counter() - started
    (stats,) = collector.stats().sinks.values()
    assert report.complete and stats.delivered == len(made), (report, stats)
    collector.shutdown_sync()
    return len(made) / took


def main() -> None:
    started = time.perf_counter()
    made = records(NUMBER)
    print(f"make a record                    {(time.perf_counter() - started) / NUMBER * 1e6:8.2f} us")

    collector = MetricsCollector(MetricsConfig(max_queue=1_000_000, max_queue_bytes=2**34))
    one = made[0]
    ours = {threads: put_cost(threads, lambda: collector.record(one)) for threads in (1, 2, 4, 8)}
    collector.flush_sync()
    assert collector.stats().balanced and not collector.stats().dropped

    waiting = queue.Queue()
    listener = logging.handlers.QueueListener(waiting)
    handler = logging.handlers.QueueHandler(waiting)
    entry = logging.makeLogRecord({"msg": "call"})
    listener.start()
    theirs = {threads: put_cost(threads, lambda: handler.enqueue(entry)) for threads in (1, 8)}
    listener.stop()
    for threads, cost in ours.items():
        beside = (
            f"   logging's QueueHandler {theirs[threads]:8.0f} ns: {theirs[threads] / cost:.1f}x ours"
            if threads in theirs
            else ""
        )
        print(f"record(), {threads} threads              {cost:8.0f} ns{beside}")

    with tempfile.TemporaryDirectory() as folder:
        for name, sink in (
            ("memory", InMemoryMetricsSink(max_size=NUMBER)),
            ("SQLite", SQLiteMetricsSink(str(Path(folder) / "calls.db"))),
            ("JSON lines", JSONLMetricsSink(str(Path(folder) / "calls.jsonl"))),
        ):
            print(f"to {name:29} {throughput(sink, made):8.0f} records/s")

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = records(10_000)
    print(f"memory a record                  {(tracemalloc.get_traced_memory()[0] - before) / len(kept):8.0f} bytes")
    print(f"Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
