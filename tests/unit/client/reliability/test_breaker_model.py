"""The circuit breaker, whatever happens in whatever order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tellmeter.client.reliability.breaker import CLOSED, HALF_OPEN, OPEN, CircuitBreaker, CircuitBreakerConfig
from tellmeter.errors import CircuitOpenError

WINDOW, TIMEOUT = 20, 5


class Life(RuleBasedStateMachine):
    """Beside a model that keeps every call, and judges by all of them."""

    @initialize(
        failures=st.integers(1, 4),
        rate=st.sampled_from([0, 0.5, 1]),
        successes=st.integers(1, 4),
        places=st.integers(1, 3),
    )
    def begin(self, failures, rate, successes, places):
        self.told = []
        self.config = CircuitBreakerConfig(
            failure_threshold=failures,
            failure_rate_threshold=rate,
            success_threshold=successes,
            half_open_requests=places,
            timeout_seconds=TIMEOUT,
            window_seconds=WINDOW,
            on_open=lambda provider: self.told.append(OPEN),
            on_close=lambda provider: self.told.append(CLOSED),
            on_half_open=lambda provider: self.told.append(HALF_OPEN),
        )
        self.shown = 1000  # by the clock, which jumps
        self.now = 0
        self.breaker = CircuitBreaker("openai", self.config, lambda: self.shown)
        self.state, self.until, self.changes = CLOSED, 0, []
        self.calls, self.successes, self.trips, self.rejections = [], 0, 0, 0
        self.permits = {}  # number -> permit, as long as it is held
        self.current = set()  # those acquired in this state
        self.probes = {}  # number -> when its place is given back
        self.number = 0

    def change(self, state):
        self.state = state
        self.changes.append(state)
        self.current, self.probes, self.successes = set(), {}, 0
        if state == OPEN:
            self.until, self.trips = self.now + TIMEOUT, self.trips + 1
        if state == CLOSED:
            self.calls = []

    def in_window(self):
        return [failed for at, failed in self.calls if self.now - at < WINDOW]

    def wait(self):
        taken = [due for due in self.probes.values() if due > self.now]
        if self.state == OPEN:
            return max(0, self.until - self.now)
        return min(taken) - self.now if self.state == HALF_OPEN and len(taken) >= self.config.half_open_requests else 0

    @rule()
    def acquire(self):
        wait = self.wait()
        if wait:
            with pytest.raises(CircuitOpenError) as caught:
                self.breaker.acquire()
            assert caught.value.retry_after == wait
            self.rejections += 1
            return
        if self.state == OPEN:
            self.change(HALF_OPEN)
        self.number += 1
        self.permits[self.number] = self.breaker.acquire()
        self.current.add(self.number)
        if self.state == HALF_OPEN:
            self.probes[self.number] = self.now + TIMEOUT

    @precondition(lambda self: self.permits)
    @rule(
        data=st.data(),
        how=st.sampled_from(["succeeded", "failed", "failed", "released", "dropped"]),
        again=st.booleans(),
    )
    def end(self, data, how, again):
        number = data.draw(st.sampled_from(sorted(self.permits)))
        permit = self.permits.pop(number)
        if how != "dropped":
            getattr(permit, how)()
            if again:
                permit.failed()
        del permit
        self.probes.pop(number, None)
        if number not in self.current or how in ("released", "dropped"):
            return
        self.calls.append((self.now, how == "failed"))
        seen = self.in_window()
        if how == "succeeded":
            self.successes += 1
            if self.state == HALF_OPEN and self.successes == self.config.success_threshold:
                self.change(CLOSED)
        elif self.state == HALF_OPEN or (
            sum(seen) >= self.config.failure_threshold and sum(seen) / len(seen) >= self.config.failure_rate_threshold
        ):
            self.change(OPEN)

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds):
        self.now += seconds
        self.shown += seconds

    @rule(seconds=st.integers(1, 500))
    def the_clock_jumps_back(self, seconds):
        self.shown -= seconds

    @rule()
    def it_is_never_stuck(self):
        self.time_passes(TIMEOUT)
        assert self.wait() == 0
        self.acquire()

    @rule(rarely=st.integers(0, 4))
    def reset(self, rarely):
        if rarely == 0:
            self.breaker.reset()
            if self.state != CLOSED:
                self.change(CLOSED)
            self.calls, self.current = [], set()

    @invariant()
    def it_is_as_the_model_says(self):
        seen = self.breaker.stats()
        failures = self.in_window()
        wait = self.wait()
        assert (seen.calls, seen.failures) == (len(failures), sum(failures))
        assert (seen.trips, seen.rejections, seen.seconds_until_probe) == (self.trips, self.rejections, wait)
        assert seen.state == self.breaker.state == (HALF_OPEN if self.state == OPEN and not wait else self.state)
        assert sum(due > self.now for due in self.probes.values()) <= self.config.half_open_requests
        assert self.told == self.changes


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestLife = Life.TestCase
