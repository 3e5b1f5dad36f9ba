"""One label set of a metric: what a recording touches.

Recording only appends to the series' own list, one atomic call in C. Whoever makes the list long, or reads the series,
folds it into the totals under the metric's lock. Who records never waits for a fold that is under way, in another
thread or in an interrupted frame of its own, so a signal handler, a `__del__` or a GC callback may record at any
moment. Totals are replaced as a whole, so a reader sees either the state before a fold or the one after it.

A KeyboardInterrupt that hits exactly between the two last steps of a fold counts its (at most 65) values twice.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Mapping
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .values import EXACT, exemplar_of, fault_of, finite, fit, plain, spread

if TYPE_CHECKING:
    from .family import Family

# Values that wait in a series. Folding fewer at a time costs more a value. A histogram's are objects of their own each:
# 24 of them keep a series at less than half of what prometheus_client's takes.
FOLD_AT = 64
HISTOGRAM_FOLD_AT = 24

clock = time.perf_counter


class Exemplar:
    """One recorded value with the labels that lead to its trace, and when it was recorded (Unix seconds)."""

    __slots__ = ("labels", "timestamp", "value")

    def __init__(self, labels: Mapping[str, str], value: float, timestamp: float) -> None:
        self.labels = labels
        self.value = value
        self.timestamp = timestamp


class Series:
    """What counters, gauges and histograms share."""

    __slots__ = ("created", "exemplars", "family", "pending", "quiet", "state", "text", "values")

    pending: list[Any]
    state: Any

    def __init__(self, family: Family[Any], values: tuple[str, ...], text: str) -> None:
        self.family = family
        self.values = values
        self.text = text  # the labels as /metrics writes them
        self.created = time.time()
        self.exemplars: Any = None
        self.quiet: object = None  # the state that `reset()` left: nothing was recorded since
        self.clear()

    def clear(self) -> None:
        """Begin at zero."""
        raise NotImplementedError

    def fold(self) -> None:
        """Add what waits to the totals, unless somebody is at it."""
        family = self.family
        if family.folding:
            return
        with family.lock:
            try:
                family.folding = True
                waiting = self.pending
                number = len(waiting)
                if number:
                    self.add(waiting[:number])
                    del waiting[:number]
            except Exception:  # no stack or memory left: they wait for the next fold
                pass
            finally:
                family.folding = False

    def settle(self) -> None:
        """As `fold`, but wait for another thread's."""
        with self.family.lock:
            self.fold()

    def add(self, values: list[Any]) -> None:
        """Replace the totals by those with `values`."""
        raise NotImplementedError

    def reset(self) -> None:
        """Begin at zero, and stay off the page until something is recorded."""
        with self.family.lock:
            self.pending.clear()
            self.clear()
            self.exemplars = None
            self.created = time.time()
            self.quiet = self.state

    @property
    def visible(self) -> bool:
        """Whether the page shows it: once bound or recorded, since the last `reset()`."""
        if self.quiet is not None:
            if self.state is self.quiet and not self.pending:
                return False
            self.quiet = None
        return True


class _Zero(int):
    """0, told apart from a 0 that somebody set."""

    __slots__ = ()


class Counter(Series):
    """A bound counter: `inc()` about 0.1 us. `state` is the total, `number` that of the recordings in it."""

    __slots__ = ("number",)
    state: float
    number: int

    def clear(self) -> None:
        """Begin at zero."""
        self.pending = []
        self.state = _Zero()
        self.number = 0

    def inc(self, amount: float = 1, exemplar: Mapping[str, str] | None = None) -> None:
        """Add `amount`; what is negative or not finite is refused and counted. Never raises.

        `exemplar`: labels that lead to the trace, as {"trace_id": ...}; 128 characters in all, shown in OpenMetrics.
        """
        pending = self.pending
        pending.append(amount)
        if exemplar is not None:
            self._note(exemplar, amount)
        if len(pending) > FOLD_AT:
            try:
                self.fold()
            except RecursionError:
                pass  # the next recording folds

    def _note(self, exemplar: Mapping[str, str], amount: Any) -> None:
        labels = exemplar_of(exemplar, self.family.name)
        if labels is not None and fault_of(amount, negative=False) is None:
            self.exemplars = Exemplar(labels, float(amount), time.time())

    def add(self, values: list[Any]) -> None:
        """Replace the total by the one with `values`."""
        first = values[0]
        try:
            if (first.__class__ is int or first.__class__ is float) and values.count(first) == len(values):
                gain = first * len(values)  # as ones mostly are; and exact for what repeated addition rounds
                good = 0 <= gain <= _LARGEST
            else:
                gain = sum(values)
                good = plain(gain) and gain <= _LARGEST and bool(min(values) >= 0)  # a NaN makes the sum one
        except Exception:
            good = False
        if not good:
            values = fit(values, self.family.name, negative=False)
            gain = sum(values)
        if gain.__class__ is int and gain > EXACT:
            gain = float(gain)  # so that the total always is a float, or as good as one
        self.state += gain
        self.number += len(values)

    def read(self) -> float:
        """The total."""
        if self.pending:
            self.settle()
        return self.state


class Gauge(Series):
    """A bound gauge. `state` is the value last set or, once something was added, a list of it and what was added.

    So `set()` is one store, which stands for itself whatever happens around it. Turning the value into a list relies on
    CPython switching threads only at calls and backward jumps, as every release with a GIL does.
    """

    __slots__ = ()
    state: Any

    def clear(self) -> None:
        """Begin at zero."""
        self.pending = []
        self.state = _Zero()

    def set(self, value: float) -> None:
        """Set to `value`; what is not finite is refused and counted. Never raises."""
        if value.__class__ is int:
            self.state = value
            return
        try:
            if isfinite(value):
                self.state = value
                return
        except Exception:
            pass
        for kept in fit([value], self.family.name):
            self.state = kept

    def inc(self, amount: float = 1) -> None:
        """Add `amount`, which may be negative. Never raises."""
        state = self.state
        if state.__class__ is not list:
            fresh: list[Any] = [0]  # making a list may run the garbage collector, and with it who records here
            state = self.state
            if state.__class__ is not list:
                fresh[0] = state
                self.state = state = fresh
        state.append(amount)
        if len(state) > FOLD_AT:
            try:
                self.fold()
            except RecursionError:
                pass  # the next recording folds

    def dec(self, amount: float = 1) -> None:
        """Take `amount` away. Never raises."""
        try:
            amount = -amount
        except Exception:
            pass  # refused and counted by the fold
        self.inc(amount)

    def fold(self) -> None:
        """Replace the value and what was added by their sum, unless somebody is at it."""
        family = self.family
        if family.folding:
            return
        with family.lock:
            try:
                family.folding = True
                state = self.state
                if state.__class__ is list:
                    number = len(state)
                    # One step in C: whoever appends meanwhile appends after it, whoever sets has replaced the list.
                    state[:number] = [self._sum(state[:number])]
            except Exception:  # as above
                pass
            finally:
                family.folding = False

    def _sum(self, values: list[Any]) -> float:
        try:
            total = sum(values)
            if plain(total) and total - total == 0:
                return float(total)
        except Exception:
            pass
        return float(sum(fit(values, self.family.name)))

    def read(self) -> float:
        """The value now."""
        state = self.state
        if state.__class__ is not list:
            try:
                if isinstance(state, (float, int)):
                    return float(state)
            except Exception:
                pass
            if self.state is state:  # of another library, or no number at all: the fold finds out
                self.state = state = [state]
            self.settle()
        elif len(state) > 1:
            self.settle()  # what cannot be added is counted once
        return self._sum(state[:] if state.__class__ is list else [state])


class Histogram(Series):
    """A bound histogram. `state` is (counts a bucket, sum, smallest, largest); the last bucket is what is above all."""

    __slots__ = ()
    state: tuple[list[int], float, float, float]

    def clear(self) -> None:
        """Begin at zero."""
        self.pending = []
        self.state = ([0] * (len(self.family.bounds) + 1), 0.0, _INFINITY, -_INFINITY)

    def observe(self, value: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Record `value`; what is not finite is refused and counted. Never raises. `exemplar` as of a counter."""
        pending = self.pending
        pending.append(value)
        if exemplar is not None:
            self._note(exemplar, value)
        if len(pending) > HISTOGRAM_FOLD_AT:
            try:
                self.fold()
            except RecursionError:
                pass  # the next recording folds

    def time(self) -> Timer:
        """A block whose duration in seconds is recorded, with `with` or `async with`."""
        return Timer(self)

    def _note(self, exemplar: Mapping[str, str], value: Any) -> None:
        labels = exemplar_of(exemplar, self.family.name)
        if labels is not None and finite(value):
            kept = self.exemplars
            if kept is None:
                kept = self.exemplars = {}  # bucket -> the latest in it
            kept[bisect_left(self.family.bounds, value)] = Exemplar(labels, float(value), time.time())

    def add(self, values: list[Any]) -> None:
        """Replace the totals by those with `values`."""
        try:
            gain = sum(values)
            if plain(gain) and _LOWEST <= gain <= _LARGEST:
                self.state = self._with(values, gain)
                return
        except Exception:
            pass
        values = fit(values, self.family.name)
        if values:
            self.state = self._with(values, sum(values))

    def _with(self, values: list[Any], gain: float) -> tuple[list[int], float, float, float]:
        counts, total, low, high = self.state
        counts = counts[:]
        values.sort()
        spread(values, self.family.bounds, counts)
        return counts, total + gain, min(low, float(values[0])), max(high, float(values[-1]))

    def read(self) -> tuple[list[int], float, float, float]:
        """The state with everything recorded; not to be changed."""
        if self.pending:
            self.settle()
        return self.state


_INFINITY = float("inf")
_LARGEST = sys.float_info.max
_LOWEST = -_LARGEST


class Timer:
    """A block whose duration in seconds is recorded, whatever ends it. For one block at a time."""

    __slots__ = ("_series", "_started")

    def __init__(self, series: Histogram) -> None:
        self._series = series

    def __enter__(self) -> Timer:
        self._started = clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._series.observe(clock() - self._started)

    async def __aenter__(self) -> Timer:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class Activity:
    """A block during which a gauge is one higher."""

    __slots__ = ("_series",)

    def __init__(self, series: Gauge) -> None:
        self._series = series

    def __enter__(self) -> Activity:
        self._series.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._series.dec()

    async def __aenter__(self) -> Activity:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
