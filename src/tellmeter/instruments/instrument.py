"""What the decorators share: constant labels, those that a function finds in a call's arguments, and names."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..guard import note
from ..registry.names import clean_name
from ..registry.registry import MetricsRegistry
from .metric import CounterMetric, GaugeMetric, HistogramMetric
from .wrapping import Block, F, Observation, Open, wrapped

Labels = Mapping[str, Any] | None
# Gets exactly what the call gets, with `self` and `cls`, and returns the labels of that call.
LabelExtractor = Callable[..., Mapping[str, Any]]
Extract = Callable[[tuple[Any, ...], dict[str, Any]], "dict[str, Any] | None"]


class Instrument(Block):
    """A decorator and block that records. Subclasses bind their metrics to a function in `_opener`.

    Args:
        labels: the constant labels; what is no mapping is counted, and none.
        label_extractor: called with a call's arguments as it begins; its dict wins over `labels`. What it raises, or
            returns instead of a dict, is counted, and the call has the constant labels alone.
        registry: the process's without one.
    """

    def __init__(
        self,
        labels: Labels = None,
        label_extractor: LabelExtractor | None = None,
        registry: MetricsRegistry | None = None,
    ) -> None:
        self._labels = _constant(labels)
        self._extract = None if label_extractor is None else _extract_with(label_extractor)
        self._registry = registry
        self._block: Open | None = None

    def _opener(self, function: Callable[..., Any] | None) -> Open:
        """What opens the observations of one function, or of the block where it is None."""
        raise NotImplementedError

    def __call__(self, function: F) -> F:
        """The function, with each of its calls recorded."""
        decorated = cast("Callable[..., Any]", function)
        return cast("F", wrapped(decorated, self._opener(decorated)))

    def _open(
        self, function: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Observation | None:
        if self._block is None:
            self._block = self._opener(None)
        return self._block(_no_function, args, kwargs)

    def _of_call(self, function: Callable[..., Any] | None) -> Extract | None:
        """What finds the labels of a call; a block has no arguments to find them in."""
        return None if function is None else self._extract

    def _counter(self, name: Any, own: str = "", *, fill: bool = False, **labels: Any) -> CounterMetric:
        return CounterMetric(name, {**labels, **self._labels}, own, registry=self._registry, fill=fill)

    def _gauge(self, name: Any, *, fill: bool = False, **labels: Any) -> GaugeMetric:
        return GaugeMetric(name, {**labels, **self._labels}, registry=self._registry, fill=fill)

    def _histogram(
        self, name: Any, own: str = "", *, seconds: bool = False, buckets: Any = None, fill: bool = False, **labels: Any
    ) -> HistogramMetric:
        return HistogramMetric(
            name,
            {**labels, **self._labels},
            own,
            registry=self._registry,
            seconds=seconds,
            buckets=buckets,
            fill=fill,
        )


class Named(Instrument):
    """An instrument with one metric, whose name is given, or that of the function and a suffix."""

    def __init__(
        self,
        name: Any,
        labels: Labels = None,
        label_extractor: LabelExtractor | None = None,
        registry: MetricsRegistry | None = None,
    ) -> None:
        super().__init__(labels, label_extractor, registry)
        self._name = name

    def _name_for(self, function: Callable[..., Any] | None, suffix: str) -> Any:
        base = base_name(function) if self._name is None else None
        return self._name if base is None else f"{base}{suffix}"


def _no_function() -> None:
    """What a block is said to be of."""


def is_function(given: object) -> bool:
    """Whether a decorator that stands without parentheses got what it decorates as its first argument."""
    return callable(given) or isinstance(given, (classmethod, staticmethod))


def _constant(labels: Any) -> dict[str, Any]:
    if labels is None:
        return {}
    try:
        if isinstance(labels, Mapping):
            return dict(labels)
        raise TypeError(type(labels).__name__)  # noqa: TRY301 - counted in one place
    except Exception as error:
        note("labels", error)
        return {}


def _extract_with(extractor: LabelExtractor) -> Extract:
    def extract(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        try:
            found: Any = extractor(*args, **kwargs)
            if isinstance(found, Mapping):
                return dict(found)
            if isinstance(found, types.CoroutineType):
                found.close()  # nobody is there to await it
            raise TypeError(type(found).__name__)  # noqa: TRY301 - as above
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            note("label_extractor", error)
            return None

    return extract


# ---------------------------------------------------------------------- names


def function_name(function: Any) -> str:
    """What a function is called; an object by its class."""
    name = getattr(_innermost(function), "__name__", None)
    return name if isinstance(name, str) else type(_innermost(function)).__name__


def base_name(function: Callable[..., Any] | None) -> str | None:
    """What metrics of a function that got no name begin with: its module and its name, as a valid name.

    `__main__` is left out: it names no module. None for a block, whose metrics then cannot be: it needs a name.
    """
    if function is None:
        return None
    module = getattr(_innermost(function), "__module__", None)
    where = module if isinstance(module, str) and module != "__main__" else ""
    name = clean_name(f"{where}_{function_name(function)}")
    return re.sub("__+", "_", name).strip("_") or "function"


def _innermost(function: Any) -> Any:
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, (classmethod, staticmethod)) or inspect.ismethod(function):
            function = function.__func__
        else:
            return function
