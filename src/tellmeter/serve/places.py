"""Places: how many scrapes are worked on at the same time."""

from __future__ import annotations

import os

IN_FLIGHT = 4


class Place:
    """One scrape in flight; `with place:` lets go of it. Free for the next when everybody who works on it has let go.

    A client that leaves while its page is written frees nothing: the page is still being written.
    """

    __slots__ = ("_free", "_holders")

    def __init__(self, free: list[None]) -> None:
        self._free = free
        self._holders = [True]

    def share(self) -> None:
        """One more will let go of it."""
        self._holders.append(False)

    def let_go(self) -> None:
        """Called once by each who works on it, in any order, on any thread."""
        if self._holders.pop():  # the last one's
            self._free.append(None)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.let_go()


class Places:
    """At most `number` places at a time. Lists instead of locks: their pop and append are atomic, and survive a fork.

    A forked child has all places: what its parent was working on is not its own.
    """

    __slots__ = ("_free", "_number", "_process")

    def __init__(self, number: int = IN_FLIGHT) -> None:
        self._number = number
        self._process = os.getpid()
        self._free: list[None] = [None] * number

    def take(self) -> Place | None:
        """A place, or None where all are taken."""
        if self._process != os.getpid():
            self._free = [None] * self._number
            self._process = os.getpid()
        free = self._free
        try:
            free.pop()
        except IndexError:
            return None
        return Place(free)
