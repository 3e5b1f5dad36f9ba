"""Turn: what an attempt tells the breaker and the limit."""

import asyncio

import pytest

from tellmeter import (
    CircuitBreakerConfig,
    CircuitOpenError,
    LLMTimeoutError,
    MetricsCollector,
    MetricsConfig,
    ProviderError,
)
from tellmeter.client.calls import ClientCall
from tellmeter.client.reliability.breaker import CircuitBreaker
from tellmeter.client.reliability.limiter import Limiter
from tellmeter.client.turns import Turn

ONE = CircuitBreakerConfig(failure_threshold=1, failure_rate_threshold=0.0)


def call_of():
    """A call that has ended."""
    made = {
        "provider": "openai",
        "model": "m",
        "operation": "chat",
        "method": "generate",
        "request_id": "x",
        "tags": {},
    }
    call = ClientCall(MetricsCollector(MetricsConfig(enabled=False)), **made)
    call.end()
    return call


def timed_out(limit):
    error = LLMTimeoutError("timed out", category="timeout")
    error.limit = limit
    return error


@pytest.mark.parametrize(
    ("error", "failures", "calls"),
    [
        (None, 0, 1),
        (ProviderError("x", category="server_error", status_code=500), 1, 1),
        (ProviderError("x", category="overloaded", status_code=529), 1, 1),
        (ProviderError("x", category="network"), 1, 1),
        (timed_out("first_token"), 1, 1),
        (timed_out("total"), 0, 0),
        (ProviderError("x", category="validation", status_code=400), 0, 1),
        (ProviderError("x", category="authentication", status_code=401), 0, 1),
        (ProviderError("x", category="rate_limit", status_code=429), 0, 0),
        (ProviderError("x", category="authentication"), 0, 0),
        (asyncio.CancelledError(), 0, 0),
        (CircuitOpenError("x"), 0, 0),
    ],
    ids=lambda value: getattr(value, "category", None) or str(value),
)
@pytest.mark.asyncio
async def test_only_faults_of_the_server_and_the_network_count(error, failures, calls):
    breaker, limiter = CircuitBreaker("openai", ONE), Limiter(1)
    await limiter.acquire()
    turn = Turn(call_of(), limiter, breaker.acquire())
    turn.over(error)
    stats = breaker.stats()
    assert (breaker.state == "open") == bool(failures)
    if not failures:
        assert (stats.failures, stats.calls) == (failures, calls)
    assert limiter.in_use == 0
    turn.over(ProviderError("x", category="server_error"))  # it is over
    assert limiter.in_use == 0 and breaker.stats().trips == failures
