"""The thread that exports: when, whatever the export does, and that it ends."""

import threading
import time

import pytest

from tellmeter import counts
from tellmeter.context import suppression
from tellmeter.sinks.otel.timer import ExportTimer


class Export:
    """Notes its calls; waits where a test says so."""

    def __init__(self):
        self.calls = []
        self.called = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.error = None

    def __call__(self):
        self.calls.append((threading.current_thread().name, suppression.get()))
        self.called.release()
        assert self.go_on.wait(30)
        if self.error is not None:
            raise self.error


@pytest.fixture
def export():
    return Export()


@pytest.fixture
def make(export):
    made = []

    def timer(seconds=3600.0):
        one = ExportTimer(export, seconds)
        one.start()
        made.append(one)
        return one

    yield timer
    export.go_on.set()
    for one in made:
        one.stop(time.monotonic() + 10)


def test_it_exports_by_itself_and_is_not_metered(make, export):
    make(0.001)
    for _ in range(3):
        assert export.called.acquire(timeout=30)
    assert set(export.calls) == {("tellmeter-otlp", True)}


def test_a_flush_exports_now_and_waits(make, export):
    timer = make()
    assert timer.flush(30)
    assert timer.flush(30)
    assert len(export.calls) == 2


def test_a_flush_waits_no_longer_than_it_may_and_is_not_forgotten(make, export):
    timer = make()
    export.go_on.clear()
    assert not timer.flush(0.01)
    assert not timer.flush(0.01)  # this one began after what is running
    export.go_on.set()
    assert export.called.acquire(timeout=30)
    assert export.called.acquire(timeout=30)
    assert timer.flush(30)


def test_what_an_export_raises_is_noted_and_the_next_one_comes(make, export):
    timer = make()
    before = counts.snapshot().get("guarded_errors", {}).get("otlp_export", 0)
    export.error = RuntimeError("canary")
    assert timer.flush(30)
    export.error = None
    assert timer.flush(30)
    assert counts.snapshot()["guarded_errors"]["otlp_export"] == before + 1


def test_a_stop_ends_the_thread(make, export):
    timer = make()
    timer.stop(time.monotonic() + 30)
    assert not [thread for thread in threading.enumerate() if thread.name == "tellmeter-otlp"]
    timer.stop(0.0)


def test_without_a_thread_a_flush_exports_on_its_callers(monkeypatch, export):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    timer = ExportTimer(export, 3600)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    timer.start()
    assert timer.flush(0.0)
    assert export.calls == [(threading.current_thread().name, True)]
    timer.stop(0.0)
