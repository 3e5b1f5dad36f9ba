"""The ends of a process that a pipeline must survive: exit, fork, and a multiprocessing worker's own exit."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from typing import Protocol

from ..guard import guarded
from ..workers import at_worker_end


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
exiting = False
"""Whether what waits is being delivered because the process ends."""
WORKER_PRIORITY = -100  # what collectors bring home is written by the registry's snapshots, which come after
_hooked = False
_alive: weakref.WeakSet[Lived] = weakref.WeakSet()


def join(one: Lived) -> None:
    """Tell `one` of forks and of the process's exit from now on."""
    global _hooked
    if not _hooked:
        _hooked = True
        atexit.register(at_exit)
        at_worker_end(at_exit, WORKER_PRIORITY)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
    _alive.add(one)


def exit_first() -> None:
    """Deliver before whatever has registered for the exit until now: spans of the last calls need their exporter."""
    if _hooked:
        atexit.unregister(at_exit)
        atexit.register(at_exit)


def _before_fork() -> None:
    for one in list(_alive):
        guarded("fork", one.before_fork, default=None)


def _after_fork_in_parent() -> None:
    for one in list(_alive):
        guarded("fork", one.after_fork_in_parent, default=None)


def _after_fork() -> None:
    global forks, exiting
    forks += 1
    exiting = False
    for one in list(_alive):
        guarded("fork", one.after_fork, default=None)


def at_exit() -> None:
    """Deliver what waits, everywhere in this process."""
    global exiting
    exiting = True
    try:
        started = time.monotonic()
        for one in list(_alive):
            guarded("exit", one.at_exit, started, default=None)
        _keep_sigint()
    finally:
        exiting = False


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
