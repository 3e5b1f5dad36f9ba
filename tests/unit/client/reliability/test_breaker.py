import os
import threading

import pytest

from tellmeter import counts
from tellmeter.client.reliability.breaker import CLOSED, HALF_OPEN, OPEN, CircuitBreaker, CircuitBreakerConfig
from tellmeter.errors import CircuitOpenError, ConfigError
from tellmeter.testing import FakeClock
from tests.support.metrics import in_child


@pytest.fixture
def clock():
    return FakeClock()


def made(clock, **config):
    return CircuitBreaker("openai", CircuitBreakerConfig(**config), clock.monotonic)


def fail(breaker, times):
    for _ in range(times):
        breaker.acquire().failed()


def refused(breaker):
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    return caught.value


# ---------------------------------------------------------------------- one after another


def test_it_opens_rests_and_closes_again(clock):
    breaker = made(clock)
    fail(breaker, 4)
    assert breaker.state == CLOSED
    fail(breaker, 1)
    assert breaker.state == OPEN
    clock.advance(48)
    error = refused(breaker)
    assert (error.category, error.provider, error.retry_after, error.is_retryable) == (
        "circuit_open",
        "openai",
        12,
        True,
    )
    assert "openai" in str(error) and "12 s" in str(error)
    clock.advance(12)
    assert breaker.state == HALF_OPEN
    breaker.acquire().succeeded()
    assert breaker.state == HALF_OPEN
    breaker.acquire().succeeded()
    assert breaker.state == CLOSED
    seen = breaker.stats()
    assert (seen.trips, seen.rejections, seen.calls, seen.failures, seen.seconds_until_probe) == (1, 1, 0, 0, 0)


def test_one_failure_of_a_probe_opens_it_for_the_whole_time_again(clock):
    breaker = made(clock)
    fail(breaker, 5)
    clock.advance(60)
    one, other = breaker.acquire(), breaker.acquire()
    one.succeeded()
    clock.advance(1)
    other.failed()
    clock.advance(59)
    assert (breaker.state, breaker.stats().trips, refused(breaker).retry_after) == (OPEN, 2, 1)


def test_a_busy_provider_with_few_errors_stays_in_use(clock):
    breaker = made(clock)
    for _ in range(50):  # 1,000 calls a minute, one in twenty of which fails
        fail(breaker, 1)
        for _ in range(19):
            breaker.acquire().succeeded()
        clock.advance(1.2)
    assert breaker.state == CLOSED


def test_by_the_number_alone_where_the_share_is_zero(clock):
    breaker = made(clock, failure_rate_threshold=0)
    for _ in range(100):
        breaker.acquire().succeeded()
    fail(breaker, 5)
    assert breaker.state == OPEN


def test_failures_that_lie_far_apart_do_not_open_it(clock):
    breaker = made(clock)
    for _ in range(20):
        fail(breaker, 1)
        clock.advance(15.1)
    assert breaker.state == CLOSED and breaker.stats().failures == 3
    clock.advance(60)
    assert (breaker.stats().failures, breaker.stats().calls) == (0, 0)


def test_only_so_many_probes_at_once_and_more_successes_than_places(clock):
    breaker = made(clock, success_threshold=7)
    fail(breaker, 5)
    clock.advance(60)
    probes = [breaker.acquire() for _ in range(3)]
    clock.advance(10)
    assert refused(breaker).retry_after == 50
    for _ in range(7):
        assert breaker.state == HALF_OPEN
        probes.pop(0).succeeded()
        if breaker.state == HALF_OPEN:
            probes.append(breaker.acquire())
    assert breaker.state == CLOSED


def test_a_probe_that_says_nothing_gives_its_place_back(clock):
    breaker = made(clock, half_open_requests=1, timeout_seconds=10)
    fail(breaker, 5)
    clock.advance(10)
    breaker.acquire().released()
    breaker.acquire()  # dropped
    hanging = breaker.acquire()
    refused(breaker)
    clock.advance(10)
    late, hanging = hanging, breaker.acquire()
    late.succeeded()  # it took long, but it came: that counts, and takes nobody's place
    refused(breaker)
    hanging.succeeded()
    assert breaker.state == CLOSED


def test_calls_of_an_earlier_state_say_nothing_about_this_one(clock):
    breaker = made(clock)
    early = [breaker.acquire() for _ in range(10)]
    fail(breaker, 5)
    early.pop().failed()
    assert breaker.stats().calls == 5
    clock.advance(60)
    early.pop().succeeded()
    early.pop().succeeded()
    probes = [breaker.acquire() for _ in range(3)]
    early.pop().failed()
    refused(breaker)
    assert breaker.state == HALF_OPEN
    probes.pop().succeeded()
    probes.pop().succeeded()
    for permit in early + probes:
        permit.failed()
    assert (breaker.state, breaker.stats().failures) == (CLOSED, 0)


def test_a_permit_ends_once(clock):
    breaker = made(clock)
    permit = breaker.acquire()
    for _ in range(20):
        permit.failed()
        permit.succeeded()
        permit.released()
    assert (breaker.stats().calls, breaker.stats().failures) == (1, 1)


def test_a_reset_closes_it_and_forgets_what_is_on_its_way(clock):
    told = []
    breaker = made(clock, on_close=told.append)
    before = breaker.acquire()
    fail(breaker, 5)
    breaker.reset()
    before.failed()
    assert (breaker.state, breaker.stats().calls, breaker.stats().trips, told) == (CLOSED, 0, 1, ["openai"])
    fail(breaker, 4)
    breaker.reset()
    fail(breaker, 4)
    assert breaker.state == CLOSED and told == ["openai"]


def test_a_clock_that_jumps_back_keeps_nobody_waiting_for_longer():
    now = 5000.0
    breaker = CircuitBreaker("openai", clock=lambda: now)
    fail(breaker, 5)
    now = 10.0
    assert breaker.stats().seconds_until_probe == 60
    now = 69.0
    assert refused(breaker).retry_after == 1
    now = 70.0
    assert breaker.state == HALF_OPEN
    breaker.acquire()


# ---------------------------------------------------------------------- callbacks and configuration


def test_callbacks_hear_of_each_change_and_may_ask_and_raise(clock):
    told = []

    def hear(what):
        def callback(provider):
            told.append((what, provider, breaker.state, breaker.stats().state))
            raise RuntimeError("sk-canary")

        return callback

    before = counts.total("guarded_errors")
    breaker = made(clock, on_open=hear("open"), on_close=hear("close"), on_half_open=hear("half"))
    fail(breaker, 5)
    clock.advance(60)
    assert [what for what, *_ in told] == ["open"]  # time alone calls nobody
    permit = breaker.acquire()
    permit.succeeded()
    breaker.acquire().succeeded()
    assert told == [
        ("open", "openai", OPEN, OPEN),
        ("half", "openai", HALF_OPEN, HALF_OPEN),
        ("close", "openai", CLOSED, CLOSED),
    ]
    assert counts.total("guarded_errors") == before + 3


def test_a_ctrl_c_inside_a_callback_is_the_programs(clock):
    def interrupted(provider):
        raise KeyboardInterrupt

    breaker = made(clock, on_open=interrupted)
    with pytest.raises(KeyboardInterrupt):
        fail(breaker, 5)
    assert breaker.state == OPEN


async def coroutine(provider):
    pass


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failure_threshold", 0),
        ("failure_threshold", 1.5),
        ("failure_threshold", True),
        ("success_threshold", 0),
        ("half_open_requests", 0),
        ("timeout_seconds", 0),
        ("timeout_seconds", float("nan")),
        ("window_seconds", -1),
        ("window_seconds", "60"),
        ("failure_rate_threshold", 1.01),
        ("on_open", "log"),
        ("on_close", coroutine),
    ],
)
def test_what_cannot_be_is_refused_by_name(field, value):
    with pytest.raises(ConfigError) as caught:
        CircuitBreakerConfig(**{field: value})
    assert f"CircuitBreakerConfig.{field} = " in str(caught.value) and "it must be" in str(caught.value)


# ---------------------------------------------------------------------- many at once


def at_once(number, act):
    ready = threading.Barrier(number)

    def run():
        ready.wait(30)
        act()

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_threads_at_once_get_the_probes_that_there_are(clock):
    breaker = made(clock)
    fail(breaker, 5)
    clock.advance(60)
    admitted, rejected = [], []

    def ask():
        try:
            admitted.append(breaker.acquire())
        except CircuitOpenError:
            rejected.append(1)

    at_once(16, ask)
    assert len(admitted) == 3 and len(rejected) == breaker.stats().rejections == 13


def test_nothing_is_lost_between_threads(clock):
    opened, half, rejected, succeeded = [], [], [], []
    breaker = made(
        clock,
        failure_threshold=3,
        timeout_seconds=1,
        on_open=opened.append,
        on_half_open=half.append,
        window_seconds=10,
    )

    def hammer():
        for number in range(400):
            try:
                permit = breaker.acquire()
            except CircuitOpenError:
                rejected.append(1)
                clock.advance(0.25)
                continue
            if number % 3:
                permit.failed()
            else:
                succeeded.append(1)
                permit.succeeded()
            permit.failed()

    at_once(8, hammer)
    seen = breaker.stats()
    assert seen.trips == len(opened) > 10
    assert seen.rejections == len(rejected)
    assert 0 <= len(opened) - len(half) <= 1
    clock.advance(1)
    for _ in range(2):
        breaker.acquire().succeeded()
    assert breaker.state == CLOSED


def test_a_permit_that_the_garbage_collector_ends_in_the_midst_of_another_step():
    """The collector may close a generator that ends its permit anywhere; here it does when the time is asked for."""
    waiting = []

    def clock():
        if waiting:
            waiting.pop().failed()
        return 1.0

    breaker = CircuitBreaker("openai", CircuitBreakerConfig(failure_threshold=2), clock)
    seen = []

    def run():
        for step in (breaker.stats, breaker.reset, breaker.stats, breaker.acquire):
            waiting.append(breaker.acquire())
            try:
                step()
            except CircuitOpenError as error:
                seen.append(error)

    at_once(1, run)
    assert len(seen) == 1 and breaker.stats().trips == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_knows_the_state_and_counts_its_own():
    assert in_child(
        """
        import json, os, threading
        from tellmeter.client.reliability.breaker import CircuitBreaker, CircuitBreakerConfig
        now = 0.0
        breaker = CircuitBreaker("openai", CircuitBreakerConfig(half_open_requests=1), clock=lambda: now)
        for _ in range(5):
            breaker.acquire().failed()
        now = 60.0
        probe = breaker.acquire()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            probe.failed()
            breaker.acquire().succeeded()
            seen = breaker.stats()
            breaker.acquire().succeeded()
            os.write(writing, json.dumps([seen.state, seen.trips, breaker.state]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps([json.loads(os.read(reading, 1000)), breaker.state, breaker.stats().trips]))
        """
    ) == [["half_open", 0, "closed"], "half_open", 1]
