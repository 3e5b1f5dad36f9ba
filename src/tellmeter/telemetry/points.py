"""A registry's metrics as OpenTelemetry's data points, without an instrument of its SDK in between.

https://opentelemetry.io/docs/specs/otel/metrics/data-model/ has the points,
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/ how names, units and exemplars
become each other. On their way to Prometheus our metrics become what /metrics shows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from operator import sub
from typing import Any, NamedTuple

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from ..registry.definition import MetricDefinition, MetricType
from ..registry.family import Family
from ..registry.labels import clean_value
from ..registry.names import NAME_LENGTH, otlp_name, prometheus_name, unit_symbol, unit_word
from ..registry.registry import MetricsRegistry
from ..registry.series import Exemplar as Kept

DESCRIPTION_LENGTH = 1023  # what every implementation of the specification takes
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,254}")
_UNIT = re.compile(r"[!-~]{0,63}")
_HEX = re.compile(r"[0-9a-f]+")
_CUMULATIVE, _DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA

# What of a series needs not be told again: when it had begun, when it was told, and its state then.
_Told = tuple[float, float, Any]
_UNTOLD: _Told = (-1.0, 0.0, None)


class _Head(NamedTuple):
    """What the points of a metric share."""

    definition: MetricDefinition
    name: str
    unit: str
    description: str
    attributes: tuple[str, ...]


class Points:
    """The data points of some registries: all since the start, or with `delta` what came since the last time.

    Not for several threads at a time.

    Args:
        registries: whose metrics; settling them is the caller's affair.
        delta: the temporality of counters and histograms. An up_down_counter is cumulative always.
        exemplars: whether those are told that were recorded since the last delivery.
    """

    def __init__(self, registries: Sequence[MetricsRegistry], *, delta: bool, exemplars: bool = True) -> None:
        self._registries = registries
        self._delta = delta
        self._exemplars = exemplars
        self._told: dict[Any, _Told] = {}
        self._heads: dict[Family[Any], _Head] = {}
        self._collected = self._delivered = 0.0

    def collect(self) -> list[Metric]:
        """The metrics now; those without a point are left out."""
        self._collected = time.time()
        now = _nanos(self._collected)
        families = [family for registry in self._registries for family in registry.families()]
        taken = {_whole(family.definition) for family in families}
        found = []
        for family in families:
            head = self._head(family, taken)
            taken.add(head.name)
            data = _DATA[family.type](self, family, head.attributes, now)
            if data.data_points:
                found.append(Metric(head.name, head.description, head.unit, data))
        return found

    def delivered(self) -> None:
        """What was collected last needs not be told again: its exemplars are not."""
        self._delivered = self._collected

    def begin_again(self) -> None:
        """In a forked child, whose numbers are its own: what was counted up to now is the parent's to tell."""
        self._collected = self._delivered = now = time.time()
        self._told = {
            series: (series.created, now, series.read())
            for registry in self._registries
            for family in registry.families()
            if family.type in (MetricType.COUNTER, MetricType.HISTOGRAM)
            for series in family.shown()
        }

    def _head(self, family: Family[Any], taken: Container[str]) -> _Head:
        found = self._heads.get(family)
        definition = family.definition
        if found is None or found.definition is not definition:
            name, unit = naming(definition, taken)
            labels = tuple(clean_value(label, NAME_LENGTH) for label in definition.labels)
            description = clean_value(definition.description, DESCRIPTION_LENGTH)
            found = self._heads[family] = _Head(definition, name, unit, description, labels)
        return found

    def _changed(self, family: Family[Any]) -> Iterator[tuple[Any, int, Any, Any]]:
        """The series that have something to tell: each, when its time began, its state, and the state then or None."""
        now = self._collected
        for series in family.shown():
            created = series.created
            began, start, before = self._told.get(series, _UNTOLD)
            if began != created:  # new, or reset since
                start, before = created, None
            elif before is series.state and not series.pending:
                continue
            state = series.read()
            if self._delta:
                self._told[series] = created, now, state
            yield series, _nanos(min(start, now)), state, before  # the clock may have been set back

    def _gauge(self, family: Family[Any], names: Sequence[str], now: int) -> Gauge:
        return Gauge(
            [
                NumberDataPoint(_attributes(names, series.values), 0, now, float(series.read()))
                for series in family.shown()
            ]
        )

    def _up_down_counter(self, family: Family[Any], names: Sequence[str], now: int) -> Sum:
        points = [
            NumberDataPoint(_attributes(names, series.values), _nanos(series.created), now, float(series.read()))
            for series in family.shown()
        ]
        return Sum(points, _CUMULATIVE, is_monotonic=False)

    def _counter(self, family: Family[Any], names: Sequence[str], now: int) -> Sum:
        points = []
        for series, start, total, before in self._changed(family):
            # Doubles: a sum of whole numbers could outgrow OTLP's 64 bits, and then no export would ever succeed again.
            # A total that is lower was reset a moment ago.
            value = float(total if before is None or total < before else total - before)
            if value or self._tells_zero(before):
                kept = () if series.exemplars is None else (series.exemplars,)
                attributes = _attributes(names, series.values)
                points.append(NumberDataPoint(attributes, start, now, value, self._noted(kept)))
        return Sum(points, self._temporality, is_monotonic=True)

    def _histogram(self, family: Family[Any], names: Sequence[str], now: int) -> Histogram:
        points = []
        bounds = family.bounds
        for series, start, state, before in self._changed(family):
            counts, total = state[0], state[1]
            if before is not None and min(fresh := list(map(sub, counts, before[0]))) >= 0:
                counts, total = fresh, total - before[1]
            number = sum(counts)
            if number or self._tells_zero(before):
                kept = () if series.exemplars is None else list(series.exemplars.values())
                # OTLP has no sum where values may be negative.
                told: Any = None if total < 0 or bounds[0] < 0 else total
                extremes: Any = None  # those of an interval are not known, and those since the start tell nobody much
                attributes = _attributes(names, series.values)
                points.append(
                    HistogramDataPoint(
                        attributes,
                        start,
                        now,
                        number,
                        told,
                        counts,
                        bounds,
                        min=extremes,
                        max=extremes,
                        exemplars=self._noted(kept),
                    )
                )
        return Histogram(points, self._temporality)

    def _tells_zero(self, before: Any) -> bool:
        """Whether a series is told that has counted nothing: as /metrics does, but not again and again."""
        return before is None and not self._delta

    @property
    def _temporality(self) -> AggregationTemporality:
        return _DELTA if self._delta else _CUMULATIVE

    def _noted(self, kept: Iterable[Kept]) -> list[Exemplar]:
        return [_exemplar(one) for one in kept if one.timestamp > self._delivered] if kept and self._exemplars else []


_DATA: dict[MetricType, Callable[[Points, Family[Any], Sequence[str], int], Sum | Gauge | Histogram]] = {
    MetricType.COUNTER: Points._counter,
    MetricType.UP_DOWN_COUNTER: Points._up_down_counter,
    MetricType.GAUGE: Points._gauge,
    MetricType.HISTOGRAM: Points._histogram,
}


def is_counted(metric: Metric) -> bool:
    """Whether a metric tells what was counted, and not only what is."""
    return isinstance(metric.data, Histogram) or (isinstance(metric.data, Sum) and metric.data.is_monotonic)


def _nanos(seconds: float) -> int:
    return int(seconds * 1e9)


def _attributes(names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """A label that is empty is, in Prometheus, one that is not there."""
    return {name: value for name, value in zip(names, values, strict=False) if value}


def _exemplar(kept: Kept) -> Exemplar:
    labels = dict(kept.labels)
    trace_id, span_id = labels.get("trace_id", ""), labels.get("span_id", "")
    ids: dict[str, int] = {}
    # The exporters send both or none.
    if _is_id(trace_id, 32) and _is_id(span_id, 16):
        ids = {name: int(labels.pop(name), 16) for name in ("trace_id", "span_id")}
    return Exemplar(labels, kept.value, _nanos(kept.timestamp), **ids)


def _is_id(text: str, length: int) -> bool:
    return len(text) == length and text.strip("0") != "" and _HEX.fullmatch(text) is not None


def naming(definition: MetricDefinition, taken: Container[str] = ()) -> tuple[str, str]:
    """The name and unit (UCUM) of a metric in OpenTelemetry: such that a collector calls it on Prometheus what we do.

    A dotted name is kept. Another loses `_total` and the unit at its end, unless what is left is `taken`. Where a unit
    would be put to a name that does not have it, it is an annotation: `{bytes}`.
    """
    kind, exposed, whole = definition.type.value, definition.exposed, _whole(definition)
    unit = unit_symbol(definition.unit)
    unit = unit if _UNIT.fullmatch(unit) else ""
    for name in ([definition.name] if "." in definition.name else []) + [otlp_name(exposed, unit, kind)]:
        if name not in taken and _NAME.fullmatch(name) and prometheus_name(name, unit, kind) == exposed:
            return name, unit
    if prometheus_name(whole, unit, kind) == prometheus_name(whole, "", kind):
        return whole, unit
    word = unit_word(unit)
    return whole, f"{{{word}}}" if word else ""


def _whole(definition: MetricDefinition) -> str:
    exposed = definition.exposed
    return exposed.removesuffix("_total") if definition.type is MetricType.COUNTER else exposed
