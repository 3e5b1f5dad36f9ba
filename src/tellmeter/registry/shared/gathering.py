"""A registry as the parts of a snapshot, again and again. A metric that nobody touched is not encoded a second time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from ..definition import MetricDefinition
from ..family import Family
from ..series import Counter, Gauge, Histogram, _Zero
from .snapshot import encode_part

if TYPE_CHECKING:
    from ..registry import MetricsRegistry


class Gathering:
    """What one registry had when it was last looked at.

    parts: its metrics, encoded.
    series: how many of them there are to show.
    """

    def __init__(self, registry: MetricsRegistry) -> None:
        self.parts: list[Any] = []
        self.series = 0
        self._registry = registry
        self._resets = registry.resets
        self._kept: dict[Family[Any], _Kept] = {}

    def look(self, now: float) -> bool:
        """Look again; whether anything changed since. `now` in Unix seconds."""
        registry = self._registry
        changed = False
        if self._resets != registry.resets:
            self._resets = registry.resets
            self._kept = {}
            changed = True
        parts = []
        number = 0
        for family in registry.families():
            shown = list(family.shown())
            states = [_state(series) for series in shown]
            kept = self._kept.get(family)
            if kept is None or kept.definition is not family.definition or kept.states != states:
                with registry._settings.lock:  # so that the labels and their names belong together
                    kept = self._kept[family] = _Kept(family, now, kept)
                changed = True
            number += len(kept.states)
            parts.append(kept.part)
        self.parts, self.series = parts, number
        return changed


class _Kept:
    """A metric as it was when it had changed."""

    __slots__ = ("changes", "definition", "part", "states")

    def __init__(self, family: Family[Any], now: float, before: _Kept | None) -> None:
        self.definition: MetricDefinition = family.definition
        known = {} if before is None else before.changes
        # Of a gauge: labels -> its value, and when it was first seen.
        self.changes: dict[tuple[str, ...], tuple[Any, float]] = {}
        self.states: list[Any] = []
        rows = []
        for series in family.shown():
            if len(series.values) != len(self.definition.labels):
                continue  # the metric was given more labels in this moment, and has them when it is looked at again
            state = _state(series)
            self.states.append(state)
            at = 0.0
            if isinstance(series, Gauge) and state is not None:
                last, since = known.get(series.values, (None, 0.0))
                at = since if last == state else now
                self.changes[series.values] = (state, at)
            rows.append(_row(series, state, at))
        self.part: msgspec.Raw = encode_part(self.definition, rows, undefined=family.undefined)


def _state(series: Any) -> Any:
    """What is equal as long as nothing is recorded. Of a gauge its value, None where nobody ever set it."""
    if isinstance(series, Gauge):
        state = series.state
        return None if state.__class__ is _Zero else series.read() if state.__class__ is list else state
    if series.pending:
        series.settle()
    return series.state


def _row(series: Any, state: Any, at: float) -> tuple[Any, ...]:
    """The first fields of a `Row`."""
    exemplars = series.exemplars
    if isinstance(series, Gauge):
        return series.values, series.created, series.read(), (), at
    noted: tuple[Any, ...] = ()
    if isinstance(series, Counter):
        if exemplars is not None:
            noted = (_exemplar(0, exemplars),)
        row: tuple[Any, ...] = (series.values, series.created, _float(state), ())
    else:
        assert isinstance(series, Histogram)
        if exemplars is not None:
            noted = tuple(_exemplar(bucket, one) for bucket, one in list(exemplars.items()))
        row = (series.values, series.created, _float(state[1]), state[0])
    return (*row, at, noted) if noted else row


def _exemplar(bucket: int, exemplar: Any) -> tuple[int, Any, float, float]:
    return bucket, exemplar.labels, exemplar.value, exemplar.timestamp


def _float(value: Any) -> float:
    """A recorded number, which may be a whole one of any size."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
