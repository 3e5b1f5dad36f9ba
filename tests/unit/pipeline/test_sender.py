from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tellmeter import AgentMetrics, Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.pipeline import sender as module
from tellmeter.pipeline.backlog import Backlog
from tellmeter.pipeline.ledger import Ledger
from tellmeter.pipeline.sender import Sender
from tellmeter.pipeline.spool.spool import Spool
from tests.support.fake_files import FakeDisk, FakeFiles


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Sink:
    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.sizes: list[int] = []
        self.ids: list[list[str]] = []

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Any:
        self.sizes.append(len(batch))
        self.ids.append([record.id for record in batch])
        answer = self.answers.pop(0) if self.answers else Delivered()
        if isinstance(answer, BaseException):
            raise answer
        return answer(batch) if callable(answer) and not isinstance(answer, type) else answer


class Lane:
    """A sender with what it needs, and no thread."""

    def __init__(self, *answers: Any, batch_size: int = 8, spool: Spool | None = None) -> None:
        self.clock: Any = Clock()
        self.sink = Sink()
        self.sink.answers = list(answers)
        self.ledger = Ledger()
        lock = threading.Condition(threading.RLock())
        self.backlog = Backlog(
            self.ledger,
            lock,
            self.clock,
            batch_size=batch_size,
            batch_seconds=5.0,
            max_records=10_000,
            max_bytes=10**8,
            when_full="spool" if spool else "drop_newest",
            spool=spool,
        )
        self.sender = Sender(
            "sink",
            self.sink,
            self.backlog,
            self.ledger,
            lock,
            self.clock,
            batch_size=batch_size,
            at_work=threading.RLock(),
        )

    def put(self, number: int) -> None:
        self.backlog.put([AgentMetrics(model="m", id=f"r{index}") for index in range(number)])

    def settle(self, limit: int = 1000) -> None:
        """Step, and let the time of each pause pass, until nothing is left."""
        for _ in range(limit):
            if (due := self.sender.due(hurry=True)) == math.inf:
                return
            self.clock.now = max(self.clock.now, due)
            assert self.sender.step()
        raise AssertionError("it does not come to an end")

    @property
    def dropped(self) -> dict[str, int]:
        stats = self.ledger.stats(failures={}, state="")
        assert stats.balanced
        return stats.dropped


def test_a_batch_that_is_too_large_is_halved_and_later_ones_are_small_until_sixteen_went_well() -> None:
    lane = Lane(lambda batch: TooLarge() if len(batch) > 3 else Delivered(), batch_size=8)
    lane.sink.answers *= 3
    lane.put(8 + 2 * 60)
    lane.settle()
    assert lane.sink.sizes[:5] == [8, 4, 2, 2, 4]
    assert lane.ledger.delivered == 128 and lane.sender._most == 8
    small = lane.sink.sizes[5:]
    assert small == sorted(small[:-1]) + small[-1:] and small.count(2) == 13


def test_only_the_record_that_is_too_large_alone_is_dropped() -> None:
    lane = Lane(*[lambda batch: TooLarge() if any(one.id == "r5" for one in batch) else Delivered()] * 40)
    lane.put(8)
    lane.settle()
    assert lane.dropped == {"too_large": 1} and lane.ledger.delivered == 7


def test_a_partial_answer_says_what_is_sent_again() -> None:
    lane = Lane(Partial(retry=(1, -1, 9), rejected=(0, 1, 2), reason="field"))
    lane.put(5)
    lane.settle()
    assert lane.sink.ids[1] == ["r1"]  # what is in both may yet succeed
    assert lane.dropped == {"field": 2} and lane.ledger.delivered == 3
    assert lane.sender.failures == {"field": 1}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "delivered",
        Delivered,
        Partial(retry=None),  # type: ignore[arg-type]
        Partial(retry=([],)),  # type: ignore[arg-type]
        Partial(rejected=("first",)),  # type: ignore[arg-type]
        RetryLater(after="soon"),  # type: ignore[arg-type]
        Rejected(reason=5),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_an_answer_that_is_none_is_no_delivery_and_does_not_end_the_lane(answer: Any) -> None:
    lane = Lane(answer)
    lane.put(2)
    lane.settle()
    assert lane.dropped == {"no_outcome": 2}
    lane.put(2)
    lane.settle()
    assert lane.ledger.delivered == 2


@pytest.mark.parametrize("error", [ValueError("prompt"), KeyboardInterrupt(), SystemExit(1), RecursionError()])
def test_whatever_a_sink_raises_is_a_retry(error: BaseException) -> None:
    lane = Lane(error)
    lane.put(2)
    lane.settle()
    assert lane.ledger.delivered == 2 and lane.sender.failures == {"exception": 1}


def test_nothing_is_sent_before_the_time_that_a_backend_asked_for() -> None:
    lane = Lane(RetryLater(after=60.0, reason="unauthorized"))
    lane.put(2)
    assert lane.sender.step()
    assert lane.sender.due(hurry=True) >= lane.clock.now + 60.0
    assert lane.sender.pacing.state == "retrying" and lane.sender.is_busy


def test_what_is_only_in_memory_is_given_up_after_ten_minutes_and_the_next_batch_waits_its_turn() -> None:
    lane = Lane(*[RetryLater(after=60.0, reason="down")] * 11, batch_size=2)
    lane.put(4)
    began = lane.clock.now
    while not lane.dropped:
        lane.clock.now = max(lane.clock.now, lane.sender.due(hurry=True))
        lane.sender.step()
    assert lane.dropped == {"down": 2} and lane.clock.now - began >= 600.0
    assert lane.sender.due(hurry=True) >= lane.clock.now + 60.0
    lane.settle()
    assert lane.ledger.delivered == 2


def test_what_is_on_disk_is_never_given_up() -> None:
    disk = FakeDisk()
    spool = Spool("/spool", "Sink", max_bytes=100_000, files=FakeFiles(disk))
    lane = Lane(*[RetryLater(after=300.0)] * 50, batch_size=2, spool=spool)
    lane.put(2)
    lane.backlog.write(True)
    lane.settle()
    assert lane.ledger.delivered == 2 and lane.clock.now > 15_000.0 and not lane.dropped
    assert lane.sender.holds_frames is False
    spool.close()


def test_the_time_of_a_lane_that_closes_is_the_time_of_an_attempt() -> None:
    told: list[float] = []

    class Asked(Sink):
        def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Any:
            told.append(deadline)
            return Delivered()

    lane = Lane()
    lane.sender.sink = Asked()
    lane.put(1)
    lane.sender.deadline = 5.0
    lane.sender.step()
    assert told == [5.0]


def test_what_a_lane_that_has_closed_still_sends_is_not_counted() -> None:
    lane = Lane()
    lane.sink.answers = [lambda batch: setattr(lane.sender, "given_up", True) or Delivered()]
    lane.put(2)
    lane.sender.step()
    assert lane.ledger.delivered == 0 and lane.ledger.in_flight == 2


def test_reasons_are_short_plain_and_a_hundred_at_most() -> None:
    lane = Lane(
        Rejected("bad\nreason \x00" + "x" * 500), *[Rejected(f"reason{index}") for index in range(150)], batch_size=1
    )
    lane.put(151)
    lane.settle()
    assert len(lane.dropped) == module.MAX_REASONS + 1 and lane.dropped["other"] == 51
    assert all(len(name) <= 60 and name.replace("_", "").isalnum() for name in lane.dropped)


def test_trouble_is_told_once_a_minute_without_messages_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tellmeter")
    lane = Lane(*[OSError("password=hunter2")] * 20, batch_size=3)
    lane.put(3)
    began = lane.clock.now
    lane.settle()
    lines = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert lines[0] == "sink does not take records (exception); it is tried again until it does. 3 wait"
    assert lines[-1] == "sink takes records again"
    assert len(lines) - 2 <= (lane.clock.now - began) / module.LOG_SECONDS
    assert "hunter2" not in caplog.text
