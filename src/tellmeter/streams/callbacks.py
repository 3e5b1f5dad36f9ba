"""Users' functions that are told of streams: called where they delay no stream, nor each other.

Each has a lane with a thread of its own, so that a slow one keeps nobody waiting. A coroutine function runs on the
event loop that the stream was begun on, while that runs, and else on one of its lane's own.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, wait
from typing import Any

from ..counts import count
from ..guard import note
from ..pipeline.bell import Bell
from .options import Callback
from .report import StreamReport

MAX_WAITING = 10_000
"""Reports that wait for one function; what comes then is dropped and counted."""
MAX_LANES = 16

_Job = tuple[Callback, StreamReport]


def tell(callback: Callback, report: StreamReport, loop: Any = None) -> None:
    """Have `callback(report)` called, on `loop` if it is a coroutine function; never blocks, never raises.

    A report of a stream's progress is dropped, and counted, while the function has not yet done with the one before.
    """
    try:
        _lane_of(callback).put(callback, report, loop)
    except Exception as error:
        note("stream_callback", error)


def settle(deadline: float) -> None:
    """Wait until what was to be told is told, at most until `deadline` (`time.monotonic`)."""
    for lane in list(_lanes.values()):
        lane.settle(deadline)


class _Lane:
    """What waits for one function, or for those that share its code."""

    def __init__(self) -> None:
        self._queue: deque[_Job | threading.Event] = deque()
        self._waiting: Counter[str] = Counter()  # by stream, until the function is done with it
        self._behind: set[tuple[int, str]] = set()  # by id of the function and stream, whose report of progress waits
        self._on_loops: dict[Future[None], tuple[Any, Any, list[_Job]]] = {}  # the loop, the coroutine, what it tells
        self._orders: dict[str, Any] = {}  # by stream, an asyncio.Lock: one report after the other
        self._lock = threading.RLock()  # never held while a function is called
        self._bell = Bell()
        self._runner: Any = None

    def put(self, callback: Callback, report: StreamReport, loop: Any) -> None:
        """Take a report for a function."""
        with self._lock:
            progress = report.event == "stream.progress"
            if progress and (id(callback), report.stream_id) in self._behind:
                count("dropped_stream_reports", "behind")
                return
            if len(self._queue) + len(self._on_loops) >= MAX_WAITING:
                count("dropped_stream_reports", "full")
                return
            self._waiting[report.stream_id] += 1
            if progress:
                self._behind.add((id(callback), report.stream_id))
        if loop is None or not _is_async(callback) or not self._put_on(loop, callback, report):
            self._enqueue((callback, report))

    def _done(self, callback: Callback, report: StreamReport) -> None:
        stream = report.stream_id
        with self._lock:
            if report.event == "stream.progress":
                self._behind.discard((id(callback), stream))
            self._waiting[stream] -= 1
            if self._waiting[stream] <= 0:
                del self._waiting[stream]
                self._orders.pop(stream, None)

    # ------------------------------------------------------------------ on the loop of the stream

    def _put_on(self, loop: Any, callback: Callback, report: StreamReport) -> bool:
        import asyncio

        if not loop.is_running():  # nobody would call it, or some time or other
            self._take_back()
            return False
        order = self._orders.setdefault(report.stream_id, asyncio.Lock())
        not_begun = [(callback, report)]  # whoever pops it calls the function
        begun = False

        async def told() -> None:
            nonlocal begun
            async with order:
                if not not_begun:
                    return
                not_begun.pop()
                begun = True
                try:
                    await _called(callback, report)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # SystemExit and the like would end the user's loop
                    note("stream_callback", error)

        def ended(future: Future[None]) -> None:
            self._on_loops.pop(future, None)
            if begun:
                self._done(callback, report)
            else:  # the loop was ended before its turn came
                self._move(not_begun)

        awaited = told()
        try:
            future = asyncio.run_coroutine_threadsafe(awaited, loop)
        except RuntimeError:  # it is closed
            awaited.close()
            return False
        self._on_loops[future] = (loop, awaited, not_begun)
        future.add_done_callback(ended)
        return True

    def _take_back(self) -> None:
        """Have the lane's thread tell what waits for loops that stand still, and may never run again."""
        for future, (loop, awaited, not_begun) in list(self._on_loops.items()):
            if not loop.is_running() and self._move(not_begun):
                self._on_loops.pop(future, None)
                awaited.close()

    def _move(self, not_begun: list[_Job]) -> bool:
        try:
            job = not_begun.pop()
        except IndexError:
            return False
        self._enqueue(job)
        return True

    # ------------------------------------------------------------------ on a thread of the lane

    def _enqueue(self, job: _Job | threading.Event) -> None:
        bell = self._bell
        self._queue.append(job)
        if not bell.asleep:
            return
        bell.asleep = False
        try:
            bell.not_started.pop()
        except IndexError:
            bell.ring()
            return
        try:
            threading.Thread(target=self._run, args=(bell,), name="tellmeter-callback", daemon=True).start()
        except RuntimeError:  # the interpreter is ending: `settle` calls them
            bell.not_started.append(None)
            bell.asleep = True

    def _run(self, bell: Bell) -> None:
        while True:
            while self._queue:
                self._take()
            bell.asleep = True
            if not self._queue:  # asked after the flag is up: who appends later rings
                bell.wait()
            bell.asleep = False

    def _take(self) -> None:
        try:
            job = self._queue.popleft()
        except IndexError:
            return
        if isinstance(job, threading.Event):
            job.set()
            return
        callback, report = job
        try:
            result = callback(report)
            if inspect.isawaitable(result):
                self._await(result)
        except BaseException as error:
            note("stream_callback", error)
        finally:
            self._done(callback, report)

    def _await(self, result: Any) -> None:
        import asyncio

        async def awaited() -> None:
            await result

        if self._runner is None:
            self._runner = asyncio.Runner()
        self._runner.run(awaited())

    def settle(self, deadline: float) -> None:
        """Wait until what is here now is told."""
        self._take_back()
        reached = threading.Event()
        self._enqueue(reached)
        if self._bell.not_started:  # no thread is to be had any more
            while self._queue and time.monotonic() < deadline:
                self._take()
        if not reached.wait(max(0.0, deadline - time.monotonic())):
            with contextlib.suppress(ValueError):  # it was reached just now
                self._queue.remove(reached)
        if not _inside_a_loop():  # which could not go on while it waits for itself
            wait(list(self._on_loops), max(0.0, deadline - time.monotonic()))


async def _called(callback: Callback, report: StreamReport) -> None:
    result = callback(report)
    if inspect.isawaitable(result):
        await result


def _is_async(callback: Callback) -> bool:
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(callback, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def _inside_a_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_lanes: dict[Any, _Lane] = {}


def _lane_of(callback: Callback) -> _Lane:
    while isinstance(callback, functools.partial):
        callback = callback.func
    # By code, not by object: a function that is made anew for each call has one lane all the same.
    key = getattr(getattr(callback, "__func__", callback), "__code__", None) or type(callback)
    lane = _lanes.get(key)
    if lane is None:
        if len(_lanes) >= MAX_LANES:
            return list(_lanes.values())[hash(key) % MAX_LANES]
        lane = _lanes.setdefault(key, _Lane())
    return lane


if hasattr(os, "register_at_fork"):  # what waits is told by the parent
    os.register_at_fork(after_in_child=_lanes.clear)
