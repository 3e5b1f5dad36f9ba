"""Calls that a block of code is said to be: where the very call is seen inside, that one counts, and they step back."""

from __future__ import annotations

import contextvars
from types import TracebackType
from typing import Any

from .call import Call
from .context import Enclosing, enclosing, reset

_ASIDE = frozenset({"embeddings", "count_tokens"})  # what code does beside generating
_MOST_INSIDE = 16  # calls inside that are remembered; one is enough, unless it turns out to be none


class OuterCall(Call):
    """A call that knows of the calls that begin inside it."""

    inside: list[Any]  # is there once a call began inside
    _generated = False

    def contain(self, call: object) -> None:
        """Note a call inside; from here on it is the one in progress."""
        if self.ended:  # a task that this call started outlives it
            return
        self.target.open_calls.pop(id(self), None)
        inside = self.__dict__.setdefault("inside", [])
        if len(inside) < _MOST_INSIDE:
            inside.append(call)

    def generated_inside(self) -> bool:
        """Whether a call inside that is counted is this one."""
        if not self._generated and "inside" in self.__dict__:
            aside = _ASIDE - {self.operation}
            self._generated = any(call.operation not in aside and call.is_recorded() for call in self.inside)
        return self._generated


class BlockCall(OuterCall):
    """A call as a context manager, sync or async. A call inside counts in its place where both have one collector."""

    _token: contextvars.Token[Enclosing | None] | None = None

    def contain(self, call: object) -> None:
        """As the base's, of calls that are recorded where this one is; another block is another call."""
        if getattr(call, "target", None) is self.target and not isinstance(call, BlockCall):
            super().contain(call)

    def __enter__(self) -> BlockCall:
        self._token = enclosing.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            reset(enclosing, self._token)
            self._token = None
        if self.generated_inside():
            self.discard()
        self.end(error=error)
        self.__dict__.pop("inside", None)  # tasks that the block started may keep this for ever

    async def __aenter__(self) -> BlockCall:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
