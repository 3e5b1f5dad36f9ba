"""The end of a multiprocessing worker, which leaves by os._exit and runs no atexit handlers, only finalizers.

A worker of the method spawn is a process like any other in this: atexit is enough there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

_acts: dict[Callable[[], object], int] = {}
_finalizers: dict[Callable[[], object], Any] = {}
_hooked = False


def at_worker_end(act: Callable[[], object], priority: int) -> None:
    """Call `act` when this process, or one that it starts, ends as a forked worker; higher priorities first."""
    _acts[act] = priority
    _hook()


def _hook() -> None:
    """Asked again before each fork: multiprocessing may have been imported since, and is never imported by us.

    A worker forgets the finalizers that it had before its work began (under forkserver it has imported the program by
    then), and then calls what is registered for after a fork.
    """
    global _hooked
    util = sys.modules.get("multiprocessing.util")
    if util is None or not _acts:
        return
    if not _hooked:
        _hooked = True
        util.register_after_fork(_hook, _finalize)
    _finalize()


def _finalize(_: object = None) -> None:
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None:
        return
    for act, priority in _acts.items():
        former = _finalizers.get(act)
        if former is None or not former.still_active():
            _finalizers[act] = util.Finalize(None, act, exitpriority=priority)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hook)
