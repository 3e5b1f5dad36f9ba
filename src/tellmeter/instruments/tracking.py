"""Calls, their duration and their errors in one decorator: track_metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, overload

from ..process import is_switched_off
from ..registry.registry import MetricsRegistry
from .instrument import Instrument, LabelExtractor, Labels, Named, is_function
from .metric import CounterMetric, HistogramMetric
from .wrapping import ERROR, F, Observation, Open

clock = time.perf_counter


class _Tracked(Observation):
    """One call: its seconds by how it ended, and its error."""

    __slots__ = ("_durations", "_errors", "_extracted", "_started")

    def __init__(
        self, durations: HistogramMetric | None, errors: CounterMetric | None, extracted: dict[str, Any] | None
    ) -> None:
        self._durations = durations
        self._errors = errors
        self._extracted = extracted
        self._started = clock()

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        seconds = clock() - self._started
        if self._durations is not None:
            self._durations.series(outcome, self._extracted).observe(seconds)
        if self._errors is not None and outcome == ERROR:
            self._errors.series(type(error).__name__, self._extracted).inc()


class Tracking(Named):
    """A decorator and block with up to three metrics; a name of None is given by the function, "" is none."""

    def __init__(
        self,
        name: Any,
        calls: str | None,
        durations: str | None,
        errors: str | None,
        labels: Labels,
        label_extractor: LabelExtractor | None,
        registry: MetricsRegistry | None,
    ) -> None:
        super().__init__(name, labels, label_extractor, registry)
        self._names = calls, durations, errors

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        base = self._name_for(function, "")

        def named(given: str | None, suffix: str) -> Any:
            return f"{base}{suffix}" if given is None and base is not None else given

        calls, durations, errors = self._names
        counted = None if calls == "" else self._counter(named(calls, "_calls_total"))
        timed = None if durations == "" else self._histogram(named(durations, "_duration_seconds"), "status")
        failed = None if errors == "" else self._counter(named(errors, "_errors_total"), "error_type")
        extract = self._of_call(function)
        ending = timed is not None or failed is not None

        def open_tracked(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
            if is_switched_off():
                return None
            extracted = None if extract is None else extract(args, kwargs)
            if counted is not None:
                counted.series("", extracted).inc()
            return _Tracked(timed, failed, extracted) if ending else None

        return open_tracked


@overload
def track_metrics(name: F, /) -> F: ...
@overload
def track_metrics(
    name: str | None = None,
    labels: Labels = None,
    track_duration: bool = True,
    track_calls: bool = True,
    track_errors: bool = True,
    duration_metric: str | None = None,
    call_metric: str | None = None,
    error_metric: str | None = None,
    label_extractor: LabelExtractor | None = None,
    *,
    registry: MetricsRegistry | None = None,
) -> Instrument: ...
def track_metrics(
    name: Any = None,
    labels: Labels = None,
    track_duration: bool = True,
    track_calls: bool = True,
    track_errors: bool = True,
    duration_metric: str | None = None,
    call_metric: str | None = None,
    error_metric: str | None = None,
    label_extractor: LabelExtractor | None = None,
    *,
    registry: MetricsRegistry | None = None,
) -> Any:
    """Count and time each call, and count its errors.

    `<name>_calls_total` counts calls as they begin, `<name>_duration_seconds` has their seconds by `status` (success,
    error, cancelled), `<name>_errors_total` counts those that raised by `error_type`, the exception's class.

    Args:
        name: what the metrics begin with; the function's module and name, made a valid name, without one.
        labels: constant labels of all three.
        track_duration: False leaves the durations out.
        track_calls: False leaves the calls out.
        track_errors: False leaves the errors out.
        duration_metric: another name for the durations.
        call_metric: another name for the calls.
        error_metric: another name for the errors.
        label_extractor: called with the call's arguments; returns a dict of labels.
        registry: the process's without one.
    """
    if is_function(name):
        return track_metrics()(name)
    return Tracking(
        name,
        call_metric if track_calls else "",
        duration_metric if track_duration else "",
        error_metric if track_errors else "",
        labels,
        label_extractor,
        registry,
    )
