"""Callbacks on recordings. A metric without one knows nothing of them; with one, its series change their class."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ..guard import note
from .family import Callback, Family
from .series import Counter, Gauge, Histogram, Series
from .values import fault_of

_calling = threading.local()  # a callback that records does not call callbacks again


class WatchedCounter(Counter):
    """A counter that tells its metric's callbacks what was added."""

    __slots__ = ()

    def inc(self, amount: float = 1, exemplar: Mapping[str, str] | None = None, *, name: str = "") -> None:
        """As of any counter."""
        Counter.inc(self, amount, exemplar)
        if fault_of(amount, negative=False) is None:
            _tell(self, name, amount)


class WatchedGauge(Gauge):
    """A gauge that tells its metric's callbacks its new value."""

    __slots__ = ()

    def set(self, value: float, *, name: str = "") -> None:
        """As of any gauge."""
        Gauge.set(self, value)
        if fault_of(value) is None:
            _tell(self, name, value)

    def inc(self, amount: float = 1, *, name: str = "") -> None:
        """As of any gauge."""
        Gauge.inc(self, amount)
        if fault_of(amount) is None:
            _tell(self, name, self.read())


class WatchedHistogram(Histogram):
    """A histogram that tells its metric's callbacks what was observed."""

    __slots__ = ()

    def observe(self, value: float, exemplar: Mapping[str, str] | None = None, *, name: str = "") -> None:
        """As of any histogram."""
        Histogram.observe(self, value, exemplar)
        if fault_of(value) is None:
            _tell(self, name, value)


_WATCHED: dict[type[Series], type[Series]] = {
    Counter: WatchedCounter,
    Gauge: WatchedGauge,
    Histogram: WatchedHistogram,
}


def watch(family: Family[Any], callback: Callback) -> None:
    """Call `callback(name, value, labels)` for every recording from now on."""
    with family.settings.lock:
        family.callbacks.append(callback)
        family.kind = _WATCHED[family.series_kind]
        for series in family.series.values():
            series.__class__ = family.kind


def _tell(series: Series, name: str, value: Any) -> None:
    if getattr(_calling, "now", False):
        return
    _calling.now = True
    try:
        family = series.family
        labels = dict(zip(family.definition.labels, series.values, strict=True))
        for callback in family.callbacks[:]:
            try:
                callback(name or family.name, value, labels.copy())
            except KeyboardInterrupt:  # a signal that came meanwhile is the program's
                raise
            except BaseException as error:
                note("metric_callback", error)
    finally:
        _calling.now = False
