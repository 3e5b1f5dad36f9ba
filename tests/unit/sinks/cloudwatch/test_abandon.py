import contextvars
import threading

import pytest

from tellmeter.sinks.cloudwatch.abandon import TimedThread
from tests.unit.sinks.made import deadline

name = contextvars.ContextVar("name", default="")


def test_it_returns_raises_and_sees_the_callers_context():
    thread = TimedThread("t")
    name.set("mine")
    assert thread.run(lambda: (name.get(), threading.current_thread().name), deadline()) == ("mine", "t")
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 / 0, deadline())


def test_what_is_late_is_left_and_the_next_waits_for_it():
    thread, go, done = TimedThread("t"), threading.Event(), []

    def late():
        go.wait(60)
        done.append(1)

    with pytest.raises(TimeoutError):
        thread.run(late, deadline(0.05))
    with pytest.raises(TimeoutError):
        thread.run(lambda: done.append(2), deadline(0.05))
    go.set()
    assert thread.run(lambda: list(done), deadline()) == [1]


def test_after_a_fork_there_is_nothing_to_wait_for():
    thread, go = TimedThread("t"), threading.Event()
    with pytest.raises(TimeoutError):
        thread.run(lambda: go.wait(60), deadline(0.01))
    thread.after_fork()
    assert thread.run(lambda: 5, deadline()) == 5
    go.set()


def test_where_no_thread_can_be_started_it_runs_here(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert TimedThread("t").run(threading.current_thread, deadline()) is threading.current_thread()
