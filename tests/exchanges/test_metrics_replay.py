"""After a replay of the recorded exchanges, every LLM metric equals what the records say, sampling or not."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tellmeter import (
    AgentMetrics,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    instrument,
    uninstrument,
)
from tests.exchanges.test_sdk_replay import clients, run_sync
from tests.support.exchanges import load, need_exchanges, pairs

pytestmark = pytest.mark.sdk

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(registry: MetricsRegistry) -> Samples:
    """What a scraper reads, without buckets and what is zero."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(registry.text().decode())
        for sample in family.samples
        if sample.name.startswith("llm_") and not sample.name.endswith("_bucket") and sample.value
    }


def said(records: list[AgentMetrics]) -> Samples:
    """The same figures, from the records alone."""
    found: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()

    def add(metric: str, record: AgentMetrics, number: float = 1, **labels: str) -> None:
        who = {"provider": record.provider, "model": record.model, **labels}
        found[metric, frozenset(who.items())] += number  # type: ignore[assignment]

    def observe(metric: str, record: AgentMetrics, millis: float | None, **labels: str) -> None:
        if millis is not None:
            add(f"{metric}_count", record, **labels)
            add(f"{metric}_sum", record, millis / 1000, **labels)

    for record in records:
        add("llm_requests_total", record, method=record.method, status=record.status)
        add("llm_attempts_total", record, status=str(record.status_code))
        observe("llm_request_duration_seconds", record, record.latency_ms, method=record.method)
        for kind, tokens in {
            "input": record.input_tokens,
            "output": record.output_tokens,
            "cache_read": record.cached_tokens,
            "cache_write": record.cache_write_tokens,
            "reasoning": record.reasoning_tokens,
        }.items():
            add("llm_tokens_total", record, tokens, type=kind)
        add("llm_tokens_used_total", record, record.input_tokens, type="prompt")
        add("llm_tokens_used_total", record, record.output_tokens, type="completion")
        add("llm_cost_dollars_total", record, record.cost_usd or 0)
        add("llm_price_unknown_total", record, record.cost_usd is None)
        add("llm_usage_missing_total", record, record.tokens_estimated)
        if record.status in ("error", "timeout", "rejected"):
            add("llm_errors_total", record, error_class=str(record.error_class))
        if (stream := record.stream) is not None:
            observe("llm_time_to_first_chunk_seconds", record, stream.time_to_first_chunk_ms)
            observe("llm_time_to_first_token_seconds", record, stream.time_to_first_token_ms)
            if stream.tokens_per_second and stream.output_tokens > 1:
                observe("llm_time_per_output_token_seconds", record, 1000 / stream.tokens_per_second)
            if stream.chunks_received > 1:
                observe("llm_stream_gap_seconds", record, stream.max_gap_ms)
    return {key: number for key, number in found.items() if number}


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_every_llm_metric_equals_what_the_records_say(rate: float) -> None:
    need_exchanges()
    records: list[AgentMetrics] = []
    sink = InMemoryMetricsSink()
    registry = MetricsRegistry(strict=True)  # whatever is wrong with a label or a value would raise, and be counted
    config = MetricsConfig(
        request_sampling_rate=rate,
        streaming_sampling_rate=rate,
        error_sampling_rate=rate,
        filters=[lambda record: records.append(record) or True],  # type: ignore[func-returns-value]
    )
    collector = MetricsCollector(config, sinks=[sink], registry=registry)
    instrument(collector=collector)
    calls = 0
    try:
        for provider, api in pairs():
            for exchange in load(provider, api):
                run_sync(clients(exchange)[0], exchange)
                calls += 1
    finally:
        uninstrument()
    shown = samples(registry)  # reading settles
    assert len(records) == calls > 500
    assert collector.stats().counts.get("guarded_errors", {}).get("metrics") is None
    kept = sink.get_stats()["stored_metrics"]
    assert kept == calls if rate == 1.0 else 0 < kept < calls / 2
    wanted = said(records)
    assert set(shown) == set(wanted)
    wrong: list[Any] = [
        (key, shown[key], number)
        for key, number in wanted.items()
        if not math.isclose(shown[key], number, rel_tol=1e-12)
    ]
    assert wrong == []
    assert sum(number for (name, _), number in shown.items() if name == "llm_requests_total") == calls
    collector.shutdown_sync()
