"""The same facts of the same calls on OpenTelemetry's SDK: by the sink, and by hand, one instrument after the other.

Nothing is exported: what an export costs is the SDK's in both cases.
"""

from __future__ import annotations

import gc
import time

from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.otel import OTelMetricsSink

from . import Row

NUMBER, BATCH, ROUNDS = 10_000, 100, 5


def records() -> list[AgentMetrics]:
    """Calls of a service: ten models, every third a stream, every twentieth fails."""
    stream = StreamMetrics(
        time_to_first_chunk_ms=200.0,
        time_to_first_token_ms=210.0,
        chunks_received=80,
        duration_ms=2000.0,
        output_tokens=150,
        tokens_per_second=80.0,
        max_gap_ms=50.0,
        status="completed",
    )
    return [
        AgentMetrics(
            model=f"gpt-4o-{index % 10}",
            provider="openai",
            method="stream" if index % 3 == 0 else "generate",
            latency_ms=100.0 + index % 5000,
            status="error" if index % 20 == 0 else "success",
            error_class="RateLimitError" if index % 20 == 0 else None,
            input_tokens=500 + index % 100,
            output_tokens=150,
            cost_usd=0.003,
            stream=stream if index % 3 == 0 else None,
        )
        for index in range(NUMBER)
    ]


def run() -> list[Row]:
    """The sink, and the SDK by hand."""
    calls = records()
    batches = [calls[at : at + BATCH] for at in range(0, NUMBER, BATCH)]
    rows = []
    for what, make in ((f"OTelMetricsSink.send, batches of {BATCH}", _sink), ("OpenTelemetry SDK by hand", _by_hand)):
        best = (float("inf"), float("inf"))
        for _ in range(ROUNDS):
            send, close = make()
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            for batch in batches:
                send(batch)
            best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
            close()
        rows.append(Row(what, NUMBER / best[1], best[0] / NUMBER * 1e6))
    return rows


def _provider():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def _sink():
    provider = _provider()
    sink = OTelMetricsSink(meter_provider=provider)
    sink.open()

    def close():
        sink.close()
        provider.shutdown()

    return lambda batch: sink.send(batch, time.monotonic() + 10), close


def _by_hand():
    from tellmeter.registry.catalogue import LLM_METRICS
    from tellmeter.registry.definition import MetricType
    from tellmeter.sinks.otel.gen_ai import HISTOGRAMS
    from tellmeter.sinks.otel.instruments import naming

    provider = _provider()
    meter = provider.get_meter("by hand")
    add, observe = {}, {}
    for definition in LLM_METRICS:
        if definition.type is MetricType.COUNTER:
            add[definition.name] = meter.create_counter(*naming(definition)).add
        elif definition.type is MetricType.HISTOGRAM:
            observe[definition.name] = meter.create_histogram(
                *naming(definition), explicit_bucket_boundaries_advisory=definition.buckets
            ).record
    for name, (unit, description, bounds) in HISTOGRAMS.items():
        observe[name] = meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=bounds
        ).record

    def send(batch):
        for call in batch:
            who = {"provider": call.provider, "model": call.model}
            add["llm_requests_total"](1, {**who, "method": call.method, "status": call.status})
            observe["llm_request_duration_seconds"](call.latency_ms / 1000, {**who, "method": call.method})
            add["llm_tokens_total"](call.input_tokens, {**who, "type": "input"})
            add["llm_tokens_used_total"](call.input_tokens, {**who, "type": "prompt"})
            add["llm_tokens_total"](call.output_tokens, {**who, "type": "output"})
            add["llm_tokens_used_total"](call.output_tokens, {**who, "type": "completion"})
            add["llm_cost_dollars_total"](call.cost_usd, who)
            named = {
                "gen_ai.operation.name": call.operation,
                "gen_ai.provider.name": call.provider,
                "gen_ai.request.model": call.model,
            }
            if call.failed:
                add["llm_errors_total"](1, {**who, "error_class": call.error_class})
            error = {"error.type": call.error_class} if call.failed else {}
            observe["gen_ai.client.operation.duration"](call.latency_ms / 1000, {**named, **error})
            observe["gen_ai.client.token.usage"](call.input_tokens, {**named, "gen_ai.token.type": "input"})
            observe["gen_ai.client.token.usage"](call.output_tokens, {**named, "gen_ai.token.type": "output"})
            stream = call.stream
            if stream is not None:
                first = stream.time_to_first_chunk_ms
                observe["llm_time_to_first_chunk_seconds"](first / 1000, who)
                observe["llm_time_to_first_token_seconds"](stream.time_to_first_token_ms / 1000, who)
                observe["llm_time_per_output_token_seconds"](1 / stream.tokens_per_second, who)
                observe["llm_stream_gap_seconds"](stream.max_gap_ms / 1000, who)
                observe["gen_ai.client.operation.time_to_first_chunk"](first / 1000, named)
                waited = (stream.duration_ms - first) / 1000 / (stream.chunks_received - 1)
                observe["gen_ai.client.operation.time_per_output_chunk"](waited, named)

    return send, provider.shutdown
