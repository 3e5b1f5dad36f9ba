from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import AgentMetrics, Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.config import MetricsConfig
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
