"""What tellmeter notices about itself (`tellmeter.counts`), as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import counts
from .definition import MetricDefinition, MetricType
from .deltas import Deltas
from .labels import clean_value
from .names import NAME_LENGTH

if TYPE_CHECKING:
    from .registry import MetricsRegistry

# name of the count -> the labels that its key ("a:b" where there are two) stands for, and the HELP line
_COUNTED: dict[str, tuple[tuple[str, ...], str]] = {
    "guarded_errors": (("where",), "Errors in metering code or in code that it calls, kept from the program."),
    "label_errors": (("metric", "kind"), "Labels that were missing, undeclared or unfit, by metric."),
    "value_errors": (("metric", "kind"), "Values that were refused: not_finite, negative, not_a_number."),
    "metric_errors": (("metric", "kind"), "Recordings and metrics that were refused: wrong_type, name_taken, ..."),
    "series_overflow": (("metric",), "Recordings that went to a metric's __overflow__ series."),
    "snapshot_errors": (("kind",), "Snapshots of other processes' metrics that could not be read, merged or written."),
    "spool_errors": (("error_class",), "Failures of the disk that the spool is on."),
    "spool_torn_tails": ((), "Segments that a process left with an unfinished end, which was cut off."),
    "spool_set_aside": ((), "Files of the spool that could not be read, and were put into quarantine."),
    "dead_letters_lost": (("sink",), "Refused records that the dead letters had no room for."),
    "otlp_exports": (("outcome",), "Exports over OTLP: delivered, partial, failed, rejected, too_large, lost."),
    "span_exports": (("outcome",), "Batches of spans: delivered, partial, failed."),
    "spans_dropped": (("reason",), "Spans that were lost: queue_full, export_failed, refused, shutdown."),
    "dropped_stream_reports": (("reason",), "Reports of streams that a slow callback had no time for."),
    "raw_chunks_left_out": ((), "Chunks of streams that were more than a last report holds."),
    "unlogged_stalls": ((), "Stalls of streams beside those that the log tells of, one a second."),
    "sanitised": (("field",), "Values that were made fit for a record, by field."),
    "price_error": (("error_class",), "Prices that could not be looked up."),
    "request_unreadable": (("provider",), "Requests whose body told no model."),
    "unreadable_body": (("format",), "Answers that are not what their format says."),
    "unreadable_stream": (("format",), "Streams that are not what their format says."),
    "unreadable_event": (("format",), "Events of streams that are not what their format says."),
    "oversize_event": (("format",), "Events of streams that were too long to be read."),
    "oversize_body": ((), "Answers that were too long to be read."),
    "undecodable_body": ((), "Answers in a content encoding that could not be undone."),
    "overflow": ((), "Counts of other names than there is room for."),
}


class AboutItself:
    """The process's counts on one registry."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry
        self._deltas = Deltas(registry)
        self._metrics: dict[str, Any] = {}

    def update(self) -> None:
        """Add what was counted since the last time."""
        for name, by_key in counts.snapshot().items():
            if name not in _COUNTED:
                continue  # the LLM metrics tell of it
            labels, description = _COUNTED[name]
            now = {_values(key, len(labels)): float(number) for key, number in by_key.items()}
            for values, number in self._deltas.grown(name, now):
                self._metric(name, labels, description).labels(*values).inc(number)

    def _metric(self, name: str, labels: tuple[str, ...], description: str) -> Any:
        found = self._metrics.get(name)
        if found is None:
            definition = MetricDefinition(f"tellmeter_{name}_total", MetricType.COUNTER, description, "", labels)
            self._registry.register_metric(definition)
            found = self._metrics[name] = self._registry.counter(definition.name)
        return found


def _values(key: str, number: int) -> tuple[str, ...]:
    key = clean_value(key, 2 * NAME_LENGTH)
    if number < 2:
        return (key,) if number else ()
    first, _, last = key.rpartition(":")
    return first, last
