"""The event loop: how late a heartbeat of 1 ms is while 1,000 coroutines record 4,000 and 40,000 calls a second in all.

    python benchmarks/loop_lateness.py [ROUNDS]

At 40,000 a second the coroutines alone keep a thread busy for about half of the time, so that on a machine that others
use a loop may fall behind without any metering: the column of acts tells whether it did.

Milliseconds of lateness with no metering, with records made and thrown away, and with records recorded to SQLite, to the
spool, and to a sink that hangs. The peer in the same run is the standard library's logging: QueueHandler, QueueListener
and a file with lines of JSON. Every scenario takes its turn in each round; each column is the median of the rounds but
for the last, which is the worst of all. Wanted: p99 within 2 ms of no metering.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from _delivery import CountingSink
from _lateness import heartbeats, milliseconds
from delivery import logging_to

from tellmeter import (
    AgentMetrics,
    BatchingMetricsSink,
    Delivered,
    MetricsCollector,
    MetricsRegistry,
    SQLiteMetricsSink,
)

SECONDS = 3.0
WARM_UP = 0.5
COROUTINES = 1000
RATES = (4_000, 40_000)
WANTED = 2.0  # milliseconds


class Hanging(BatchingMetricsSink):
    """Takes a batch and does not come back before it is let go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def send(self, batch, deadline):
        self.go.wait(max(0.0, deadline - time.monotonic()))
        return Delivered()


def make() -> AgentMetrics:
    return AgentMetrics(
        model="gpt-4o-mini",
        provider="openai",
        latency_ms=500.0,
        input_tokens=1200,
        output_tokens=200,
        cost_usd=0.0003,
        tags={"feature": "search"},
    )


@contextlib.contextmanager
def nothing(_):
    yield lambda: None


@contextlib.contextmanager
def made_only(_):
    yield make


@contextlib.contextmanager
def recording(sink, **lane):
    collector = MetricsCollector(registry=MetricsRegistry())
    collector.add_sink(sink, **lane)
    record = collector.record
    yield lambda: record(make())
    if isinstance(sink, Hanging):
        sink.go.set()
    collector.shutdown_sync(30)
    stats = collector.stats()
    assert stats.balanced and (isinstance(sink, Hanging) or not stats.dropped), stats


def to_sqlite(folder):
    return recording(SQLiteMetricsSink(f"{folder}/calls.db"))


def to_spool(folder):
    return recording(CountingSink(), spool=f"{folder}/spool")


def to_hanging(_):
    return recording(Hanging())


@contextlib.contextmanager
def by_logging(folder):
    with logging_to(logging.FileHandler(f"{folder}/calls.log", encoding="utf-8")) as log:
        yield lambda: log(make())


NONE, PEER = "no metering", "logging, JSON lines"
SCENARIOS = {
    NONE: nothing,
    "records made, not recorded": made_only,
    "record() to SQLite": to_sqlite,
    "record() with a spool": to_spool,
    "record(), the sink hangs": to_hanging,
    PEER: by_logging,
}


async def load(act, rate) -> tuple[list[float], float]:
    """How late each beat was (seconds), and how many times a second all coroutines together acted, of `rate`."""
    period = COROUTINES / rate
    acted = 0
    loop = asyncio.get_running_loop()
    begin = loop.time() + WARM_UP
    end = begin + SECONDS

    async def coroutine(number):
        nonlocal acted
        due = loop.time() + period * number / COROUTINES
        while due < end:
            await asyncio.sleep(due - loop.time())
            act()
            acted += due >= begin
            due = max(due + period, loop.time())  # who is late skips no turn and makes none up

    beats = asyncio.create_task(heartbeats(begin, end))
    await asyncio.gather(beats, *(coroutine(number) for number in range(COROUTINES)))
    return beats.result(), acted / SECONDS


def measure(scenario, asked) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, scenario(Path(folder)) as act:
        gc.collect()
        cpu = time.process_time()
        late, rate = asyncio.run(load(act, asked))
        cpu = time.process_time() - cpu
    return {**milliseconds(late), "rate": rate, "cores": cpu / (SECONDS + WARM_UP)}


def report(asked, found) -> None:
    title = f"{asked:,} a second; lateness in ms"
    print(f"\n{title:36}{'p50':>8}{'p99':>8}{'max':>8}{'worst':>8}{'acts/s':>9}{'cores':>7}   p99 beside the peers'")
    for name, runs in found.items():
        p50, p99, longest, rate, cores = (
            statistics.median(run[key] for run in runs) for key in ("p50", "p99", "max", "rate", "cores")
        )
        worst = max(run["max"] for run in runs)
        more = statistics.median(run["p99"] - base["p99"] for run, base in zip(runs, found[NONE], strict=True))
        peer = statistics.median(theirs["p99"] / run["p99"] for run, theirs in zip(runs, found[PEER], strict=True))
        judged = "" if not name.startswith("record()") else " met" if more <= WANTED else " MISSED"
        print(
            f"{name:36}{p50:8.2f}{p99:8.2f}{longest:8.1f}{worst:8.1f}{rate:9,.0f}{cores:7.2f}"
            f"   {more:+.2f} ms{judged}; logging's is {peer:.2g}x",
            flush=True,
        )


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    logging.getLogger("tellmeter").setLevel(logging.ERROR)
    for asked in RATES:
        found = {name: [] for name in SCENARIOS}
        for _ in range(rounds):
            for name, scenario in SCENARIOS.items():
                found[name].append(measure(scenario, asked))
        report(asked, found)


if __name__ == "__main__":
    main()
