"""Recording by name and labels: the functions that a hot loop calls.

They are closures over the registry's dicts, which is a third faster than methods. What they do not find, or what is not
as declared, takes the slow way through the registry, which never raises either, unless it is strict.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .family import Family
from .nowhere import NO_ACTIVITY, NO_TIMER
from .series import FOLD_AT, HISTOGRAM_FOLD_AT, Activity, Counter, Gauge, Histogram, Timer

if TYPE_CHECKING:
    from .registry import MetricsRegistry

Labels = Mapping[str, Any] | None


class Record(Protocol):
    """Record `value` under `name`."""

    def __call__(self, name: str, value: float, labels: Labels = None) -> None:
        """Never raises, but in a strict registry."""


class Add(Protocol):
    """Add `value`, or take it away, under `name`."""

    def __call__(self, name: str, value: float = 1, labels: Labels = None) -> None:
        """Never raises, but in a strict registry."""


class MakeTimer(Protocol):
    """A block whose duration in seconds is recorded under `name`, with `with` or `async with`."""

    def __call__(self, name: str, labels: Labels = None) -> Timer:
        """Never raises, but in a strict registry."""


class MakeActivity(Protocol):
    """A block during which the gauge `name` is one higher, with `with` or `async with`."""

    def __call__(self, name: str, labels: Labels = None) -> Activity:
        """Never raises, but in a strict registry."""


class Recorders(NamedTuple):
    """The ways to record by name."""

    increment: Add
    observe: Record
    set_gauge: Record
    increment_gauge: Add
    decrement_gauge: Add
    timer: MakeTimer
    active: MakeActivity


def fast_recorders(
    slow: MetricsRegistry,
    counters: dict[str, Family[Counter]],
    gauges: dict[str, Family[Gauge]],
    histograms: dict[str, Family[Histogram]],
) -> Recorders:
    """Recorders over metrics that need no more than an append: neither strict nor watched.

    `get` is a local for its call: that of an attribute in a slot is not specialised.
    """

    def increment(name: str, value: float = 1, labels: Labels = None) -> None:
        try:
            family = counters[name]
            get = family.get
            series = family.fast[get(labels)]
            if labels and len(labels) != family.number:
                raise KeyError  # noqa: TRY301 - the way out of here that costs nothing to who stays
        except Exception:
            slow.slow_increment(name, value, labels)
            return
        pending = series.pending
        pending.append(value)
        if len(pending) > FOLD_AT:
            try:
                series.fold()
            except RecursionError:
                pass  # the next recording folds

    def observe(name: str, value: float, labels: Labels = None) -> None:
        try:
            family = histograms[name]
            get = family.get
            series = family.fast[get(labels)]
            if labels and len(labels) != family.number:
                raise KeyError  # noqa: TRY301 - the way out of here that costs nothing to who stays
        except Exception:
            slow.slow_observe(name, value, labels)
            return
        pending = series.pending
        pending.append(value)
        if len(pending) > HISTOGRAM_FOLD_AT:
            try:
                series.fold()
            except RecursionError:
                pass  # the next recording folds

    def set_gauge(name: str, value: float, labels: Labels = None) -> None:
        try:
            family = gauges[name]
            get = family.get
            series = family.fast[get(labels)]
            if (labels and len(labels) != family.number) or not (value.__class__ is int or isfinite(value)):
                raise KeyError  # noqa: TRY301 - as above
        except Exception:
            slow.slow_set(name, value, labels)
            return
        series.state = value

    def increment_gauge(name: str, value: float = 1, labels: Labels = None) -> None:
        try:
            family = gauges[name]
            get = family.get
            series = family.fast[get(labels)]
            if labels and len(labels) != family.number:
                raise KeyError  # noqa: TRY301 - as above
        except Exception:
            slow.slow_add(name, value, labels)
            return
        series.inc(value)

    def decrement_gauge(name: str, value: float = 1, labels: Labels = None) -> None:
        try:
            value = -value
        except Exception:
            pass  # no number: refused and counted
        increment_gauge(name, value, labels)

    def timer(name: str, labels: Labels = None) -> Timer:
        try:
            family = histograms[name]
            get = family.get
            series = family.fast[get(labels)]
            if labels and len(labels) != family.number:
                raise KeyError  # noqa: TRY301 - as above
        except Exception:
            series = slow.timed(name, labels)
        return Timer(series)

    def active(name: str, labels: Labels = None) -> Activity:
        try:
            family = gauges[name]
            get = family.get
            series = family.fast[get(labels)]
            if labels and len(labels) != family.number:
                raise KeyError  # noqa: TRY301 - as above
        except Exception:
            series = slow.gauged(name, labels)
        return Activity(series)

    return Recorders(increment, observe, set_gauge, increment_gauge, decrement_gauge, timer, active)


def _no_timer(name: str, labels: Labels = None) -> Timer:
    """A timer that records nowhere."""
    return NO_TIMER


def _no_activity(name: str, labels: Labels = None) -> Activity:
    """A block that raises no gauge."""
    return NO_ACTIVITY


def _nothing(name: str, value: float = 1, labels: Labels = None) -> None:
    """Nothing."""


def no_recorders() -> Recorders:
    """Recorders of a collector that is switched off."""
    return Recorders(_nothing, _nothing, _nothing, _nothing, _nothing, _no_timer, _no_activity)
