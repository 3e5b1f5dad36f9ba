import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.client.reliability.retries import RETRIED, RetryPolicy, retried
from tellmeter.errors import BudgetExceededError, ConfigError, LLMError, ProviderError

OK = "answer"


def error(category="server_error", *, retry_after=None, is_retryable=True):
    return ProviderError("no", category=category, retry_after=retry_after, is_retryable=is_retryable)


class Run:
    """One call whose attempts come to `script`, the last of it again and again: what it gave, tried and waited."""

    def __init__(self, script, policy, *, time=None, may_retry=lambda error: True):
        self.pauses = []
        self.attempts = 0
        self.now = 0.0

        async def once():
            came = script[min(self.attempts, len(script) - 1)]
            self.attempts += 1
            if isinstance(came, BaseException):
                raise came
            return came

        async def sleep(seconds):
            self.pauses.append(seconds)
            self.now += seconds

        def left():
            return None if time is None else time - self.now

        try:
            self.gave = asyncio.run(retried(once, policy, left=left, may_retry=may_retry, sleep=sleep))
        except BaseException as raised:
            self.gave = raised


# ---------------------------------------------------------------------- any script against a simple model

outcomes = st.one_of(
    st.just(OK),
    st.builds(
        error,
        st.sampled_from(["rate_limit", "server_error", "network", "timeout", "overloaded", "validation", "quota"]),
        retry_after=st.one_of(st.none(), st.floats(0, 40)),
        is_retryable=st.booleans(),
    ),
    st.builds(ValueError),
)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 6),
    initial_delay=st.floats(0, 5),
    max_delay=st.floats(0, 20),
    backoff_factor=st.floats(1, 4),
    max_total_delay=st.floats(0, 60),
    respect_retry_after=st.booleans(),
    retry_on=st.sampled_from([RETRIED, frozenset({"rate_limit"}), frozenset(), frozenset({"validation", "network"})]),
)


@given(st.lists(outcomes, min_size=1, max_size=7), policies, st.one_of(st.none(), st.floats(0.001, 60)))
def test_every_script_is_played_as_the_policy_says(script, policy, time):
    run = Run(script, policy, time=time)
    played = [script[min(number, len(script) - 1)] for number in range(run.attempts)]
    assert run.gave is played[-1]
    assert run.attempts == len(run.pauses) + 1 <= policy.max_attempts
    for number, (came, pause) in enumerate(zip(played, run.pauses, strict=False), start=1):
        assert isinstance(came, LLMError) and came.is_retryable and came.category in policy.retry_on
        asked = (came.retry_after or 0.0) if policy.respect_retry_after else 0.0
        most = min(policy.max_delay, policy.initial_delay * policy.backoff_factor ** (number - 1))
        assert asked <= pause <= max(asked, most)
    assert sum(run.pauses) <= policy.max_total_delay + 1e-9
    assert time is None or sum(run.pauses) < time
    last = played[-1]
    if last is OK or not isinstance(last, LLMError) or not last.is_retryable or last.category not in policy.retry_on:
        return
    # It could have been tried again: then a limit was reached, at the latest by the longest pause that was possible.
    asked = (last.retry_after or 0.0) if policy.respect_retry_after else 0.0
    most = min(policy.max_delay, policy.initial_delay * policy.backoff_factor ** (run.attempts - 1))
    total = sum(run.pauses) + max(asked, most)
    assert (
        run.attempts == policy.max_attempts
        or total > policy.max_total_delay - 1e-9
        or (time is not None and total >= time - 1e-9)
    )


@given(st.integers(1, 100), policies, st.one_of(st.none(), st.floats(0, 1e6)))
def test_a_pause(attempts, policy, retry_after):
    pause = policy.pause(attempts, error(retry_after=retry_after))
    asked = (retry_after or 0.0) if policy.respect_retry_after else 0.0
    assert asked <= pause <= max(asked, policy.max_delay)


# ---------------------------------------------------------------------- one by one


def test_pauses_are_spread_over_the_whole_range():
    policy = RetryPolicy(initial_delay=1.0, backoff_factor=2.0, max_delay=3.0)
    for attempts, most in ((1, 1.0), (2, 2.0), (3, 3.0), (90, 3.0)):
        pauses = [policy.pause(attempts, error()) for _ in range(300)]
        assert min(pauses) < most / 10 and most * 0.9 < max(pauses) <= most


def test_a_seeded_program_gets_its_own_numbers():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    RetryPolicy().pause(1, error())
    assert random.random() == expected


def test_a_longer_pause_than_allowed_ends_it():
    assert Run([error(retry_after=121)], RetryPolicy()).attempts == 1
    run = Run([error(retry_after=50)], RetryPolicy(max_attempts=9))
    assert (run.attempts, run.pauses) == (3, [50, 50])  # 120 s in all


def test_nothing_is_tried_beyond_the_deadline():
    run = Run([error(retry_after=4)], RetryPolicy(max_attempts=9), time=10)
    assert (run.attempts, run.gave.retry_after) == (3, 4)


def test_one_that_may_not_is_not_tried_again():
    first, second = error("network"), error("overloaded")
    run = Run([first, second, OK], RetryPolicy(initial_delay=0.0), may_retry=lambda error: error is first)
    assert run.gave is second and run.attempts == 2


@pytest.mark.parametrize(
    "raised",
    [
        ValueError(),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        BudgetExceededError("no", category="budget"),
        error("quota", is_retryable=False),
        error("rate_limit", is_retryable=False),
    ],
    ids=lambda raised: f"{type(raised).__name__} {getattr(raised, 'category', '')}",
)
def test_what_is_no_fault_of_the_provider_goes_through(raised):
    run = Run([raised, OK], RetryPolicy())
    assert type(run.gave) is type(raised) and run.attempts == 1


def test_a_cancellation_in_a_pause_ends_it():
    async def main():
        paused = asyncio.Event()
        attempts = []

        async def once():
            attempts.append(1)
            raise error()

        async def sleep(seconds):
            paused.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(
            retried(once, RetryPolicy(), left=lambda: None, may_retry=lambda error: True, sleep=sleep)
        )
        await paused.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert attempts == [1]

    asyncio.run(main())


def test_it_sleeps_where_nobody_says_how():
    async def main():
        script = iter([error(), error()])

        async def once():
            if (raised := next(script, None)) is not None:
                raise raised
            return OK

        policy = RetryPolicy(initial_delay=0.001)
        return await retried(once, policy, left=lambda: None, may_retry=lambda error: True)

    assert asyncio.run(main()) == OK


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 1.5),
        ("max_attempts", True),
        ("initial_delay", -1),
        ("max_delay", float("nan")),
        ("max_total_delay", float("inf")),
        ("backoff_factor", 0.5),
        ("backoff_factor", "2"),
        ("retry_on", {"server_errors"}),
    ],
)
def test_a_policy_that_cannot_be(field, value):
    with pytest.raises(ConfigError, match=field):
        RetryPolicy(**{field: value})


def test_categories_may_come_in_any_collection():
    assert RetryPolicy(retry_on=["timeout", "network"]).retry_on == {"timeout", "network"}
