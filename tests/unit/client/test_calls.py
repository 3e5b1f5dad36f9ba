"""ClientCall: attempts that join, a record at its end, and what the parts of its cost are."""

import asyncio

import httpx2
import pytest

from tellmeter import InMemoryMetricsSink, LLMTimeoutError, MetricsCollector, MetricsConfig
from tellmeter.client.calls import ClientCall
from tellmeter.errors import CircuitOpenError
from tellmeter.registry.registry import MetricsRegistry
from tests.unit.client.asked import whole

URL = "http://127.0.0.1:1/v1/chat/completions"
BODY = b'{"model":"gpt-4o","messages":[]}'
CACHED = (
    b'{"model":"gpt-4o","choices":[{"index":0,"finish_reason":"stop","message":{"content":"x"}}],"usage":'
    b'{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":{"cached_tokens":800}}}'
)


@pytest.fixture
def collector():
    made = MetricsCollector(MetricsConfig(), sinks=[InMemoryMetricsSink()], registry=MetricsRegistry())
    yield made
    made.shutdown_sync()


def call_of(collector, **more):
    given = {"provider": "openai", "model": "gpt-4o", "operation": "chat", "method": "generate"}
    return ClientCall(collector, **{**given, "request_id": "mine", "tags": {"a": "b"}, **more})


def answered(call, body, status=200, headers=None):
    exchange = call.begin(httpx2.Request("POST", URL, content=BODY))
    exchange.answered(httpx2.Response(status, content=body, headers=headers or {"x-request-id": "theirs"}))
    return exchange


def test_its_record_is_there_as_soon_as_it_has_ended(collector):
    call = call_of(collector)
    answered(call, whole().body)
    assert call.record is None and not call.ended
    call.end()
    assert (call.record.input_tokens, call.record.output_tokens, call.record.status) == (9, 5, "success")
    assert (call.record.request_id, call.provider_request_id) == ("mine", "theirs")
    assert call.record.tags == {"a": "b"}


def test_attempts_are_one_call_and_its_record_the_one_that_the_sinks_get(collector):
    call = call_of(collector)
    answered(call, b"{}", status=500)
    answered(call, b"{}", status=429)
    answered(call, whole().body)
    call.end()
    collector.flush_sync()
    (kept,) = asyncio.run(collector.sinks[0].get_metrics())
    assert kept == call.record and kept.retries == 2
    found = collector.registry.text().decode()
    assert 'llm_attempts_total{provider="openai",model="gpt-4o",status="500"} 1.0' in found
    assert 'llm_attempts_total{provider="openai",model="gpt-4o",status="200"} 1.0' in found


def test_where_nothing_was_sent_the_record_has_what_was_known(collector):
    call = call_of(collector, method="stream")
    call.category, call.refused = "circuit_open", True
    call.end("rejected", CircuitOpenError("open"))
    record = call.record
    assert (record.model, record.provider, record.method) == ("gpt-4o", "openai", "stream")
    assert (record.status, record.error_class, record.error_category) == (
        "rejected",
        "CircuitOpenError",
        "circuit_open",
    )
    assert record.cost_usd == 0.0 and call.cost_breakdown()["total_cost"] == 0.0


def test_only_what_asks_a_model_is_an_attempt(collector):
    call = call_of(collector)
    assert call.begin(httpx2.Request("POST", "http://127.0.0.1:1/oauth2/token")) is None
    call.end()
    assert call.begin(httpx2.Request("POST", URL, content=BODY)) is None
    assert call.exchanges == []


def test_a_limit_of_ours_ends_the_attempt_as_a_timeout(collector):
    call = call_of(collector)
    exchange = call.begin(httpx2.Request("POST", URL, content=BODY))
    exchange.ended("cancelled")
    call.end(error=LLMTimeoutError("timed out", category="timeout"))
    assert (call.record.status, call.record.error_class, call.record.error_category) == (
        "timeout",
        "LLMTimeoutError",
        "timeout",
    )
    assert call.attempts == ("timeout",)


def test_what_the_parts_of_the_cost_are(collector):
    call = call_of(collector)
    answered(call, CACHED)
    call.end()
    parts = call.cost_breakdown()
    assert parts["input_cost"] == pytest.approx(200 * 2.5e-6 + 800 * 1.25e-6)
    assert parts["output_cost"] == pytest.approx(100 * 10e-6)
    assert parts["cache_savings"] == pytest.approx(800 * 1.25e-6)
    assert parts["total_cost"] == call.record.cost_usd == pytest.approx(parts["input_cost"] + parts["output_cost"])


def test_a_stated_cost_has_no_parts(collector):
    call = call_of(collector, provider="openrouter")
    answered(call, CACHED.replace(b'"prompt_tokens":', b'"cost":0.5,"prompt_tokens":'))
    call.end()
    assert call.cost_breakdown() == {"total_cost": 0.5}


def test_an_unknown_price_has_none(collector):
    call = call_of(collector, provider="vllm", model="mine")
    answered(call, CACHED.replace(b"gpt-4o", b"mine"))
    call.end()
    assert call.record.cost_usd is None and call.cost_breakdown() is None


def test_without_metering_it_knows_what_it_took_all_the_same():
    collector = MetricsCollector(MetricsConfig(enabled=False), registry=MetricsRegistry())
    call = call_of(collector)
    answered(call, whole().body)
    call.end()
    assert call.record.total_tokens == 14 and collector.stats().recorded == 0
    collector.shutdown_sync()


def test_a_body_that_cannot_be_read_costs_the_record_and_nothing_else(collector, monkeypatch):
    call = call_of(collector)
    answered(call, whole().body)
    monkeypatch.setattr(call, "_read", lambda last: 1 / 0)
    call.end()
    assert call.record is None and call.cost_breakdown() is None
    collector.flush_sync()
    assert collector.stats().dropped == {"error": 1}
