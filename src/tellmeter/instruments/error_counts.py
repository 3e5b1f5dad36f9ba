"""How calls fail: track_errors."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, overload

from ..process import is_switched_off
from ..registry.registry import MetricsRegistry
from .instrument import Extract, Instrument, LabelExtractor, Labels, Named, function_name, is_function
from .metric import CounterMetric
from .wrapping import ERROR, F, Observation, Open

logger = logging.getLogger(__name__)

ERROR_COUNT = "error_count"
MOST_FRAMES = 20


class _Watch(Observation):
    """A call that is counted if it fails. Its arguments are looked at no earlier."""

    __slots__ = ("_args", "_extract", "_kwargs", "_metric", "_trace")

    def __init__(
        self,
        metric: CounterMetric,
        extract: Extract | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        trace: bool,
    ) -> None:
        self._metric = metric
        self._extract = extract
        self._args = args
        self._kwargs = kwargs
        self._trace = trace

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        if outcome != ERROR or error is None:
            return
        extracted = None if self._extract is None else self._extract(self._args, self._kwargs)
        kind = type(error).__name__
        self._metric.series(kind, extracted).inc()
        if self._trace:
            last = deque(traceback.walk_tb(error.__traceback__), MOST_FRAMES)
            places = [f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}" for frame, line in last]
            logger.error("%s at %s", kind, ", ".join(places))


class ErrorCount(Named):
    """A decorator and block that counts what raises; what is cancelled is no error."""

    def __init__(
        self,
        metric_name: Any,
        labels: Labels,
        label_extractor: LabelExtractor | None,
        registry: MetricsRegistry | None,
        *,
        trace: bool,
    ) -> None:
        super().__init__(metric_name, labels, label_extractor, registry)
        self._trace = trace

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        named = {} if function is None else {"function": function_name(function)}
        own = self._name is None
        metric = self._counter(ERROR_COUNT if own else self._name, "error_type", fill=own, **named)
        extract, trace = self._of_call(function), self._trace
        without_arguments = _Watch(metric, None, (), {}, trace=trace)

        def open_watch(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
            if is_switched_off():
                return None
            return without_arguments if extract is None else _Watch(metric, extract, args, kwargs, trace=trace)

        return open_watch


@overload
def track_errors(metric_name: F, /) -> F: ...
@overload
def track_errors(
    metric_name: str | None = None,
    labels: Labels = None,
    include_traceback: bool = False,
    *,
    counter_name: str | None = None,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Instrument: ...
def track_errors(
    metric_name: Any = None,
    labels: Labels = None,
    include_traceback: bool = False,
    *,
    counter_name: str | None = None,
    label_extractor: LabelExtractor | None = None,
    registry: MetricsRegistry | None = None,
) -> Any:
    """Count each call that raises, by the class of the exception (`error_type`) and by `function`.

    Args:
        metric_name: the counter; `error_count` without one.
        labels: constant labels; a `function` among them is kept.
        include_traceback: log where it was raised, with files, lines and functions, but never a message.
        counter_name: another word for `metric_name`.
        label_extractor: called with the arguments of a call that failed.
        registry: the process's without one.
    """
    if is_function(metric_name):
        return track_errors()(metric_name)
    name = counter_name if metric_name is None else metric_name
    return ErrorCount(name, labels, label_extractor, registry, trace=include_traceback)
