from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tellmeter import on
from tellmeter.streams import callbacks, running
from tellmeter.streams.report import FINAL_EVENTS, StreamReport
from tests.unit.streams.made import MS, Asked, stream


class Told(list[StreamReport]):
    """What a callback was told, in order; `events` once all of it has arrived."""

    def __call__(self, report: StreamReport) -> None:
        self.append(report)

    @property
    def events(self) -> list[str]:
        callbacks.settle(time.monotonic() + 30)
        return [report.event.removeprefix("stream.") for report in self]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(autouse=True)
def no_line_was_logged() -> None:
    running._logged_at = -running._LOG_SECONDS


def ended(one: Any, meter: Any, status: str = "completed", error: str | None = None) -> None:
    now = time.perf_counter_ns()
    meter.finish(now)
    one.end(meter.snapshot(now=now, status=status, provider="openai", model="m", last_error=error), "unused", None)


def test_a_report_at_each_interval_and_never_sooner(told: Told) -> None:
    one, meter, _ = stream(callback=told, interval_ms=100)
    start = one._due_progress
    assert one.look(start - 1) == start
    assert told.events == []
    assert one.look(start) == start + 100 * MS
    assert one.look(start + 60 * MS) == start + 100 * MS
    callbacks.settle(time.monotonic() + 30)
    assert one.look(start + 350 * MS) == start + 450 * MS  # a timer that was late: what it missed is left out
    assert told.events == ["progress", "progress"]
    ended(one, meter)
    assert told.events == ["progress", "progress", "complete"]


def test_windows_are_since_the_report_before(told: Told) -> None:
    one, meter, _ = stream(callback=told, interval_ms=1000)
    start = meter.started
    meter.take(b"c" * 10, start, start + 500 * MS)
    one._due_progress = start + 1000 * MS
    one.look(start + 1000 * MS)
    meter.take(b"c" * 30, start + 500 * MS, start + 1200 * MS)
    callbacks.settle(time.monotonic() + 30)
    one.look(start + 2000 * MS)
    assert told.events == ["first_token", "progress", "progress"]
    assert [report.window_bytes_per_second for report in told[1:]] == [10.0, 30.0]
    assert [report.bytes_per_second for report in told[1:]] == [10.0, 20.0]


def test_the_first_token_is_told_once(told: Told) -> None:
    one, meter, _ = stream(callback=told)
    now = meter.started
    one.look(now)
    meter.take(b"c", now, now + 5 * MS)
    one.look(now + 6 * MS)
    one.look(now + 7 * MS)
    ended(one, meter)
    assert told.events == ["first_token", "complete"]
    assert (told[0].status, told[0].time_to_first_token_ms) == ("streaming", 5.0)


def test_a_stream_that_is_over_before_anybody_looked(told: Told) -> None:
    off = on("stream.start", told)
    try:
        one, meter, _ = stream(callback=told)
        meter.take(b"c", meter.started, meter.started + 5 * MS)
        ended(one, meter, "error", "ReadError")
        assert told.events == ["start", "first_token", "error"]
    finally:
        off()
    assert [(report.status, report.last_error, report.error_count) for report in told] == [
        ("streaming", None, 0),
        ("streaming", None, 0),
        ("error", "ReadError", 1),
    ]


@pytest.mark.parametrize("status", ["completed", "cancelled", "closed_early", "abandoned"])
def test_every_end_but_an_error_is_a_completion_whose_status_tells(told: Told, status: str) -> None:
    one, meter, _ = stream(callback=told)
    ended(one, meter, status)
    assert (told.events, told[0].status) == (["complete"], status)


def test_a_silence_is_told_once_with_its_blame(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    one, meter, call = stream(Asked(tags={"feature": "search"}), stall_after_ms=100, callback=told)
    start = meter.started
    meter.times.append(start)
    assert one.look(start + 40 * MS) == start + 100 * MS
    assert one.look(start + 100 * MS) == start + 200 * MS
    one.look(start + 250 * MS)
    assert call.stalls == [meter.stream_id]
    meter.times.append(start + 300 * MS)  # it came at last
    meter.chunks.append(b"c")
    assert one.look(start + 310 * MS) == start + 410 * MS
    meter.times.append(start + 320 * MS)  # and the next one is awaited
    assert one.look(start + 410 * MS) == start + 420 * MS
    one.look(start + 420 * MS)
    assert len(call.stalls) == 2
    assert told.events.count("stall") == 2
    stall = told[0]
    assert (stall.event, stall.stalled, stall.waiting_for, stall.waiting_ms) == (
        "stream.stall",
        True,
        "provider",
        100.0,
    )
    assert stall.tags == {"feature": "search"}
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"openai has sent nothing for 0.1 s in a stream of m ({meter.stream_id})"]  # one a second


def test_a_consumer_that_holds_the_stream_is_no_stall_and_is_named(told: Told) -> None:
    one, meter, call = stream(stall_after_ms=100, callback=told, interval_ms=1000)
    start = meter.started
    meter.take(b"c", start, start + 5 * MS)
    one._due_progress = start + 900 * MS
    one.look(start + 900 * MS)
    assert call.stalls == []
    assert told.events == ["first_token", "progress"]
    assert (told[1].waiting_for, told[1].waiting_ms, told[1].stalled) == ("consumer", 895.0, False)


def test_what_is_no_llm_call_is_told_to_nobody(told: Told) -> None:
    one, meter, _ = stream(Asked(recorded=False), callback=told, interval_ms=1)
    assert one.look(meter.started + 10**12) == 0
    one.end(None, "completed", None)
    assert told.events == []


def test_a_stream_without_a_record_has_its_last_report_all_the_same(told: Told) -> None:
    one, meter, _ = stream(callback=told)
    meter.take(b"c", meter.started, meter.started + 1)
    one.look(meter.started + 2)
    one.end(None, "error", "ReadError")
    assert told.events == ["first_token", "error"]
    assert (told[1].provider, told[1].model, told[1].last_error) == ("openai", "m", "ReadError")


def test_raw_chunks_come_last(told: Told) -> None:
    one, meter, _ = stream(callback=told)
    meter.raw = []
    meter.take(b"secret", meter.started, meter.started + 1)
    one.look(meter.started + 2)
    ended(one, meter)
    assert told.events == ["first_token", "complete"]
    assert [report.raw_chunks for report in told] == [None, (b"secret",)]


def test_another_attempt_goes_on_under_the_same_name(told: Told) -> None:
    one, first, _ = stream(callback=told, stall_after_ms=50)
    first.raw = []
    first.take(b"lost", first.started, first.started + 1)
    _, second, _ = stream()
    one.follow(second)
    assert (second.stream_id, second.stall_after, second.raw) == (first.stream_id, first.stall_after, [])
    second.take(b"kept", second.started, second.started + 1)
    ended(one, second)
    assert told.events == ["first_token", "complete"]
    assert (told[-1].stream_id, told[-1].raw_chunks, told[-1].bytes_received) == (first.stream_id, (b"kept",), 4)


def test_handlers_get_what_their_events_are(told: Told) -> None:
    other = Told()
    offs = [on("stream.complete", other), on("stream.progress", other)]
    try:
        one, meter, _ = stream(callback=told, interval_ms=100)
        one.look(one._due_progress)
        ended(one, meter)
    finally:
        for off in offs:
            off()
    assert other.events == told.events == ["progress", "complete"]


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order: one last report, and it is the last."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Told()
        self.one, self.meter, self.call = stream(callback=self.told, interval_ms=100, stall_after_ms=150)
        self.now = self.meter.started
        self.ends = 0

    @rule(wait=st.integers(0, 400))
    def time_passes(self, wait: int) -> None:
        self.now += wait * MS
        again = self.one.look(self.now)
        callbacks.settle(time.monotonic() + 30)
        assert again == 0 if self.ends else again > self.now

    @precondition(lambda self: len(self.meter.times) % 2 == 0)
    @rule()
    def asks(self) -> None:
        self.meter.times.append(self.now)

    @precondition(lambda self: len(self.meter.times) % 2 == 1)
    @rule(data=st.binary(max_size=3))
    def comes(self, data: bytes) -> None:
        self.meter.times.append(self.now)
        self.meter.chunks.append(data)
        self.meter.fold()

    @rule(status=st.sampled_from(["completed", "error", "cancelled"]), lost=st.booleans())
    def ends_now(self, status: str, lost: bool) -> None:
        self.ends += 1
        self.meter.finish(self.now)
        seen = None if lost else self.meter.snapshot(now=self.now, status=status, provider="openai", model="m")
        self.one.end(seen, status, None)

    @invariant()
    def one_last_report(self) -> None:
        events = [f"stream.{event}" for event in self.told.events]
        final = [event for event in events if event in FINAL_EVENTS]
        assert len(final) <= 1 and events.count("stream.first_token") <= 1
        if final:
            assert events[-1] == final[0]
        if self.ends and events:
            assert final
        assert events.count("stream.stall") == len(self.call.stalls)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase


def test_the_end_waits_for_a_report_that_is_being_made(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    one, meter, _ = stream(callback=told, interval_ms=1)
    inside, go = threading.Event(), threading.Event()
    look = meter.look

    def slow(*args: Any, **known: Any) -> Any:
        inside.set()
        assert go.wait(30)
        return look(*args, **known)

    monkeypatch.setattr(type(meter), "look", lambda self, *args, **known: slow(*args, **known))
    looking = threading.Thread(target=one.look, args=(one._due_progress,))
    looking.start()
    assert inside.wait(30)
    ending = threading.Thread(target=ended, args=(one, meter))
    ending.start()
    go.set()
    looking.join(30)
    ending.join(30)
    assert told.events == ["progress", "complete"]


@pytest.fixture(autouse=True)
def every_lane_is_empty() -> Iterator[None]:
    yield
    callbacks.settle(time.monotonic() + 30)
    assert all(not lane._waiting and not lane._orders for lane in callbacks._lanes.values())


def test_a_call_that_the_hand_off_refused_has_its_report(told: Told) -> None:
    """Nobody had looked at the stream yet, and no record tells whose it was."""
    one, meter, _ = stream(callback=told)
    meter.finish(time.perf_counter_ns())
    one.end(None, "closed_early", None)
    assert told.events == ["complete"]
    assert (told[0].provider, told[0].model, told[0].status) == ("openai", "m", "closed_early")


@pytest.mark.parametrize("told_before", [True, False])
def test_what_is_counted_elsewhere_ends_in_silence_unless_it_was_told_of(told: Told, told_before: bool) -> None:
    one, meter, _ = stream(callback=told, interval_ms=1)
    if told_before:
        one.look(one._due_progress)
    one.leave()
    assert one.look(meter.started + 10**12) == 0
    assert told.events == (["progress", "complete"] if told_before else [])
