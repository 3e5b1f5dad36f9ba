"""The engine under the decorators: watch a function's calls without changing one of them.

What is wrapped stays the kind of function that it is and returns, yields and raises the very same objects. Whatever the
watching raises is counted and goes nowhere; but for a KeyboardInterrupt, which is the user's and comes at any moment.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import types
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar, cast

from ..call import status_of
from ..guard import note

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any] | staticmethod[..., Any]")

SUCCESS, ERROR, CANCELLED = "success", "error", "cancelled"


class Observation(Protocol):
    """One call in progress, as whoever watches it sees it."""

    __slots__ = ()

    def item(self, value: object) -> None:
        """A generator yields `value`. Called only where a class has one of its own."""
        return

    def end(self, outcome: str, result: object, error: BaseException | None) -> None:
        """The call is over: exactly once.

        Args:
            outcome: success, error, or cancelled (a cancelled task, a generator closed or dropped before its end, the
                end of the program).
            result: what it returned; None of an async generator, and where there is an `error`.
            error: what it raised; also where it is cancelled, if not by a generator that accepted its end.
        """


# What is called when a call begins; of a generator, when it is first advanced. The arguments are the call's own, with
# `self` and `cls`, and not to be changed. None: nothing is to be seen.
Open = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Observation | None]


def wrapped(function: Callable[P, R], open_observation: Open) -> Callable[P, R]:
    """`function`, with `open_observation` called for each of its calls.

    Takes whatever can be called, and what makes methods of it (classmethod, staticmethod), and gives the same kind.
    Only a wrong argument of a coroutine or generator function is told later than it was, when that begins to run.

    Raises:
        TypeError: `function` is a class, or nothing that can be called.
    """
    given: Any = function
    if isinstance(given, (classmethod, staticmethod)):
        return cast("Callable[P, R]", type(given)(wrapped(given.__func__, open_observation)))
    if isinstance(given, type) or not callable(given):
        raise TypeError(f"only functions and methods are decorated, not {_described(given)}")
    call = _MAKERS[kind_of(given)](given, open_observation)
    if type(given) is types.FunctionType:
        return cast("Callable[P, R]", functools.wraps(given)(call))
    from .proxies import proxy

    return cast("Callable[P, R]", proxy(given, call))


def kind_of(function: Any) -> str:
    """What calling `function` makes: a plain value, a coroutine, a generator or an async_generator."""
    while isinstance(function, functools.partial):
        function = function.func
    for each in (function, getattr(function, "__call__", None)):  # noqa: B004 - its own, where it is an object
        if inspect.isasyncgenfunction(each):
            return "async_generator"
        if inspect.iscoroutinefunction(each):
            return "coroutine"
        if inspect.isgeneratorfunction(each):
            return "awaitable_generator" if _is_awaitable(each) else "generator"
    return "plain"


def _is_awaitable(function: Any) -> bool:
    return bool(getattr(function, "__code__", _plain.__code__).co_flags & inspect.CO_ITERABLE_COROUTINE)


def _described(given: object) -> str:
    return f"the class {given.__name__}: decorate its methods" if isinstance(given, type) else type(given).__name__


# ---------------------------------------------------------------------- what is caught


def caught(problem: BaseException) -> None:
    """Count what watching raised."""
    if isinstance(problem, KeyboardInterrupt):
        raise problem
    try:
        note("instrument", problem)
    except Exception:  # no stack or memory left, and the call goes on
        pass


def ended(observation: Observation | None, result: object, error: BaseException | None) -> None:
    """End an observation, by `error` if any."""
    if observation is None:
        return
    try:
        outcome = SUCCESS if error is None else CANCELLED if status_of(error) == "cancelled" else ERROR
        observation.end(outcome, result, error)
    except BaseException as problem:
        caught(problem)


def _ended_generator(observation: Observation | None, result: object, *, closed: bool) -> None:
    if observation is None:
        return
    try:
        observation.end(CANCELLED if closed else SUCCESS, result, None)
    except BaseException as problem:
        caught(problem)


def _seer(observation: Observation | None) -> Callable[[object], None] | None:
    """What is to be told of each item; None where nobody asks."""
    if observation is None or getattr(type(observation), "item", None) in (None, Observation.item):
        return None

    def see(value: object) -> None:
        try:
            observation.item(value)
        except BaseException as problem:
            caught(problem)

    return see


# ---------------------------------------------------------------------- one wrapper a kind of function


def _plain(function: Any, open_observation: Open) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            observation = open_observation(function, args, kwargs)
        except BaseException as problem:
            observation = None
            caught(problem)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            ended(observation, None, error)
            raise
        if observation is not None:
            try:
                observation.end("success", result, None)
            except BaseException as problem:
                caught(problem)
        return result

    return call


def _coroutine(function: Any, open_observation: Open) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            observation = open_observation(function, args, kwargs)
        except BaseException as problem:
            observation = None
            caught(problem)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            ended(observation, None, error)
            raise
        if observation is not None:
            try:
                observation.end("success", result, None)
            except BaseException as problem:
                caught(problem)
        return result

    return call


def _generator(function: Any, open_observation: Open) -> Any:
    # Not `yield from`: it closes the inner generator where it should throw, and loses what that returns.
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            observation = open_observation(function, args, kwargs)
        except BaseException as problem:
            observation = None
            caught(problem)
        closed = False
        try:
            see = _seer(observation)
            inner = function(*args, **kwargs)
            sent: Any = None
            thrown: BaseException | None = None
            while True:
                try:
                    items = [inner.send(sent) if thrown is None else inner.throw(thrown)]
                except StopIteration as stop:
                    result = stop.value
                    break
                finally:
                    thrown = None  # it refers to this frame
                if see is not None:
                    see(items[0])
                try:
                    sent = yield items.pop()  # nothing here keeps the item alive
                except BaseException as error:  # thrown in below: in here, it would be the context of others
                    closed = closed or isinstance(error, GeneratorExit)
                    thrown = error
        except BaseException as error:
            ended(observation, None, error)
            raise
        _ended_generator(observation, result, closed=closed)
        return result

    return call


def _awaitable_generator(function: Any, open_observation: Open) -> Any:
    return types.coroutine(_generator(function, open_observation))


def _async_generator(function: Any, open_observation: Open) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            observation = open_observation(function, args, kwargs)
        except BaseException as problem:
            observation = None
            caught(problem)
        closed = False
        try:
            see = _seer(observation)
            inner = function(*args, **kwargs)
            advance = _first(inner)
            thrown: BaseException | None = None
            while True:
                try:
                    items = [await advance]
                except StopAsyncIteration:
                    break
                finally:
                    del advance
                if see is not None:
                    see(items[0])
                try:
                    sent = yield items.pop()
                except BaseException as error:
                    closed = closed or isinstance(error, GeneratorExit)
                    thrown = error
                advance = inner.asend(sent) if thrown is None else inner.athrow(thrown)
                thrown = None
        except BaseException as error:
            ended(observation, None, error)
            raise
        _ended_generator(observation, None, closed=closed)

    return call


def _first(inner: Any) -> Any:
    """The first step of an async generator of which the event loop must not know.

    The loop closes those that it knows when it ends, all at once: ours in the midst of being closed by its wrapper.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return inner.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


_MAKERS: dict[str, Callable[[Any, Open], Any]] = {
    "plain": _plain,
    "coroutine": _coroutine,
    "generator": _generator,
    "awaitable_generator": _awaitable_generator,
    "async_generator": _async_generator,
}


# ---------------------------------------------------------------------- decorator and block in one


class Block:
    """What decorates a function, and is a block with `with` or `async with`. Subclasses say what an entry opens.

    One block may be entered many times at once, in itself and in other threads and tasks.
    """

    def _open(
        self, function: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Observation | None:
        """As an `Open`; the function is None, and there are no arguments, where a block is entered."""
        raise NotImplementedError

    def __call__(self, function: F) -> F:
        """The function, with each of its calls seen."""
        return cast("F", wrapped(cast("Callable[..., Any]", function), self._open))

    def __enter__(self) -> Self:
        try:
            entry = _whose(), self._open(None, (), {})
            self.__dict__.setdefault("_entered", []).append(entry)
        except BaseException as problem:
            caught(problem)
            self.__dict__.setdefault("_entered", []).append((_whose(), None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended(self._leave(), None, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended(self._leave(), None, error)

    def _leave(self) -> Observation | None:
        entered: list[tuple[tuple[int, int], Observation | None]] = self.__dict__.get("_entered", [])
        whose = _whose()
        for entry in reversed(entered[:]):
            if entry[0] == whose:
                entered.remove(entry)
                return entry[1]
        try:  # entered in one task or thread and left in another, as fixtures and dependencies are
            return entered.pop()[1]
        except IndexError:
            return None


def _whose() -> tuple[int, int]:
    """The thread and the asyncio task that runs."""
    task = 0
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            if asyncio._get_running_loop() is not None:
                task = id(asyncio.current_task())
        except Exception:  # another thread is importing it
            pass
    return threading.get_ident(), task
