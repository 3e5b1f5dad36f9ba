"""Forks and the exit: no lock is held for ever in a child, and what is written at the exit is written last."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from ..guard import guarded
from ..workers import at_worker_end


class Forked(Protocol):
    """What has locks, and is told of a fork."""

    def locks(self) -> list[Any]:
        """Every lock that a fork must not catch held by another thread."""

    def after_fork(self) -> None:
        """In the child: no other thread holds anything any more."""


_told: weakref.WeakSet[Forked] = weakref.WeakSet()
_held: dict[int, list[Any]] = {}  # by thread: two may fork at the same time
_SECONDS = 1.0  # a fold takes microseconds; whoever holds a lock longer must not stop the fork


def tell_of_forks(one: Forked) -> None:
    """Hold the locks of `one` during every fork from now on."""
    _told.add(one)


def _before() -> None:
    held = _held.setdefault(threading.get_ident(), [])
    for one in list(_told):
        held.extend(lock for lock in one.locks() if lock.acquire(timeout=_SECONDS))


def _after_in_parent() -> None:
    held = _held.pop(threading.get_ident(), [])
    while held:
        held.pop().release()


def _after_in_child() -> None:
    _after_in_parent()
    _held.clear()
    for one in list(_told):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


# ---------------------------------------------------------------------- the exit

_last: list[Callable[[], object]] = []


def write_last(act: Callable[[], object]) -> None:
    """Call `act` when this process ends, or a child that it forks: after the collectors brought home what waited."""
    if act not in _last:
        _last.append(act)
    at_worker_end(at_exit, -200)  # after the collectors', which have -100


def at_exit() -> None:
    """Write what is written last, now."""
    for act in _last:
        guarded("exit", act, default=None)


# Handlers run in reverse order, and whoever has a collector has loaded this module before.
atexit.register(at_exit)
