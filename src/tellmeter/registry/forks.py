"""Forks: a child must find no lock held by a thread that it does not have."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Forked(Protocol):
    """What has locks, and is told of a fork."""

    def locks(self) -> list[Any]:
        """Every lock that a fork must not catch held by another thread."""

    def after_fork(self) -> None:
        """In the child: no other thread holds anything any more."""


_told: weakref.WeakSet[Forked] = weakref.WeakSet()
_held: list[Any] = []
_SECONDS = 1.0  # a fold takes microseconds; whoever holds a lock longer must not stop the fork


def tell_of_forks(one: Forked) -> None:
    """Hold the locks of `one` during every fork from now on."""
    _told.add(one)


def _before() -> None:
    for one in list(_told):
        _held.extend(lock for lock in one.locks() if lock.acquire(timeout=_SECONDS))


def _after_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_in_child() -> None:
    _after_in_parent()
    for one in list(_told):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
