"""An event loop in a thread of its own, for the sync twins of what is async. One for the process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from ..errors import ConfigError

T = TypeVar("T")

_CANCEL_SECONDS = 5.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives, run on the background loop in a copy of the caller's context.

    An interrupt of the waiting thread (Ctrl-C) cancels it.

    Raises:
        ConfigError: called on the background loop itself, which would wait for itself for ever.
    """
    if threading.current_thread() is _thread:
        coroutine.close()
        raise ConfigError("a sync method was called in a callback of a sync method; use the async one there")
    over = threading.Lock()  # let go of when it is over: a Future takes twice as long, and a stream has many steps
    over.acquire()
    came: list[tuple[T | None, BaseException | None]] = []
    untold = [None]
    begun: list[asyncio.Task[None]] = []

    async def told() -> None:
        try:
            came.append((await coroutine, None))
        except BaseException as error:  # an exit of a callback's must not end this loop
            came.append((None, error))
        untold.clear()
        over.release()

    def begin() -> None:
        begun.append(asyncio.create_task(told()))
        begun[0].add_done_callback(unless_told)

    def unless_told(_: object) -> None:
        if untold:  # it was cancelled before it began
            coroutine.close()
            came.append((None, asyncio.CancelledError()))
            over.release()

    def cancel() -> None:
        if begun:
            begun[0].cancel()
        else:  # the interrupt came before anything was begun
            unless_told(None)

    loop = _running()
    try:
        loop.call_soon_threadsafe(begin)
        over.acquire()
    except BaseException:
        loop.call_soon_threadsafe(cancel)
        over.acquire(timeout=_CANCEL_SECONDS)  # a generator whose step still runs could not be closed
        raise
    found, error = came.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error  # it refers to this frame
    return cast("T", found)


def _running() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_serve, args=(_loop,), name="tellmeter-client", daemon=True)
            _thread.start()
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _after_fork() -> None:
    """The thread is not in the child: its next call starts another."""
    global _lock, _loop, _thread
    _lock = threading.Lock()
    _loop = _thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
