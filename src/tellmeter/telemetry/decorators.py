"""A span around each call of a function: trace_operation, trace_method."""

from __future__ import annotations

import contextvars
import inspect
import reprlib
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, cast, overload

from ..guard import note
from ..instruments.instrument import _innermost, function_name, is_function
from ..instruments.steps import stepwise
from ..instruments.wrapping import SUCCESS, F, Observation, Open, kind_of, wrapped
from .fitting import fit_attributes
from .scopes import OpenSpan
from .tracing import get_tracing_manager

_GENERATORS = ("generator", "async_generator")
_SHOWN = 1000  # characters of arguments, and of a result

# The span of the generator that is about to take its first step.
_begun: contextvars.ContextVar[OpenSpan | None] = contextvars.ContextVar("tellmeter_begun_span", default=None)

_shorten = reprlib.Repr()  # bounded in depth and width, whatever it is shown
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = _SHOWN


class _Traced(Observation):
    """One call: its span, and what it returned where that is asked for."""

    __slots__ = ("_opened", "_record_result")

    def __init__(self, opened: OpenSpan, record_result: bool) -> None:
        self._opened = opened
        self._record_result = record_result

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        try:
            if self._record_result and outcome == SUCCESS:
                self._opened.span.set_attribute("result", _shown(result))
        finally:
            self._opened.close(error)


class Tracing:
    """What the decorators give: see `trace_operation`."""

    def __init__(
        self,
        name: str | None,
        kind: Any,
        attributes: Mapping[str, Any] | None,
        *,
        record_args: bool,
        record_result: bool,
        of_class: bool,
    ) -> None:
        self._name = name
        self._kind = kind
        self._attributes = fit_attributes(attributes)
        self._record_args = record_args
        self._record_result = record_result
        self._of_class = of_class

    def __call__(self, function: F) -> F:
        """The function, with each of its calls in a span. Raises TypeError for a class, or what cannot be called."""
        given: Any = function
        if isinstance(given, (classmethod, staticmethod)):
            return cast("F", type(given)(self(given.__func__)))
        kind = kind_of(given) if type(given) is FunctionType else ""
        in_steps = kind in _GENERATORS
        opener = self._opener(given, in_steps)
        return cast("F", wrapped(stepwise(given, kind, _begun_span) if in_steps else given, opener))

    def _opener(self, function: Any, in_steps: bool) -> Open:
        inner = _innermost(function)
        qualified = getattr(inner, "__qualname__", None) or function_name(inner)
        module = getattr(inner, "__module__", None) or ""
        attributes = {**self._attributes, "code.function.name": f"{module}.{qualified}"}
        plain = f"{module}.{function_name(inner)}"
        own = 1 if self._record_args and _has_self(function) else 0

        def open_span(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation:
            name = self._name or (_method_name(qualified, args) if self._of_class else plain)
            known = attributes
            if self._record_args:
                known = {**attributes, "args": _shown(args[own:]), "kwargs": _shown(kwargs)}
            opened = get_tracing_manager().begin(name, None, self._kind, known)
            opened.enter()
            if in_steps:
                _begun.set(opened)
            return _Traced(opened, self._record_result)

        return open_span


def _begun_span() -> OpenSpan | None:
    opened = _begun.get()
    _begun.set(None)
    return opened


def _method_name(qualified: str, args: tuple[Any, ...]) -> str:
    """`Class.method`, of the class that the method is called on, where that derives from the one that defines it."""
    owner, _, method = qualified.rpartition("<locals>.")[2].rpartition(".")
    if args and owner:
        called_on = args[0] if isinstance(args[0], type) else type(args[0])
        if any(base.__name__ == owner for base in called_on.__mro__):
            return f"{called_on.__name__}.{method}"
    return f"{owner}.{method}" if owner else method


def _has_self(function: Any) -> bool:
    try:
        return next(iter(inspect.signature(function).parameters), None) in {"self", "cls"}
    except Exception:  # a builtin, or an object that lies about itself
        return False


def _shown(value: object) -> str:
    try:
        return _shorten.repr(value)[:_SHOWN]
    except Exception as error:  # the program's own __repr__
        note("span_attributes", error)
        return type(value).__name__


@overload
def trace_operation(name: F, /) -> F: ...
@overload
def trace_operation(
    name: str | None = None,
    kind: Any = None,
    attributes: Mapping[str, Any] | None = None,
    record_args: bool = False,
    record_result: bool = False,
) -> Tracing: ...
def trace_operation(
    name: Any = None,
    kind: Any = None,
    attributes: Mapping[str, Any] | None = None,
    record_args: bool = False,
    record_result: bool = False,
) -> Any:
    """Have each call of a function in a span; of a generator, from its first step to its end.

    Works on functions, coroutine functions, generators, async generators and methods of all kinds. What it raises is
    recorded by its class. What consumes a generator is not inside its span.

    Args:
        name: of the span; `module.function` without one.
        kind: as of `start_span`.
        attributes: constant ones, beside `code.function.name`.
        record_args: set `args` and `kwargs`, as `repr()` shows them, at most 1,000 characters each and without `self`.
            They go wherever the spans go.
        record_result: set `result` likewise; a generator that yields to its end has what it returns.
    """
    return _tracing(name, kind, attributes, record_args, record_result, of_class=False)


@overload
def trace_method(name: F, /) -> F: ...
@overload
def trace_method(
    name: str | None = None,
    kind: Any = None,
    attributes: Mapping[str, Any] | None = None,
    record_args: bool = False,
    record_result: bool = False,
) -> Tracing: ...
def trace_method(
    name: Any = None,
    kind: Any = None,
    attributes: Mapping[str, Any] | None = None,
    record_args: bool = False,
    record_result: bool = False,
) -> Any:
    """As `trace_operation`; the span's name is `Class.method`, of the class that the method is called on."""
    return _tracing(name, kind, attributes, record_args, record_result, of_class=True)


def _tracing(
    name: Any, kind: Any, attributes: Mapping[str, Any] | None, args: bool, result: bool, *, of_class: bool
) -> Callable[[Any], Any]:
    bare = is_function(name)
    tracing = Tracing(
        None if bare else name, kind, attributes, record_args=args, record_result=result, of_class=of_class
    )
    return cast("Callable[[Any], Any]", tracing(name) if bare else tracing)
