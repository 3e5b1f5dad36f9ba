"""Every recorded exchange that the real SDKs speak, through those SDKs, sync and async: one record each, and it is right."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from tellmeter import AgentMetrics, InMemoryMetricsSink, MetricsCollector, instrument, uninstrument
from tests.support.exchanges import Recorded, load, need_exchanges, pairs, transports
from tests.support.sdk import http, http_of

pytestmark = pytest.mark.sdk


# api -> the end of its path, what the SDK makes of an answer, and of a stream's events
SHAPES: dict[str, tuple[str, Any, Any]] = {
    "chat.completions": ("/chat/completions", ChatCompletion, ChatCompletionChunk),
    "completions": ("/completions", Completion, Completion),
    "responses": ("/responses", Response, ResponseStreamEvent),
    "embeddings": ("/embeddings", CreateEmbeddingResponse, None),
    "messages": ("/messages", Message, RawMessageStreamEvent),
    "messages.count_tokens": ("/messages/count_tokens", MessageTokensCount, None),
}
PROVIDERS = {
    "anthropic": "anthropic",
    "azure_openai": "azure.ai.openai",
    "bedrock_mantle": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "huggingface": "hugging_face",
    "mistral": "mistral_ai",
    "together": "together_ai",
    "voyage": "voyage_ai",
    "xai": "x_ai",
    "zai": "z_ai",
}
TABLE: Counter[tuple[str, str, str]] = Counter()


@pytest.fixture
def metered() -> Iterator[tuple[MetricsCollector, InMemoryMetricsSink]]:
    sink = InMemoryMetricsSink()
    collector = MetricsCollector(sinks=[sink])
    instrument(collector=collector)
    yield collector, sink
    uninstrument()
    collector.shutdown_sync()


def clients(exchange: Recorded) -> tuple[Any, Any]:
    """A sync and an async SDK client whose network is the recording."""
    anthropics = exchange.api.startswith("messages")
    library = http_of(anthropic.Anthropic) if anthropics else http
    sync_transport, async_transport = transports(library, exchange)
    end = SHAPES[exchange.api][0]
    assert exchange.path.partition("?")[0].endswith(end)
    base = f"https://{exchange.host}{exchange.path.partition('?')[0].removesuffix(end)}"
    sdk = anthropic.Anthropic if anthropics else openai.OpenAI
    sdk_async = anthropic.AsyncAnthropic if anthropics else openai.AsyncOpenAI
    return (
        sdk(api_key="k", base_url=base, max_retries=0, http_client=library.Client(transport=sync_transport)),
        sdk_async(
            api_key="k", base_url=base, max_retries=0, http_client=library.AsyncClient(transport=async_transport)
        ),
    )


def sent(exchange: Recorded) -> dict[str, Any]:
    end, answer, event = SHAPES[exchange.api]
    if exchange.api.startswith("messages"):
        stream_class = anthropic.Stream, anthropic.AsyncStream
    else:
        stream_class = openai.Stream, openai.AsyncStream
    return {
        "path": end,
        "body": exchange.request,
        "cast_to": answer,
        "stream": exchange.is_stream,
        "stream_cls": tuple(kind[event] for kind in stream_class) if exchange.is_stream else (None, None),
    }


def run_sync(client: Any, exchange: Recorded) -> tuple[list[str], BaseException | None]:
    """What the application gets: the answer or the events, and the exception."""
    arguments = sent(exchange)
    stream_class = arguments.pop("stream_cls")[0]
    got = []
    try:
        answer = client.post(arguments.pop("path"), stream_cls=stream_class, **arguments)
        if exchange.is_stream:
            for event in answer:
                got.append(event.model_dump_json(warnings=False))
        else:
            got.append(answer.model_dump_json(warnings=False))
    except (openai.APIError, anthropic.APIError) as error:
        return got, error
    return got, None


async def run_async(client: Any, exchange: Recorded) -> tuple[list[str], BaseException | None]:
    arguments = sent(exchange)
    stream_class = arguments.pop("stream_cls")[1]
    got = []
    try:
        answer = await client.post(arguments.pop("path"), stream_cls=stream_class, **arguments)
        if exchange.is_stream:
            async for event in answer:
                got.append(event.model_dump_json(warnings=False))
        else:
            got.append(answer.model_dump_json(warnings=False))
    except (openai.APIError, anthropic.APIError) as error:
        return got, error
    return got, None


COUNTED = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def normalised(exchange: Recorded) -> dict[str, int | None]:
    """The file's numbers in the record's way of counting (cached tokens are inside the input); None: not stated there."""
    said = exchange.expected
    if exchange.api == "messages.count_tokens":
        return dict.fromkeys(COUNTED, 0)
    counted = {name: said[name] for name in COUNTED}
    if exchange.provider == "gemini" and said["total_tokens"] is not None:
        # Its OpenAI-compatible endpoint leaves the thinking out of the output, but not out of the total.
        counted["reasoning_tokens"] = said["total_tokens"] - said["input_tokens"] - said["output_tokens"]
        counted["output_tokens"] += counted["reasoning_tokens"]
    if exchange.api == "messages" and counted["input_tokens"] is not None:
        counted["input_tokens"] += (counted["cached_tokens"] or 0) + (counted["cache_write_tokens"] or 0)
    # What a provider states as part of its tokens never exceeds them in a record.
    for part, whole in (("reasoning_tokens", "output_tokens"), ("cached_tokens", "input_tokens")):
        if counted[part] is not None and counted[whole] is not None:
            counted[part] = min(counted[part], counted[whole])
    return counted


def check(record: AgentMetrics, exchange: Recorded, error: BaseException | None) -> None:
    said = exchange.expected
    if exchange.request.get("model"):
        assert record.model == exchange.request["model"]
    # The same host serves Azure OpenAI and Azure AI Inference: the convention has a name for each.
    inference = exchange.provider == "azure_openai" and exchange.path.startswith("/models/")
    assert record.provider == (
        "azure.ai.inference" if inference else PROVIDERS.get(exchange.provider, exchange.provider)
    )
    assert record.status_code == exchange.status
    assert record.retries == 0
    if error is not None and exchange.status >= 400:
        assert (record.status, record.error_class) == ("error", type(error).__name__)
        assert record.error_category
        return
    if said["stream_error"] or said["error_type"] or said["error_code"]:
        assert record.status == "error"
        return
    assert (record.status, record.error_class, record.error_category) == ("success", None, None)
    if said["model"]:
        assert record.response_model == said["model"]
    assert record.finish_reason == said["finish_reason"]
    if exchange.is_stream and said["usage_raw"] is None:
        assert record.tokens_estimated
        # The file does not know the text of Writer's {"value": ...} events.
        events = said["content_events"] or said["stream_events"]
        assert events <= record.output_tokens <= 1.5 * events + 16 * len(record.tools_used)
    else:
        assert not record.tokens_estimated
        usage = json.dumps(said["usage_raw"])
        for name, expected in normalised(exchange).items():
            found = getattr(record, name)
            # A part that the file's rules do not name (OpenAI's cache writes, Anthropic's thinking) is in the usage.
            assert found == expected or (expected is None and (found == 0 or f": {found}" in usage)), name
    if exchange.is_stream:
        assert record.method == "stream" and record.stream is not None
        assert record.stream.status == "completed"
        assert record.stream.bytes_received == len(exchange.body) or said["stream_complete"]
        if said["content_events"]:
            assert record.stream.time_to_first_token_ms is not None


@pytest.mark.parametrize(("provider", "api"), pairs() or [("none", "none")])
def test_each_recorded_exchange_gives_one_right_record(
    provider: str, api: str, metered: tuple[MetricsCollector, InMemoryMetricsSink]
) -> None:
    need_exchanges()
    collector, sink = metered
    wrong = []
    for exchange in load(provider, api):
        client, async_client = clients(exchange)
        for run in (lambda: run_sync(client, exchange), lambda: asyncio.run(run_async(async_client, exchange))):  # noqa: B023
            answer, error = run()
            collector.flush_sync()
            records = asyncio.run(sink.get_metrics())
            asyncio.run(sink.clear())
            try:
                assert len(records) == 1, f"{len(records)} records"
                check(records[0], exchange, error)
                assert answer or error is not None or exchange.expected["stream_events"] == 0
            except AssertionError as fault:
                wrong.append(f"{exchange.id}: {str(fault).splitlines()[0][:300]}")
            TABLE[provider, api, "stream" if exchange.is_stream else "plain"] += 1
    assert not wrong, "\n".join(wrong)
    assert collector.stats().balanced


@pytest.mark.parametrize(("provider", "api"), pairs() or [("none", "none")])
def test_the_application_gets_the_same_with_and_without_metering(provider: str, api: str) -> None:
    need_exchanges()
    collector = MetricsCollector()
    for exchange in load(provider, api):
        bare = run_sync(clients(exchange)[0], exchange), asyncio.run(run_async(clients(exchange)[1], exchange))
        instrument(collector=collector)
        try:
            met = run_sync(clients(exchange)[0], exchange), asyncio.run(run_async(clients(exchange)[1], exchange))
        finally:
            uninstrument()
        for (bare_answer, bare_error), (met_answer, met_error) in zip(bare, met, strict=True):
            assert met_answer == bare_answer, exchange.id
            assert type(met_error) is type(bare_error) and str(met_error) == str(bare_error), exchange.id


@pytest.mark.parametrize(("provider", "api"), pairs() or [("none", "none")])
def test_the_bytes_pass_unchanged(provider: str, api: str) -> None:
    need_exchanges()
    collector = MetricsCollector()
    instrument(collector=collector)
    try:
        for exchange in load(provider, api):
            transport, _ = transports(http, exchange, cut=333)
            with (
                http.Client(transport=transport) as client,
                client.stream("POST", f"https://{exchange.host}{exchange.path}", json=exchange.request) as response,
            ):
                assert b"".join(response.iter_raw()) == exchange.body
                assert type(response) is http.Response
    finally:
        uninstrument()
