"""PerLoop: one thing for each event loop, as connections belong to the loop that made them."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Things by event loop. Those of loops that were closed are let go when the next loop asks for its own.

    They refer to their loop, so a weak dictionary would keep both for ever.
    """

    def __init__(self) -> None:
        self._made: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T | None:
        """What the running loop has."""
        return self._made.get(asyncio.get_running_loop())

    def add(self, made: T) -> T:
        """Keep it for the running loop, unless that has one by now; what it has."""
        for loop in list(self._made):
            if loop.is_closed():
                self._made.pop(loop, None)
        return self._made.setdefault(asyncio.get_running_loop(), made)

    def pop(self) -> T | None:
        """What the running loop has, which is its own no longer."""
        return self._made.pop(asyncio.get_running_loop(), None)

    def pop_all(self) -> dict[asyncio.AbstractEventLoop, T]:
        """What each loop has, which is its own no longer."""
        made, self._made = self._made, {}
        return made
