from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tellmeter import AgentMetrics, InMemoryMetricsSink, MetricsCollector, SQLiteMetricsSink


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident size from /proc")
def test_a_million_records_from_eight_threads_are_all_accounted_for(tmp_path: Path) -> None:
    sinks = [InMemoryMetricsSink(max_size=1000), SQLiteMetricsSink(str(tmp_path / "calls.db"))]
    collector = MetricsCollector(sinks=sinks)
    record = AgentMetrics(model="m")
    before = resident_bytes()

    def work() -> None:
        for _ in range(125_000):
            collector.record(record)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    peak = 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, resident_bytes())
        threads[0].join(0.01)
    assert collector.flush_sync(60).complete
    stats = collector.stats()
    assert stats.balanced and stats.queued == 0
    for sink in stats.sinks.values():
        assert sink.accepted + sum(stats.dropped.values()) == 1_000_000
        assert sink.accepted == sink.delivered + sum(sink.dropped.values())
    assert peak - before < 100 * 1024 * 1024
    collector.shutdown_sync()
