import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import AgentMetrics, ConfigError, MetricsCollector, MetricsConfig, RetryLater
from tellmeter.pipeline.clock import Clock
from tellmeter.testing import FakeClock, OracleSink


class Sleeper:
    """A thread that waits on its own condition, as a lane does: until a time, or until it is told."""

    def __init__(self, clock: Clock, seconds, condition=None):
        self.clock, self.seconds = clock, seconds
        self.condition = condition or threading.Condition()
        self.told = self.woke = False
        self.rounds = 0
        self.woke_at = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with self.condition:
            until = None if self.seconds is None else self.clock.monotonic() + self.seconds
            while not self.told and (until is None or self.clock.monotonic() < until):
                self.rounds += 1
                self.clock.wait(self.condition, None if until is None else until - self.clock.monotonic())
        self.woke_at = self.clock.monotonic()

    def tell(self):
        with self.condition:
            self.told = True
            self.condition.notify_all()

    def join(self):
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_time_stands_still_until_it_is_advanced():
    clock = FakeClock(5.0)
    assert clock.monotonic() == clock.monotonic() == 5.0
    clock.advance(0.25)
    assert clock.monotonic() == 5.25


def test_a_sleeper_wakes_when_its_time_has_come_and_not_before():
    clock = FakeClock(0.0)
    sleeper = Sleeper(clock, 30.0)
    clock.wait_for_sleepers(1)
    assert clock.next_due == 30.0
    clock.advance(29.0)
    assert clock.sleepers == 1 and sleeper.thread.is_alive() and sleeper.rounds == 1
    clock.advance(1.0)
    assert clock.sleepers == 0 and clock.next_due is None
    sleeper.join()
    assert sleeper.woke_at == 30.0


def test_a_sleeper_wakes_when_its_condition_is_notified():
    clock = FakeClock(7.0)
    for seconds in (30.0, None):
        sleeper = Sleeper(clock, seconds)
        if seconds is not None:
            clock.wait_for_sleepers(1)
        sleeper.tell()
        sleeper.join()
        assert sleeper.woke_at == 7.0 and clock.sleepers == 0


def test_who_waits_without_a_time_is_no_sleeper():
    clock = FakeClock()
    forever, sleeper = Sleeper(clock, None), Sleeper(clock, 1.0)
    clock.wait_for_sleepers(1)
    clock.advance(10_000.0)
    sleeper.join()
    assert forever.thread.is_alive()
    forever.tell()
    forever.join()


def test_waiting_lets_go_of_the_condition():
    clock = FakeClock()
    sleeper = Sleeper(clock, 30.0)
    clock.wait_for_sleepers(1)
    with sleeper.condition:  # would hang
        pass
    sleeper.tell()
    sleeper.join()


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_time_that_has_come_is_not_waited_for(seconds):
    clock, condition = FakeClock(), threading.Condition()
    with condition:
        clock.wait(condition, seconds)
    assert clock.sleepers == 0


def test_time_that_passes_between_reading_and_waiting_is_not_lost():
    clock, condition = FakeClock(0.0), threading.Condition()
    with condition:
        until = clock.monotonic() + 5.0
        clock.advance(5.0)
        clock.wait(condition, until - 0.0)  # would hang
    # Another wait, without another look at the clock, is counted from now.
    sleeper = threading.Thread(target=_wait_twice, args=(clock,), daemon=True)
    sleeper.start()
    clock.wait_for_sleepers(1)
    clock.advance(1.0)
    clock.wait_for_sleepers(1)
    assert clock.next_due == 7.0
    clock.advance(1.0)
    sleeper.join(20)
    assert not sleeper.is_alive()


def _wait_twice(clock):
    condition = threading.Condition()
    with condition:
        clock.wait(condition, 1.0)
        clock.wait(condition, 1.0)


def test_the_wait_for_sleepers_ends():
    with pytest.raises(TimeoutError, match="0 of 1"):
        FakeClock().wait_for_sleepers(1, timeout=0.01)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_time_never_goes_back(seconds):
    with pytest.raises(ConfigError, match="seconds"):
        FakeClock().advance(seconds)


@given(
    sleeps=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), min_size=1, max_size=6),
    steps=st.lists(st.integers(0, 30), max_size=8),
)
@settings(max_examples=40)
def test_who_sleeps_is_who_has_time_left(sleeps, steps):
    """Against a model: sleepers share conditions, time moves in steps, and nobody oversleeps or spins."""
    clock, conditions = FakeClock(0.0), [threading.Condition() for _ in range(3)]
    sleepers = [Sleeper(clock, float(seconds), conditions[index]) for index, seconds in sleeps]
    clock.wait_for_sleepers(len(sleepers))
    now = 0
    for step in [*steps, 50]:
        now += step
        clock.advance(step)
        due = [sleeper for sleeper in sleepers if sleeper.seconds <= now]
        for sleeper in due:
            sleeper.join()
            assert sleeper.seconds <= sleeper.woke_at <= now
        left = [sleeper.seconds for sleeper in sleepers if sleeper.seconds > now]
        clock.wait_for_sleepers(len(left))  # who shares a condition woke too, and sleeps again
        assert clock.sleepers == len(left)
        assert clock.next_due == min(left, default=None)
    # Once at first, and once more at most for every step in which a neighbour woke.
    assert all(sleeper.rounds <= len(steps) + 2 for sleeper in sleepers)


def test_a_collectors_batches_and_retries_go_by_it():
    clock, oracle = FakeClock(), OracleSink([RetryLater(after=30.0)])
    collector = MetricsCollector(MetricsConfig(batch_timeout_seconds=5.0), sinks=[oracle], clock=clock)
    collector.record(AgentMetrics(model="m"))
    clock.wait_for_sleepers(1)
    clock.advance(4.75)
    assert clock.sleepers == 1 and oracle.batches == []
    clock.advance(0.25)
    oracle.wait_for_batches(1)
    clock.wait_for_sleepers(1)
    assert clock.next_due == clock.monotonic() + 30.0
    clock.advance(29.75)
    assert clock.sleepers == 1 and len(oracle.batches) == 1
    clock.advance(0.25)
    oracle.wait_for(1)
    assert collector.shutdown_sync().complete
    oracle.check(collector.stats())
    assert clock.sleepers == 0


def test_lanes_that_hold_their_conditions_and_a_clock_that_moves_never_wait_for_each_other():
    """Threads that sleep, notify and read the time under their conditions, and two that advance: nobody hangs."""
    clock, rounds = FakeClock(0.0), 300
    conditions = [threading.Condition(threading.RLock()) for _ in range(4)]
    running = True

    def lane(number):
        draw = random.Random(number)
        for _ in range(rounds):
            mine, other = conditions[number], conditions[draw.randrange(4)]
            with mine:
                clock.wait(mine, draw.choice([0.5, 3.0, 0.0]))
                clock.monotonic()
            with other:
                other.notify_all()

    def time_passes():
        while running:
            clock.advance(0.25)

    lanes = [threading.Thread(target=lane, args=(number,), daemon=True) for number in range(4)]
    movers = [threading.Thread(target=time_passes, daemon=True) for _ in range(2)]
    for thread in (*lanes, *movers):
        thread.start()
    for thread in lanes:
        thread.join(60)
    running = False
    for thread in movers:
        thread.join(20)
    assert not any(thread.is_alive() for thread in (*lanes, *movers))
    assert clock.sleepers == 0
