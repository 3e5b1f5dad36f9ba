"""What the record of a span says."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from tellmeter import tags
from tellmeter.telemetry import span_processor
from tests.support.told import ANSWER, CHAT, EMBEDDINGS, ends, told


def test_a_span_is_a_record_like_any() -> None:
    with told() as seen:
        with seen.tracer("app").start_as_current_span("request") as parent, tags(feature="cart"):
            span = seen.start(start_time=1_700_000_000_000_000_000)
            span.set_attribute("gen_ai.input.messages", "canary")
        span.set_attributes(ANSWER)
        span.end(end_time=1_700_000_000_250_000_000)
        record = seen.record()
        assert seen.collector.registry.get_metric_stats("llm_requests_total")["sum"] == 1
    assert (record.model, record.response_model, record.provider) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai")
    assert (record.operation, record.method, record.status) == ("chat", "generate", "success")
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (42, 200, 16)
    assert (record.timestamp, record.latency_ms) == (1_700_000_000.0, 250.0)
    assert record.finish_reason == "stop" and record.tags == {"feature": "cart"}
    assert record.cost_usd == pytest.approx((26 * 0.15 + 16 * 0.075 + 200 * 0.6) / 1e6)
    assert record.price_version.startswith("genai-prices")
    ids, around = span.get_span_context(), parent.get_span_context()
    assert record.trace_id == f"{ids.trace_id:032x}" and record.span_id == f"{ids.span_id:016x}"
    assert record.parent_id == f"{around.span_id:016x}"
    assert "canary" not in str(record)


def test_what_a_span_says_of_its_stream() -> None:
    with told() as seen:
        with seen.span() as span:
            span.set_attributes({**ANSWER, "gen_ai.request.stream": True, "gen_ai.response.time_to_first_chunk": 0.25})
        with seen.span() as span:
            span.add_event("First Token Stream Event")
            span.set_attributes(ANSWER)
        with seen.span() as span:
            span.set_attribute("gen_ai.is_streaming", True)
        stated, evented, broken = seen.records()
    assert (stated.method, evented.method, broken.method) == ("stream", "stream", "stream")
    assert stated.ttft_ms == stated.stream.time_to_first_chunk_ms == 250.0
    assert evented.ttft_ms is not None and 0 <= evented.ttft_ms <= evented.latency_ms
    assert (stated.status, stated.stream.status) == ("success", "completed")
    assert (broken.status, broken.ttft_ms, broken.cost_usd) == ("closed_early", None, None)


@pytest.mark.parametrize(
    ("attributes", "event", "expected"),
    [
        ({"error.type": "openai.RateLimitError"}, None, ("error", "RateLimitError", "rate_limit", None, 0.0)),
        ({"error.type": "429"}, None, ("error", "RateLimitError", "rate_limit", 429, 0.0)),
        (
            {"error.type": "overloaded_error", "http.response.status_code": 529},
            None,
            ("error", "InternalServerError", "overloaded", 529, 0.0),
        ),
        ({}, "openai.APITimeoutError", ("timeout", "APITimeoutError", "timeout", None, None)),
        ({}, "asyncio.exceptions.CancelledError", ("cancelled", "CancelledError", "cancelled", None, None)),
        ({"error.type": "_OTHER"}, None, ("error", None, "unknown", None, None)),
        ({"error.type": "the canary said no"}, None, ("error", None, "unknown", None, None)),
        ({}, None, ("error", None, "unknown", None, None)),
    ],
)
def test_of_an_error_its_class(attributes: dict[str, Any], event: str | None, expected: tuple[Any, ...]) -> None:
    with told() as seen:
        span = seen.start()
        if event:
            span.add_event("exception", {"exception.type": event, "exception.message": "canary"})
        span.set_attributes(attributes)
        span.set_status(Status(StatusCode.ERROR, "canary"))
        span.end()
        record = seen.record()
    assert (
        record.status,
        record.error_class,
        record.error_category,
        record.status_code,
        record.cost_usd,
    ) == expected
    assert "canary" not in str(record)


def test_a_cost_that_a_span_states_counts() -> None:
    with told() as seen:
        ends(seen.start(), {**ANSWER, "llm.cost.total": 0.5})
        assert (seen.record().cost_usd, seen.record().price_version) == (0.5, "span")


def test_other_spans_are_none() -> None:
    with told() as seen:
        for attributes in (
            {"gen_ai.operation.name": "invoke_agent"},
            {"traceloop.span.kind": "tool", "gen_ai.request.model": "m"},
            {"db.system": "x"},
        ):
            ends(seen.start(attributes=attributes))
        assert seen.records() == []


def test_a_span_that_says_so_only_at_its_end() -> None:
    with told() as seen:
        span = seen.start(attributes={})
        with trace.use_span(span):
            ends(seen.start("inner", attributes=EMBEDDINGS), {"gen_ai.usage.input_tokens": 3})
        ends(span, {**CHAT, **ANSWER})
        assert [one.operation for one in seen.records()] == ["chat", "embeddings"]


def test_the_processs_collector_is_asked_for_when_a_span_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with told() as seen:
        seen.processor._collector = None
        monkeypatch.setattr(span_processor, "get_metrics_collector", lambda: seen.collector)
        ends(seen.start())
        assert seen.provider.force_flush() and seen.record().output_tokens == 200
