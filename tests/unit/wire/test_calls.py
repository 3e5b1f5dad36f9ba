"""Every ending of a call, through the real openai SDK (3.x on httpx2, 2.x on httpx): one right record each."""

from __future__ import annotations

import asyncio
import gc
import gzip
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tellmeter import (
    AgentMetrics,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    instrument,
    tags,
    uninstrument,
)
from tests.support.sdk import http
from tests.support.sse import JSON, SSE, answer, bodies, stream

pytestmark = pytest.mark.sdk

Body, AsyncBody = bodies(http)
MESSAGES: Any = [{"role": "user", "content": "hi"}]
CHUNKS = stream()


class Metered:
    def __init__(self, **config: Any) -> None:
        self.sink = InMemoryMetricsSink()
        self.registry = MetricsRegistry()
        self.collector = MetricsCollector(MetricsConfig(**config), sinks=[self.sink], registry=self.registry)

    def total(self, name: str, **labels: str) -> float:
        return self.registry.get_metric_stats(name, labels)["sum"]

    def records(self) -> list[AgentMetrics]:
        gc.collect()
        assert self.collector.flush_sync().complete
        stats = self.collector.stats()
        assert stats.balanced
        return asyncio.run(self.sink.get_metrics())

    def only(self) -> AgentMetrics:
        found = self.records()
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def metered() -> Iterator[Metered]:
    made = Metered()
    instrument(collector=made.collector)
    yield made
    uninstrument()
    assert made.collector.open_calls == {}


def client(handler: Callable[[Any], Any], retries: int = 0) -> openai.OpenAI:
    class Transport(http.BaseTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> Any:
            return handler(request)

    return openai.OpenAI(
        api_key="k",
        base_url="https://api.openai.com/v1",
        max_retries=retries,
        http_client=http.Client(transport=Transport()),
    )


def async_client(handler: Callable[[Any], Any], retries: int = 0) -> openai.AsyncOpenAI:
    class Transport(http.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            return handler(request)

    return openai.AsyncOpenAI(
        api_key="k",
        base_url="https://api.openai.com/v1",
        max_retries=retries,
        http_client=http.AsyncClient(transport=Transport()),
    )


def plain(request: Any) -> Any:
    return http.Response(200, headers=JSON, stream=Body([answer()]))


def plain_async(request: Any) -> Any:
    return http.Response(200, headers=JSON, stream=AsyncBody([answer()]))


def streaming(
    chunks: list[bytes] = CHUNKS, boom: int | None = None, error: BaseException | None = None
) -> Callable[[Any], Any]:
    return lambda request: http.Response(200, headers=SSE, stream=Body(chunks, boom, error))


def streaming_async(
    before: Any = None, boom: int | None = None, error: BaseException | None = None
) -> Callable[[Any], Any]:
    return lambda request: http.Response(200, headers=SSE, stream=AsyncBody(CHUNKS, boom, error, before))


def failing(
    status: int, code: str, times: int = 10**9, then: Callable[[Any], Any] = plain, stream_class: Any = None
) -> Callable[[Any], Any]:
    left = [times]

    def handle(request: Any) -> Any:
        if left[0] <= 0:
            return then(request)
        left[0] -= 1
        body = b'{"error":{"message":"sk-canary is slow","type":"x","code":"%s"}}' % code.encode()
        return http.Response(status, headers={**JSON, "retry-after-ms": "1"}, stream=(stream_class or Body)([body]))

    return handle


def ask(sdk: Any, **more: Any) -> Any:
    return sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, **more)


def ask_stream(sdk: Any, **more: Any) -> Any:
    return ask(sdk, stream=True, stream_options={"include_usage": True}, **more)


def check_complete(record: AgentMetrics) -> None:
    assert record.status == "success" and record.error_class is None and record.error_category is None
    assert (record.model, record.response_model, record.provider) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai")
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (42, 200, 16)
    assert not record.tokens_estimated
    assert record.finish_reason == "stop" and record.request_id == "req_1" and record.status_code == 200
    assert record.cost_usd and record.latency_ms > 0


def check_partial(record: AgentMetrics, status: str, tokens: int) -> None:
    assert record.status == status
    assert record.output_tokens == tokens and record.tokens_estimated
    assert record.cost_usd and record.cost_usd > 0
    assert record.stream is not None and record.stream.status == {"timeout": "error"}.get(status, status)
    assert record.stream.output_tokens == tokens
    assert record.latency_ms > 0 and record.ttft_ms is not None


# ---------------------------------------------------------------------- the probes


def test_a_plain_call(metered: Metered) -> None:
    reply = ask(client(plain))
    assert type(reply).__name__ == "ChatCompletion"
    record = metered.only()
    check_complete(record)
    assert (record.method, record.operation, record.stream) == ("generate", "chat", None)


def test_a_full_stream(metered: Metered) -> None:
    events = list(ask_stream(client(streaming())))
    assert len(events) == 203
    record = metered.only()
    check_complete(record)
    assert record.method == "stream" and record.stream is not None
    assert record.stream.status == "completed" and record.stream.chunks_received == 203
    assert record.stream.bytes_received == sum(map(len, CHUNKS)) or record.stream.bytes_received == sum(
        map(len, CHUNKS[:-1])
    )


def test_break_inside_with(metered: Metered) -> None:
    with ask_stream(client(streaming())) as events:
        for number, _ in enumerate(events):
            if number == 20:
                break
    check_partial(metered.only(), "closed_early", 20)


def test_break_then_close(metered: Metered) -> None:
    events = ask_stream(client(streaming()))
    for number, _ in enumerate(events):
        if number == 20:
            break
    events.close()
    check_partial(metered.only(), "closed_early", 20)


def test_break_then_dropped(metered: Metered) -> None:
    events = ask_stream(client(streaming()))
    for number, _ in enumerate(events):
        if number == 20:
            break
    del events
    check_partial(metered.only(), "closed_early", 20)


def test_a_stream_never_iterated(metered: Metered) -> None:
    ask_stream(client(streaming()))
    record = metered.only()
    assert record.status == "abandoned" and record.output_tokens == 0
    assert record.stream is not None and record.stream.status == "abandoned"


def test_a_connection_reset_at_chunk_50(metered: Metered) -> None:
    with pytest.raises((openai.APIConnectionError, http.ReadError)):
        list(ask_stream(client(streaming(boom=50))))
    record = metered.only()
    check_partial(record, "error", 49)
    assert (record.error_class, record.error_category) == ("ReadError", "network")
    assert record.stream is not None and record.stream.last_error == "ReadError" and record.stream.error_count == 1


def test_an_async_task_cancelled_mid_stream(metered: Metered) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def before(number: int) -> None:
            if number == 30:
                reached.set()
                await asyncio.Event().wait()

        async def eat() -> None:
            async for _ in await ask_stream(async_client(streaming_async(before))):
                pass

        task = asyncio.create_task(eat())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    record = metered.only()
    check_partial(record, "cancelled", 29)
    assert record.error_category == "cancelled"


def test_a_task_cancelled_while_the_consumer_holds_the_stream(metered: Metered) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def eat() -> None:
            async with await ask_stream(async_client(streaming_async())) as events:
                number = 0
                async for _ in events:
                    number += 1
                    if number == 11:
                        reached.set()
                        await asyncio.Event().wait()

        task = asyncio.create_task(eat())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    check_partial(metered.only(), "cancelled", 10)


def test_a_stream_without_usage_is_counted_and_says_so(metered: Metered) -> None:
    list(ask(client(streaming(stream(usage=False))), stream=True))
    record = metered.only()
    assert record.status == "success" and record.tokens_estimated and 200 <= record.output_tokens <= 230
    assert metered.collector.stats().counts["usage_missing"]["openai"] >= 1


def test_http_429(metered: Metered) -> None:
    with pytest.raises(openai.RateLimitError):
        ask(client(failing(429, "rate_limit_exceeded")))
    record = metered.only()
    assert (record.status, record.error_class, record.error_category) == ("error", "RateLimitError", "rate_limit")
    assert record.status_code == 429
    assert record.cost_usd == 0.0  # what was refused costs nothing


def test_a_refused_call_costs_nothing_whatever_its_model(metered: Metered) -> None:
    with pytest.raises(openai.NotFoundError):
        client(failing(404, "model_not_found")).chat.completions.create(model="no-such-model", messages=MESSAGES)
    record = metered.only()
    assert (record.model, record.error_category, record.cost_usd) == ("no-such-model", "not_found", 0.0)


def test_500_500_200_is_one_call_with_two_retries(metered: Metered) -> None:
    ask(client(failing(500, "server_error", 2), retries=2))
    record = metered.only()
    check_complete(record)
    assert record.retries == 2
    assert 0 < record.retry_delay_ms < record.latency_ms
    attempts = {status: metered.total("llm_attempts_total", status=status) for status in ("500", "200")}
    assert attempts == {"500": 2, "200": 1} and metered.total("llm_attempts_total") == 3
    assert metered.total("llm_requests_total", status="success") == metered.total("llm_requests_total") == 1


def test_a_stream_in_progress_is_shown_as_one(metered: Metered) -> None:
    stream = ask_stream(client(streaming()))
    next(stream)
    who = {"provider": "openai", "model": "gpt-4o-mini"}
    assert metered.total("llm_active_requests", **who) == metered.total("llm_active_streams", **who) == 1
    list(stream)
    assert metered.total("llm_active_requests") == metered.total("llm_active_streams") == 0
    check_complete(metered.only())


def test_with_raw_response_and_a_stream(metered: Metered) -> None:
    raw = client(streaming()).chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert raw.http_response.headers["x-request-id"] == "req_1"
    assert len(list(raw.parse())) == 203
    check_complete(metered.only())


def test_with_streaming_response(metered: Metered) -> None:
    with client(plain).chat.completions.with_streaming_response.create(model="gpt-4o-mini", messages=MESSAGES) as raw:
        assert raw.parse().choices[0].message.content == "hello"
    record = metered.only()
    check_complete(record)
    assert record.stream is None


# ---------------------------------------------------------------------- further endings


def test_with_streaming_response_left_unread(metered: Metered) -> None:
    with client(plain).chat.completions.with_streaming_response.create(model="gpt-4o-mini", messages=MESSAGES):
        pass
    assert metered.only().status == "closed_early"


def test_an_applications_exception_inside_with_is_closed_early(metered: Metered) -> None:
    with pytest.raises(ZeroDivisionError), ask_stream(client(streaming())) as events:
        next(events)
        next(events)
        _ = 1 / 0
    check_partial(metered.only(), "closed_early", 1)


def test_a_timeout_is_a_timeout(metered: Metered) -> None:
    def slow(request: Any) -> Any:
        raise http.ReadTimeout("too slow")

    with pytest.raises(openai.APITimeoutError):
        ask(client(slow))
    record = metered.only()
    assert (record.status, record.error_class, record.error_category) == ("timeout", "APITimeoutError", "timeout")
    assert record.cost_usd is None  # the provider may have answered, and billed, all the same


def test_a_timeout_in_mid_stream(metered: Metered) -> None:
    with pytest.raises((openai.APITimeoutError, http.ReadTimeout)):
        list(ask_stream(client(streaming(boom=31, error=http.ReadTimeout("x")))))
    record = metered.only()
    check_partial(record, "timeout", 30)
    assert record.error_category == "timeout"


def test_a_refused_connection_after_retries(metered: Metered) -> None:
    def refused(request: Any) -> Any:
        raise http.ConnectError("refused")

    with pytest.raises(openai.APIConnectionError):
        ask(client(refused, retries=1))
    record = metered.only()
    assert (record.status, record.error_class, record.error_category) == ("error", "APIConnectionError", "network")
    assert record.retries == 1 and record.status_code is None
    assert metered.total("llm_attempts_total", status="error") == 2


def test_asyncio_timeout_is_a_cancellation(metered: Metered) -> None:
    async def main() -> None:
        async def before(number: int) -> None:
            if number == 3:
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                async for _ in await ask_stream(async_client(streaming_async(before))):
                    pass

    asyncio.run(main())
    check_partial(metered.only(), "cancelled", 2)


def test_an_error_status_of_a_streamed_request(metered: Metered) -> None:
    with pytest.raises(openai.BadRequestError):
        ask_stream(client(failing(400, "context_length_exceeded")))
    record = metered.only()
    assert (record.error_class, record.error_category, record.retries) == ("BadRequestError", "context_length", 0)


def test_retries_of_a_streamed_request_are_one_call(metered: Metered) -> None:
    list(ask_stream(client(failing(503, "overloaded", 2, streaming()), retries=3)))
    record = metered.only()
    check_complete(record)
    assert record.retries == 2 and record.stream is not None and record.stream.status == "completed"


def test_an_error_event_inside_a_stream(metered: Metered) -> None:
    events = [*CHUNKS[:11], b'data: {"error":{"message":"canary","type":"server_error","code":"server_error"}}\n\n']
    with pytest.raises(openai.APIError):
        list(ask_stream(client(streaming(events))))
    record = metered.only()
    check_partial(record, "error", 10)
    assert (record.error_class, record.error_category) == ("APIError", "server_error")


def test_async_calls_and_retries(metered: Metered) -> None:
    async def main() -> None:
        sdk = async_client(failing(500, "x", 2, plain_async, AsyncBody), retries=2)
        await ask(sdk)
        async with await ask_stream(async_client(streaming_async())) as events:
            number = 0
            async for _ in events:
                number += 1
                if number == 6:
                    break

    asyncio.run(main())
    early, complete = metered.records()
    check_complete(complete)
    assert complete.retries == 2
    check_partial(early, "closed_early", 5)


def test_a_connection_that_stays_open_after_the_end_is_no_cancellation(metered: Metered) -> None:
    """openai 3 drains what follows [DONE] for 0.1 s, then cancels its own reading."""

    async def main() -> None:
        async def before(number: int) -> None:
            if number >= len(CHUNKS):
                await asyncio.Event().wait()

        def answer_and_wait(request: Any) -> Any:
            return http.Response(200, headers=SSE, stream=AsyncBody([*CHUNKS, b": never\n\n"], before=before))

        async for _ in await ask_stream(async_client(answer_and_wait)):
            pass

    asyncio.run(main())
    record = metered.only()
    check_complete(record)
    assert record.stream is not None and record.stream.chunks_received == 203


def test_concurrent_calls_do_not_mix(metered: Metered) -> None:
    async def one(name: str) -> None:
        with tags(name=name):
            retries = int(name) % 3
            await ask(async_client(failing(500, "x", retries, plain_async, AsyncBody), retries=2), user=name)

    async def main() -> None:
        await asyncio.gather(*(one(str(number)) for number in range(30)))

    asyncio.run(main())
    records = metered.records()
    assert len(records) == 30
    assert all(record.retries == int(record.tags["name"]) % 3 for record in records)


def test_a_nested_scope_is_one_call(metered: Metered) -> None:
    outer = client(plain)

    def through_another_client(request: Any) -> Any:
        inner = http.Client(transport=outer._client._transport)
        return inner.send(
            http.Request("POST", request.url, headers={"content-type": "application/json"}, content=request.read())
        )

    ask(client(through_another_client))
    check_complete(metered.only())


def test_the_structured_stream_helper_is_unaffected(metered: Metered) -> None:
    with client(streaming()).chat.completions.stream(
        model="gpt-4o-mini", messages=MESSAGES, stream_options={"include_usage": True}
    ) as events:
        assert sum(event.type == "content.delta" and bool(event.delta) for event in events) == 200
        assert events.get_final_completion().usage.completion_tokens == 200
    check_complete(metered.only())


def test_plain_http_clients_are_metered_too(metered: Metered) -> None:
    with http.Client(transport=client(plain)._client._transport) as bare:
        body = {"model": "gpt-4o-mini", "messages": MESSAGES}
        assert bare.post("https://api.openai.com/v1/chat/completions", json=body).json()["id"] == "chatcmpl-1"
    check_complete(metered.only())


def test_a_whole_stream_read_at_once_is_still_a_stream(metered: Metered) -> None:
    with http.Client(transport=client(streaming())._client._transport) as bare:
        body = {"model": "gpt-4o-mini", "messages": MESSAGES, "stream": True}
        assert bare.post("https://api.openai.com/v1/chat/completions", json=body).content == b"".join(CHUNKS)
    record = metered.only()
    check_complete(record)
    assert record.method == "stream" and record.stream is not None and record.stream.chunks_received == 203


def test_attempts_without_the_sdks_scope_are_calls_of_their_own_and_say_so(metered: Metered) -> None:
    with http.Client(transport=client(plain)._client._transport) as bare:
        body = {"model": "gpt-4o-mini", "messages": MESSAGES}
        bare.post("https://api.openai.com/v1/chat/completions", json=body, headers={"x-stainless-retry-count": "2"})
    record = metered.only()
    assert record.retries == 0 and record.tags == {"attempt": "3"}


@pytest.mark.parametrize("path", ["/v1/messages", "/api/responses", "/completions", "/v1/files", "/embeddings"])
def test_other_traffic_passes_untouched(metered: Metered, path: str) -> None:
    body = Body([b"{}"])
    with http.Client(
        transport=client(lambda request: http.Response(200, headers=JSON, stream=body))._client._transport
    ) as bare:
        assert bare.post("https://shop.example" + path, json={"text": "hello"}).json() == {}
        assert bare.get("https://shop.example" + path).json() == {}
    assert metered.records() == []


def test_an_answer_without_usage_has_no_known_price(metered: Metered) -> None:
    bare = answer().replace(b'"usage"', b'"used"')
    ask(client(lambda request: http.Response(200, headers=JSON, stream=Body([bare]))))
    record = metered.only()
    assert (record.status, record.output_tokens, record.cost_usd) == ("success", 0, None)


def test_a_stream_is_known_without_its_content_type(metered: Metered) -> None:
    list(ask_stream(client(lambda request: http.Response(200, stream=Body(CHUNKS)))))
    check_complete_stream = metered.only()
    assert check_complete_stream.stream is not None and check_complete_stream.stream.chunks_received == 203


def test_a_compressed_stream_is_read(metered: Metered) -> None:
    packed = gzip.compress(b"".join(CHUNKS))
    parts = [packed[start : start + 100] for start in range(0, len(packed), 100)]
    headers = {**SSE, "content-encoding": "gzip"}
    assert len(list(ask_stream(client(lambda request: http.Response(200, headers=headers, stream=Body(parts)))))) == 203
    record = metered.only()
    check_complete(record)
    assert record.stream is not None and record.stream.chunks_received == 203
    assert record.stream.bytes_received >= len(b"".join(CHUNKS[:-1]))


def test_tags_of_the_calling_code_are_in_the_record(metered: Metered) -> None:
    with tags(feature="search"):
        events = ask_stream(client(streaming()))
    list(events)
    assert metered.only().tags == {"feature": "search"}


def test_own_traffic_of_sinks_is_never_metered(metered: Metered) -> None:
    class Sink:
        async def record(self, metrics: AgentMetrics) -> None:
            ask(client(plain))

    metered.collector.add_sink(Sink())
    ask(client(plain))
    check_complete(metered.only())


def test_a_broken_collector_never_reaches_the_call(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(metered.collector, "submit", explode)
    assert ask(client(plain)).id == "chatcmpl-1"
    assert len(list(ask_stream(client(streaming())))) == 203
