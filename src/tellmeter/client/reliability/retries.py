"""RetryPolicy: when a call of the LLMClient is tried again. The loop is tenacity's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeVar

from ...errors import LLMError, MissingExtra
from ...failures import CATEGORIES
from ..checks import check_number

T = TypeVar("T")

RETRIED = frozenset({"rate_limit", "overloaded", "server_error", "network", "timeout"})
"""What the provider or the network may have got over by the next attempt."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Attempts and the pauses between them.

    The pause before attempt n + 1 is a random part of `initial_delay * backoff_factor ** (n - 1)`, which is `max_delay`
    at most (full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), and never less
    than the provider's Retry-After. A call that would pause longer than `max_total_delay` in all, or past its deadline,
    is not tried again.

    max_attempts: the first one included; 1 for no retry.
    initial_delay, max_delay, max_total_delay: seconds.
    respect_retry_after: False waits by the jitter alone.
    retry_on: categories of errors; one that names what no other attempt can cure (`validation`) is still not retried,
        unless the provider says so (`x-should-retry`).

    Raises:
        ConfigError: a value out of its range, or a category that there is not.
    """

    max_attempts: int = 3
    initial_delay: float = 0.5
    max_delay: float = 30.0
    backoff_factor: float = 2.0
    max_total_delay: float = 120.0
    respect_retry_after: bool = True
    retry_on: frozenset[str] = RETRIED

    def __post_init__(self) -> None:
        check_number("RetryPolicy.max_attempts", self.max_attempts, 1, 100, whole=True)
        for name in ("initial_delay", "max_delay", "max_total_delay"):
            check_number(f"RetryPolicy.{name}", getattr(self, name), 0.0, 86_400.0)
        check_number("RetryPolicy.backoff_factor", self.backoff_factor, 1.0, 100.0)
        object.__setattr__(self, "retry_on", frozenset(self.retry_on))
        for category in self.retry_on:
            if category not in CATEGORIES:
                from ...errors import ConfigError

                raise ConfigError(f"RetryPolicy.retry_on: there is no category {category!r}; see failures.CATEGORIES")

    def pause(self, attempts: int, error: LLMError) -> float:
        """Seconds before the next attempt, after so many, of which the last ended with `error`."""
        longest = min(self.max_delay, self.initial_delay * self.backoff_factor ** min(attempts - 1, 64))
        # Not by the module's functions: a program that seeded them must get the numbers that it would get without us.
        jitter = random.SystemRandom().uniform(0.0, longest)
        return max(jitter, error.retry_after or 0.0) if self.respect_retry_after else jitter


def need_tenacity() -> None:
    """Say so now that tenacity is missing, and not at the first failure.

    Raises:
        MissingExtra: it is.
    """
    if find_spec("tenacity") is None:
        raise MissingExtra("tenacity", "client")


async def retried(
    once: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    left: Callable[[], float | None],
    may_retry: Callable[[LLMError], bool],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """What `once` gives, called again while the policy and `may_retry` say so; else what it raised last.

    `left` tells the seconds until nothing is to be tried any more; `sleep` pauses, and is another's in tests.
    """
    failed: list[LLMError] = []

    def worth_it(error: BaseException | None) -> bool:
        return (
            isinstance(error, LLMError)
            and error.is_retryable
            and error.category in policy.retry_on
            and may_retry(error)
        )

    try:
        return await once()  # tenacity would make a tenth of a millisecond of this, and most calls need no more
    except LLMError as error:
        if policy.max_attempts == 1 or not worth_it(error):
            raise
        failed.append(error)
    from tenacity import AsyncRetrying, RetryCallState

    async def attempt() -> T:
        if failed:
            raise failed.pop()
        return await once()

    def error_of(state: RetryCallState) -> BaseException | None:
        return None if state.outcome is None else state.outcome.exception()

    def again(state: RetryCallState) -> bool:
        return worth_it(error_of(state))

    def pause(state: RetryCallState) -> float:
        error = error_of(state)
        return policy.pause(state.attempt_number, error) if isinstance(error, LLMError) else 0.0

    def enough(state: RetryCallState) -> bool:
        if state.attempt_number >= policy.max_attempts:
            return True
        seconds = left()
        pause = state.upcoming_sleep
        return state.idle_for + pause > policy.max_total_delay or (seconds is not None and pause >= seconds)

    return await AsyncRetrying(sleep=sleep, retry=again, wait=pause, stop=enough, reraise=True)(attempt)
