"""Blocks of code inside a span, or with a baggage: with `with` and `async with`, and out again in any context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..call import status_of
from ..guard import note
from .backend import backend
from .noop import Span
from .w3c import Member

T = TypeVar("T")


class Attached:
    """A context that code runs in; None where it could not be made. Nothing here raises."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._token: Any = None

    def enter(self) -> None:
        """What runs from here on is in the context."""
        if self._context is None:
            return
        try:
            self._token = backend().attach(self._context)
        except Exception as error:
            note("tracing", error)

    def leave(self) -> None:
        """What runs from here on is not; what the code in it had attached is there again at the next `enter`."""
        token, self._token = self._token, None
        if token is None:
            return
        try:
            self._context = backend().current()
            backend().detach(token)
        except Exception as error:
            note("tracing", error)

    def is_running(self) -> bool:
        """Whether the running code is in it, and in nothing that was attached since."""
        try:
            return backend().current() is self._context
        except Exception as error:
            note("tracing", error)
            return False

    def close(self, error: BaseException | None) -> None:
        """Leave it for good, by `error` if any."""
        self.leave()
        self._context = None


class OpenSpan(Attached):
    """A span in progress, and the context in which code runs inside of it."""

    __slots__ = ("span",)

    def __init__(self, span: Span, context: Any) -> None:
        super().__init__(context)
        self.span = span

    def close(self, error: BaseException | None) -> None:
        """End the span; a cancellation is no error of it."""
        super().close(error)
        try:
            if error is not None and status_of(error) != "cancelled":
                backend().fail(self.span, error)
        except Exception as problem:
            note("tracing", problem)
        try:
            self.span.end()
        except Exception as problem:  # a span processor of the program's
            note("tracing", problem)


A = TypeVar("A", bound=Attached)


class Scope(Generic[A, T]):
    """A block with `with` and `async with`, which may be entered again: in itself, and in other tasks and threads."""

    __slots__ = ("_begin", "_open")

    def __init__(self, begin: Callable[[], A]) -> None:
        self._begin = begin
        self._open: list[A] = []

    def _value(self, opened: A) -> T:
        """What the block yields."""
        raise NotImplementedError

    def __enter__(self) -> T:
        opened = self._begin()
        self._open.append(opened)
        opened.enter()
        return self._value(opened)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered = self._open[::-1]
        for opened in [opened for opened in entered if opened.is_running()] or entered:
            try:
                self._open.remove(opened)
            except ValueError:  # another thread was quicker
                continue
            opened.close(error)
            return

    async def __aenter__(self) -> T:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class SpanScope(Scope[OpenSpan, Span]):
    """A block inside a new span, which it yields."""

    __slots__ = ()

    def _value(self, opened: OpenSpan) -> Span:
        return opened.span


class BaggageScope(Scope[Attached, None]):
    """A block whose outgoing requests carry a value more."""

    __slots__ = ()

    def __init__(self, members: Mapping[str, Member]) -> None:
        super().__init__(lambda: _with_baggage(members))

    def _value(self, opened: Attached) -> None:
        return


def _with_baggage(members: Mapping[str, Member]) -> Attached:
    try:
        return Attached(backend().with_baggage(members, backend().current()))
    except Exception as error:
        note("tracing", error)
        return Attached(None)
