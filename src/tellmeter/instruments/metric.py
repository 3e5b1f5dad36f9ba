"""A metric as a decorator uses it: found or registered when it is first recorded, its series bound."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..counts import count
from ..errors import MetricError
from ..registry.definition import MetricDefinition, MetricType
from ..registry.family import VALUE_LENGTH, Family
from ..registry.labels import clean_value, label_names
from ..registry.names import seconds_name
from ..registry.nowhere import NO_COUNTER, NO_GAUGE, NO_HISTOGRAM
from ..registry.registry import MetricsRegistry, get_metrics_registry
from ..registry.series import Counter, Gauge, Histogram, Series

S = TypeVar("S", bound=Series)

MOST_BOUND = 100  # series kept at hand; an exception's class, which may be made at run time, is one of their labels

# Names that decorators registered: metrics that get the labels of all decorators that share them.
_ours: weakref.WeakKeyDictionary[MetricsRegistry, set[str]] = weakref.WeakKeyDictionary()


class Metric(Generic[S]):
    """One metric of one decorated function.

    Args:
        name: as code records under.
        labels: the constant ones.
        own: the label that the decorator gives a value each time; left out where the metric has no such label, and left
            alone where `labels` or an extractor has it.
        registry: the process's without one, looked for when something is recorded.
        seconds: an unknown name gets `_seconds` on /metrics.
        buckets: of a histogram that is new.
        fill: the decorator chose the name, so that nobody is to be told of labels that it leaves empty.
    """

    __slots__ = (
        "_bound",
        "_buckets",
        "_extended",
        "_family",
        "_fill",
        "_registry",
        "_seconds",
        "labels",
        "name",
        "own",
    )

    kind: MetricType
    nowhere: S

    def __init__(
        self,
        name: Any,
        labels: Mapping[str, Any],
        own: str = "",
        *,
        registry: MetricsRegistry | None = None,
        seconds: bool = False,
        buckets: Sequence[float] | None = None,
        fill: bool = False,
    ) -> None:
        self.name = name
        self.labels = labels
        self.own = own
        self._registry = registry
        self._seconds = seconds
        self._buckets = buckets
        self._fill = fill
        self._family: Family[S] | None = None
        self._extended = False
        self._bound: dict[str, S] = {}

    def series(self, own: str = "", extracted: dict[str, Any] | None = None) -> S:
        """The series of the constant labels, the decorator's own one and those that an extractor found."""
        if extracted is None:
            found = self._bound.get(own)
            return self._bind(own) if found is None else found
        family = self._found(extracted)
        if family is None:
            return self.nowhere
        labels = self._with_own(family, {**self.labels, **extracted}, own)
        try:
            get = family.get
            series = family.fast[get(labels)]
            if len(labels) != family.number:
                raise KeyError  # noqa: TRY301 - as where it is recorded by name
        except Exception:
            return family.find(labels)
        return series

    def _bind(self, own: str) -> S:
        family = self._found(None)
        if family is None:
            series = self.nowhere
        else:
            labels = self._with_own(family, dict(self.labels), own)
            if self._fill or family.name in _ours.get(self._where(), ()):
                labels = {**dict.fromkeys(family.definition.labels, ""), **labels}
            series = family.find(labels)
        if len(self._bound) < MOST_BOUND:
            self._bound[own] = series
        return series

    def _with_own(self, family: Family[S], labels: dict[str, Any], own: str) -> dict[str, Any]:
        if self.own and self.own not in labels and self.own in family.definition.labels:
            labels[self.own] = own
        return labels

    def _where(self) -> MetricsRegistry:
        return get_metrics_registry() if self._registry is None else self._registry

    def _found(self, extracted: dict[str, Any] | None) -> Family[S] | None:
        if self._family is not None and (extracted is None or self._extended):
            return self._family
        names = {**self.labels, **({self.own: ""} if self.own else {}), **(extracted or {})}
        self._family = self._declared(self._where(), names)
        self._extended = self._extended or extracted is not None
        return self._family

    def _declared(self, registry: MetricsRegistry, names: Mapping[str, Any]) -> Family[S] | None:
        """The metric, with the labels `names` if a decorator registered it. None where it cannot be."""
        if not isinstance(self.name, str) or not self.name:
            count("metric_errors", f"{self.name if isinstance(self.name, str) else type(self.name).__name__}:invalid")
            return None
        try:
            with registry._settings.lock:
                return self._known_or_new(registry, self.name, names)
        except (MetricError, TypeError, ValueError):  # the latter of buckets that are no numbers
            count("metric_errors", f"{self.name}:invalid")
            return None

    def _known_or_new(self, registry: MetricsRegistry, name: str, names: Mapping[str, Any]) -> Family[S] | None:
        table = registry._table
        labels = label_names(names, reserved=("le",) if self.kind is MetricType.HISTOGRAM else ())
        found = table.look_up(name, seconds=self._seconds)
        if found is None:
            return self._registered(registry, labels)
        if found.series_kind is not type(self.nowhere):
            count("metric_errors", f"{found.name}:wrong_type")
            return None
        if found.undefined:
            found._learn(dict.fromkeys(labels))
        elif found.name in _ours.get(registry, ()):
            found.widen(labels)
        if self._buckets is not None and tuple(map(float, self._buckets)) != found.bounds:
            count("metric_errors", f"{found.name}:other_buckets")
        return found

    def _registered(self, registry: MetricsRegistry, labels: Sequence[str]) -> Family[S]:
        seconds = self._seconds or (self.kind is MetricType.HISTOGRAM and self.name.endswith("_seconds"))
        definition = MetricDefinition(
            self.name,
            self.kind,
            unit="seconds" if seconds else "",
            labels=labels,
            buckets=self._buckets,
            exposed=seconds_name(self.name) if self._seconds else "",
        )
        registry.register_metric(definition)
        _ours.setdefault(registry, set()).add(definition.name)
        return registry._table.names[definition.name]


class CounterMetric(Metric[Counter]):
    """A counter."""

    __slots__ = ()
    kind = MetricType.COUNTER
    nowhere = NO_COUNTER

    def total(self, label: str, value: object) -> float:
        """The sum of all series whose `label` is `value`."""
        family = self._found(None)
        if family is None or label not in family.definition.labels:
            return 0.0
        at, wanted = family.definition.labels.index(label), clean_value(value, VALUE_LENGTH)
        return sum(series.read() for series in list(family.series.values()) if series.values[at] == wanted)


class GaugeMetric(Metric[Gauge]):
    """A gauge."""

    __slots__ = ()
    kind = MetricType.GAUGE
    nowhere = NO_GAUGE


class HistogramMetric(Metric[Histogram]):
    """A histogram."""

    __slots__ = ()
    kind = MetricType.HISTOGRAM
    nowhere = NO_HISTOGRAM
