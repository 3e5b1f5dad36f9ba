"""Worker: a sync SDK on an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_Work = Callable[[], Any]


class Worker:
    """A thread that does one thing after the other for the running event loop, in the context in which it was made.

    A daemon of its own, and none of the loop's executor: that has few threads for all, and the program's exit waits
    for them. To be ended with `end`.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[tuple[_Work, asyncio.Future[Any] | None] | None] = queue.SimpleQueue()
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(_work_off, self._loop, self._work), name=name, daemon=True).start()

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """What `work` returns or raises, to be awaited. Who waits may be cancelled; what was begun goes on."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((work, future))
        return future

    def end(self, last: _Work | None = None) -> None:
        """End the thread after what it is at, and after `last`, whose outcome nobody learns."""
        if last is not None:
            self._work.put((last, None))
        self._work.put(None)


def _work_off(
    loop: asyncio.AbstractEventLoop, todo: queue.SimpleQueue[tuple[_Work, asyncio.Future[Any] | None] | None]
) -> None:
    while (given := todo.get()) is not None:
        work, future = given
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        if future is not None:
            try:
                loop.call_soon_threadsafe(_tell, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits
                pass
        del given, work, future, result, error  # while it waits it holds nothing


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
