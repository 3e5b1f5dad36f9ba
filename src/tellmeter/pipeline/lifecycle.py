"""The ends of a process that a pipeline must survive: exit, fork, and a multiprocessing worker's own exit."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from typing import Protocol

from .guard import guarded


class Lived(Protocol):
    """What is told of the process's life."""

    def after_fork(self) -> None:
        """In the child: start empty, with new locks; the parent owns what waited."""

    def at_exit(self, deadline: float) -> None:
        """Deliver what waits before `deadline` (of `time.monotonic`), count the rest."""


_generation = 0
_hooked_generation = -1
_fork_hooked = False
_alive: weakref.WeakSet[Lived] = weakref.WeakSet()


def generation() -> int:
    """How many forks lie between this process and the one that began; a call ends only where it began."""
    return _generation


def join(one: Lived) -> None:
    """Tell `one` of forks from now on."""
    global _fork_hooked
    if not _fork_hooked:
        _fork_hooked = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
    _alive.add(one)


def hook_exit() -> None:
    """Tell everybody of this process's exit; called when the first thread starts, so that an idle import leaves no trace."""
    global _hooked_generation
    if _hooked_generation == _generation:
        return
    if _hooked_generation < 0:
        atexit.register(_at_exit)
    _hooked_generation = _generation
    # A forked multiprocessing worker ends by os._exit and runs no atexit handlers, only these finalizers.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _generation > 0:
        util.Finalize(None, _at_exit, exitpriority=-100)


def _after_fork() -> None:
    global _generation
    _generation += 1
    for one in list(_alive):
        guarded("fork", one.after_fork, default=None)


def _at_exit() -> None:
    started = time.monotonic()
    for one in list(_alive):
        guarded("exit", one.at_exit, started, default=None)
