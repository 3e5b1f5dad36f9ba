from __future__ import annotations

import gc
import os
import weakref

import pytest

from tellmeter.pipeline import lifecycle


class Told:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def before_fork(self) -> None:
        self.heard.append("before")

    def after_fork_in_parent(self) -> None:
        self.heard.append("parent")

    def after_fork(self) -> None:
        self.heard.append("child")

    def at_exit(self, started: float) -> None:
        self.heard.append("exit")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_is_told_to_both_sides_and_counted_in_the_child() -> None:
    told = Told()
    lifecycle.join(told)
    before = lifecycle.forks
    pid = os.fork()
    if pid == 0:
        right = told.heard == ["before", "child"] and lifecycle.forks == before + 1
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert told.heard == ["before", "parent"]
    assert lifecycle.forks == before


def test_one_that_raises_does_not_keep_the_others_from_hearing() -> None:
    class Broken(Told):
        def before_fork(self) -> None:
            raise RuntimeError

    broken, told = Broken(), Told()
    lifecycle.join(broken)
    lifecycle.join(told)
    lifecycle._before_fork()
    lifecycle._after_fork_in_parent()
    assert told.heard == ["before", "parent"]


def test_who_is_gone_is_not_kept() -> None:
    told = Told()
    lifecycle.join(told)
    gone = weakref.ref(told)
    del told
    gc.collect()
    assert gone() is None
