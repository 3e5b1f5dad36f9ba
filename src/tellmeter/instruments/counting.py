"""How often calls are made: count_calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from ..process import is_switched_off
from ..registry.registry import MetricsRegistry
from .instrument import Instrument, LabelExtractor, Labels, Named, is_function
from .wrapping import F, Open


class CallCount(Named):
    """A decorator and block that counts what begins."""

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        metric = self._counter(self._name_for(function, "_calls_total"))
        extract = self._of_call(function)

        def count_call(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not is_switched_off():
                metric.series("", None if extract is None else extract(args, kwargs)).inc()

        return count_call


@overload
def count_calls(metric_name: F, /) -> F: ...
@overload
def count_calls(
    metric_name: str | None = None,
    labels: Labels = None,
    label_extractor: LabelExtractor | None = None,
    *,
    registry: MetricsRegistry | None = None,
) -> Instrument: ...
def count_calls(
    metric_name: Any = None,
    labels: Labels = None,
    label_extractor: LabelExtractor | None = None,
    *,
    registry: MetricsRegistry | None = None,
) -> Any:
    """Count each call as it begins, in `metric_name` or `<module>_<function>_calls_total`."""
    if is_function(metric_name):
        return count_calls()(metric_name)
    return CallCount(metric_name, labels, label_extractor, registry)
