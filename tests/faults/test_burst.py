"""A million records at once: what does not fit is counted, to the record, and memory stays bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tellmeter import (
    AgentMetrics,
    BatchingMetricsSink,
    Delivered,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    SQLiteMetricsSink,
)
from tellmeter.pipeline.outcome import Outcome

MILLION = 1_000_000
THREADS = 8
GROWTH = 100 * 1024 * 1024


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def burst(record: Callable[[], Any]) -> int:
    """A million calls of `record` from eight threads; by how many bytes the process grew meanwhile, at most."""
    before = resident_bytes()

    def work() -> None:
        for _ in range(MILLION // THREADS):
            record()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    peak = 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, resident_bytes())
        threads[0].join(0.01)
    return peak - before


pytestmark = [
    pytest.mark.fault(22),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident size from /proc"),
]


def test_a_million_records_from_eight_threads_are_all_accounted_for(tmp_path: Path) -> None:
    sinks = [InMemoryMetricsSink(max_size=1000), SQLiteMetricsSink(str(tmp_path / "calls.db"))]
    collector = MetricsCollector(sinks=sinks)
    record = AgentMetrics(model="m")
    grown = burst(lambda: collector.record(record))
    assert collector.flush_sync(60).complete
    stats = collector.stats()
    assert stats.balanced and stats.queued == 0
    for sink in stats.sinks.values():
        assert sink.accepted + sum(stats.dropped.values()) == MILLION
        assert sink.accepted == sink.delivered + sum(sink.dropped.values())
    assert grown < GROWTH
    collector.shutdown_sync()


class Gate(BatchingMetricsSink):
    """Takes nothing until it is opened, and counts what it takes by model."""

    def __init__(self, **lane: Any) -> None:
        super().__init__(**lane)
        self.opened = threading.Event()
        self.taken: list[str] = []

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        assert self.opened.wait(110)
        self.taken += [record.model for record in batch]
        return Delivered()


QUEUE, BATCH = 500, 100


def through_a_small_lane(**lane: Any) -> tuple[Gate, MetricsCollector, int]:
    """A burst whose every record reaches the lane, then one record more that is the newest."""
    # The hand-off takes all, so that nothing is dropped before the lane: a million references to one record.
    config = MetricsConfig(max_queue=MILLION + 1, max_queue_bytes=2**40)
    gate = Gate(max_queue=QUEUE, batch_size=BATCH, **lane)
    collector = MetricsCollector(config, sinks=[gate])
    record = AgentMetrics(model="m")
    grown = burst(lambda: collector.record(record))
    collector.record(AgentMetrics(model="newest"))
    deadline = time.monotonic() + 60
    while collector.stats().queued and time.monotonic() < deadline:
        time.sleep(0.01)  # on the router thread, as in a program
    return gate, collector, grown


def finish(gate: Gate, collector: MetricsCollector) -> Any:
    """Open the gate, deliver, and hold the ledger against what arrived."""
    gate.opened.set()
    assert collector.flush_sync(60).complete
    stats = collector.stats()
    assert stats.balanced and not stats.dropped
    account = stats.sinks["Gate"]
    assert account.accepted == MILLION + 1
    assert account.delivered == len(gate.taken)
    assert account.delivered + sum(account.dropped.values()) == MILLION + 1
    collector.shutdown_sync()
    return account


@pytest.mark.heavy
@pytest.mark.parametrize("when_full", ["drop_newest", "drop_oldest"])
def test_a_small_lane_drops_a_burst_to_the_record(when_full: str) -> None:
    gate, collector, grown = through_a_small_lane(when_full=when_full)
    account = finish(gate, collector)
    assert QUEUE <= account.delivered <= QUEUE + BATCH  # what waited, and what was under way
    assert set(account.dropped) == {"lane_full"}
    assert (gate.taken[-1] == "newest") == (when_full == "drop_oldest")
    assert grown < GROWTH


@pytest.mark.heavy
def test_a_spool_takes_a_burst_that_a_small_lane_cannot(tmp_path: Path) -> None:
    gate, collector, grown = through_a_small_lane(spool=tmp_path)
    account = finish(gate, collector)
    # The lane's queue is full only where the disk does not keep up.
    assert set(account.dropped) <= {"lane_full"}
    assert account.delivered > QUEUE + BATCH
    assert grown < GROWTH
    assert not list(tmp_path.rglob("*.seg"))


@pytest.mark.heavy
def test_a_full_spool_drops_the_oldest_of_a_burst_to_the_record(tmp_path: Path) -> None:
    gate, collector, grown = through_a_small_lane(spool=tmp_path, spool_max_bytes=1024 * 1024)
    account = finish(gate, collector)
    assert set(account.dropped) <= {"lane_full", "spool_full"} and account.dropped["spool_full"] > 0
    assert grown < GROWTH
