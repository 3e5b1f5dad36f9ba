"""What a span says of an LLM call, in the names of OpenTelemetry's GenAI conventions v1.41.1; never content.

https://github.com/open-telemetry/semantic-conventions/blob/v1.41.1/docs/gen-ai/gen-ai-spans.md. What the conventions
have no name for goes under `tellmeter.`, with the name and unit of the record's field.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from ..config import MetricsConfig
from ..records import AgentMetrics

# Field of a record -> attribute; what is None, "", 0 or empty is left out.
_FACTS = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "status_code": "http.response.status_code",
    "id": "tellmeter.record_id",
    "status": "tellmeter.status",
    "error_category": "tellmeter.error_category",
    "retries": "tellmeter.retries",
    "retry_delay_ms": "tellmeter.retry_delay_ms",
    "tools_used": "tellmeter.tools_used",
    "request_id": "tellmeter.request_id",
    "price_version": "tellmeter.price_version",
}
_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
# The conventions forbid guesses under their names.
_ESTIMATED_USAGE = {name: f"tellmeter.estimated.{name}" for name in _USAGE}
_STREAM = {
    name: f"tellmeter.stream.{name}"
    for name in (
        "status",
        "chunks_received",
        "time_to_first_token_ms",
        "max_gap_ms",
        "stalls",
        "provider_wait_ms",
        "consumer_wait_ms",
        "tokens_per_second",
    )
}
_of_facts, _of_usage, _of_stream = (attrgetter(*table) for table in (_FACTS, _USAGE, _STREAM))

# What says of a span around a call that it is the span of that very call, and what that it is one of more than it.
_OPERATION, _KIND = "gen_ai.operation.name", "openinference.span.kind"
_AROUND = frozenset({"create_agent", "invoke_agent", "execute_tool", "invoke_workflow", "plan", "retrieval"})
_KINDS = frozenset({"LLM", "EMBEDDING", "RERANKER"})
_TELLING = ("gen_ai.request.model", "gen_ai.provider.name", "gen_ai.system", "llm.request.type", "llm.model_name")


def span_name(operation: str, model: str) -> str:
    """`chat gpt-4o`; without a model that is known `chat`."""
    return operation if model in ("", "unknown") else f"{operation} {model}"


def begun_attributes(operation: str, provider: str, model: str) -> dict[str, Any]:
    """What samplers are to know of a call that only begins."""
    known = {_FACTS["operation"]: operation, _FACTS["provider"]: provider, _FACTS["model"]: model}
    return {name: value for name, value in known.items() if value and value != "unknown"}


def ended_attributes(record: AgentMetrics, config: MetricsConfig, response_id: str | None) -> dict[str, Any]:
    """What is known of a call that ended. `config` is the collector's, whose tags the record may not have yet."""
    found = _named(_FACTS, _of_facts(record))
    if record.model == "unknown":
        del found[_FACTS["model"]]
    found.update(_named(_ESTIMATED_USAGE if record.tokens_estimated else _USAGE, _of_usage(record)))
    if record.cost_usd is not None:
        found["tellmeter.cost_usd"] = record.cost_usd  # 0.0 is known to be free
    if record.finish_reason:
        found["gen_ai.response.finish_reasons"] = (record.finish_reason,)
    if response_id:
        found["gen_ai.response.id"] = response_id
    if record.failed:
        found["error.type"] = record.error_class or record.error_category or "_OTHER"
    if record.method == "stream":
        found["gen_ai.request.stream"] = True
    stream = record.stream
    if stream is not None and config.enable_streaming_metrics:
        if stream.time_to_first_chunk_ms is not None:
            found["gen_ai.response.time_to_first_chunk"] = stream.time_to_first_chunk_ms / 1000
        found.update(_named(_STREAM, _of_stream(stream)))
    for tag, value in (*config.tags.items(), *record.tags.items()):
        found[f"tellmeter.tags.{tag}"] = str(value)
    return found


def is_of_one_call(attributes: Mapping[str, Any]) -> bool:
    """Whether a span with those attributes is another instrumentation's, of one LLM call: new names and old."""
    operation = attributes.get(_OPERATION)
    if operation is not None:
        return operation not in _AROUND
    kind = attributes.get(_KIND)
    if kind is not None:
        return kind in _KINDS
    return "traceloop.span.kind" not in attributes and any(name in attributes for name in _TELLING)


def _named(table: Mapping[str, str], values: tuple[Any, ...]) -> dict[str, Any]:
    return {name: value for name, value in zip(table.values(), values, strict=True) if value}
