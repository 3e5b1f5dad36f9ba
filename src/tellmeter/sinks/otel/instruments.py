"""Our LLM metrics on a meter of OpenTelemetry: what /metrics shows, with its labels, units and buckets.

`llm_requests_total` is the counter `llm_requests` here and `llm_request_duration_seconds` is `llm_request_duration` in
seconds, as OpenTelemetry names things. On their way to Prometheus they become what they are on /metrics, so queries,
rules and dashboards find them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ...counts import count
from ...errors import ConfigError
from ...guard import note
from ...records import AgentMetrics
from ...registry.definition import MetricDefinition, MetricType
from ...registry.llm import LLMMetrics
from ...registry.names import otlp_name, unit_symbol
from .gen_ai import MAX_SERIES, OVERFLOW, GenAIMetrics

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter

    from ...registry.registry import MetricsRegistry

# A record does not tell the status of each attempt, and what is in progress is observed.
_NOT_TOLD = frozenset({"llm_attempts_total", "llm_active_requests", "llm_active_streams"})
_LIGHTEST_RATE = 1e-6  # a record stands for a million calls at most


class Recorder:
    """Measures records on one meter.

    Counters are weighed: a record that was kept with a chance of 0.1 counts ten times, so that totals are right under
    sampling on the average. OpenTelemetry's histograms cannot be: they are of the records that were kept.

    Args:
        meter: where the instruments are made.
        tag_names: tags of records that become attributes.

    Raises:
        ConfigError: a tag that cannot be one.
    """

    def __init__(self, meter: Meter, tag_names: Sequence[str] = ()) -> None:
        self.meter = meter
        self.weight = 1.0
        self.context: Context | None = None
        self.pending: dict[_Sum, float] = {}
        self._llm = llm_metrics(self, tag_names)
        self._gen_ai = GenAIMetrics(meter, tag_names)

    def record(self, batch: Sequence[AgentMetrics]) -> tuple[int, ...]:
        """Measure a batch; the indexes of records that could not be measured, or not to the end."""
        failed = []
        for index, record in enumerate(batch):
            self.weight = weight_of(record)
            self.context = context_of(record)
            try:
                self._llm.count(record)
                self._gen_ai.record(record, self.context)
            except Exception as error:
                note("otel", error)
                failed.append(index)
        self.context = None
        pending, self.pending = self.pending, {}
        # Counters are added once per batch and series: an instrument takes 5 us, a sum in a dict 0.1.
        for series, amount in pending.items():
            try:
                series.instrument.add(amount, series.attributes)
            except Exception as error:
                note("otel", error)
        return tuple(failed)


def llm_metrics(recorder: Recorder | None, tag_names: Sequence[str]) -> LLMMetrics:
    """What the registry is fed with, feeding instruments instead; without a recorder, to check the tags.

    Raises:
        ConfigError: a tag that cannot be a label beside the metrics' own.
    """
    try:
        return LLMMetrics(cast("MetricsRegistry", _Families(recorder)), tag_names)
    except ConfigError as error:
        raise ConfigError(str(error).replace("label_tags", "tag_names", 1)) from None


def weight_of(record: AgentMetrics) -> float:
    """How many calls a record stands for."""
    rate = record.sample_rate
    return 1.0 if rate == 1.0 or rate <= 0.0 else 1.0 / max(rate, _LIGHTEST_RATE)


def context_of(record: AgentMetrics) -> Context | None:
    """A context with the span of a record, so that its measurements may become exemplars; None where it has none."""
    if not record.trace_id or not record.span_id:
        return None
    try:
        trace_id, span_id = int(record.trace_id, 16), int(record.span_id, 16)
    except ValueError:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    # A record does not tell whether its trace was sampled.
    span = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(span), Context()) if span.is_valid else None


class _Families:
    """What LLMMetrics asks of a registry."""

    resets = 0

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder

    def family(self, definition: MetricDefinition) -> _Family:
        return _Family(definition, self._recorder)


class _Family:
    """What LLMMetrics asks of a metric."""

    def __init__(self, definition: MetricDefinition, recorder: Recorder | None) -> None:
        self.definition = definition
        self._recorder = recorder
        self._instrument: Any = None
        self._series: dict[tuple[str, ...], _Sum | _Spread] = {}
        if recorder is None or definition.name in _NOT_TOLD:
            return
        name, unit, description = naming(definition)
        if definition.type is MetricType.COUNTER:
            self._instrument = recorder.meter.create_counter(name, unit, description)
        else:
            self._instrument = recorder.meter.create_histogram(
                name, unit, description, explicit_bucket_boundaries_advisory=definition.buckets
            )

    def widen(self, labels: Sequence[str]) -> None:
        more = [name for name in labels if name not in self.definition.labels]
        self.definition = msgspec.structs.replace(self.definition, labels=(*self.definition.labels, *more))

    def find(self, labels: Mapping[str, str]) -> _Sum | _Spread | _Nothing:
        if self._recorder is None or self._instrument is None:
            return _NOTHING
        key = tuple(labels.values())
        found = self._series.get(key)
        if found is None:
            attributes: Mapping[str, str | bool] = dict(labels)
            if len(self._series) >= MAX_SERIES:
                count("series_overflow", self.definition.exposed)
                attributes = OVERFLOW
            kind = _Sum if self.definition.type is MetricType.COUNTER else _Spread
            found = kind(self._recorder, self._instrument, attributes)
            if attributes is not OVERFLOW:
                self._series[key] = found
        return found


class _Sum:
    """A series of a counter."""

    __slots__ = ("_recorder", "attributes", "instrument")

    def __init__(self, recorder: Recorder, instrument: Counter, attributes: Mapping[str, str | bool]) -> None:
        self._recorder = recorder
        self.instrument = instrument
        self.attributes = attributes

    def inc(self, amount: float = 1, exemplar: object = None) -> None:
        # Doubles: a sum of whole numbers could outgrow OTLP's 64 bits, and then no export would ever succeed again.
        pending = self._recorder.pending
        pending[self] = pending.get(self, 0.0) + amount * self._recorder.weight


class _Spread:
    """A series of a histogram."""

    __slots__ = ("_instrument", "_recorder", "attributes")

    def __init__(self, recorder: Recorder, instrument: Histogram, attributes: Mapping[str, str | bool]) -> None:
        self._recorder = recorder
        self._instrument = instrument
        self.attributes = attributes

    def observe(self, value: float, exemplar: object = None) -> None:
        self._instrument.record(value, self.attributes, self._recorder.context)


class _Nothing:
    """A series of what is not measured here."""

    def inc(self, amount: float = 1, exemplar: object = None) -> None:
        """Nothing."""


_NOTHING = _Nothing()


def naming(definition: MetricDefinition) -> tuple[str, str, str]:
    """The name, unit (UCUM) and description that a metric of ours has in OpenTelemetry."""
    name = otlp_name(definition.exposed, definition.unit, definition.type.value)
    return name, unit_symbol(definition.unit), definition.description
