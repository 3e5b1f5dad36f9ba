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
        "tellmeter_send_failures_total",
        MetricType.COUNTER,
        "Attempts to deliver that failed and are made again, by reason.",
        labels=("sink", "reason"),
    ),
    MetricDefinition(
        "tellmeter_queue_records",
        MetricType.GAUGE,
        "Records that wait in memory, or are being delivered.",
        labels=("sink",),
    ),
    MetricDefinition("tellmeter_spool_records", MetricType.GAUGE, "Records that wait on disk.", labels=("sink",)),
)
_COUNTERS = ("records", "dropped", "send_failures")
_GAUGES = ("queue_records", "spool_records")

Numbers = dict[tuple[str, ...], float]


class Account:
    """One collector's ledger on a registry; several collectors add up."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._deltas = Deltas(registry)
        for definition in _METRICS:
            registry.register_metric(definition)
        self._counters = {name: registry.counter(f"tellmeter_{name}_total") for name in _COUNTERS}
        self._gauges = {name: registry.gauge(f"tellmeter_{name}") for name in _GAUGES}

    def show(self, stats: CollectorStats) -> None:
        """Bring the metrics to what the ledger says."""
        counted: dict[str, Numbers] = {name: {} for name in _COUNTERS}
        gauged: dict[str, Numbers] = {name: {} for name in _GAUGES}
        counted["dropped"].update({(HAND_OFF, reason): number for reason, number in stats.dropped.items()})
        gauged["queue_records"][HAND_OFF,] = stats.queued
        for name, sink in stats.sinks.items():
            counted["records"][name, "delivered"] = sink.delivered
            counted["records"][name, "dropped"] = sum(sink.dropped.values())
            counted["dropped"].update({(name, reason): number for reason, number in sink.dropped.items()})
            counted["send_failures"].update({(name, reason): number for reason, number in sink.failures.items()})
            gauged["queue_records"][name,] = sink.queued + sink.in_flight
            gauged["spool_records"][name,] = sink.spooled
        for name, numbers in counted.items():
            for labels, number in self._deltas.grown(name, numbers):
                self._counters[name].labels(*labels).inc(number)
        for name, numbers in gauged.items():
            for labels, number in self._deltas.moved(name, numbers):
                self._gauges[name].labels(*labels).inc(number)

    def begin_again(self) -> None:
        """In a forked child the ledger starts at zero."""
        self._deltas.begin_again()
