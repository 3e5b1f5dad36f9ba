"""The ends of a process that a pipeline must survive: exit, fork, and a multiprocessing worker's own exit."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from typing import Any, Protocol

from ..guard import guarded


class Lived(Protocol):
    """What is told of the process's life."""

    def before_fork(self) -> None:
        """In the parent: let no thread of ours be inside a C library, whose locks the child could never take."""

    def after_fork_in_parent(self) -> None:
        """In the parent: go on."""

    def after_fork(self) -> None:
        """In the child: start empty, with new locks; the parent owns what waited."""

    def at_exit(self, deadline: float) -> None:
        """Deliver what waits before `deadline` (of `time.monotonic`), count the rest."""


forks = 0
"""How many forks lie between this process and the one that began; a call ends only where it began."""
_hooked = -1  # the value of `forks` for which the exit is hooked
_fork_hooked = False
_finalizer: Any = None
_alive: weakref.WeakSet[Lived] = weakref.WeakSet()


def join(one: Lived) -> None:
    """Tell `one` of forks and of the process's exit from now on."""
    global _fork_hooked
    if not _fork_hooked:
        _fork_hooked = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
    _alive.add(one)
    hook_exit()


def hook_exit() -> None:
    """See to it that this process's exit is told; asked again when a forked child gets busy."""
    global _hooked
    if _hooked == forks:
        return
    if _hooked < 0:
        atexit.register(at_exit)
    _hooked = forks
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        _hook_worker()
        util.register_after_fork(at_exit, _hook_worker)


def _hook_worker(_: object = None) -> None:
    """A multiprocessing worker ends by os._exit and runs no atexit handlers, only these finalizers.

    It forgets those that it had before its work began (under forkserver it has imported the program by then), and then
    calls what is registered for after a fork.
    """
    global _finalizer
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None:
        return
    if _finalizer is None or not _finalizer.still_active():
        _finalizer = util.Finalize(None, at_exit, exitpriority=-100)


def _before_fork() -> None:
    for one in list(_alive):
        guarded("fork", one.before_fork, default=None)


def _after_fork_in_parent() -> None:
    for one in list(_alive):
        guarded("fork", one.after_fork_in_parent, default=None)


def _after_fork() -> None:
    global forks
    forks += 1
    for one in list(_alive):
        guarded("fork", one.after_fork, default=None)


def at_exit() -> None:
    """Deliver what waits, everywhere in this process."""
    started = time.monotonic()
    for one in list(_alive):
        guarded("exit", one.at_exit, started, default=None)
    _keep_sigint()


def _keep_sigint() -> None:
    """Keep the exit code of a program that Ctrl-C ends.

    CPython notes that nobody caught the KeyboardInterrupt, and forgets it when `exec()` runs any text meanwhile, as
    loading prices for the last calls does. The program would then exit with 1 instead of dying of SIGINT.
    """
    interactive = hasattr(sys, "ps1")  # an interrupted line of a console is not the end of the program
    if getattr(sys, "last_type", None) is KeyboardInterrupt and not interactive:
        try:
            exec("raise KeyboardInterrupt")  # noqa: S102 - a text of ours; makes CPython note it again
        except KeyboardInterrupt:
            pass
