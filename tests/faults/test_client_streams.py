"""LLMClient.stream under faults: what was said is said once, and the record keeps what came."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from tellmeter import CircuitBreakerConfig, ConfigError, LLMTimeoutError, ProviderError, RetryPolicy, Timeouts
from tests.support.client import ASK, CLAUDE, MODEL, Lab, has

pytestmark = [pytest.mark.sdk, pytest.mark.asyncio]
BOTH = pytest.mark.parametrize("model", [MODEL, CLAUDE])
PATIENT = 60.0

# ---------------------------------------------------------------------- before the first token


@pytest.mark.parametrize(
    ("model", "faults", "statuses"),
    [
        (MODEL, ["500", "429"], {"500": 1, "429": 1, "200": 1}),
        (CLAUDE, ["529"], {"529": 1, "200": 1}),
        (MODEL, ["reset;after=0"], {"error": 1, "200": 1}),
        (MODEL, ["reset;after=1"], {"200": 2}),  # the headers, and an event without text
        (CLAUDE, ["reset;after=2", "close;after=1"], {"200": 3}),
        (MODEL, ["error-event;after=0"], {"200": 2}),
        (CLAUDE, ["error-event;after=1"], {"200": 2}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else None,
)
async def test_a_stream_that_does_not_begin_is_tried_again(
    model: str, faults: list[str], statuses: dict[str, int]
) -> None:
    async with Lab(*faults) as lab:
        text, error = await lab.stream(model)
        record = lab.record()
        assert text and error is None, repr(getattr(error, "original_error", None))
        assert has(record, status="success", method="stream", retries=len(faults), error_class=None, model=model)
        assert has(record, output_tokens=lab.served[-1].output_tokens, tokens_estimated=False)
        assert record.stream.status == "completed" and record.cost_usd
        assert lab.counts("llm_attempts_total", "status") == statuses
        assert len(lab.served) == len(faults) + 1


@BOTH
async def test_a_slow_first_token_is_not_waited_for(model: str) -> None:
    slow = "stall;after=1;seconds=60"
    async with Lab(slow, slow, slow) as lab:
        await lab.client._calling.sdks.get("anthropic" if model == CLAUDE else "openai")  # an import takes longer
        text, error = await lab.stream(model, timeouts=Timeouts(first_token=0.3))
        assert (text, error.limit, error.category, error.is_retryable) == ("", "first_token", "timeout", True)
        assert isinstance(error, LLMTimeoutError) and error.model == model
        record = lab.record()
        assert has(record, status="timeout", error_class="LLMTimeoutError", error_category="timeout", retries=2)
        assert record.request_id == error.request_id
        text, error = await lab.stream(model)
        assert text and error is None


@BOTH
async def test_headers_that_do_not_come(model: str) -> None:
    async with Lab("hang", "hang") as lab:
        await lab.client._calling.sdks.get("anthropic" if model == CLAUDE else "openai")
        policy = RetryPolicy(max_attempts=2, initial_delay=0.0)
        text, error = await lab.stream(model, timeouts=Timeouts(first_token=0.3), retry_policy=policy)
        assert (text, error.limit) == ("", "first_token")
        assert has(lab.record(), status="timeout", error_category="timeout", retries=1, method="stream")
        assert lab.counts("llm_attempts_total", "status") == {"timeout": 2}


@pytest.mark.parametrize("fault", ["400", "401", "404", "422", "429;code=insufficient_quota"])
@BOTH
async def test_what_cannot_succeed_is_not_tried_again(model: str, fault: str) -> None:
    if model == CLAUDE and "quota" in fault:
        pytest.skip("Anthropic has no such code")
    async with Lab(fault, "ok") as lab:
        text, error = await lab.stream(model)
        assert (text, error.is_retryable, error.status_code) == ("", False, int(fault[:3]))
        assert has(lab.record(), status="error", retries=0, error_category=error.category, cost_usd=0.0)
        assert len(lab.served) == 1


async def test_another_model_answers() -> None:
    async with Lab("500", "reset;after=1", "503") as lab:
        text, error = await lab.stream(fallback_models=[CLAUDE], tags={"feature": "x"})
        first, second = lab.records()
        assert text and error is None
        assert has(first, model=MODEL, status="error", retries=2, tags={"feature": "x"}, method="stream")
        assert has(second, model=CLAUDE, status="success", tags={"feature": "x", "fallback_for": MODEL})
        assert first.request_id == second.request_id
        assert lab.counts("llm_fallbacks_total", "model", "fallback_model") == {f"{MODEL},{CLAUDE}": 1}


# ---------------------------------------------------------------------- after it


@pytest.mark.parametrize(
    ("model", "fault", "category"),
    [
        (MODEL, "reset;after=4", "network"),
        (MODEL, "close;after=4", "network"),
        (CLAUDE, "reset;after=6", "network"),
        (CLAUDE, "close;after=6", "network"),
        (MODEL, "error-event;after=4", "server_error"),
        (CLAUDE, "error-event;after=6", "overloaded"),
    ],
)
async def test_a_stream_that_breaks_off(model: str, fault: str, category: str) -> None:
    async with Lab(fault, "ok") as lab:
        text, error = await lab.stream(model, fallback_models=["gpt-4o-mini"])
        assert text and type(error) is ProviderError and error.category == category, error.original_error
        record = lab.record()
        assert (error.provider, error.model, error.request_id) == (record.provider, model, record.request_id)
        assert has(record, status="error", error_category=category, retries=0, method="stream", tags={})
        assert record.error_class == type(error.original_error).__name__
        assert record.tokens_estimated and 0 < record.output_tokens < 20 and record.cost_usd
        assert record.stream.status == "error" and record.stream.error_count == 1
        assert lab.counts("llm_usage_missing_total") == {"": 1}
        assert not lab.counts("llm_fallbacks_total") and len(lab.served) == 1


@BOTH
async def test_a_provider_that_falls_silent(model: str) -> None:
    async with Lab("stall;after=6;seconds=60", "ok") as lab:
        text, error = await lab.stream(model, timeouts=Timeouts(between_chunks=0.15))
        assert text and isinstance(error, LLMTimeoutError) and error.limit == "between_chunks"
        record = lab.record()
        assert has(record, status="timeout", error_class="LLMTimeoutError", error_category="timeout", retries=0)
        assert record.output_tokens and record.cost_usd and record.tokens_estimated
        assert record.stream.status == "error" and len(lab.served) == 1


@BOTH
async def test_a_stream_that_takes_too_long(model: str) -> None:
    async with Lab("stall;after=6;seconds=60") as lab:
        await lab.client._calling.sdks.get("anthropic" if model == CLAUDE else "openai")
        _, error = await lab.stream(model, timeouts=Timeouts(total=0.3), fallback_models=["gpt-4o-mini"])
        assert isinstance(error, LLMTimeoutError) and (error.limit, error.is_retryable) == ("total", False)
        assert has(lab.record(), status="timeout", error_class="LLMTimeoutError", retries=0)
        assert lab.client._calling.breaker(lab.record().provider).stats().failures == 0  # 0.3 s are the caller's fault


async def test_a_stream_without_counts() -> None:
    async with Lab("no-usage") as lab:
        response = lab.client.stream_with_usage(ASK, model=MODEL)
        whole = await response.get_response()
        lab.said.append(whole.text)
        assert has(lab.record(), status="success", tokens_estimated=True)
        assert whole.usage.output_tokens == lab.record().output_tokens > 0


async def test_callbacks_hear_of_the_end_once() -> None:
    heard: list[Any] = []
    told: list[list[str]] = []
    async with Lab("reset;after=4", "ok", "400") as lab:
        for _ in range(3):
            response = lab.client.stream_with_usage(
                ASK, model=MODEL, on_start=heard.append, on_usage=heard.append, on_complete=heard.append,
                on_error=heard.append,
            )  # fmt: skip
            await lab.outcome(response.get_response())
            assert {event.request_id for event in heard} == {lab.records()[-1].request_id}
            assert not response.get_text() or response.get_text() not in repr(heard)
            told.append([type(event).__name__ for event in heard])
            heard.clear()
    assert told == [
        ["StreamStarted", "StreamFailed"],
        ["StreamStarted", "StreamUsage", "StreamCompleted"],
        ["StreamFailed"],
    ]


# ---------------------------------------------------------------------- cancelled by the caller


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENT)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("fault", "status", "attempts"),
    [("hang", "cancelled", {"cancelled": 1}), ("429;retry-after=60", "cancelled", {"429": 1})],
    ids=["waiting for the headers", "in a pause"],
)
async def test_cancelled_before_an_answer(fault: str, status: str, attempts: Any, streamed: bool) -> None:
    async with Lab(fault, max_concurrency=1) as lab:
        task = asyncio.create_task(lab.stream() if streamed else lab.generate())
        await lab.wait_served(1)
        if fault != "hang":
            await until(lambda: lab.client._calling._limiter.in_use == 0)
        await cancel(task)
        record = lab.record()
        assert has(record, status=status, error_class="CancelledError", error_category="cancelled", retries=0)
        assert lab.counts("llm_attempts_total", "status") == attempts
        assert not lab.counts("llm_errors_total")
        assert lab.client._calling._limiter.in_use == lab.client._calling._limiter.waiting == 0
        assert lab.client._calling.breaker("openai").stats().calls == 0
        assert (await lab.generate()).text


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_cancelled_while_others_are_asking(streamed: bool) -> None:
    async with Lab("hang", max_concurrency=1) as lab:
        first = asyncio.create_task(lab.generate())
        await lab.wait_served(1)
        second = asyncio.create_task(lab.stream() if streamed else lab.generate())
        await until(lambda: lab.client._calling._limiter.waiting == 1)
        await cancel(second)
        assert has(lab.record(), status="cancelled", error_category="cancelled", cost_usd=0.0)
        await cancel(first)
        assert (await lab.generate()).text
        assert len(lab.served) == 2


@BOTH
async def test_cancelled_inside_a_stream(model: str) -> None:
    async with Lab("stall;after=6;seconds=60", max_concurrency=1) as lab:
        response = lab.client.stream_with_usage(ASK, model=model)
        said = asyncio.Event()

        async def read() -> None:
            async for _ in response:
                said.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(said.wait(), PATIENT)
        await asyncio.sleep(0.05)  # what else came before the silence
        await cancel(task)
        record = lab.record()
        assert has(record, status="cancelled", error_category="cancelled", retries=0)
        assert record.output_tokens and record.tokens_estimated and record.stream.status == "cancelled"
        assert response.get_text() and response.get_usage().output_tokens == record.output_tokens
        assert lab.client._calling._limiter.in_use == 0


@pytest.mark.parametrize("fault", ["ok", "stall;after=6;seconds=60"])
@pytest.mark.parametrize("model", [MODEL, CLAUDE])
@pytest.mark.parametrize("how", ["break", "aclose", "with", "dropped", "stream()", "raised"])
async def test_left_early(how: str, model: str, fault: str) -> None:
    breaker = CircuitBreakerConfig(failure_threshold=1)
    async with Lab(fault, max_concurrency=1, circuit_breaker=breaker) as lab:
        response = lab.client.stream_with_usage(ASK, model=model)
        if how == "with":
            async with response:
                async for _ in response:
                    break
        elif how == "raised":
            with pytest.raises(ZeroDivisionError):
                async with response:
                    async for _ in response:
                        raise ZeroDivisionError
        elif how == "stream()":
            texts = lab.client.stream(ASK, model=model)
            assert await anext(texts)
            await texts.aclose()
        else:
            async for _ in response:
                break
            if how == "aclose":
                await response.aclose()
        del response
        if how in ("break", "dropped"):
            gc.collect()
        await until(lambda: not lab.client.metrics_collector.open_calls)
        record = lab.record()
        assert has(record, status="closed_early", error_class=None, error_category="cancelled", retries=0)
        assert record.output_tokens and record.tokens_estimated and record.stream.status == "closed_early"
        assert not lab.counts("llm_errors_total") and lab.client._calling._limiter.in_use == 0
        assert not lab.counts("llm_circuit_breaker_open")
        assert (await lab.generate()).text


async def test_a_response_that_is_not_read() -> None:
    async with Lab("500", retry_policy=RetryPolicy(max_attempts=1)) as lab:
        unread = lab.client.stream_with_usage(ASK, model=MODEL)
        await unread.aclose()
        with pytest.raises(ConfigError):
            async for _ in unread:
                pass
        failed = lab.client.stream_with_usage(ASK, model=MODEL)
        with pytest.raises(ProviderError):
            await failed
        with pytest.raises(ConfigError):
            async for _ in failed:
                pass
        assert len(lab.records()) == len(lab.served) == 1
        heard: list[Any] = []
        closed = await lab.client.stream_with_usage(ASK, model=MODEL, on_complete=heard.append)
        await closed.aclose()
        with pytest.raises(ConfigError):
            await closed.get_response()
        assert not heard and closed.get_text() == ""
        assert has(lab.records()[-1], status="closed_early")


async def until(what: Any) -> None:
    async with asyncio.timeout(PATIENT):
        while not what():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
