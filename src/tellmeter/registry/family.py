"""A metric: its definition and its series, found by labels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

import msgspec

from ..cleaning import MODEL_LENGTH
from ..counts import count
from ..errors import MetricError
from .definition import MetricDefinition
from .labels import bucket_labels, help_text, label_names, label_text, sorted_out
from .series import Activity, Counter, Gauge, Histogram, Series, Timer

S = TypeVar("S", bound=Series)
Callback = Callable[[str, float, dict[str, str]], object]

OVERFLOW = "__overflow__"
VALUE_LENGTH = MODEL_LENGTH


class Settings:
    """What the metrics of one registry share."""

    __slots__ = ("lock", "max_series", "strict")

    def __init__(self, max_series: int, *, strict: bool) -> None:
        self.max_series = max_series
        self.strict = strict
        self.lock = threading.RLock()  # for new metrics and new series; what records existing ones never takes it


class Family(Generic[S]):
    """One metric. `labels(...)` binds one of its series; a metric without labels records by itself."""

    __slots__ = (
        "bounds",
        "callbacks",
        "definition",
        "exposed",
        "fast",
        "first_labels",
        "folding",
        "get",
        "help",
        "kind",
        "les",
        "lock",
        "name",
        "number",
        "series",
        "settings",
        "type",
        "undefined",
    )

    series_kind: type[S]

    def __init__(self, definition: MetricDefinition, settings: Settings, *, undefined: bool = False) -> None:
        self.settings = settings
        self.name = definition.name
        self.undefined = undefined  # its first recording says which labels it has
        self.first_labels: list[list[str]] = []
        self.lock = threading.RLock()  # whoever folds holds it
        self.folding = False
        self.kind: type[S] = self.series_kind
        self.callbacks: list[Callback] = []
        self.series: dict[tuple[str, ...], S] = {}
        # What `get(labels)` gives -> its series. Only where all values are texts that need no cleaning: 1, 1.0 and True
        # are one key of a dict, and three values of a label.
        self.fast: dict[Any, S] = {}
        self._define(definition)

    def _define(self, definition: MetricDefinition) -> None:
        self.definition = definition
        self.exposed = definition.exposed
        self.type = definition.type
        self.help = help_text(definition)
        self.bounds: tuple[float, ...] = tuple(definition.buckets or ())
        self.les: tuple[str, ...] = bucket_labels(self.bounds)
        self.number = len(definition.labels)
        self.get: Any = itemgetter(*definition.labels) if definition.labels else _no_labels
        if not definition.labels and not self.undefined:
            self.find(None)  # there is one series, and it is 0 before anything happens

    def labels(self, /, *values: object, **labels: object) -> S:
        """The series with these labels, by name or in their order. Never raises, but in a strict registry.

        Keep what it returns where labels are constant: recording on it costs a third.
        """
        if values:
            if len(values) > self.number:
                self._complain({"undeclared"})
            labels = {**dict(zip(self.definition.labels, values, strict=False)), **labels}
        return self.find(labels)

    def find(self, labels: Any) -> S:
        """The series with these labels, made if need be. What is missing is "", what is undeclared is dropped."""
        if self.undefined:
            self._learn(labels)
        declared = self.definition.labels
        values, faults = sorted_out(declared, labels, VALUE_LENGTH)
        if "missing" in faults and self._may_miss(labels):
            faults.remove("missing")
        if faults:
            self._complain(faults)
        series = self.series.get(values)
        if series is None:
            series = self._make(values, declared, labels)
        if not faults and series.values == values and (not declared or _exactly(declared, labels, values)):
            self.fast[values[0] if len(values) == 1 else values] = series
        return series

    def _may_miss(self, labels: Any) -> bool:
        definition = self.definition
        return bool(definition.optional) and all(
            name in (labels or ()) or name in definition.optional for name in definition.labels
        )

    def _complain(self, faults: set[str]) -> None:
        if self.settings.strict:
            told = ", ".join(sorted(faults))
            raise MetricError(f"{self.name}: its labels are {list(self.definition.labels)}; found {told}")
        for fault in faults:
            count("label_errors", f"{self.name}:{fault}")

    def _learn(self, labels: Any) -> None:
        names = label_names(labels, reserved=("le",) if self.series_kind is Histogram else ())
        with self.settings.lock:
            self.first_labels.append(names)  # a signal handler in our midst takes ours, and we take its
            if self.undefined:
                self._define(msgspec.structs.replace(self.definition, labels=self.first_labels[0]))
                self.undefined = False

    def _make(self, values: tuple[str, ...], declared: Sequence[str], labels: Any) -> S:
        with self.settings.lock:  # reentrant: a signal handler may need a new series in the midst of another
            if self.definition.labels is not declared:
                return self.find(labels)  # another thread has just said which labels there are
            if len(self.series) >= self.settings.max_series and values and values not in self.series:
                count("series_overflow", self.name)
                values = (OVERFLOW,) * self.number
            found = self.series.get(values)
            if found is None:
                text = label_text(self.definition.exposed_labels, values)
                found = self.series.setdefault(values, self.kind(self, values, text))
            return found

    def redefine(self, definition: MetricDefinition, *, undefined: bool) -> None:
        """Take over the words of a definition whose labels, type and buckets are the same."""
        with self.settings.lock:
            self._define(definition)
            self.undefined = undefined
            if not definition.labels and not undefined:
                self.find(None)

    def widen(self, labels: Sequence[str]) -> None:
        """Have more labels from now on; what was counted so far has them empty, which Prometheus calls the same."""
        with self.settings.lock:
            more = [name for name in labels if name not in self.definition.labels]
            if not more:
                return
            blank = ("",) * len(more)
            known = list(self.series.values())
            self.fast = {}
            for series in known:
                series.values += blank
            self.series = {series.values: series for series in known}
            self._define(msgspec.structs.replace(self.definition, labels=(*self.definition.labels, *more)))

    def shown(self) -> Iterator[S]:
        """The series that a page shows."""
        return (series for series in list(self.series.values()) if series.visible)


class CounterFamily(Family[Counter]):
    """A metric that only grows."""

    __slots__ = ()
    series_kind = Counter

    def inc(self, amount: float = 1, exemplar: Mapping[str, str] | None = None) -> None:
        """As `labels().inc()`."""
        self.find(None).inc(amount, exemplar)


class GaugeFamily(Family[Gauge]):
    """A metric that goes up and down."""

    __slots__ = ()
    series_kind = Gauge

    def set(self, value: float) -> None:
        """As `labels().set()`."""
        self.find(None).set(value)

    def inc(self, amount: float = 1) -> None:
        """As `labels().inc()`."""
        self.find(None).inc(amount)

    def dec(self, amount: float = 1) -> None:
        """As `labels().dec()`."""
        self.find(None).dec(amount)

    def track(self, labels: Mapping[str, Any] | None = None) -> Activity:
        """A block during which the gauge is one higher, with `with` or `async with`."""
        return Activity(self.find(labels))


class HistogramFamily(Family[Histogram]):
    """A metric spread over buckets."""

    __slots__ = ()
    series_kind = Histogram

    def observe(self, value: float, exemplar: Mapping[str, str] | None = None) -> None:
        """As `labels().observe()`."""
        self.find(None).observe(value, exemplar)

    def time(self, labels: Mapping[str, Any] | None = None) -> Timer:
        """A block whose duration in seconds is recorded, with `with` or `async with`."""
        return Timer(self.find(labels))


def _no_labels(labels: Any) -> tuple[()]:
    if labels:
        raise KeyError  # undeclared ones: the slow way counts them
    return ()


def _exactly(declared: Sequence[str], labels: Any, values: tuple[str, ...]) -> bool:
    """Whether the labels are the values as they stand, and nothing else."""
    try:
        return all(
            type(labels[name]) is str and labels[name] == value for name, value in zip(declared, values, strict=True)
        )
    except Exception:  # a mapping with a mind of its own
        return False
