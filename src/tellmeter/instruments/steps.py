"""Generators whose steps run inside something, while what consumes them runs outside of it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Protocol

from .wrapping import _first


class Inside(Protocol):
    """What the steps run inside of."""

    def enter(self) -> None:
        """A step begins; the first one is entered by whoever opened the call. Never raises."""

    def leave(self) -> None:
        """The step is over, in the same context. Never raises."""


def stepwise(function: Any, kind: str, inside_of: Callable[[], Inside | None]) -> Any:
    """The generator or async generator function `function`, as its `kind` says, with each step inside `inside_of()`.

    That is asked in the first step. A context variable that was set for all of it would hold for the consumer's own
    code between two items, and two generators that take turns would restore each other's.
    """
    if kind == "async_generator":
        return functools.wraps(function)(_async_steps(function, inside_of))
    return functools.wraps(function)(_steps(function, inside_of))


def _steps(function: Any, inside_of: Callable[[], Inside | None]) -> Any:
    # As in `wrapping`: no `yield from`, and nothing here keeps an item alive.
    def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inside = inside_of()
        inner = function(*args, **kwargs)
        sent: Any = None
        thrown: BaseException | None = None
        while True:
            try:
                items = [inner.send(sent) if thrown is None else inner.throw(thrown)]
            except StopIteration as stop:
                return stop.value
            finally:
                sent = thrown = None
                if inside is not None:
                    inside.leave()
            try:
                sent = yield items.pop()
            except BaseException as error:
                thrown = error
            if inside is not None:
                inside.enter()

    return steps


def _async_steps(function: Any, inside_of: Callable[[], Inside | None]) -> Any:
    async def steps(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        inside = inside_of()
        inner = function(*args, **kwargs)
        advance = _first(inner)
        thrown: BaseException | None = None
        sent: Any = None
        while True:
            try:
                items = [await advance]
            except StopAsyncIteration:
                return
            finally:
                del advance
                if inside is not None:
                    inside.leave()
            try:
                sent = yield items.pop()
            except BaseException as error:
                thrown = error
            if inside is not None:
                inside.enter()
            advance = inner.asend(sent) if thrown is None else inner.athrow(thrown)
            sent = thrown = None

    return steps
