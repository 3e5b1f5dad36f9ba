"""LLMClient.generate under faults: what the caller gets, what is recorded and counted, and what was sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tellmeter import LLMError, LLMTimeoutError, ProviderError, RetryPolicy, Timeouts, UnknownModelError
from tellmeter.testing import Answer, FaultServer
from tests.support.client import CLAUDE, MODEL, ONCE, Lab, has, no_sleep
from tests.support.ports import free_port

pytestmark = [pytest.mark.sdk, pytest.mark.asyncio]

# ---------------------------------------------------------------------- what another attempt cures


@pytest.mark.parametrize(
    ("model", "faults", "statuses"),
    [
        (MODEL, ["500", "500"], {"500": 2, "200": 1}),
        (MODEL, ["429"], {"429": 1, "200": 1}),
        (MODEL, ["503", "408"], {"503": 1, "408": 1, "200": 1}),
        (CLAUDE, ["529", "500"], {"529": 1, "500": 1, "200": 1}),
        (MODEL, ["reset;after=0"], {"error": 1, "200": 1}),
        (MODEL, ["close;after=0", "500"], {"error": 1, "500": 1, "200": 1}),
        (CLAUDE, ["reset;after=0"], {"error": 1, "200": 1}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else None,
)
async def test_it_is_tried_again_until_it_answers(model: str, faults: list[str], statuses: dict[str, int]) -> None:
    async with Lab(*faults) as lab:
        answer = await lab.generate(model)
        record = lab.record()
        assert getattr(answer, "text", ""), repr(answer.original_error)
        assert answer.metrics == record and answer.request_id == record.request_id
        assert answer.provider_request_id == lab.served[-1].request_id != answer.request_id
        assert has(record, status="success", error_class=None, error_category=None, status_code=200, tags={})
        assert has(record, retries=len(faults), input_tokens=lab.served[-1].input_tokens)
        assert record.output_tokens == answer.usage.output_tokens == lab.served[-1].output_tokens > 0
        assert record.cost_usd == answer.cost_usd and record.cost_usd
        assert 0 < record.retry_delay_ms < record.latency_ms
        assert lab.counts("llm_attempts_total", "status") == statuses
        assert lab.counts("llm_retries_total", "model") == {model: len(faults)}
        assert not lab.counts("llm_fallbacks_total") and not lab.counts("llm_circuit_breaker_open")


@pytest.mark.parametrize(
    ("model", "fault", "error_class", "category", "status"),
    [
        (MODEL, "500", "InternalServerError", "server_error", 500),
        (MODEL, "429", "RateLimitError", "rate_limit", 429),
        (CLAUDE, "529", "OverloadedError", "overloaded", 529),
        (MODEL, "503", "InternalServerError", "overloaded", 503),
    ],
)
async def test_what_no_attempt_cured(model: str, fault: str, error_class: str, category: str, status: int) -> None:
    async with Lab(fault, fault, fault, "ok") as lab:
        error = await lab.generate(model)
        assert type(error) is ProviderError and error.__cause__ is error.original_error is not None
        assert (error.category, error.status_code, error.is_retryable) == (category, status, True)
        assert (error.provider, error.model) == (lab.record().provider, model)
        record = lab.record()
        assert has(record, status="error", error_category=category, status_code=status, retries=2)
        assert record.error_class == type(error.original_error).__name__ == error_class
        assert has(record, cost_usd=0.0, output_tokens=0, input_tokens=0, request_id=error.request_id)
        assert lab.counts("llm_attempts_total", "status") == {str(status): 3}
        assert len(lab.served) == 3


# ---------------------------------------------------------------------- what no attempt can cure


@pytest.mark.parametrize("model", [MODEL, CLAUDE])
@pytest.mark.parametrize(
    ("fault", "category"),
    [
        ("400", "validation"),
        ("401", "authentication"),
        ("403", "permission_denied"),
        ("404", "not_found"),
        ("422", "validation"),
        ("402", "quota"),
        ("400;code=context_length_exceeded", None),
    ],
)
async def test_the_request_itself_is_at_fault(model: str, fault: str, category: str | None) -> None:
    async with Lab(fault, "ok") as lab:
        error = await lab.generate(model)
        record = lab.record()
        if category is None:
            category = "context_length" if model == MODEL else "validation"
        assert (error.category, error.is_retryable, error.retry_after) == (category, False, None)
        assert error.status_code == record.status_code == int(fault[:3])
        assert has(record, status="error", error_category=category, retries=0, retry_delay_ms=0.0, cost_usd=0.0)
        assert len(lab.served) == 1 and not lab.counts("llm_retries_total")
        assert lab.client._calling.breaker(record.provider).stats().failures == 0


async def test_an_empty_account_is_not_asked_again() -> None:
    async with Lab("429;code=insufficient_quota") as lab:
        error = await lab.generate()
        assert (error.category, error.is_retryable, error.status_code) == ("quota", False, 429)
        assert has(lab.record(), status="error", error_class="RateLimitError", error_category="quota", retries=0)
        assert len(lab.served) == 1


@pytest.mark.parametrize(
    ("status", "word", "attempts"), [(400, "true", 3), (500, "false", 1), (429, "false", 1), (500, None, 3)]
)
async def test_the_provider_knows_best(status: int, word: str | None, attempts: int) -> None:
    policy = RetryPolicy(initial_delay=0.0, retry_on={"validation", "server_error", "rate_limit"})  # type: ignore[arg-type]
    headers = {"x-should-retry": word} if word else {}
    with FaultServer(Answer(status, b'{"error": {"message": "canary-5e1f"}}', headers)) as server:
        async with Lab(unsent=attempts, retry_policy=policy, base_urls={"openai": server.url}) as lab:
            error = await lab.generate()
            assert error.is_retryable == (word != "false")
            assert server.received == attempts
            assert has(lab.record(), retries=attempts - 1, status_code=status)
            assert lab.counts("llm_attempts_total", "status") == {str(status): attempts}


# ---------------------------------------------------------------------- pauses


@pytest.mark.parametrize(("model", "fault"), [(MODEL, "429"), (CLAUDE, "529"), (MODEL, "503")])
async def test_the_pause_that_the_provider_asks_for(model: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = no_sleep(monkeypatch)
    async with Lab(f"{fault};retry-after=7.5", fault) as lab:
        await lab.generate(model)
        assert pauses == [7.5, 0.0]
        await lab.generate(model, retry_policy=RetryPolicy(initial_delay=0.0, respect_retry_after=False))
        lab.server.script("429;retry-after=8")
        await lab.generate(model, retry_policy=RetryPolicy(initial_delay=0.0, respect_retry_after=False))
        assert pauses == [7.5, 0.0, 0.0]


async def test_a_pause_is_obeyed_and_measured() -> None:
    async with Lab("429;retry-after=0.05") as lab:
        await lab.generate()
        assert lab.record().retry_delay_ms >= 50


@pytest.mark.parametrize(
    "options",
    [
        {"retry_policy": RetryPolicy(max_total_delay=120.0)},
        {"timeouts": Timeouts(total=60.0)},
        {"retry_policy": RetryPolicy(max_total_delay=86_400.0), "timeouts": Timeouts(total=120.0)},
    ],
    ids=["policy", "deadline", "both"],
)
async def test_a_pause_that_is_too_long_is_not_made(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = no_sleep(monkeypatch)
    async with Lab("429;retry-after=3600", **options) as lab:
        error = await lab.generate()
        assert (error.category, error.retry_after, error.is_retryable) == ("rate_limit", 3600.0, True)
        assert has(lab.record(), retries=0, error_class="RateLimitError")
        assert (len(lab.served), pauses) == (1, [])


# ---------------------------------------------------------------------- the network, and time


async def test_nobody_listens() -> None:
    async with Lab(unsent=3, base_urls={"openai": f"http://127.0.0.1:{free_port()}"}) as lab:
        error = await lab.generate()
        assert (error.category, error.status_code, error.is_retryable) == ("network", None, True)
        record = lab.record()
        assert has(record, status="error", error_class="APIConnectionError", error_category="network", retries=2)
        assert has(record, status_code=None, output_tokens=0)
        assert lab.counts("llm_attempts_total", "status") == {"error": 3}
        assert lab.counts("llm_errors_total", "provider", "error_class") == {"openai,APIConnectionError": 1}


@pytest.mark.parametrize("model", [MODEL, CLAUDE])
@pytest.mark.parametrize("fault", ["hang", "stall;after=4;seconds=60"])
async def test_a_provider_that_does_not_answer_in_time(model: str, fault: str) -> None:
    async with Lab(fault, timeouts=Timeouts(total=0.3)) as lab:
        await lab.client._calling.sdks.get("anthropic" if model == CLAUDE else "openai")  # an import takes longer
        error = await lab.generate(model, fallback_models=["gpt-4o-mini"])
        assert isinstance(error, LLMTimeoutError) and isinstance(error, TimeoutError)
        assert (error.limit, error.category, error.is_retryable, error.model) == ("total", "timeout", False, model)
        record = lab.record()
        assert has(record, status="timeout", error_class="LLMTimeoutError", error_category="timeout", retries=0)
        assert record.request_id == error.request_id
        assert len(lab.served) == 1 and not lab.counts("llm_fallbacks_total")


async def test_there_is_no_time_for_the_pause() -> None:
    """The provider's word is told, and not that time ran out while nothing was done."""
    policy = RetryPolicy(initial_delay=0.0)
    async with Lab("500;retry-after=30", timeouts=Timeouts(total=20.0), retry_policy=policy) as lab:
        assert (await lab.generate()).status_code == 500
        assert len(lab.served) == 1


# ---------------------------------------------------------------------- other models


async def test_another_model_is_asked() -> None:
    async with Lab("500", "500", "500", "529") as lab:
        answer = await lab.generate(fallback_models=[CLAUDE, "gpt-4o-mini"], tags={"feature": "chat"})
        first, second = lab.records()
        assert (answer.model, answer.provider, answer.metrics) == (CLAUDE, "anthropic", second)
        assert has(first, model=MODEL, status="error", error_class="InternalServerError", retries=2)
        assert has(second, model=CLAUDE, status="success", retries=1, provider="anthropic")
        assert first.request_id == second.request_id == answer.request_id and first.id != second.id
        assert first.tags == {"feature": "chat"}
        assert second.tags == {"feature": "chat", "fallback_for": MODEL}
        counted = lab.counts("llm_fallbacks_total", "provider", "model", "fallback_model")
        assert counted == {f"openai,{MODEL},{CLAUDE}": 1}
        assert [one.model for one in lab.served] == ["", "", "", "", CLAUDE]


async def test_another_model_of_the_same_provider() -> None:
    async with Lab("404", fallback_models=["gpt-4o-mini"]) as lab:
        answer = await lab.generate(request_id="mine")
        first, second = lab.records()
        assert answer.model == "gpt-4o-mini" and answer.request_id == "mine"
        assert {first.request_id, second.request_id} == {"mine"}
        assert has(first, error_category="not_found", retries=0) and has(second, tags={"fallback_for": MODEL})
        assert lab.counts("llm_fallbacks_total", "fallback_model") == {"gpt-4o-mini": 1}


@pytest.mark.parametrize("fault", ["400", "422", "400;code=content_filter"])
async def test_no_other_model_can_do_what_is_wrong_itself(fault: str) -> None:
    async with Lab(fault, fallback_models=[CLAUDE]) as lab:
        error = await lab.generate()
        assert error.status_code == lab.record().status_code and len(lab.served) == 1
        assert not lab.counts("llm_fallbacks_total")


async def test_no_model_answers() -> None:
    async with Lab("401", "401", retry_policy=ONCE) as lab:
        error = await lab.generate(fallback_models=[CLAUDE])
        assert (error.model, error.provider, error.category) == (CLAUDE, "anthropic", "authentication")
        assert [record.model for record in lab.records()] == [MODEL, CLAUDE]
        assert {record.request_id for record in lab.records()} == {error.request_id}


# ---------------------------------------------------------------------- nothing is sent


async def test_a_model_that_nobody_has() -> None:
    async with Lab() as lab:
        error = await lab.generate("claud-3-5-haiku-latest", tags={"feature": "chat"})
        assert isinstance(error, UnknownModelError) and isinstance(error, ValueError)
        assert "claude-3-5-haiku-latest" in error.near and error.near[0] in str(error)
        record = lab.record()
        assert has(record, status="error", error_class="UnknownModelError", error_category="not_found")
        assert has(record, provider="unknown", model="claud-3-5-haiku-latest", tags={"feature": "chat"}, cost_usd=0.0)
        assert record.request_id == error.request_id and not lab.served
        assert lab.counts("llm_errors_total", "provider", "error_class") == {"unknown,UnknownModelError": 1}


async def test_a_key_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for model, provider in ((MODEL, "openai"), (CLAUDE, "anthropic")):
        async with Lab(api_keys={}) as lab:
            error = await lab.generate(model)
            assert (type(error), error.category, error.provider) == (ProviderError, "authentication", provider)
            assert has(lab.record(), status="error", error_category="authentication", model=model, retries=0)
            assert not lab.served and lab.record().cost_usd == 0.0


async def test_errors_are_llm_errors() -> None:
    async with Lab("500", retry_policy=ONCE) as lab:
        with pytest.raises(LLMError):
            await asyncio.wait_for(lab.client.generate("x", model=MODEL), 60)
