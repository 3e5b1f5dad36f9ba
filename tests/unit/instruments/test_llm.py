from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import types
import weakref
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import (
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    configure,
    counts,
    instrument,
    stream_options,
    tags,
    uninstrument,
)
from tellmeter import process as process_module
from tellmeter.context import enclosing, tags_in_force
from tellmeter.instruments.llm import track_llm_usage
from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tests.support.sse import JSON, SSE, answer, stream
from tests.unit.instruments.test_usage import HOSTILE, VALUES

URL = "https://api.openai.com/v1/chat/completions"
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"usage": {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 200}}}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    monkeypatch.setattr(process_module, "_process_collector", None)
    made = configure(MetricsConfig(label_tags=["feature"]), sinks=[InMemoryMetricsSink()], registry=MetricsRegistry())
    yield made
    uninstrument()
    assert made.open_calls == {}
    assert enclosing.get() is None and tags_in_force.get() == {}


def records(collector: MetricsCollector) -> list[Any]:
    """In the order in which the calls began."""
    return asyncio.run(collector.sinks[0].get_metrics())[::-1]


def only(collector: MetricsCollector) -> Any:
    (record,) = records(collector)
    return record


def openai_answers(*, streamed: bool = False) -> httpx2.Client:
    def respond(request: Any) -> Any:
        if streamed:
            return httpx2.Response(200, headers=SSE, content=b"".join(stream(3)))
        return httpx2.Response(200, headers=JSON, content=answer())

    return httpx2.Client(transport=httpx2.MockTransport(respond))


# ---------------------------------------------------------------------- what is recorded


def test_a_function_is_one_call_with_its_tokens_and_the_price_books_cost(collector: MetricsCollector) -> None:
    result = {"model": "gpt-4o-2024-08-06", "id": "r1", "choices": [{"finish_reason": "stop"}], **USAGE}

    @track_llm_usage(provider="openai", model="gpt-4o")
    def ask(prompt: str) -> dict[str, Any]:
        return result

    assert ask("hi") is result
    record = only(collector)
    assert (record.provider, record.model, record.response_model) == ("openai", "gpt-4o", "gpt-4o-2024-08-06")
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (1000, 500, 200)
    assert (record.status, record.finish_reason, record.request_id) == ("success", "stop", "r1")
    assert (record.operation, record.method) == ("chat", "generate")
    assert record.cost_usd == pytest.approx(800 * 2.5e-6 + 200 * 1.25e-6 + 500 * 10e-6)
    assert record.price_version.startswith("genai-prices")
    page = collector.registry.text().decode()
    assert (
        'llm_requests_total{provider="openai",model="gpt-4o",method="generate",status="success",feature=""} 1' in page
    )
    assert 'llm_tokens_used_total{provider="openai",model="gpt-4o",type="prompt",feature=""} 1000' in page


def test_the_seeds_example_costs_by_its_own_rates(collector: MetricsCollector) -> None:
    @track_llm_usage(provider="openai", model="gpt-4", cost_per_1k_prompt=0.03, cost_per_1k_completion=0.06)
    async def call_llm(prompt: str) -> Any:
        return USAGE

    assert asyncio.run(call_llm("hi")) is USAGE
    record = only(collector)
    assert record.cost_usd == pytest.approx(1000 * 0.03 / 1000 + 500 * 0.06 / 1000)
    assert record.price_version == "override"


@pytest.mark.parametrize("provider", ["azure.ai.openai", "my own"])
def test_one_rate_alone_is_a_price(collector: MetricsCollector, provider: str) -> None:
    track_llm_usage(provider, "m", cost_per_1k_completion=2.0)(lambda: USAGE)()
    assert only(collector).cost_usd == 1.0


def test_rates_win_over_the_cost_that_the_provider_states(collector: MetricsCollector) -> None:
    stated = {"usage": {**USAGE["usage"], "cost": 9.0}}
    track_llm_usage("openrouter", "m")(lambda: stated)()
    track_llm_usage("openrouter", "m", cost_per_1k_prompt=1.0)(lambda: stated)()
    assert [record.cost_usd for record in records(collector)] == [9.0, 1.0]


def test_an_hour_of_cache_has_its_own_price(collector: MetricsCollector) -> None:
    usage = {"input_tokens": 10, "output_tokens": 0, "cache_creation_input_tokens": 1000}
    short = {"usage": {**usage, "cache_creation": {"ephemeral_5m_input_tokens": 1000}}}
    long = {"usage": {**usage, "cache_creation": {"ephemeral_1h_input_tokens": 1000}}}
    ask = track_llm_usage("anthropic", "claude-sonnet-4-5")(lambda given: given)
    ask(short), ask(long)
    first, second = records(collector)
    assert (
        (first.input_tokens, first.cache_write_tokens)
        == (second.input_tokens, second.cache_write_tokens)
        == (1010, 1000)
    )
    assert second.cost_usd > first.cost_usd > 0


def test_tokens_and_cost_are_tracked_apart(collector: MetricsCollector) -> None:
    track_llm_usage("openai", "gpt-4o", track_cost=False)(lambda: USAGE)()
    track_llm_usage("openai", "gpt-4o", track_tokens=False)(lambda: USAGE)()
    track_llm_usage("openai", "gpt-4o", False, True, 0.03, 0.06)(lambda: USAGE)()
    track_llm_usage("openai", "gpt-4o", False, False, 0.03, 0.06)(lambda: USAGE)()
    found = [(record.input_tokens, record.output_tokens, record.cached_tokens) for record in records(collector)]
    assert found == [(1000, 500, 200), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
    costs = [record.cost_usd for record in records(collector)]
    assert costs[0] is None and costs[3] is None
    assert costs[1] == pytest.approx(0.00725) and costs[2] == pytest.approx(0.06)


def test_costs_that_the_configuration_switches_off_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_process_collector", None)
    made = configure(MetricsConfig(enable_cost_tracking=False), sinks=[InMemoryMetricsSink()])
    track_llm_usage("openai", "gpt-4o", cost_per_1k_prompt=1.0)(lambda: USAGE)()
    assert only(made).cost_usd is None


@pytest.mark.parametrize("result", [None, "text", {"usage": None}, SimpleNamespace(usage=None)])
def test_an_unknown_usage_has_no_tokens_and_no_cost(collector: MetricsCollector, result: Any) -> None:
    before = counts.total("usage_missing")
    track_llm_usage("openai", "gpt-4o")(lambda: result)()
    track_llm_usage("openai", "gpt-4o", cost_per_1k_prompt=1.0)(lambda: result)()
    for record in records(collector):
        assert (record.status, record.input_tokens, record.output_tokens, record.cost_usd) == ("success", 0, 0, None)
    assert counts.total("usage_missing") == before + 2


def test_the_model_is_the_given_one_else_the_arguments_else_the_results(collector: MetricsCollector) -> None:
    result = {"model": "gpt-4o-2024-08-06"}

    def ask(prompt: str, model: str = "gpt-4.1") -> Any:
        return result

    class Client:
        @track_llm_usage
        def ask(self, model: Any = None, /) -> Any:
            return result

        @track_llm_usage()
        @classmethod
        def ask_all(cls, *, model: str) -> Any:
            return result

    track_llm_usage(model="o3")(ask)("hi", "claude-sonnet-4")
    decorated = track_llm_usage()(ask)
    decorated("hi"), decorated("hi", "claude-sonnet-4"), decorated("hi", model="mistral-large-latest")
    Client().ask("gemini-2.5-pro"), Client().ask(7), Client.ask_all(model="grok-4")
    track_llm_usage(lambda **more: None)(model="o1")
    track_llm_usage(lambda: result)(), track_llm_usage(lambda: None)()
    assert [(record.model, record.provider) for record in records(collector)] == [
        ("o3", "openai"),
        ("gpt-4.1", "openai"),
        ("claude-sonnet-4", "anthropic"),
        ("mistral-large-latest", "mistral_ai"),
        ("gemini-2.5-pro", "gcp.gemini"),
        ("gpt-4o-2024-08-06", "openai"),
        ("grok-4", "x_ai"),
        ("o1", "openai"),
        ("gpt-4o-2024-08-06", "openai"),
        ("unknown", "unknown"),
    ]


def test_operation_and_labels(collector: MetricsCollector) -> None:
    def extract(text: str, *, feature: str) -> dict[str, Any]:
        return {"feature": feature, "length": len(text)}

    meter = track_llm_usage(
        "openai", "m", labels={"team": "a", "feature": "x"}, label_extractor=extract, operation="embeddings"
    )
    with tags(tenant="t"):
        meter(lambda text, *, feature: None)("four", feature="search")
    record = only(collector)
    assert (record.operation, record.method) == ("embeddings", "embed")
    assert record.tags == {"tenant": "t", "team": "a", "feature": "search", "length": "4"}


@pytest.mark.parametrize("found", [None, 7, [("a", 1)], {object(): object()}])
@pytest.mark.fault(16)
def test_an_extractor_that_fails_costs_its_labels_alone(collector: MetricsCollector, found: Any) -> None:
    def extract(*given: Any) -> Any:
        if found is None:
            raise RuntimeError("prompt")
        return found

    assert track_llm_usage("openai", "m", labels={"team": "a"}, label_extractor=extract)(lambda given: given)(5) == 5
    assert only(collector).tags["team"] == "a"


@pytest.mark.parametrize("bad", [None, "x", float("nan"), float("inf"), -1, 10**400])
def test_a_rate_that_is_none_is_none(collector: MetricsCollector, bad: Any) -> None:
    track_llm_usage("openai", "gpt-4o", cost_per_1k_prompt=bad)(lambda: USAGE)()
    assert only(collector).price_version.startswith("genai-prices")


# ---------------------------------------------------------------------- how calls end


class Refused(Exception):
    status_code = 429


@pytest.mark.parametrize(
    ("error", "status", "category", "cost"),
    [
        (ValueError("prompt"), "error", "unknown", None),
        (TimeoutError(), "timeout", "timeout", None),
        (asyncio.CancelledError(), "cancelled", "cancelled", None),
        (KeyboardInterrupt(), "cancelled", "cancelled", None),
        (Refused(), "error", "rate_limit", 0.0),
    ],
)
def test_a_failure_counts_once_and_goes_on(
    collector: MetricsCollector, error: BaseException, status: str, category: str, cost: float | None
) -> None:
    @track_llm_usage("openai", "gpt-4o")
    def ask() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        ask()
    assert caught.value is error
    record = only(collector)
    assert (record.status, record.error_class, record.error_category) == (status, type(error).__name__, category)
    assert record.cost_usd == cost and record.latency_ms > 0
    assert record.status_code == getattr(error, "status_code", None)


def test_a_cancelled_task_is_cancelled(collector: MetricsCollector) -> None:
    @track_llm_usage("openai", "gpt-4o")
    async def ask() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert only(collector).status == "cancelled"


def test_a_failure_to_read_a_result_costs_its_tokens_alone(
    collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(result: Any) -> Any:
        raise RuntimeError("prompt")

    monkeypatch.setattr("tellmeter.instruments.llm.read_result", fail)
    assert track_llm_usage("openai", "gpt-4o")(lambda: USAGE)() is USAGE
    assert (only(collector).status, only(collector).input_tokens) == ("success", 0)


@pytest.mark.parametrize("given", [int, 5, "openai"])
def test_what_is_no_function_is_told(given: Any) -> None:
    with pytest.raises(TypeError):
        track_llm_usage()(given)


# ---------------------------------------------------------------------- streams

CHUNKS = [
    {"model": "gpt-4o", "choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"model": "gpt-4o", "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]},
    {"model": "gpt-4o", "choices": [], **USAGE},
]


def test_a_generator_is_a_stream_with_its_last_usage(collector: MetricsCollector) -> None:
    @track_llm_usage("openai")
    def ask() -> Iterator[Any]:
        yield from CHUNKS

    items = list(ask())
    assert all(item is chunk for item, chunk in zip(items, CHUNKS, strict=True))
    record = only(collector)
    assert (record.method, record.status, record.model, record.finish_reason) == ("stream", "success", "gpt-4o", "stop")
    assert (record.input_tokens, record.output_tokens) == (1000, 500)
    assert record.stream.status == "completed" and record.stream.output_tokens == 500
    assert (record.stream.chunks_received, record.stream.bytes_received) == (3, 1)
    assert record.ttft_ms is not None and record.cost_usd


def test_an_async_generator_too_and_what_is_thrown_in_or_sent(collector: MetricsCollector) -> None:
    @track_llm_usage("openai", "gpt-4o")
    async def ask() -> AsyncIterator[Any]:
        got = yield CHUNKS[0]
        try:
            yield got
        except LookupError as error:
            yield error
        yield CHUNKS[2]

    async def main() -> None:
        asked: Any = ask()
        assert await asked.asend(None) is CHUNKS[0]
        assert await asked.asend("sent") == "sent"
        error = LookupError()
        assert await asked.athrow(error) is error
        assert [item async for item in asked] == [CHUNKS[2]]

    asyncio.run(main())
    assert only(collector).input_tokens == 1000


def test_the_first_token_is_the_first_content(collector: MetricsCollector) -> None:
    @track_llm_usage("openai", "gpt-4o")
    def ask() -> Iterator[Any]:
        yield CHUNKS[0]
        yield CHUNKS[2]

    list(ask())
    assert only(collector).ttft_ms is None


def test_a_stream_broken_off_keeps_what_is_known(collector: MetricsCollector) -> None:
    @track_llm_usage("gcp.gemini", "gemini-2.5-pro")
    def ask() -> Iterator[Any]:
        for number in range(1, 10):
            yield {"usage_metadata": {"prompt_token_count": 10, "candidates_token_count": number}}

    for number, _ in enumerate(ask()):
        if number == 2:
            break
    asked = ask()
    next(asked)
    with pytest.raises(ZeroDivisionError):
        asked.throw(ZeroDivisionError())
    closed, failed = records(collector)
    assert (closed.status, closed.error_class, closed.input_tokens, closed.output_tokens) == (
        "closed_early",
        None,
        10,
        3,
    )
    assert closed.stream.status == "closed_early" and closed.ttft_ms is not None
    assert (failed.status, failed.error_class, failed.output_tokens) == ("error", "ZeroDivisionError", 1)


def test_an_async_stream_broken_off(collector: MetricsCollector) -> None:
    @track_llm_usage("openai", "gpt-4o")
    async def ask() -> AsyncIterator[str]:
        while True:
            yield "a"
            await asyncio.sleep(0.001)

    async def main() -> None:
        asked = ask()
        async for _ in asked:
            break
        await asked.aclose()

        async def read() -> None:
            async for _ in ask():
                pass

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 0.05)

    asyncio.run(main())
    assert [record.status for record in records(collector)] == ["closed_early", "cancelled"]
    assert all(record.ttft_ms is not None and record.cost_usd is None for record in records(collector))


def test_without_tokens_a_stream_has_none_either(collector: MetricsCollector) -> None:
    track_llm_usage("openai", "gpt-4o", track_tokens=False)(functools.partial(iter, CHUNKS))()

    @track_llm_usage("openai", "gpt-4o", track_tokens=False)
    def ask() -> Iterator[Any]:
        yield from CHUNKS

    list(ask())
    record = records(collector)[1]
    assert (record.output_tokens, record.stream.output_tokens, record.stream.tokens_per_second) == (0, 0, 0)
    assert record.cost_usd


def test_a_returned_stream_that_nobody_saw_is_unchanged_and_its_usage_unknown(collector: MetricsCollector) -> None:
    made = iter(CHUNKS)
    assert track_llm_usage("openai", "gpt-4o")(lambda: made)() is made
    record = only(collector)
    assert (record.input_tokens, record.cost_usd, record.status) == (0, None, "success")
    assert next(made) is CHUNKS[0]


def test_a_stream_is_watched_while_it_runs(collector: MetricsCollector) -> None:
    told: list[Any] = []
    stalled = threading.Event()

    @track_llm_usage("own", "m")
    def ask() -> Iterator[str]:
        yield "a"
        assert [(one.chunks_received, one.waiting_for) for one in collector.active_streams()] == [(1, "provider")]
        assert stalled.wait(30)
        yield "b"

    def tell(report: Any) -> None:
        told.append(report)
        if report.event == "stream.stall":
            stalled.set()

    with stream_options(callback=tell, stall_after_ms=1, interval=0):
        assert list(ask()) == ["a", "b"]
    record = only(collector)
    collector.flush_sync()
    assert [report.event for report in told] == ["stream.first_token", "stream.stall", "stream.complete"]
    assert told[-1].stream_id == record.stream.stream_id and record.stream.stalls == 1
    assert record.stream.provider_wait_ms + record.stream.consumer_wait_ms <= record.latency_ms


# ---------------------------------------------------------------------- as a block


def test_a_block_yields_its_call(collector: MetricsCollector) -> None:
    with track_llm_usage("openai", "gpt-4", cost_per_1k_prompt=0.03, labels={"feature": "f"}) as call:
        call.input_tokens, call.output_tokens, call.finish_reason = 1000, 500, "stop"
        assert call in collector.open_calls.values()

    async def main() -> None:
        async with track_llm_usage("openai", "gpt-4o") as call:
            call.model = "gpt-4o-mini"

    asyncio.run(main())
    with pytest.raises(ValueError, match="x"), track_llm_usage(model="gpt-4o"):
        raise ValueError("x")
    first, second, third = records(collector)
    assert (first.input_tokens, first.output_tokens, first.cost_usd, first.tags) == (1000, 500, 0.03, {"feature": "f"})
    assert (second.model, second.cost_usd) == ("gpt-4o-mini", None)
    assert (third.status, third.error_class, third.provider) == ("error", "ValueError", "openai")


def test_one_block_may_be_entered_many_times_at_once(collector: MetricsCollector) -> None:
    meter = track_llm_usage("openai", "gpt-4o")

    async def one(number: int) -> None:
        async with meter as call:
            call.input_tokens = number
            await asyncio.sleep(0.001 * (5 - number))
            call.request_id = str(number)

    async def main() -> None:
        await asyncio.gather(*map(one, range(1, 5)))

    asyncio.run(main())
    assert sorted((record.input_tokens, record.request_id) for record in records(collector)) == [
        (number, str(number)) for number in range(1, 5)
    ]


# ---------------------------------------------------------------------- one call, one record


def live(collector: MetricsCollector) -> float:
    page = collector.registry.text().decode()
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith("llm_active_requests{"))


def test_what_the_wire_saw_is_counted_and_has_the_labels(collector: MetricsCollector) -> None:
    instrument()
    client, seen = openai_answers(), []

    @track_llm_usage("other", "other", labels={"feature": "f"}, label_extractor=lambda name: {"name": name})
    def ask(name: str) -> Any:
        seen.append(live(collector))
        response = client.post(URL, json=BODY)
        seen.append(live(collector))
        return response.json()

    assert ask("n")["usage"]["prompt_tokens"] == 42
    record = only(collector)
    assert (record.provider, record.model, record.input_tokens) == ("openai", "gpt-4o-mini", 42)
    assert record.tags == {"feature": "f", "name": "n"}
    assert seen == [1, 0]
    assert collector.stats().dropped == {} and collector.stats().recorded == 1


def test_without_the_wire_the_function_counts(collector: MetricsCollector) -> None:
    assert track_llm_usage("openai")(lambda: openai_answers().post(URL, json=BODY).json())()["usage"]
    record = only(collector)
    assert (record.model, record.input_tokens, record.output_tokens, record.cached_tokens) == (
        "gpt-4o-mini-2024-07-18",
        42,
        200,
        16,
    )


def test_a_block_around_what_the_wire_saw_is_not_counted(collector: MetricsCollector) -> None:
    instrument()
    with track_llm_usage("openai", "m", labels={"feature": "f"}) as call:
        openai_answers().post(URL, json=BODY)
        call.input_tokens = call.output_tokens = 7
    assert (only(collector).input_tokens, only(collector).tags) == (42, {"feature": "f"})


def test_several_calls_and_retries_inside_are_counted_each_as_the_wire_does(collector: MetricsCollector) -> None:
    instrument()
    client = openai_answers()

    @track_llm_usage("openai", "m")
    def ask() -> Any:
        return [client.post(URL, json=BODY).json() for _ in range(40)][-1]

    ask()
    assert len(records(collector)) == 40


def test_tasks_and_threads_with_the_context_are_inside(collector: MetricsCollector) -> None:
    instrument()
    client = openai_answers()

    def post() -> Any:
        return client.post(URL, json=BODY).json()

    @track_llm_usage("openai", "m")
    async def ask() -> Any:
        return (await asyncio.gather(asyncio.to_thread(post), asyncio.create_task(asyncio.to_thread(post))))[0]

    @track_llm_usage("openai", "m")
    def ask_in_thread() -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(post,))
        thread.start()
        thread.join()

    asyncio.run(ask())
    ask_in_thread()
    assert [record.model for record in records(collector)] == ["gpt-4o-mini"] * 3


def test_a_call_beside_is_not_inside(collector: MetricsCollector) -> None:
    instrument()
    client = openai_answers()

    @track_llm_usage("own", "m")
    async def own(ready: asyncio.Event) -> Any:
        await ready.wait()
        return USAGE

    async def main() -> None:
        ready = asyncio.Event()
        task = asyncio.create_task(own(ready))
        await asyncio.sleep(0)
        client.post(URL, json=BODY)
        ready.set()
        await task

    asyncio.run(main())
    assert sorted(record.model for record in records(collector)) == ["gpt-4o-mini", "m"]


def test_the_innermost_of_nested_functions_counts(collector: MetricsCollector) -> None:
    seen = []

    @track_llm_usage("inner", "i")
    def inner() -> Any:
        seen.append(live(collector))
        return USAGE

    @track_llm_usage("outer", "o", labels={"feature": "f"})
    def outer() -> Any:
        with collector.track_request("manual", "x"):
            pass
        return inner()

    @track_llm_usage("outermost", "m")
    def outermost() -> Any:
        return outer()

    assert outermost() is USAGE
    assert [(record.provider, record.tags) for record in records(collector)] == [
        ("manual", {"feature": "f"}),
        ("inner", {"feature": "f"}),
    ]
    assert seen == [1]


def test_an_inner_failure_that_is_handled_leaves_the_inner_record(collector: MetricsCollector) -> None:
    instrument()

    def broken(request: Any) -> Any:
        raise httpx2.ConnectError("x")

    @track_llm_usage("openai", "m")
    def ask() -> str:
        try:
            httpx2.Client(transport=httpx2.MockTransport(broken)).post(URL, json=BODY)
        except httpx2.ConnectError:
            return "sorry"
        return ""

    assert ask() == "sorry"
    assert (only(collector).status, only(collector).error_class) == ("error", "ConnectError")


def test_a_generator_over_a_stream_that_the_wire_saw_is_not_counted(collector: MetricsCollector) -> None:
    instrument()
    client = openai_answers(streamed=True)

    @track_llm_usage("openai", "m")
    def ask(before: list[str]) -> Iterator[str]:
        yield from before
        with client.stream("POST", URL, json={**BODY, "stream": True}) as response:
            yield from response.iter_lines()

    assert len(list(ask([]))) == len(list(ask(["first", "thoughts"]))) - 2
    assert [(record.model, record.method) for record in records(collector)] == [("gpt-4o-mini", "stream")] * 2


def test_what_the_consumer_of_a_generator_calls_is_not_inside(collector: MetricsCollector) -> None:
    instrument()
    client = openai_answers()

    @track_llm_usage("own", "m", labels={"feature": "f"})
    def own() -> Iterator[str]:
        yield "a"
        yield "b"

    @track_llm_usage("own", "m", labels={"feature": "f"})
    async def own_async() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async def main() -> None:
        async for _ in own_async():
            client.post(URL, json=BODY)

    for _ in own():
        client.post(URL, json=BODY)
    asyncio.run(main())
    found = [(record.provider, record.tags) for record in records(collector)]
    assert found == [("own", {"feature": "f"}), ("openai", {}), ("openai", {})] * 2


def test_two_generators_that_take_turns_leave_the_context_as_it_was(collector: MetricsCollector) -> None:
    @track_llm_usage("own", "m", labels={"feature": "f"})
    def own() -> Iterator[Any]:
        for _ in range(3):
            yield dict(tags_in_force.get())

    one, two = own(), own()
    next(one), next(two)
    assert list(one) == list(two) == [{"feature": "f"}] * 2
    assert enclosing.get() is None and tags_in_force.get() == {}


def test_traffic_that_only_looks_like_a_call_is_none(collector: MetricsCollector) -> None:
    instrument()
    client = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json={"ok": True})))

    @track_llm_usage("own", "m")
    def ask() -> Any:
        client.post("http://localhost:9/v1/chat/completions", json={"messages": [{}]})
        return USAGE

    ask()
    assert [(record.provider, record.input_tokens) for record in records(collector)] == [("own", 1000)]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (USAGE, ["chat", "embeddings"]),
        ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, ["embeddings"]),
        ([0.5], ["embeddings"]),
    ],
)
def test_an_embedding_inside_is_the_call_unless_something_was_generated(
    collector: MetricsCollector, result: Any, expected: list[str]
) -> None:
    instrument()
    client = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json={"data": []})))

    @track_llm_usage("aws.bedrock", "m")
    def ask() -> Any:
        client.post("https://api.openai.com/v1/embeddings", json={"model": "text-embedding-3-small", "input": "a"})
        return result

    assert ask() is result
    assert [record.operation for record in records(collector)] == expected


def test_a_stream_that_nobody_saw_is_read_beside_an_embedding_that_somebody_did(collector: MetricsCollector) -> None:
    instrument()
    client = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json={"data": []})))

    @track_llm_usage("aws.bedrock", "m")
    def ask() -> Iterator[Any]:
        client.post("https://api.openai.com/v1/embeddings", json={"model": "text-embedding-3-small", "input": "a"})
        yield from CHUNKS

    list(ask())
    assert [(record.operation, record.output_tokens) for record in records(collector)] == [
        ("chat", 500),
        ("embeddings", 0),
    ]


def test_the_stream_of_a_call_that_is_none_is_read(collector: MetricsCollector) -> None:
    instrument()
    client = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json={"ok": True})))

    @track_llm_usage("own", "m")
    async def ask() -> AsyncIterator[Any]:
        client.post("http://localhost:9/v1/chat/completions", json={"messages": [{}]})
        for chunk in CHUNKS:
            yield chunk

    async def main() -> None:
        async for _ in ask():
            pass

    asyncio.run(main())
    assert [(record.provider, record.output_tokens) for record in records(collector)] == [("own", 500)]


def test_a_task_that_outlives_its_call_is_counted_on_its_own(collector: MetricsCollector) -> None:
    instrument()
    client = openai_answers()

    async def main() -> None:
        go = asyncio.Event()

        async def later() -> None:
            await go.wait()
            client.post(URL, json=BODY)

        @track_llm_usage("own", "m")
        async def ask() -> asyncio.Task[None]:
            return asyncio.create_task(later())

        task = await ask()
        go.set()
        await task

    asyncio.run(main())
    assert [record.provider for record in records(collector)] == ["own", "openai"]


def test_an_awaitable_of_old_is_inside_while_it_waits(collector: MetricsCollector) -> None:
    instrument()
    client = openai_answers()

    @track_llm_usage("own", "m")
    @types.coroutine
    def ask() -> Any:
        yield from asyncio.sleep(0.001).__await__()
        return client.post(URL, json=BODY).json()

    async def main() -> None:
        await ask()

    asyncio.run(main())
    assert only(collector).provider == "openai"


def test_tags_that_a_generator_sets_are_its_own(collector: MetricsCollector) -> None:
    @track_llm_usage("own", "m", labels={"feature": "f"})
    def own() -> Iterator[Any]:
        with tags(step="1"):
            yield 0
            yield dict(tags_in_force.get())
        yield dict(tags_in_force.get())

    made = own()
    next(made)
    assert tags_in_force.get() == {}
    assert list(made) == [{"feature": "f", "step": "1"}, {"feature": "f"}]


def test_a_call_leaves_nothing_to_the_garbage_collector(collector: MetricsCollector) -> None:
    instrument()
    client, made = openai_answers(), []

    @track_llm_usage("own", "m")
    def ask(*, post: bool) -> Iterator[str]:
        made.append(weakref.ref(enclosing.get()))
        yield "a"
        if post:
            client.post(URL, json=BODY)

    gc.collect()
    gc.disable()
    try:
        list(ask(post=False)), list(ask(post=True))
        collector.flush_sync()
        assert [reference() for reference in made] == [None, None]
    finally:
        gc.enable()


# ---------------------------------------------------------------------- the real SDKs


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(Traffic(speed=0)) as running:
        yield running


ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
ASK_CLAUDE = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.sdk
@pytest.mark.parametrize("on_the_wire", [False, True])
def test_openai(collector: MetricsCollector, server: SimulatorServer, on_the_wire: bool) -> None:
    import openai

    if on_the_wire:
        instrument()
    settings = {"api_key": "k", "base_url": server.openai_url}
    found: list[Any] = []

    @track_llm_usage("openai", labels={"by": "label"})
    def ask() -> Any:
        with openai.OpenAI(**settings) as client:
            return client.chat.completions.create(**ASK)

    @track_llm_usage("openai", labels={"by": "label"})
    async def ask_responses() -> Any:
        async with openai.AsyncOpenAI(**settings) as client:
            return await client.responses.create(model="gpt-4o", input="hi")

    @track_llm_usage("openai", labels={"by": "label"})
    def stream_chat() -> Iterator[Any]:
        with openai.OpenAI(**settings) as client:
            yield from client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})

    @track_llm_usage("openai", labels={"by": "label"})
    async def stream_responses() -> AsyncIterator[Any]:
        async with openai.AsyncOpenAI(**settings) as client:
            async for event in await client.responses.create(model="gpt-4o", input="hi", stream=True):
                yield event

    async def main() -> None:
        found.append((await ask_responses()).usage)
        found.append([event async for event in stream_responses()][-1].response.usage)

    found.append(ask().usage)
    found.append(list(stream_chat())[-1].usage)
    asyncio.run(main())
    check(collector, found, "openai")


@pytest.mark.sdk
@pytest.mark.parametrize("on_the_wire", [False, True])
def test_anthropic(collector: MetricsCollector, server: SimulatorServer, on_the_wire: bool) -> None:
    import anthropic

    if on_the_wire:
        instrument()
    settings = {"api_key": "k", "base_url": server.url}
    found: list[Any] = []

    @track_llm_usage("anthropic", labels={"by": "label"})
    def ask() -> Any:
        with anthropic.Anthropic(**settings) as client:
            return client.messages.create(**ASK_CLAUDE)

    @track_llm_usage("anthropic", labels={"by": "label"})
    def events() -> Iterator[Any]:
        with anthropic.Anthropic(**settings) as client:
            yield from client.messages.create(**ASK_CLAUDE, stream=True)

    @track_llm_usage("anthropic", labels={"by": "label"})
    async def texts() -> AsyncIterator[Any]:
        async with anthropic.AsyncAnthropic(**settings) as client, client.messages.stream(**ASK_CLAUDE) as made:
            async for event in made:
                yield event
            found.append((await made.get_final_message()).usage)

    async def main() -> None:
        async for _ in texts():
            pass

    found.append(ask().usage)
    started = [event for event in events() if event.type in ("message_start", "message_delta")]
    found.append(
        SimpleNamespace(
            input_tokens=started[0].message.usage.input_tokens,
            output_tokens=started[-1].usage.output_tokens,
            cache_read_input_tokens=started[0].message.usage.cache_read_input_tokens,
            cache_creation_input_tokens=started[0].message.usage.cache_creation_input_tokens,
        )
    )
    asyncio.run(main())
    check(collector, found, "anthropic")


def check(collector: MetricsCollector, found: list[Any], provider: str) -> None:
    made = records(collector)
    assert len(made) == len(found)
    for record, usage in zip(made, found, strict=True):
        given = getattr(usage, "prompt_tokens", None) or usage.input_tokens
        if provider == "anthropic":
            given += (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        assert record.input_tokens == given > 0
        assert record.output_tokens == (getattr(usage, "completion_tokens", None) or usage.output_tokens) > 0
        assert (record.provider, record.status) == (provider, "success")
        assert record.cost_usd and record.finish_reason and record.request_id and record.response_model
        assert record.tags == {"by": "label"}
        if record.method == "stream":
            assert record.ttft_ms is not None and record.stream.bytes_received > record.stream.chunks_received > 0
    assert {record.method for record in made} == {"generate", "stream"}


@pytest.mark.sdk
def test_a_returned_stream_of_the_sdk_is_unchanged_and_the_wires(
    collector: MetricsCollector, server: SimulatorServer
) -> None:
    import openai

    instrument()

    @track_llm_usage("openai", "m", labels={"by": "label"})
    def ask() -> Any:
        return client.chat.completions.create(**ASK, stream=True)

    with openai.OpenAI(api_key="k", base_url=server.openai_url) as client:
        made = ask()
        assert type(made) is openai.Stream
        assert records(collector) == [] and live(collector) == 1
        assert len(list(made)) > 1
    record = only(collector)
    assert (record.model, record.status, record.tags) == ("gpt-4o", "success", {"by": "label"})


@pytest.mark.sdk
def test_retries_inside_are_one_record_and_a_refusal_is_free(
    collector: MetricsCollector, server: SimulatorServer
) -> None:
    import openai

    @track_llm_usage("openai", "gpt-4o")
    def ask(retries: int) -> Any:
        with openai.OpenAI(api_key="k", base_url=server.openai_url, max_retries=retries) as client:
            return client.chat.completions.create(**ASK)

    server.script(429)
    with pytest.raises(openai.RateLimitError):
        ask(0)
    instrument()
    server.script("429;retry-after=0.01")
    assert ask(1).usage
    refused, retried = records(collector)
    assert (refused.status_code, refused.error_category, refused.cost_usd) == (429, "rate_limit", 0.0)
    assert (retried.status, retried.retries) == ("success", 1)


# ---------------------------------------------------------------------- whatever it returns

_hostile = st.integers(0, len(HOSTILE) - 1).map(lambda number: HOSTILE[number])


@given(VALUES | _hostile, st.lists(VALUES | _hostile, max_size=4))
def test_whatever_a_function_returns_or_yields_comes_back(value: Any, items: list[Any]) -> None:
    meter = track_llm_usage("openai", "gpt-4o", cost_per_1k_prompt=1.0)

    def generate() -> Iterator[Any]:
        yield from items
        return value

    async def generate_async() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def answer_async() -> Any:
        return value

    async def main() -> None:
        assert await meter(answer_async)() is value
        got = [item async for item in meter(generate_async)()]
        assert all(one is other for one, other in zip(got, items, strict=True))

    previous = process_module._process_collector
    made = MetricsCollector(sinks=[InMemoryMetricsSink()], registry=MetricsRegistry())
    process_module._process_collector = made
    try:
        assert meter(lambda: value)() is value
        asked, got = meter(generate)(), []
        while True:
            try:
                got.append(next(asked))
            except StopIteration as stop:
                assert stop.value is value
                break
        assert all(one is other for one, other in zip(got, items, strict=True))
        asyncio.run(main())
    finally:
        process_module._process_collector = previous
    assert made.open_calls == {}
    assert [record.status for record in records(made)] == ["success"] * 4
