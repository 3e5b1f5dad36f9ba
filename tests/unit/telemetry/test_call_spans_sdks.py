"""Spans of calls beside those of others: the SDK's own, another instrumentation's; and of recorded traffic."""

from __future__ import annotations

import asyncio

import anthropic
import pytest
from opentelemetry import context, trace

from tellmeter import instrument
from tests.support.exchanges import load, need_exchanges, transports
from tests.support.sdk import http, http_of
from tests.support.traced import ask, attributes_of, client, traced

pytestmark = pytest.mark.sdk

BOTH = pytest.mark.parametrize("mode", ["finished", "live"])


@BOTH
@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "chat"},
        {"gen_ai.system": "openai", "llm.request.type": "chat"},
        {"openinference.span.kind": "LLM"},
    ],
)
def test_a_call_that_another_instrumentation_tells_is_no_second_span(mode: str, attributes: dict[str, str]) -> None:
    with traced(mode) as seen:
        with trace.get_tracer("other").start_as_current_span("theirs", attributes=attributes):
            ask(client())
        assert [span.name for span in seen.spans()] == ["theirs"]
        assert seen.record().input_tokens == 42


@BOTH
@pytest.mark.parametrize("key", ["suppress_instrumentation", "suppress_language_model_instrumentation"])
def test_where_spans_are_suppressed_there_is_none(mode: str, key: str) -> None:
    known = {"suppress_instrumentation": context._SUPPRESS_INSTRUMENTATION_KEY}.get(key, key)
    with traced(mode) as seen:
        token = context.attach(context.set_value(known, True))
        ask(client())
        context.detach(token)
        assert seen.spans() == []
        assert seen.record().input_tokens == 42


@BOTH
def test_the_anthropic_sdks_own_span_is_the_only_one(mode: str) -> None:
    need_exchanges()
    exchange = next(one for one in load("anthropic", "messages") if one.status == 200 and not one.is_stream)
    own = http_of(anthropic.Anthropic)
    sync, _ = transports(own, exchange)
    with traced(mode) as seen:
        sdk = anthropic.Anthropic(api_key="k", http_client=own.Client(transport=sync))
        sdk.messages.create(**exchange.request)
        (span,) = seen.spans()
        record = seen.record()
    has_its_own = hasattr(anthropic, "OpenTelemetryOptions")
    assert (span.instrumentation_scope.name == "tellmeter") is not has_its_own
    assert attributes_of(span)["gen_ai.usage.output_tokens"] == record.output_tokens


@pytest.mark.parametrize("provider", ["openai", "azure_openai", "groq", "deepseek"])
def test_recorded_calls_become_spans_that_say_what_their_records_say(provider: str) -> None:
    need_exchanges()
    found = [one for one in load(provider, "chat.completions") if one.status == 200][:20]
    assert found
    with traced() as seen:
        for exchange in found:
            sync, _ = transports(http, exchange)
            with http.Client(transport=sync) as plain_client:
                instrument(plain_client, collector=seen.collector)
                plain_client.post(f"https://{exchange.host}{exchange.path}", json=exchange.request)
        spans = {attributes_of(span)["tellmeter.record_id"]: span for span in seen.spans()}
        records = asyncio.run(seen.collector.sinks[0].get_metrics(limit=100))
    assert len(records) == len(found) == len(spans)
    for record in records:
        told = attributes_of(spans[record.id])
        usage = "tellmeter.estimated." if record.tokens_estimated else "gen_ai.usage."
        assert told.get(f"{usage}input_tokens", 0) == record.input_tokens
        assert told.get(f"{usage}output_tokens", 0) == record.output_tokens
        assert told.get("tellmeter.cost_usd") == record.cost_usd
        assert told.get("gen_ai.request.stream", False) is (record.method == "stream")
        assert told["gen_ai.provider.name"] == record.provider
