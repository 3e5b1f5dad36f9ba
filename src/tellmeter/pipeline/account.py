"""The ledger as metrics: what became of the records, per sink."""

from __future__ import annotations

from ..registry.definition import MetricDefinition, MetricType
from ..registry.deltas import Deltas
from ..registry.registry import MetricsRegistry
from .ledger import CollectorStats

HAND_OFF = "hand-off"  # what is not handed to any sink yet, or never was

_METRICS = (
    MetricDefinition(
        "tellmeter_records_total",
        MetricType.COUNTER,
        "Records that sinks are done with: delivered or dropped.",
        labels=("sink", "outcome"),
    ),
    MetricDefinition(
        "tellmeter_dropped_total",
        MetricType.COUNTER,
        "Records that were dropped, by reason; those of the hand-off never reached a sink.",
        labels=("sink", "reason"),
    ),
    MetricDefinition(
        "tellmeter_queue_records", MetricType.GAUGE, "Records that wait, or are being delivered.", labels=("sink",)
    ),
)


class Account:
    """One collector's ledger on a registry; several collectors add up."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._deltas = Deltas(registry)
        for definition in _METRICS:
            registry.register_metric(definition)
        self._records = registry.counter("tellmeter_records_total")
        self._dropped = registry.counter("tellmeter_dropped_total")
        self._queued = registry.gauge("tellmeter_queue_records")

    def show(self, stats: CollectorStats) -> None:
        """Bring the metrics to what the ledger says."""
        records: dict[tuple[str, ...], float] = {}
        dropped: dict[tuple[str, ...], float] = {(HAND_OFF, reason): number for reason, number in stats.dropped.items()}
        queued: dict[tuple[str, ...], float] = {(HAND_OFF,): stats.queued}
        for name, sink in stats.sinks.items():
            records[name, "delivered"] = sink.delivered
            records[name, "dropped"] = sum(sink.dropped.values())
            dropped.update({(name, reason): number for reason, number in sink.dropped.items()})
            queued[name,] = sink.queued + sink.in_flight + sink.spooled
        for labels, number in self._deltas.grown("records", records):
            self._records.labels(*labels).inc(number)
        for labels, number in self._deltas.grown("dropped", dropped):
            self._dropped.labels(*labels).inc(number)
        for labels, number in self._deltas.moved("queued", queued):
            self._queued.labels(*labels).inc(number)

    def begin_again(self) -> None:
        """In a forked child the ledger starts at zero."""
        self._deltas.begin_again()
