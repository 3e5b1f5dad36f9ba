"""MetricDefinition: what a metric is called, counts and says of itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from ..errors import MetricError
from .names import clean_label, exposed_name, unit_word

# From 5 ms to the 10 minutes that the SDKs wait by default: LLM calls take seconds, long reasoning takes minutes.
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
BYTES_BUCKETS = tuple(float(4**power) for power in range(4, 16))  # 256 B to 1 GiB
TOKENS_BUCKETS = tuple(float(4**power) for power in range(12))  # 1 to 4 Mi
_BUCKETS_BY_UNIT = {"bytes": BYTES_BUCKETS, "tokens": TOKENS_BUCKETS}
MAX_BUCKETS = 200
# How a gauge's values of several processes become one: with "live", a process that ended no longer counts.
GAUGE_MODES = ("livesum", "sum", "livemax", "max", "livemin", "min", "mostrecent")


class MetricType(StrEnum):
    """What a metric does: only grows, goes up and down, or is spread over buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    UP_DOWN_COUNTER = "up_down_counter"


class MetricDefinition(msgspec.Struct, frozen=True):
    """One metric. Registering an equal definition again changes nothing.

    name: what code records under, any text; see `exposed`.
    type: a `MetricType`, or its value.
    description: the HELP line.
    unit: a Prometheus word (`seconds`, `bytes`) or a UCUM symbol (`s`, `By`).
    labels: the label names. What a recording leaves out is "", what it adds is dropped; both are counted.
    buckets: upper bounds of a histogram, growing, without +Inf; by the unit where none are given (5 ms to 10 minutes).
    exposed: the name on /metrics. Without it, a dotted name follows OpenTelemetry's rules (`a.b` in `s` is
        `a_b_seconds`); any other is kept, cleaned, with the `_total` of counters.
    aliases: other names that code may record under.
    optional: those of the labels that a recording may leave out without that being counted.
    gauge_mode: how the values of several processes become one: sum, max, min of all processes, the same with "live"
        before it of those that run, or mostrecent.

    Raises:
        MetricError: a field that cannot work.
    """

    name: str
    type: MetricType
    description: str = ""
    unit: str = ""
    labels: Sequence[str] = ()
    buckets: Sequence[float] | None = None
    exposed: str = ""
    aliases: Sequence[str] = ()
    gauge_mode: str = "livesum"
    optional: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise MetricError(f"a metric's name must be a text that is not empty, not {self.name!r}")
        try:
            kind = MetricType(self.type)
        except ValueError:
            allowed = ", ".join(MetricType)
            raise MetricError(f"{self.name}: type = {self.type!r}: it must be one of {allowed}") from None
        force_setattr(self, "type", kind)
        for field in ("description", "unit", "exposed"):
            if not isinstance(getattr(self, field), str):
                raise MetricError(f"{self.name}: {field} must be a text")
        force_setattr(self, "labels", self._names("labels"))
        force_setattr(self, "aliases", self._names("aliases"))
        force_setattr(self, "optional", self._names("optional"))
        if self.gauge_mode not in GAUGE_MODES:
            raise MetricError(f"{self.name}: gauge_mode = {self.gauge_mode!r}: it must be one of {GAUGE_MODES}")
        force_setattr(self, "exposed", exposed_name(self.exposed or self.name, self.unit, kind.value))
        self._check_labels()
        force_setattr(self, "buckets", self._bounds() if kind is MetricType.HISTOGRAM else None)

    @property
    def exposed_labels(self) -> tuple[str, ...]:
        """The labels as /metrics names them."""
        return tuple(map(clean_label, self.labels))

    def sample_names(self) -> tuple[str, ...]:
        """Every name that the metric's samples have in either format: no other metric may use them."""
        if self.type is MetricType.HISTOGRAM:
            return (self.exposed, *(f"{self.exposed}_{part}" for part in ("bucket", "count", "sum", "created")))
        if self.type is MetricType.COUNTER:
            base = self.exposed.removesuffix("_total")
            return (base, self.exposed, f"{base}_created")
        return (self.exposed,)

    def _names(self, field: str) -> tuple[str, ...]:
        given = getattr(self, field)
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise MetricError(f"{self.name}: {field} = {given!r}: it must be a list of names")
        names = tuple(given)
        for one in names:
            if not isinstance(one, str) or not one:
                raise MetricError(f"{self.name}: {field}: {one!r} is no name")
        return names

    def _check_labels(self) -> None:
        cleaned = self.exposed_labels
        if not set(self.optional) <= set(self.labels):
            raise MetricError(f"{self.name}: optional = {list(self.optional)}: they must be some of its labels")
        for label in self.labels:
            if label.startswith("__"):
                raise MetricError(f"{self.name}: label {label!r}: names that begin with __ are Prometheus's own")
        if len(set(cleaned)) != len(cleaned):
            raise MetricError(f"{self.name}: labels = {list(self.labels)}: two of them are one on /metrics")
        if self.type is MetricType.HISTOGRAM and "le" in cleaned:
            raise MetricError(f"{self.name}: label 'le' is the histogram's own; choose another name")

    def _bounds(self) -> tuple[float, ...]:
        if self.buckets is None:
            word = unit_word(self.unit)
            last = self.exposed.rpartition("_")[2]
            return _BUCKETS_BY_UNIT.get(word) or _BUCKETS_BY_UNIT.get(last) or SECONDS_BUCKETS
        try:
            bounds = [float(bound) for bound in self.buckets]
        except (TypeError, ValueError, OverflowError):
            raise MetricError(f"{self.name}: buckets must be numbers") from None
        if bounds and bounds[-1] == math.inf:
            bounds.pop()
        growing = all(low < high for low, high in pairwise(bounds))
        if not bounds or len(bounds) > MAX_BUCKETS or not growing or not all(map(math.isfinite, bounds)):
            raise MetricError(f"{self.name}: buckets must be 1 to {MAX_BUCKETS} finite numbers, each above the last")
        return tuple(bounds)


def differences(first: MetricDefinition, second: MetricDefinition) -> list[str]:
    """What two definitions disagree on, in words."""
    found = []
    for field in MetricDefinition.__struct_fields__:
        one: Any = getattr(first, field)
        other: Any = getattr(second, field)
        if one != other:
            found.append(f"{field} {_shown(one)} and {_shown(other)}")
    return found


def _shown(value: object) -> str:
    shown = str(value) if isinstance(value, MetricType) else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
