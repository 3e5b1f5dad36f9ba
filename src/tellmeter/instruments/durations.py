"""How long calls and blocks take: track_duration, time_operation, measure_latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, overload

from ..process import is_switched_off
from ..registry.registry import MetricsRegistry
from ..registry.series import Histogram
from .instrument import Instrument, LabelExtractor, Labels, Named, is_function
from .wrapping import F, Observation, Open

clock = time.perf_counter


class _Timing(Observation):
    """One call whose seconds are observed, whatever ends it."""

    __slots__ = ("_series", "_started")

    def __init__(self, series: Histogram) -> None:
        self._series = series
        self._started = clock()

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        self._series.observe(clock() - self._started)


class Duration(Named):
    """A decorator and block whose seconds are recorded in a histogram. A generator lasts until it is exhausted."""

    def __init__(
        self,
        metric_name: Any,
        labels: Labels,
        label_extractor: LabelExtractor | None,
        registry: MetricsRegistry | None,
        *,
        suffix: str = "",
        buckets: Sequence[float] | None = None,
    ) -> None:
        super().__init__(metric_name, labels, label_extractor, registry)
        self._suffix = suffix  # of the name that a function gives
        self._buckets = buckets

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        metric = self._histogram(self._name_for(function, self._suffix), seconds=True, buckets=self._buckets)
        extract = self._of_call(function)

        def open_timing(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
            if is_switched_off():
                return None
            return _Timing(metric.series("", None if extract is None else extract(args, kwargs)))

        return open_timing


def track_duration(
    metric_name: str,
    labels: Labels = None,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Instrument:
    """Record in the histogram `metric_name` how many seconds each call, or the block, takes.

    A name that nobody registered is `<name>_seconds` on /metrics.
    """
    return Duration(metric_name, labels, label_extractor, registry)


def time_operation(
    name: str,
    labels: Labels = None,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Instrument:
    """Record in the histogram `name` how many seconds a block takes, with `with` or `async with`, or each call."""
    return Duration(name, labels, label_extractor, registry)


@overload
def measure_latency(metric_name: F, /) -> F: ...
@overload
def measure_latency(
    metric_name: str | None = None,
    labels: Labels = None,
    buckets: Sequence[float] | None = None,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Instrument: ...
def measure_latency(
    metric_name: Any = None,
    labels: Labels = None,
    buckets: Sequence[float] | None = None,
    *,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Any:
    """Record how many seconds each call takes, in `metric_name` or `<module>_<function>_latency_seconds`.

    `buckets` are the upper bounds of a histogram that this registers.
    """
    if is_function(metric_name):
        return measure_latency()(metric_name)
    return Duration(metric_name, labels, label_extractor, registry, suffix="_latency_seconds", buckets=buckets)
