"""The catalogue: every metric that tellmeter knows by name, in one table. docs/catalogue.md is made of it.

A metric of it is registered when it is first recorded, with its help, unit, labels and buckets. Where the guides that
these names come from use two names for one thing, one is an alias of the other, and the labels are those of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from .definition import SECONDS_BUCKETS, MetricDefinition, MetricType

_COUNTER, _GAUGE, _HISTOGRAM = MetricType.COUNTER, MetricType.GAUGE, MetricType.HISTOGRAM

# First tokens and chunks: 50 ms is a fast one; long reasoning takes minutes.
FIRST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
# Waits inside a stream, from what arrives together to a stall.
GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# From 1,000 to 1 token a second.
TOKEN_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0)
# Databases, caches and vector stores answer within milliseconds.
QUERY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Prompts go up to a million tokens.
PROMPT_BUCKETS = tuple(
    float(number)
    for number in (10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
)
DOCUMENT_BUCKETS = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)


def _counter(
    name: str,
    description: str,
    *labels: str,
    unit: str = "",
    aliases: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> MetricDefinition:
    return MetricDefinition(name, _COUNTER, description, unit, labels, aliases=aliases, optional=optional)


def _gauge(
    name: str, description: str, *labels: str, unit: str = "", exposed: str = "", mode: str = "livesum"
) -> MetricDefinition:
    return MetricDefinition(name, _GAUGE, description, unit, labels, exposed=exposed, gauge_mode=mode)


def _seconds(
    name: str,
    description: str,
    *labels: str,
    buckets: Sequence[float] = SECONDS_BUCKETS,
    optional: Sequence[str] = (),
) -> MetricDefinition:
    exposed = name if name.endswith("_seconds") else f"{name}_seconds"
    return MetricDefinition(name, _HISTOGRAM, description, "seconds", labels, buckets, exposed, optional=optional)


_WHO = ("provider", "model")

LLM_METRICS = (
    _counter("llm_requests_total", "LLM calls that ended.", *_WHO, "method", "status", optional=("method",)),
    _counter("llm_attempts_total", "Requests sent for LLM calls, retries included, by HTTP status.", *_WHO, "status"),
    _seconds(
        "llm_request_duration_seconds",
        "Time of whole LLM calls, retries included.",
        *_WHO,
        "method",
        optional=("method",),
    ),
    _counter(
        "llm_tokens_total",
        "Tokens: input and output; cache_read and cache_write are parts of input, reasoning of output.",
        *_WHO,
        "type",
    ),
    _counter("llm_tokens_used_total", "Tokens of prompts and completions.", *_WHO, "type"),
    _counter(
        "llm_cost_dollars_total",
        "What the calls cost, in US dollars.",
        *_WHO,
        unit="dollars",
        aliases=("llm_cost_dollars",),
    ),
    _counter("llm_price_unknown_total", "Calls whose cost is not known.", *_WHO),
    _counter("llm_usage_missing_total", "Calls whose tokens the provider did not state, or not to the end.", *_WHO),
    _counter("llm_errors_total", "Calls that ended in error, timeout or rejection.", *_WHO, "error_class"),
    _counter("llm_retries_total", "Attempts after the first.", *_WHO),
    _seconds(
        "llm_time_to_first_chunk_seconds",
        "From the call to the first event of its stream.",
        *_WHO,
        buckets=FIRST_BUCKETS,
    ),
    _seconds(
        "llm_time_to_first_token_seconds",
        "From the call to the first content of its stream, reasoning included.",
        *_WHO,
        buckets=FIRST_BUCKETS,
    ),
    _seconds(
        "llm_time_per_output_token_seconds",
        "Of a stream, after its first token.",
        *_WHO,
        buckets=TOKEN_SECONDS_BUCKETS,
    ),
    _seconds(
        "llm_stream_gap_seconds", "The longest wait for the provider inside a stream.", *_WHO, buckets=GAP_BUCKETS
    ),
    _counter("llm_stream_stalls_total", "Times that a stream stalled.", *_WHO),
    _gauge("llm_active_requests", "LLM calls in progress.", *_WHO),
    _gauge("llm_active_streams", "Streams in progress.", *_WHO),
)

_CACHE = ("cache_name", "operation", "cache")
# The sixteen of the metrics framework's guide.
_FRAMEWORK = (
    _counter("request_count", "Requests.", "endpoint", "method", "status"),
    _counter("error_count", "Errors.", "error_type", "endpoint", "function"),
    _counter("cache_hits", "Look-ups that found something in a cache.", *_CACHE, optional=_CACHE),
    _counter("cache_misses", "Look-ups that found nothing in a cache.", *_CACHE, optional=_CACHE),
    _counter(
        "bedrock_invocations",
        "Invocations of Amazon Bedrock; one that is counted as started is counted again as it ends.",
        "model_id",
        "status",
    ),
    _counter(
        "rag_queries",
        "Queries of retrieval-augmented generation; one that is counted as started is counted again as it ends.",
        "operation",
        "pipeline",
        "status",
        optional=("operation", "pipeline"),
    ),
    _seconds("request_duration", "Time of requests.", "endpoint", "method"),
    MetricDefinition(
        "token_usage", _HISTOGRAM, "Tokens of a request.", "tokens", ("model_id", "token_type"), PROMPT_BUCKETS
    ),
    _seconds("retrieval_time", "Time of retrievals.", "operation", "source", buckets=QUERY_BUCKETS),
    _seconds("bedrock_duration", "Time of invocations of Amazon Bedrock.", "model_id"),
    _seconds("database_query_duration", "Time of database queries.", "operation", "table", buckets=QUERY_BUCKETS),
    _gauge("active_requests", "Requests in progress.", "endpoint"),
    _gauge("cache_size", "Size of a cache.", "cache_name", unit="bytes", exposed="cache_size_bytes"),
    _gauge("active_connections", "Open connections.", "connection_type"),
    _gauge("memory_usage", "Memory in use.", "process", unit="bytes", exposed="memory_usage_bytes"),
    _gauge("queue_size", "What waits in a queue.", "queue_name"),
)

# Those of the telemetry module's guide that are not above.
_MODULE = (
    _counter("http_requests_total", "HTTP requests.", "method", "endpoint", "status"),
    _seconds("http_request_duration_seconds", "Time of HTTP requests, to the last byte sent.", "method", "endpoint"),
    _gauge("http_requests_active", "HTTP requests in progress.", "method"),
    _gauge("db_connections_active", "Open database connections.", "database"),
    _counter("db_queries_total", "Database queries.", "database", "operation"),
    _seconds(
        "db_query_duration_seconds",
        "Time of database queries.",
        "database",
        "operation",
        "query_type",
        buckets=QUERY_BUCKETS,
        optional=("database", "operation", "query_type"),
    ),
    _seconds("rag_retrieval_latency_seconds", "Time of retrievals.", "source", "pipeline", buckets=QUERY_BUCKETS),
    MetricDefinition(
        "rag_documents_retrieved",
        _HISTOGRAM,
        "Documents that a retrieval found.",
        "documents",
        ("source", "pipeline"),
        DOCUMENT_BUCKETS,
    ),
    _counter("rag_cache_hits_total", "Retrievals that a cache answered.", "cache_type"),
    _counter("rag_cache_misses_total", "Retrievals that a cache could not answer.", "cache_type"),
    _counter("embeddings_generated_total", "Embeddings made.", *_WHO),
    _seconds("embedding_generation_duration_seconds", "Time of making embeddings.", *_WHO, buckets=QUERY_BUCKETS),
    _gauge(
        "cache_hit_ratio", "Share of a cache's look-ups that found something, since the start.", "cache", mode="max"
    ),
    _gauge("system_cpu_usage_percent", "Use of the machine's processors.", unit="percent", mode="livemax"),
    _gauge("system_memory_usage_bytes", "Memory of the machine in use.", unit="bytes", mode="livemax"),
    _gauge("system_disk_usage_bytes", "Room in use on a file system.", "mount_point", unit="bytes", mode="livemax"),
    _counter("errors_total", "Errors.", "component", "error_type"),
    _gauge("circuit_breaker_state", "0 closed, 1 open, 2 half-open.", "service", mode="livemax"),
    _counter("circuit_breaker_trips_total", "Times that a circuit breaker opened.", "service", "reason"),
)

CLIENT_METRICS = (
    _gauge("llm_circuit_breaker_state", "0 closed, 1 open, 2 half-open.", "provider", mode="livemax"),
    _gauge("llm_circuit_breaker_open", "1 while the circuit breaker is open.", "provider", mode="livemax"),
    _counter("llm_circuit_breaker_trips_total", "Times that the circuit breaker opened.", "provider"),
    _counter("llm_circuit_breaker_rejections_total", "Calls that the circuit breaker refused.", "provider"),
    _counter("llm_fallbacks_total", "Calls that went on with another model.", *_WHO, "fallback_model"),
    _counter("llm_budget_rejections_total", "Calls that a budget refused.", "budget"),
)

# What runs around LLM calls: a run of an agent is minutes long, and most of its tools answer at once.
_AGENTS = (
    _counter("agent_runs_total", "Runs of agents that ended.", "agent", "status"),
    _seconds("agent_run_duration_seconds", "Time of runs of agents.", "agent"),
    _counter("tool_calls_total", "Calls of tools that ended.", "tool", "status"),
    _seconds("tool_call_duration_seconds", "Time of calls of tools.", "tool"),
)

CATALOGUE = (*LLM_METRICS, *CLIENT_METRICS, *_FRAMEWORK, *_MODULE, *_AGENTS)


def _names(definition: MetricDefinition) -> set[str]:
    base = definition.exposed.removesuffix("_total") if definition.type is _COUNTER else definition.exposed
    return {definition.name, *definition.aliases, definition.exposed, base}


_BY_NAME = {name: definition for definition in CATALOGUE for name in _names(definition)}


def known(name: str) -> MetricDefinition | None:
    """The definition of a metric of the catalogue, by any of its names."""
    return _BY_NAME.get(name)
