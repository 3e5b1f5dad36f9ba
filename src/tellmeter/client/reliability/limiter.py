"""Limiter: so many calls at once, whichever threads and event loops they are in."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from ...registry.forks import tell_of_forks
from ..checks import check_number


class Limiter:
    """So many blocks at once, first come, first served: `async with limiter:`.

    There is no lock in it: each step is one operation of a container, atomic in CPython. So a block may end wherever
    the garbage collector closes its coroutine, and who is let in waits for nobody.

    Args:
        limit: blocks at once.

    Raises:
        ConfigError: a limit that is no whole number from 1 to 100,000.
    """

    def __init__(self, limit: int) -> None:
        check_number("concurrency limit", limit, 1, 100_000, whole=True)
        self._limit = limit
        self._begin()
        tell_of_forks(self)

    def _begin(self) -> None:
        # A forked child may leave a block that only the parent entered: that makes no place more than there are.
        self._free: deque[None] = deque([None] * self._limit, maxlen=self._limit)
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()

    @property
    def in_use(self) -> int:
        """How many are in the block."""
        return self._limit - len(self._free)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    async def acquire(self) -> None:
        """Take a place, or wait for one."""
        if not self._waiters:
            try:
                self._free.pop()
            except IndexError:
                pass
            else:
                return
        waiter = _Waiter()
        self._waiters[waiter] = None
        self._let_in()
        try:
            await waiter.future
        except BaseException:
            self._waiters.pop(waiter, None)
            if not waiter.give_up():  # it was let in before it could
                self.release()
            raise

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give a place back, for the next who waits."""
        self._free.append(None)
        self._let_in()

    def _let_in(self) -> None:
        """Give free places to who waits. Whoever made either comes here after it, so that none waits beside a place."""
        while self._free and self._waiters:
            try:
                self._free.pop()
            except IndexError:  # another was faster
                continue
            try:
                waiter, _ = self._waiters.popitem(last=False)
            except KeyError:
                self._free.append(None)
                continue
            if not waiter.let_in():
                self._free.append(None)

    # ------------------------------------------------------------------ fork

    def locks(self) -> list[object]:
        """None."""
        return []

    def after_fork(self) -> None:
        """Who is in a block, or waits for it, is so in the parent."""
        self._begin()


class _Waiter:
    """One who waits, in the event loop that runs. Either it is let in, or it gives up."""

    __slots__ = ("_loop", "_undecided", "future")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()
        self._undecided = [None]

    def let_in(self) -> bool:
        """Wake it, from any thread; False where it gave up or its loop was closed, and the place is for the next."""
        if not self.give_up():
            return False
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            self._undecided.append(None)  # what is left of its coroutine must not leave a block that it never entered
            return False
        return True

    def give_up(self) -> bool:
        """Decide; whether nobody else did before."""
        try:
            self._undecided.pop()
        except IndexError:
            return False
        return True

    def _wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)
