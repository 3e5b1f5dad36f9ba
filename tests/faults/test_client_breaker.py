"""LLMClient's circuit breaker and budgets: what is refused is not sent, and is recorded and counted once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tellmeter import Budget, BudgetExceededError, CircuitBreakerConfig, CircuitOpenError, RetryPolicy, Timeouts
from tellmeter.client import calling
from tellmeter.client.reliability import breaker as breakers
from tellmeter.testing import FakeClock
from tests.support.client import ASK, CLAUDE, MODEL, ONCE, Lab, has

pytestmark = [pytest.mark.sdk, pytest.mark.asyncio]
AFTER_TWO = CircuitBreakerConfig(failure_threshold=2, success_threshold=2, half_open_requests=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The breakers' own time."""
    made = FakeClock()

    class Timed(breakers.CircuitBreaker):
        def __init__(self, provider: str, config: Any) -> None:
            super().__init__(provider, config, made.monotonic)

    monkeypatch.setattr(calling, "CircuitBreaker", Timed)
    return made


def shown(lab: Lab) -> tuple[float, float, float, float]:
    """State, open, trips and rejections of openai's breaker on the registry."""
    names = ("state", "open", "trips_total", "rejections_total")
    return tuple(lab.counts(f"llm_circuit_breaker_{name}", "provider").get("openai", 0) for name in names)  # type: ignore[return-value]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_it_opens_refuses_and_recovers(streamed: bool, clock: FakeClock) -> None:
    async def ask(**options: Any) -> Any:
        if not streamed:
            return await lab.generate(**options)
        text, error = await lab.stream(**options)
        return error or text

    async with Lab("500", "reset;after=0", retry_policy=ONCE, circuit_breaker=AFTER_TWO) as lab:
        assert (await ask()).category == "server_error"
        assert shown(lab) == (0, 0, 0, 0)
        assert (await ask()).category == "network"
        assert shown(lab) == (1, 1, 1, 0)
        error = await ask()
        assert isinstance(error, CircuitOpenError) and error.category == "circuit_open"
        assert 0 < error.retry_after <= 60 and (error.provider, error.model) == ("openai", MODEL)
        record = lab.records()[-1]
        assert has(record, status="rejected", error_class="CircuitOpenError", error_category="circuit_open")
        assert has(record, retries=0, cost_usd=0.0, input_tokens=0, request_id=error.request_id, model=MODEL)
        assert has(record, method="stream" if streamed else "generate", status_code=None)
        assert shown(lab) == (1, 1, 1, 1) and len(lab.served) == 2
        answer = await ask(fallback_models=[CLAUDE])
        assert getattr(answer, "text", answer)
        refused, answered = lab.records()[-2:]
        assert has(refused, status="rejected", model=MODEL) and has(answered, status="success", provider="anthropic")
        assert refused.request_id == answered.request_id and answered.tags == {"fallback_for": MODEL}
        assert lab.counts("llm_fallbacks_total", "fallback_model") == {CLAUDE: 1}
        clock.advance(60)
        assert shown(lab) == (2, 0, 1, 2)
        await ask()
        assert shown(lab)[0] == 2
        await ask()
        assert shown(lab) == (0, 0, 1, 2)
        assert [record.status for record in lab.records()[-2:]] == ["success"] * 2
        assert lab.counts("llm_errors_total", "error_class")["CircuitOpenError"] == 2


async def test_a_probe_that_fails_opens_it_again(clock: FakeClock) -> None:
    async with Lab("500", "500", "500", retry_policy=ONCE, circuit_breaker=AFTER_TWO) as lab:
        await lab.generate(), await lab.generate()
        clock.advance(60)
        assert (await lab.generate()).category == "server_error"
        assert (await lab.generate()).category == "circuit_open"
        assert shown(lab) == (1, 1, 2, 1) and len(lab.served) == 3


async def test_one_probe_at_a_time_and_one_that_is_cancelled_gives_its_place_back(clock: FakeClock) -> None:
    async with Lab("500", "500", "hang", retry_policy=ONCE, circuit_breaker=AFTER_TWO) as lab:
        await lab.generate(), await lab.generate()
        clock.advance(60)
        probe = asyncio.create_task(lab.generate())
        await lab.wait_served(3)
        assert (await lab.generate()).category == "circuit_open"
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert (await lab.generate()).text and (await lab.generate()).text
        assert shown(lab) == (0, 0, 1, 1)


async def test_retries_stop_where_it_opens() -> None:
    """The last word of the provider is told, and not that it was not asked again."""
    async with Lab("500", "500", "500", circuit_breaker=AFTER_TWO, retry_policy=RetryPolicy(initial_delay=0.0)) as lab:
        error = await lab.generate()
        assert (error.category, error.status_code) == ("server_error", 500)
        assert has(lab.record(), retries=1, status="error") and len(lab.served) == 2
        assert shown(lab) == (1, 1, 1, 0)


@pytest.mark.parametrize("fault", ["429", "400", "401", "404", "422", "429;code=insufficient_quota"])
async def test_what_is_no_fault_of_the_provider_does_not_open_it(fault: str) -> None:
    breaker = CircuitBreakerConfig(failure_threshold=1)
    async with Lab(*[fault] * 3, retry_policy=ONCE, circuit_breaker=breaker) as lab:
        await lab.generate(), await lab.stream(), await lab.generate()
        assert shown(lab) == (0, 0, 0, 0) and len(lab.served) == 3


@pytest.mark.parametrize(
    ("model", "fault", "timeouts"),
    [
        (MODEL, "529", None),
        (MODEL, "reset;after=4", None),
        (CLAUDE, "error-event;after=6", None),
        (MODEL, "stall;after=6;seconds=60", Timeouts(between_chunks=0.1)),
        (MODEL, "stall;after=1;seconds=60", Timeouts(first_token=0.2)),
    ],
)
async def test_streams_feed_it(model: str, fault: str, timeouts: Timeouts | None) -> None:
    breaker = CircuitBreakerConfig(failure_threshold=1)
    async with Lab(fault, retry_policy=ONCE, circuit_breaker=breaker) as lab:
        await lab.client._calling.sdks.get("anthropic" if model == CLAUDE else "openai")
        _, error = await lab.stream(model, timeouts=timeouts)
        assert error is not None
        _, error = await lab.stream(model)
        assert error.category == "circuit_open" and len(lab.served) == 1


async def test_without_a_breaker_nothing_is_refused() -> None:
    async with Lab(*["500"] * 8, retry_policy=ONCE, circuit_breaker=None) as lab:
        assert {(await lab.generate()).category for _ in range(8)} == {"server_error"}
        assert len(lab.served) == 8 and shown(lab) == (0, 0, 0, 0)


async def test_a_metric_of_the_program_with_the_breakers_name_harms_no_call() -> None:
    async with Lab() as lab:
        lab.registry.counter("llm_circuit_breaker_state", "mine")
        assert (await lab.generate()).text


# ---------------------------------------------------------------------- budgets


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_a_spent_budget_refuses_before_anything_is_sent(streamed: bool) -> None:
    budget = Budget(limit_tokens=1, per="tenant")
    async with Lab("500", budgets=[budget], fallback_models=[CLAUDE]) as lab:
        assert (await lab.generate(tags={"tenant": "a"})).metrics.retries == 1
        if streamed:
            text, error = await lab.stream(tags={"tenant": "a"})
            assert not text
        else:
            error = await lab.generate(tags={"tenant": "a"})
        assert isinstance(error, BudgetExceededError) and (error.category, error.key) == ("budget", "a")
        record = lab.records()[-1]
        assert has(record, status="rejected", error_class="BudgetExceededError", error_category="budget")
        assert has(record, model=MODEL, provider="openai", cost_usd=0.0, request_id=error.request_id)
        assert record.tags == {"tenant": "a"}
        assert len(lab.served) == len(lab.records()) == 2 and not lab.counts("llm_fallbacks_total")
        assert (await lab.generate(tags={"tenant": "b"})).text
        assert budget.status("a").spent_tokens == lab.records()[0].total_tokens


# ---------------------------------------------------------------------- cancelled while our own work is done


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_cancelled_while_the_price_list_is_loaded(streamed: bool) -> None:
    async with Lab("ok", max_concurrency=1) as lab:
        assert (await lab.generate()).text
        loaded, lab.client._calling._loaded = lab.client._calling._loaded, threading.Event()
        task = asyncio.create_task(lab.stream() if streamed else lab.generate())
        await lab.wait_served(2)
        while lab.client._calling._limiter.in_use or not lab.served[-1].whole:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lab.client._calling._loaded.set()
        lab.client._calling._loaded = loaded
        assert has(lab.records()[-1], status="success", output_tokens=lab.served[-1].output_tokens)


@pytest.mark.parametrize("fault", ["ok", "reset;after=4"])
async def test_cancelled_while_a_stream_is_closed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closing = asyncio.Event()

    async def close(source: Any) -> None:
        await source.aclose()
        closing.set()
        await asyncio.Event().wait()

    async with Lab(fault, max_concurrency=1) as lab:
        monkeypatch.setattr(calling, "_close", close)
        task = asyncio.create_task(lab.stream())
        await closing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert has(lab.record(), status="success" if fault == "ok" else "error")
        closing.clear()
        response = lab.client.stream_with_usage(ASK, model=MODEL)
        async for _ in response:
            break
        task = asyncio.create_task(response.aclose())
        await closing.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert has(lab.records()[-1], status="closed_early")
        assert lab.client._calling._limiter.in_use == 0
