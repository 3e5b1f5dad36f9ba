"""An event loop in a thread of its own, for the sync twins of what is async. One for the process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

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
    ended = threading.Event()

    async def told() -> T:
        try:
            return await coroutine
        finally:
            ended.set()

    waiting = asyncio.run_coroutine_threadsafe(told(), _running())
    try:
        return waiting.result()
    except BaseException:
        if waiting.cancel():
            ended.wait(_CANCEL_SECONDS)  # a generator whose step still runs could not be closed
        raise


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
