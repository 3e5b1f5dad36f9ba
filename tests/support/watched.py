"""A collector whose streams are watched: its records, its reports, and whether anything of them is left behind."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

from tellmeter import (
    AgentMetrics,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    StreamReport,
    instrument,
    uninstrument,
)
from tellmeter.streams.timer import TIMER
from tellmeter.testing.contract_kit import poll

FINAL = ("stream.complete", "stream.error")


class Watched:
    """Meters everything while it is open. `reports` are in the order in which the callback got them."""

    def __init__(self, **config: Any) -> None:
        self.reports: list[StreamReport] = []
        self.sink = InMemoryMetricsSink(ttl_seconds=None, max_size=100_000)
        self.registry = MetricsRegistry()
        settings = {"stream_callback": self.reports.append, "stream_interval_ms": 0.0, "stall_after_ms": 0.0, **config}
        self.collector = MetricsCollector(MetricsConfig(**settings), sinks=[self.sink], registry=self.registry)
        self._timed: set[int] = set()
        self._timed = {id(running) for running in self.timed()}
        self._threads = {thread.ident for thread in threading.enumerate()}

    def __enter__(self) -> Watched:
        instrument(collector=self.collector)
        return self

    def __exit__(self, *error: object) -> None:
        uninstrument()
        self.collector.shutdown_sync()

    def total(self, name: str) -> float:
        return self.registry.get_metric_stats(name)["sum"]

    def wait_for(self, event: str, number: int = 1) -> StreamReport:
        """The last of the first `number` reports of an event, once it is there."""
        poll(lambda: len(self.of(event)) >= number, lambda: f"{[one.event for one in self.reports]}")
        return self.of(event)[number - 1]

    def of(self, *events: str) -> list[StreamReport]:
        return [report for report in list(self.reports) if report.event in events]

    def records(self) -> list[AgentMetrics]:
        assert self.collector.flush_sync(60).complete
        stats = self.collector.stats()
        assert stats.balanced, stats
        return list(self.sink._rows())

    def only(self) -> tuple[AgentMetrics, StreamReport]:
        """The one record and the one last report, which agree, and nothing else is left of the stream."""
        records, finals = self.records(), self.of(*FINAL)
        assert len(records) == 1, records
        assert len(finals) == 1, finals
        self.check()
        agree(records[0], finals[0])
        return records[0], finals[0]

    def check(self) -> None:
        """Every stream has one last report, after all others of it, and nothing of it is left."""
        ended: dict[str, int] = defaultdict(int)
        for report in self.reports:
            assert not ended[report.stream_id], f"{report.event} after the end"
            ended[report.stream_id] += report.event in FINAL
        assert all(ended.values())
        for event in ("stream.start", "stream.first_token"):
            told = [report.stream_id for report in self.of(event)]
            assert len(told) == len(set(told)), event
        assert self.collector.open_calls == {}
        assert self.collector.active_streams() == []
        assert self.total("llm_active_streams") == self.total("llm_active_requests") == 0
        poll(lambda: not self.timed(), lambda: f"{len(self.timed())} streams in the timer")

    def timed(self) -> list[Any]:
        """What the timer has of these streams."""
        there = [*TIMER._new, *(running for _, _, running in [*TIMER._heap])]
        return [running for running in there if id(running) not in self._timed]

    def threads(self) -> set[str]:
        """Names of the threads that there are more than before."""
        return {thread.name for thread in threading.enumerate() if thread.ident not in self._threads}


def agree(record: AgentMetrics, final: StreamReport) -> None:
    """The last report is the record's stream, and what it alone knows."""
    assert record.stream is not None
    for name in record.stream.__struct_fields__:
        if name != "raw_chunks" and not name.startswith("window_"):
            assert getattr(final, name) == getattr(record.stream, name), name
    assert record.stream.raw_chunks is None
    assert (final.event == "stream.error") == (final.status == "error")
    assert final.waiting_for == ""
