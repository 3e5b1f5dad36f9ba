from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from tellmeter.streams.timer import Timer
from tests.unit.streams.made import MS


class Looked:
    """A stream that says when to be looked at again, and notes when it was."""

    def __init__(self, *again: int) -> None:
        self.over = False
        self.due = 0
        self.looks: list[int] = []
        self.again = list(again)
        self.done = threading.Event()

    def look(self, now: int) -> int:
        self.looks.append(now)
        if not self.again:
            self.done.set()
            return 0
        after = self.again.pop(0)
        if after < 0:
            raise ValueError("canary")
        return now + after


@pytest.fixture
def timer() -> Any:
    made = Timer()
    yield made
    made.after_fork()  # its thread ends at its next turn


def test_a_stream_is_looked_at_when_it_is_due_until_it_says_never(timer: Any) -> None:
    one = Looked(20 * MS, 30 * MS)
    began = time.perf_counter_ns()
    timer.watch(one, began + 10 * MS)
    assert one.done.wait(30)
    assert len(one.looks) == 3
    assert one.looks[0] >= began + 10 * MS
    assert one.looks[1] >= one.looks[0] + 20 * MS and one.looks[2] >= one.looks[1] + 30 * MS
    assert timer._heap == []


def test_one_that_is_due_sooner_wakes_it(timer: Any) -> None:
    late, soon = Looked(), Looked()
    now = time.perf_counter_ns()
    timer.watch(late, now + 3_600_000 * MS)
    timer.watch(soon, now)
    assert soon.done.wait(30)
    assert late.looks == []


def test_one_that_is_hurried_is_not_looked_at_twice(timer: Any) -> None:
    one = Looked(10**15)
    now = time.perf_counter_ns()
    one.due = now + 50 * MS
    timer._new.append(one)
    timer.watch(one, now)
    timer._turn(now + 100 * MS)
    timer._turn(now + 100 * MS)
    assert len(one.looks) == 1


def test_one_that_is_over_is_let_go(timer: Any) -> None:
    one = Looked()
    one.over = True
    one.due = 1
    timer._new.append(one)
    timer._turn(2)
    assert (one.looks, timer._heap) == ([], [])


def test_a_fault_in_one_is_not_the_others(timer: Any) -> None:
    odd, fine = Looked(-1), Looked()
    now = time.perf_counter_ns()
    timer.watch(odd, now)
    timer.watch(fine, now)
    assert fine.done.wait(30)


def test_many_streams_from_many_threads(timer: Any) -> None:
    streams = [Looked(MS) for _ in range(400)]

    def watch(some: list[Looked]) -> None:
        for one in some:
            timer.watch(one, time.perf_counter_ns() + (id(one) % 5) * MS)

    threads = [threading.Thread(target=watch, args=(streams[at::4],)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in streams:
        assert one.done.wait(30)
        assert len(one.looks) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_timer_of_its_own(timer: Any) -> None:
    parents = Looked(*[MS] * 10_000)
    timer.watch(parents, time.perf_counter_ns())
    pid = os.fork()
    if pid == 0:
        seen = len(parents.looks)
        childs = Looked(MS)
        timer.watch(childs, time.perf_counter_ns())
        fine = childs.done.wait(20) and len(parents.looks) <= seen
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    parents.over = True
