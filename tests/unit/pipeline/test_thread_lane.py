from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import AgentMetrics, Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.config import MetricsConfig
from tellmeter.pipeline.spool.left import look
from tellmeter.pipeline.thread_lane import ThreadLane


class Scripted:
    """A sink that answers by a script, then delivers; keeps what it delivered."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.batches: list[list[AgentMetrics]] = []
        self.delivered: list[str] = []
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Any:
        assert deadline > time.monotonic()
        self.batches.append(list(batch))
        outcome = self.script.pop(0) if self.script else Delivered()
        if isinstance(outcome, BaseException):
            raise outcome
        if callable(outcome):
            outcome = outcome(batch)
        if isinstance(outcome, Delivered):
            self.delivered += [record.id for record in batch]
        elif isinstance(outcome, Partial):
            lost = {*outcome.retry, *outcome.rejected}
            self.delivered += [record.id for index, record in enumerate(batch) if index not in lost]
        return outcome

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random.SystemRandom, "uniform", lambda self, low, high: 0.0)


def make(sink: Any, **settings: Any) -> ThreadLane:
    return ThreadLane(
        "sink",
        sink,
        MetricsConfig(**{"batch_size": 10, "batch_timeout_seconds": 60.0, "max_queue": 1000, **settings}),
    )


def records(number: int) -> list[AgentMetrics]:
    return [AgentMetrics(model="m") for _ in range(number)]


def soon() -> float:
    return time.monotonic() + 20


def test_batches_are_cut_by_size_and_a_flush_takes_the_rest() -> None:
    sink = Scripted()
    lane = make(sink)
    given_records = records(25)
    lane.put(given_records)
    assert lane.flush(soon())
    assert [len(batch) for batch in sink.batches] == [10, 10, 5]
    assert sink.delivered == [record.id for record in given_records]
    assert lane.stats().delivered == 25 and lane.stats().balanced


def test_a_batch_goes_out_when_its_oldest_record_is_old_enough() -> None:
    arrived = threading.Event()

    class Sink:
        def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Delivered:
            arrived.set()
            return Delivered()

    lane = make(Sink(), batch_timeout_seconds=0.01)
    lane.put(records(1))
    assert arrived.wait(10)


def test_later_records_do_not_hold_back_an_old_one() -> None:
    arrived = threading.Event()

    class Sink:
        def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Delivered:
            arrived.set()
            return Delivered()

    lane = make(Sink(), batch_timeout_seconds=0.2, batch_size=1000)
    deadline = time.monotonic() + 10
    while not arrived.wait(0.01):
        assert time.monotonic() < deadline
        lane.put(records(1))


def test_a_full_lane_drops_the_newest_and_counts_them() -> None:
    gate = threading.Event()
    sink = Scripted(lambda batch: gate.wait(20) and Delivered())
    lane = make(sink, max_queue=15, batch_size=10)
    first = records(10)
    lane.put(first)
    while lane.stats().in_flight < 10:
        time.sleep(0.001)  # polling; the test's timeout is the deadline
    lane.put(records(20))
    stats = lane.stats()
    assert (stats.accepted, stats.queued, stats.in_flight, stats.dropped) == (30, 15, 10, {"lane_full": 5})
    assert stats.balanced
    gate.set()
    assert lane.flush(soon())
    assert lane.stats().delivered == 25


def test_the_byte_bound_holds() -> None:
    lane = make(
        Scripted(lambda batch: RetryLater(after=300)), max_queue_bytes=5000, batch_size=1000, batch_timeout_seconds=100
    )
    lane.put(records(100))
    assert 0 < lane.stats().queued < 10
    assert lane.stats().balanced


def test_what_may_succeed_later_is_sent_again_as_it_was() -> None:
    sink = Scripted(RetryLater(), OSError("down"), RetryLater(after=0.001))
    lane = make(sink)
    lane.put(records(3))
    assert lane.flush(soon())
    assert len(sink.batches) == 4
    assert lane.stats().delivered == 3


def test_what_is_rejected_is_counted_by_reason() -> None:
    lane = make(Scripted(Rejected("schema")))
    lane.put(records(3))
    assert lane.flush(soon())
    assert lane.stats().dropped == {"schema": 3} and lane.stats().balanced


def test_too_large_is_split_down_to_the_record_that_is_too_large() -> None:
    bad = AgentMetrics(model="bad")
    sink = Scripted(*[lambda batch: TooLarge() if any(r.model == "bad" for r in batch) else Delivered()] * 50)
    lane = make(sink)
    lane.put([*records(5), bad, *records(4)])
    assert lane.flush(soon())
    assert lane.stats().delivered == 9
    assert lane.stats().dropped == {"too_large": 1}


def test_a_partial_result_repeats_only_what_failed() -> None:
    sink = Scripted(Partial(retry=(1, 2), rejected=(0, 99), reason="field"))
    lane = make(sink)
    given_records = records(4)
    lane.put(given_records)
    assert lane.flush(soon())
    assert [record.id for record in sink.batches[1]] == [given_records[1].id, given_records[2].id]
    assert lane.stats().delivered == 3 and lane.stats().dropped == {"field": 1}


def test_a_send_that_answers_nothing_is_no_delivery() -> None:
    lane = make(Scripted(lambda batch: None))
    lane.put(records(2))
    assert lane.flush(soon())
    assert lane.stats().dropped == {"no_outcome": 2}


def test_close_delivers_what_waits_and_closes_the_sink_last() -> None:
    sink = Scripted()
    lane = make(sink)
    lane.put(records(3))
    lane.close(soon())
    assert len(sink.delivered) == 3
    assert sink.calls == ["open", "flush", "close"]
    lane.close(soon())
    lane.put(records(2))
    assert lane.stats().dropped == {"closed": 2} and lane.stats().balanced


def test_close_gives_up_at_its_deadline_and_counts_the_rest() -> None:
    gate = threading.Event()
    lane = make(Scripted(lambda batch: gate.wait(30) and Delivered()), batch_size=2)
    lane.put(records(5))
    lane.close(time.monotonic() + 0.05)
    stats = lane.stats()
    assert stats.dropped == {"shutdown": 5} and stats.balanced
    gate.set()
    thread = lane._threads.get("send")
    if thread is not None:
        thread.join(10)
    assert lane.stats().balanced and lane.stats().delivered == 0


def test_flush_gives_up_at_its_deadline() -> None:
    lane = make(Scripted(RetryLater(after=200)))
    lane.put(records(1))
    assert lane.flush(time.monotonic() + 0.05) is False
    assert lane.stats().in_flight == 1


def test_flushing_an_idle_lane_starts_no_thread() -> None:
    lane = make(Scripted())
    assert lane.flush(soon())
    assert not lane._threads


OUTCOMES: list[Callable[[int], Any]] = [
    lambda size: Delivered(),
    lambda size: RetryLater(),
    lambda size: Rejected("no"),
    lambda size: TooLarge(),
    lambda size: Partial(retry=(0,), rejected=(size - 1, size + 5)),
    lambda size: Partial(retry=tuple(range(size))),
    lambda size: OSError(),
    lambda size: None,
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=6), st.lists(st.sampled_from(OUTCOMES), max_size=12), st.integers(1, 12))
def test_whatever_the_backend_answers_the_ledger_adds_up(
    puts: list[int], script: list[Callable[[int], Any]], batch_size: int
) -> None:
    answers = [
        (lambda batch, make_outcome=make_outcome: _raise_or_return(make_outcome(len(batch)))) for make_outcome in script
    ]
    sink = Scripted(*answers)
    lane = make(sink, batch_size=batch_size)
    given_ids = set()
    for number in puts:
        batch = records(number)
        given_ids |= {record.id for record in batch}
        lane.put(batch)
        assert lane.stats().balanced
    assert lane.flush(soon())
    stats = lane.stats()
    lane.close(soon())
    assert stats.balanced and stats.queued == stats.in_flight == 0
    assert stats.accepted == len(given_ids)
    assert stats.delivered == len(sink.delivered) == len(set(sink.delivered))
    assert set(sink.delivered) <= given_ids


def _raise_or_return(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def test_waiting_for_another_attempt_takes_no_number_of_a_program_that_seeded_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    random.seed(7)
    before = random.getstate()
    sink = Scripted(RetryLater(), RetryLater())
    lane = make(sink)
    lane.put(records(3))
    assert lane.flush(soon())
    assert random.getstate() == before
    assert lane.stats().delivered == 3


# ---------------------------------------------------------------------- flushes while records are lost


def test_a_flush_is_not_ended_by_the_loss_of_newer_records() -> None:
    gate = threading.Event()
    sink = Scripted(lambda batch: gate.wait(20) and Delivered())
    lane = make(sink, max_queue=10, when_full="drop_oldest")
    lane.put(records(10))
    until(lambda: lane.stats().in_flight == 10)
    lane.put(records(30))
    assert lane.stats().dropped == {"lane_full": 20}
    assert lane.flush(time.monotonic() + 0.05) is False
    gate.set()
    assert lane.flush(soon())
    assert lane.stats().delivered == 20


def test_a_flush_after_a_loss_waits_for_what_came_since() -> None:
    gate = threading.Event()
    sink = Scripted(Delivered(), lambda batch: gate.wait(20) and Delivered())
    lane = make(sink, max_queue=10, when_full="drop_oldest", batch_size=100)
    lane.put(records(30))
    assert lane.flush(soon())
    lane.put(records(5))
    assert lane.flush(time.monotonic() + 0.05) is False
    gate.set()
    assert lane.flush(soon())
    lane.close(soon())
    assert lane.stats().delivered == 15


def test_the_oldest_go_where_that_is_wanted() -> None:
    gate = threading.Event()
    sink = Scripted(lambda batch: gate.wait(20) and Delivered())
    lane = make(sink, max_queue=10, when_full="drop_oldest")
    given_records = records(40)
    lane.put(given_records[:10])
    until(lambda: lane.stats().in_flight == 10)
    lane.put(given_records[10:])
    gate.set()
    assert lane.flush(soon())
    assert sink.delivered == [record.id for record in (*given_records[:10], *given_records[30:])]


# ---------------------------------------------------------------------- with a spool


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def left(spool: Path) -> int:
    return sum(one.records for one in look(str(spool)))


def test_records_are_on_disk_before_they_are_sent_and_gone_when_they_are_delivered(spool: Path) -> None:
    seen = []

    def look_first(batch: Any) -> Any:
        seen.append(left(spool))
        return Delivered()

    sink = Scripted(look_first)
    lane = make(sink, spool=spool)
    lane.put(records(7))
    assert lane.flush(soon())
    assert seen == [7] and len(sink.delivered) == 7
    lane.close(soon())
    assert look(str(spool)) == [] and lane.stats().balanced


def test_what_a_lane_cannot_deliver_before_its_end_the_next_one_does(spool: Path) -> None:
    lane = make(Scripted(*[RetryLater(after=200)] * 5), spool=spool)
    given_records = records(25)
    lane.put(given_records)
    assert lane.close(time.monotonic() + 0.3) == 0
    stats = lane.stats()
    assert (stats.spooled, stats.dropped) == (25, {}) and stats.balanced and left(spool) == 25
    sink = Scripted()
    next_one = make(sink, spool=spool)
    until(lambda: next_one.stats().delivered == 25)
    assert sorted(sink.delivered) == sorted(record.id for record in given_records)
    assert next_one.stats().adopted == 25
    next_one.close(soon())
    assert look(str(spool)) == []


def test_a_sink_that_hangs_at_the_end_costs_nothing_that_is_on_disk(spool: Path) -> None:
    gate = threading.Event()
    lane = make(Scripted(lambda batch: gate.wait(30) and Delivered()), spool=spool, batch_size=2)
    lane.put(records(6))
    until(lambda: lane.stats().in_flight > 0)
    assert lane.close(time.monotonic() + 0.05) == 0
    stats = lane.stats()
    assert (stats.spooled, stats.in_flight, stats.dropped) == (6, 0, {}) and left(spool) == 6
    gate.set()
    threads_end(lane)
    assert lane.stats() == stats


def test_more_than_memory_holds_waits_on_disk(spool: Path) -> None:
    gate = threading.Event()
    sink = Scripted(lambda batch: gate.wait(20) and Delivered())
    lane = make(sink, spool=spool, max_queue=20)
    given_records = records(200)
    for at in range(0, 200, 10):
        lane.put(given_records[at : at + 10])
        until(lambda: lane.stats().queued < 10)
    assert lane.stats().dropped == {}
    gate.set()
    assert lane.flush(soon())
    assert sink.delivered == [record.id for record in given_records]
    lane.close(soon())


def test_with_a_spool_that_cannot_be_written_records_are_delivered_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    sink = Scripted()
    lane = make(sink, spool=tmp_path / "file")
    lane.put(records(5))
    assert lane.flush(soon())
    lane.close(soon())
    assert len(sink.delivered) == 5 and lane.stats().delivered == 5


def test_a_sink_that_keeps_its_own_may_do_without(spool: Path) -> None:
    class Keeping(Scripted):
        spools = False

    lane = make(Keeping(), spool=spool)
    lane.put(records(3))
    assert lane.flush(soon())
    lane.close(soon())
    assert not spool.exists()


# ---------------------------------------------------------------------- ends


def test_closing_does_not_wait_for_a_sink_that_has_failed_five_times() -> None:
    lane = make(Scripted(*[RetryLater()] * 4, *[RetryLater(after=200)] * 50), batch_size=1)
    lane.put(records(3))
    until(lambda: lane.stats().state == "open")
    began = time.monotonic()
    assert lane.close(began + 60) == 3
    threads_end(lane)
    assert time.monotonic() < began + 60  # it may be slow, but it did not wait
    assert lane.stats().dropped == {"shutdown": 3} and lane.stats().balanced


@pytest.mark.parametrize("with_spool", [False, True])
def test_threads_end_with_the_lane(with_spool: bool, spool: Path) -> None:
    lane = make(Scripted(), **({"spool": spool} if with_spool else {}))
    lane.put(records(3))
    until(lambda: lane.stats().queued == 3 or lane.stats().spooled == 3)
    assert len(lane._threads) == 1 + with_spool
    lane.close(float("inf"))
    threads_end(lane)
    assert lane.stats().delivered == 3


def test_a_lane_that_was_never_used_closes_at_once(spool: Path) -> None:
    for options in ({}, {"spool": spool}):
        lane = make(Scripted(), **options)
        assert lane.close(float("inf")) == 0
        assert not lane._threads


FORK = """
import os, sys, time
from tellmeter import AgentMetrics, Delivered, MetricsConfig, RetryLater, SinkStats
from tellmeter.pipeline.thread_lane import ThreadLane

parent = os.getpid()

class Sink:
    def send(self, batch, deadline):
        return RetryLater(after=200) if os.getpid() == parent else Delivered()

lane = ThreadLane("sink", Sink(), MetricsConfig(spool=sys.argv[1], dead_letters=sys.argv[1]))
lane.put([AgentMetrics(model="m") for _ in range(5)])
lane.flush(time.monotonic() + 0.2)
assert lane.stats().waiting == 5
lane.before_fork()
pid = os.fork()
if not pid:
    code = 1
    try:
        lane.after_fork()
        assert lane.stats() == SinkStats()
        lane.put([AgentMetrics(model="m")])
        assert lane.flush(time.monotonic() + 20)
        lane.close(time.monotonic() + 20)
        assert lane.stats() == SinkStats(accepted=1, delivered=1), lane.stats()
        code = 0
    finally:
        os._exit(code)
lane.after_fork_in_parent()
assert os.waitpid(pid, 0)[1] == 0
lane.close(time.monotonic() + 0.1)
assert lane.stats().spooled == 5, lane.stats()
"""


def test_a_childs_lane_starts_empty_and_leaves_the_parents_records_alone(spool: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(spool)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert left(spool) == 5


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def threads_end(lane: ThreadLane) -> None:
    for thread in list(lane._threads.values()):
        thread.join(20)
        assert not thread.is_alive()
    until(lambda: not lane._threads)
