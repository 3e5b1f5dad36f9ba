"""The hand-off: callers append in about 0.1 us, one router thread takes what waits and passes it on.

Nothing here takes a lock on the caller's side, so that it is safe in signal handlers, `__del__` and garbage collection.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..counts import value_of
from ..guard import guarded
from .bell import Bell

POLL_SECONDS = 0.05
IDLE_SECONDS = 1.0
SLICE = 128  # how many items are passed on under one hold of the lock, so that a reader never waits long
_RING_EVERY = 512


class Router:
    """A bounded queue and the thread that empties it. `handle` gets lists of at most 128 items, one list at a time.

    `size_of(item)` estimates what an item holds in bytes. The byte bound is approximate (unlocked additions), the
    number of refused items is exact.
    """

    def __init__(
        self,
        handle: Callable[[list[Any]], None],
        size_of: Callable[[Any], int],
        *,
        max_items: int,
        max_bytes: int,
    ) -> None:
        self._handle = handle
        self._size_of = size_of
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._reset()

    def _reset(self) -> None:
        self._queue: deque[Any] = deque()
        self._bytes = 0
        self._refused: itertools.count[int] = itertools.count()
        self._lock = threading.RLock()
        self._bell = Bell()
        self._taken = 0
        self._in_hand = 0

    def put(self, item: Any, size: int) -> bool:
        """Hand an item over; False when the queue is full (counted in `refused`). Never blocks."""
        waiting = len(self._queue)
        if waiting >= self._max_items or self._bytes > self._max_bytes:
            next(self._refused)
            return False
        self._bytes += size
        self._queue.append(item)
        bell = self._bell  # after the item is in the queue: see `rest`
        if bell.asleep:
            self._wake(bell)
        elif waiting % _RING_EVERY == _RING_EVERY - 1:
            bell.ring()
        return True

    def drain(self, timeout: float | None = None) -> bool:
        """Pass on, in the calling thread, what waited when it was called; False when `timeout` seconds did not do.

        With `timeout=0` it does one slice at most, and only if nobody else is at it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        goal: int | None = None
        while True:
            left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            # threading.TIMEOUT_MAX bounds what acquire() takes; -1 waits for ever.
            if not self._lock.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
                return False
            try:
                if goal is None:  # under the lock: no slice is between the queue and the count
                    goal = self._taken + len(self._queue)
                self._take_slice()
                if self._taken >= goal or not self._queue:
                    return True
            finally:
                self._lock.release()
            if deadline is not None and time.monotonic() >= deadline:
                return False

    @property
    def waiting(self) -> int:
        """Items that are not passed on yet."""
        return len(self._queue) + self._in_hand

    @property
    def refused(self) -> int:
        """Items that a full queue did not take."""
        return value_of(self._refused)

    def rest(self) -> None:
        """Let the thread end; the next item starts another. Never blocks."""
        former, self._bell = self._bell, Bell()
        former.ring()
        if self._queue and self._bell.asleep:  # who appended just before did not ring the new one
            self._wake(self._bell)

    def after_fork(self) -> None:
        """The parent owns what waited: start empty, with a new lock and no thread."""
        self._reset()

    def _take_slice(self) -> bool:
        """Pass on up to one slice; whether there was any. Called with the lock held."""
        items: list[Any] = []
        size = 0
        try:
            while len(items) < SLICE:
                item = self._queue.popleft()
                items.append(item)
                size += self._size_of(item)
        except IndexError:
            self._bytes = 0  # additions by several threads may have lost some: an empty queue holds nothing
        else:
            self._bytes -= size
        if items:
            self._in_hand += len(items)
            guarded("router", self._handle, items, default=None)
            self._in_hand -= len(items)
            self._taken += len(items)
        return bool(items)

    def _wake(self, bell: Bell) -> None:
        bell.asleep = False
        try:
            bell.not_started.pop()
        except IndexError:
            bell.ring()
            return
        try:
            threading.Thread(target=self._run, args=(bell,), name="tellmeter-router", daemon=True).start()
        except RuntimeError:  # the interpreter is ending: whoever reads, and the exit, drain without a thread
            bell.not_started.append(None)
            bell.asleep = True

    def _run(self, bell: Bell) -> None:
        idle_since = time.monotonic()
        while bell is self._bell:
            with self._lock:
                busy = self._take_slice()
            now = time.monotonic()
            if busy:
                idle_since = now
                if len(self._queue) >= SLICE:
                    continue
            if now - idle_since < IDLE_SECONDS:
                bell.wait(POLL_SECONDS)
                continue
            bell.asleep = True
            if not self._queue:  # asked after the flag is up: who appends later rings
                bell.wait()
            bell.asleep = False
            idle_since = time.monotonic()
