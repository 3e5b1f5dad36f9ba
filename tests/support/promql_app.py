"""An application that fills every metric that our queries ask for: `uvicorn --factory tests.support.promql_app:create`.

One round records the same numbers every time, and one is played before the page is served. So every counter keeps its
proportion to every other, and quotients of rates are exact however Prometheus extrapolates.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import tellmeter
from tellmeter import counts
from tellmeter.client.reliability.breaker import CircuitBreaker
from tellmeter.client.reliability.breaker_metrics import watch

TAGS = {"feature": "search"}
BREAKER = CircuitBreaker("openai")


class RefusingSink(tellmeter.BatchingMetricsSink):
    """Takes nothing, so that there is a loss to count."""

    def send(self, batch: Any, deadline: float) -> Any:
        return tellmeter.Rejected("refused")


class FailingSink(tellmeter.BatchingMetricsSink):
    """Is never there, so that attempts fail and records wait."""

    def send(self, batch: Any, deadline: float) -> Any:
        return tellmeter.RetryLater(reason="unreachable")


def broken_filter(record: Any) -> bool:
    raise ValueError


def create() -> Starlette:
    """The application, its first round played, a stream open."""
    tellmeter.configure(
        tellmeter.MetricsConfig(
            label_tags=["feature"], max_series=50, filters=[lambda record: record.model != "gone", broken_filter]
        ),
        sinks=["memory:", RefusingSink(), FailingSink(batch_timeout_seconds=0.01)],
    )
    app = Starlette(routes=[Route("/round", _round), Route("/metrics", tellmeter.get_metrics_app())])
    app.state.open = tellmeter.meter_call(provider="openai", model="gpt-4o-mini", method="stream")
    play()
    return app


def _round(request: Request) -> PlainTextResponse:
    play()
    return PlainTextResponse("played")


def play() -> None:
    """One round."""
    with tellmeter.tags(**TAGS):
        _calls()
        _streams()
    registry = tellmeter.get_metrics_registry()
    _framework(registry)
    _module(registry)
    watch(registry, BREAKER)
    _trouble(registry)


def fail() -> None:
    raise RuntimeError


def _calls() -> None:
    """20 calls of gpt-4o-mini: 4 fail, 3 retries; 5 of a model without a price, 1 without usage."""
    for number in range(20):
        try:
            with tellmeter.meter_call(provider="openai", model="gpt-4o-mini") as call:
                call.input_tokens, call.output_tokens, call.cached_tokens = 1000, 50, 250
                call.retries = 1 if number < 3 else 0
                if number >= 16:
                    call.input_tokens = call.output_tokens = call.cached_tokens = 0
                    call.status_code = 429
                    fail()
        except RuntimeError:
            pass
    for number in range(5):
        with tellmeter.meter_call(provider="ollama", model="home-made") as call:
            call.input_tokens, call.output_tokens, call.tokens_estimated = 10, 5, number == 0
    with tellmeter.meter_call(provider="openai", model="gone") as call:  # the filter takes it
        call.input_tokens = 1


def _streams() -> None:
    """8 streams of claude-sonnet-4-5 with one stall, first tokens after 0.4 s, 10 s in all."""
    collector = tellmeter.get_metrics_collector()
    for number in range(8):
        stream = tellmeter.StreamMetrics(
            provider="anthropic", model="claude-sonnet-4-5", duration_ms=10_000.0, chunks_received=100,
            time_to_first_chunk_ms=300.0, time_to_first_token_ms=400.0, max_gap_ms=3000.0 if number == 0 else 200.0,
            stalls=1 if number == 0 else 0, output_tokens=400, tokens_per_second=50.0, status="completed",
        )  # fmt: skip
        collector.record(
            tellmeter.AgentMetrics(
                provider="anthropic", model="claude-sonnet-4-5", method="stream", latency_ms=10_000.0, stream=stream,
                input_tokens=2000, output_tokens=400, cost_usd=0.25, tags=TAGS,
            )
        )  # fmt: skip


def _framework(registry: Any) -> None:
    """The metrics framework's: 10 requests of /query with 2 errors, 5 of /health with none; 6 hits, 2 misses."""
    for status, number in (("200", 8), ("500", 2)):
        registry.increment("request_count", number, {"endpoint": "/query", "method": "POST", "status": status})
    registry.increment("request_count", 5, {"endpoint": "/health", "method": "GET", "status": "200"})
    registry.increment("error_count", 2, {"endpoint": "/query", "error_type": "ValueError", "function": "answer"})
    look_up = {"cache_name": "embeddings", "operation": "get"}
    registry.increment("cache_hits", 6, look_up)
    registry.increment("cache_misses", 2, look_up)
    registry.increment("cache_misses", 1, {"cache_name": "cold", "operation": "get"})
    for status, number in (("started", 3), ("success", 2), ("failed", 1)):
        registry.increment("bedrock_invocations", number, {"model_id": "claude-3", "status": status})
    for _ in range(10):
        registry.observe("request_duration", 0.3, {"endpoint": "/query", "method": "POST"})
    for tokens in (100, 300):
        registry.observe("token_usage", tokens, {"model_id": "claude-3", "token_type": "input"})
    registry.observe("token_usage", 20, {"model_id": "claude-3", "token_type": "output"})
    registry.observe("retrieval_time", 0.04, {"operation": "search", "source": "opensearch"})
    registry.observe("bedrock_duration", 1.2, {"model_id": "claude-3"})
    registry.observe("database_query_duration", 0.02, {"operation": "select", "table": "users"})
    registry.set_gauge("active_requests", 3, {"endpoint": "/query"})
    registry.set_gauge("cache_size", 4096, {"cache_name": "embeddings"})
    registry.set_gauge("active_connections", 7, {"connection_type": "database"})
    registry.set_gauge("memory_usage", 50_000_000, {"process": "main"})
    registry.set_gauge("queue_size", 2, {"queue_name": "jobs"})


def _module(registry: Any) -> None:
    """The telemetry module's: 9 answers and one 503, 4 RAG queries."""
    where = {"method": "GET", "endpoint": "/items/{id}"}
    registry.increment("http_requests_total", 9, {**where, "status": "200"})
    registry.increment("http_requests_total", 1, {**where, "status": "503"})
    registry.observe("http_request_duration_seconds", 0.07, where)
    registry.set_gauge("http_requests_active", 1, {"method": "GET"})
    registry.set_gauge("db_connections_active", 5, {"database": "main"})
    registry.increment("db_queries_total", 4, {"database": "main", "operation": "select"})
    registry.observe(
        "db_query_duration_seconds", 0.02, {"database": "main", "operation": "select", "query_type": "select"}
    )
    registry.increment("rag_queries_total", 4, {"pipeline": "standard"})
    registry.observe("rag_retrieval_latency_seconds", 0.2, {"source": "docs", "pipeline": "standard"})
    registry.observe("rag_documents_retrieved", 6, {"source": "docs", "pipeline": "standard"})
    registry.increment("rag_cache_hits_total", 3, {"cache_type": "semantic"})
    registry.increment("rag_cache_misses_total", 1, {"cache_type": "semantic"})
    embedding = {"provider": "openai", "model": "text-embedding-3-small"}
    registry.increment("embeddings_generated_total", 16, embedding)
    registry.observe("embedding_generation_duration_seconds", 0.03, embedding)
    registry.set_gauge("system_cpu_usage_percent", 12.5)
    registry.set_gauge("system_memory_usage_bytes", 8e9)
    registry.set_gauge("system_disk_usage_bytes", 9e10, {"mount_point": "/"})
    registry.increment("errors_total", 1, {"component": "rag", "error_type": "Timeout"})
    registry.set_gauge("circuit_breaker_state", 0, {"service": "openai"})
    registry.increment("circuit_breaker_trips_total", 1, {"service": "openai", "reason": "errors"})
    fallback = {"provider": "openai", "model": "gpt-4o-mini", "fallback_model": "claude-haiku-4-5"}
    registry.increment("llm_fallbacks_total", 1, fallback)


def _trouble(registry: Any) -> None:
    """What tellmeter tells of itself: too many label sets, and recordings that it refuses."""
    for number in range(60):
        registry.increment("crowded", labels={"number": str(number)})
    registry.counter("refused", "Recordings that are not right.", ["kind"])
    registry.increment("refused", 1, {"kind": "a", "undeclared": "b"})
    registry.increment("refused", -1, {"kind": "a"})
    counts.count("metric_errors", "refused:wrong_type")
