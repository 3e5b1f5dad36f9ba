"""Callables that are no functions: partials, bound methods, caches, objects with `__call__`. They stay so."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import wrapt

_Proxy: Any = wrapt.ObjectProxy  # wrapt 1 has no types, wrapt 2 a generic one


class _Called(_Proxy):  # type: ignore[misc]
    """An object that is called another way, and is itself in all else."""

    def __init__(self, given: Any, call: Callable[..., Any]) -> None:
        super().__init__(given)
        self._self_call = call

    @property
    def __call__(self) -> Callable[..., Any]:
        # A property, so that who asks whether `thing.__call__` is a coroutine function gets the answer.
        call: Callable[..., Any] = self._self_call
        return call

    def __copy__(self) -> Any:
        return copy.copy(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # A copy, in another process too, is one of what was given, as it was. Functions are pickled by their names.
        return _itself, (self.__wrapped__,)


class _Bound(_Called):
    """As `_Called`, of what becomes a method in a class."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        own = self.__wrapped__
        bound = own.__get__(instance, owner)
        if bound is own or instance is None:
            return self
        return types.MethodType(self, instance)


def _itself(given: Any) -> Any:
    return given


def proxy(given: Any, call: Callable[..., Any]) -> Any:
    """`given`, called as `call`."""
    return (_Bound if hasattr(type(given), "__get__") else _Called)(given, call)
