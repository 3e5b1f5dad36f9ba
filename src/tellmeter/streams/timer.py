"""The timer that looks at running streams when there is something to tell: one thread for all of them."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque

from ..guard import guarded
from ..pipeline import lifecycle
from ..pipeline.bell import Bell
from .running import Running

_NEVER = 2**63
_CROWD = 1024  # streams that ended long before they are due are let go when so many more are there
_TICK = 10_000_000  # nanoseconds: what is due within it is looked at together, one waking for many streams
_FORK_SECONDS = 1.0  # a look takes microseconds

clock = time.perf_counter_ns


class Timer:
    """Looks at each stream when it is due. `watch` and `hurry` append to a queue, and wait for nothing."""

    def __init__(self) -> None:
        self._begin()
        lifecycle.join(self)

    def _begin(self) -> None:
        self._new: deque[Running] = deque()
        self._heap: list[tuple[int, int, Running]] = []  # due, a number that tells equals apart
        self._crowded = _CROWD
        self._numbers = itertools.count()
        self._bell = Bell()
        self._wakes_at = 0  # while it is awake, it sees what is new by itself
        self._looking = threading.Lock()

    def watch(self, running: Running, due: int) -> None:
        """Look at a stream when it is due (`time.perf_counter_ns`), and again whenever it says so."""
        running.due = due
        self._new.append(running)
        bell = self._bell
        if due >= self._wakes_at and not bell.not_started and len(self._new) % _CROWD:
            return
        try:
            bell.not_started.pop()
        except IndexError:
            bell.ring()
            return
        try:
            threading.Thread(target=self._run, args=(bell,), name="tellmeter-streams", daemon=True).start()
        except RuntimeError:  # the interpreter is ending, and every stream with it
            bell.not_started.append(None)

    def _run(self, bell: Bell) -> None:
        while bell is self._bell:
            with self._looking:
                self._turn(clock())
            self._wakes_at = max(self._heap[0][0], clock() + _TICK) if self._heap else _NEVER
            if not self._new:  # asked after the time is up: who appends later sees it
                bell.wait(max(0.0, (self._wakes_at - clock()) / 1e9) if self._heap else -1.0)
            self._wakes_at = 0

    def _turn(self, now: int) -> None:
        heap = self._heap
        while self._new:
            running = self._new.popleft()
            heapq.heappush(heap, (running.due, next(self._numbers), running))
        if len(heap) > self._crowded:
            heap[:] = [one for one in heap if not one[2].over]
            heapq.heapify(heap)
            self._crowded = 2 * len(heap) + _CROWD
        while heap and heap[0][0] <= now:
            due, _, running = heapq.heappop(heap)
            if running.over or due != running.due:
                continue  # it was hurried, and is there twice
            again = guarded("stream_report", running.look, now, default=0)
            if again:
                running.due = again
                heapq.heappush(heap, (again, next(self._numbers), running))

    # ------------------------------------------------------------------ the process's life

    def before_fork(self) -> None:
        """Let no stream's lock be held by the timer."""
        self._looking.acquire(timeout=_FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        try:
            self._looking.release()
        except RuntimeError:  # a look took too long to wait for
            pass

    def after_fork(self) -> None:
        """The parent tells of the streams that were running."""
        self._begin()

    def at_exit(self, deadline: float) -> None:
        """Nothing: what is still running is ended by its collector."""


TIMER = Timer()
