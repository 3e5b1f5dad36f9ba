"""What is in progress: track_active, monitor_resource."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, overload

from ..process import is_switched_off
from ..registry.registry import MetricsRegistry
from ..registry.series import Gauge, Histogram
from .instrument import Instrument, LabelExtractor, Labels, Named, is_function
from .wrapping import F, Observation, Open

clock = time.perf_counter


class _Activity(Observation):
    """One call in progress, and how long it was."""

    __slots__ = ("_gauge", "_histogram", "_started")

    def __init__(self, gauge: Gauge | None, histogram: Histogram | None) -> None:
        self._gauge = gauge
        self._histogram = histogram
        if gauge is not None:
            gauge.inc()
        self._started = clock()

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        if self._histogram is not None:
            self._histogram.observe(clock() - self._started)
        if self._gauge is not None:
            self._gauge.dec()


class ActiveCalls(Named):
    """A decorator and block during which a gauge is one higher."""

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        metric = self._gauge(self._name_for(function, "_active"))
        extract = self._of_call(function)

        def open_activity(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
            if is_switched_off():
                return None
            return _Activity(metric.series("", None if extract is None else extract(args, kwargs)), None)

        return open_activity


class Resource(Instrument):
    """A decorator and block that uses a resource."""

    def __init__(
        self,
        resource_name: str,
        base: str,
        label_extractor: LabelExtractor | None,
        registry: MetricsRegistry | None,
        *,
        count: bool,
        usage: bool,
    ) -> None:
        super().__init__({"resource": resource_name}, label_extractor, registry)
        self._base = base
        self._count = count
        self._usage = usage

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        active = self._gauge(f"{self._base}_active") if self._count else None
        usage = self._histogram(f"{self._base}_usage_seconds") if self._usage else None
        extract = self._of_call(function)

        def open_use(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
            if is_switched_off():
                return None
            extracted = None if extract is None else extract(args, kwargs)
            return _Activity(
                None if active is None else active.series("", extracted),
                None if usage is None else usage.series("", extracted),
            )

        return open_use


@overload
def track_active(name: F, /) -> F: ...
@overload
def track_active(
    name: str | None = None,
    labels: Labels = None,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Instrument: ...
def track_active(
    name: Any = None,
    labels: Labels = None,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Any:
    """Have the gauge `name`, or `<module>_<function>_active`, one higher during each call, or during the block."""
    if is_function(name):
        return track_active()(name)
    return ActiveCalls(name, labels, label_extractor, registry)


def monitor_resource(
    resource_name: str,
    metric_name: str | None = None,
    track_count: bool = True,
    track_usage: bool = False,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Instrument:
    """Show how many calls, or blocks, use a resource, and for how long.

    Args:
        resource_name: the label `resource` of both metrics.
        metric_name: what they begin with, instead of `resource`.
        track_count: keep the gauge `resource_active`.
        track_usage: record `resource_usage_seconds`.
        label_extractor: called with the call's arguments; returns a dict of labels.
        registry: the process's without one.
    """
    base = "resource" if metric_name is None else metric_name
    return Resource(resource_name, base, label_extractor, registry, count=track_count, usage=track_usage)
