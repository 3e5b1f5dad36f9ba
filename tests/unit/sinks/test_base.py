from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from tellmeter import counts
from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks.base import BatchingMetricsSink, MetricsSink, Settles, SupportsSettle, file_reason
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tests.unit.sinks.made import deadline, record, run


class Way:
    """A way to a sink that settles when it is given time."""

    def __init__(self, *, drained):
        self.drained = drained
        self.asked = []

    def __call__(self, timeout):
        self.asked.append((timeout, threading.current_thread() is threading.main_thread()))
        self.drained = self.drained or timeout != 0
        return self.drained


def test_what_is_drained_already_is_settled_without_a_thread():
    settles, way = Settles(), Way(drained=True)
    settles.add(way)
    run(settles.wait())
    assert way.asked == [(0, True)]


def test_what_has_to_wait_waits_off_the_event_loop_with_the_collectors_own_timeout():
    settles, quick, slow = Settles(), Way(drained=True), Way(drained=False)
    settles.add(quick)
    settles.add(slow)
    run(settles.wait())
    assert quick.asked == [(0, True)]
    assert slow.asked == [(0, True), (None, False)]


def test_the_event_loop_runs_while_a_way_drains():
    settles, release = Settles(), threading.Event()
    settles.add(lambda timeout: timeout != 0 and release.wait(10))

    async def main():
        waiting = asyncio.create_task(settles.wait())
        await asyncio.sleep(0)
        release.set()  # only a running loop comes here
        await waiting

    asyncio.run(main())


def test_all_ways_are_settled_and_now_says_whether_all_arrived():
    settles = Settles()
    assert settles.now() is True
    settles.add(lambda timeout: False)
    way = Way(drained=True)
    settles.add(way)
    assert settles.now(3) is False
    assert way.asked == [(3, True)]


def test_a_way_that_raises_is_counted_and_the_question_is_answered():
    settles = Settles()

    def broken(timeout):
        raise RuntimeError("secret")

    settles.add(broken)
    before = counts.snapshot().get("guarded_errors", {}).get("settle", 0)
    assert settles.now() is True
    assert counts.snapshot()["guarded_errors"]["settle"] == before + 1


def test_the_bases_do_nothing_by_themselves():
    sink = MetricsSink()
    assert run(sink.record(record())) is None
    assert run(sink.flush()) is None
    batching = BatchingMetricsSink()
    assert batching.send([record()], deadline()) == Delivered()
    assert (batching.open(), batching.close(), batching.after_fork()) == (None, None, None)


def test_sinks_that_settle_are_recognised():
    assert isinstance(InMemoryMetricsSink(), SupportsSettle)
    assert not isinstance(MetricsSink(), SupportsSettle)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EACCES, "not_permitted"),
        (errno.EISDIR, "is_a_directory"),
        (99999, "io_error"),
    ],
)
def test_errors_of_files_have_short_names(number, reason):
    assert file_reason(OSError(number, "secret path")) == reason
    assert file_reason(OSError()) == "io_error"
