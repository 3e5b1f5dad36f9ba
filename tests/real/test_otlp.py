"""What independent receivers of OTLP decode of what the sink sends: Datadog's test agent (Python) and rotel (Rust)."""

import math
import os
import time
from collections import Counter, defaultdict

import msgspec
import pytest

from tellmeter.collector import MetricsCollector
from tellmeter.registry.llm import LLMMetrics
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.otel import OTelMetricsSink
from tellmeter.sinks.otel.gen_ai import HISTOGRAMS
from tests.support.otlp import DatadogAgent, Receiver, Rotel, prometheus_samples, settled, totals_of
from tests.support.varied import varied

NUMBER = 10_000


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(params=[Receiver, DatadogAgent, Rotel], ids=["ours", "datadog", "rotel"])
def receiver(request):
    one = request.param()
    yield one
    one.close()


def records():
    """So that no metric has more series than OpenTelemetry's SDK keeps."""
    return [
        msgspec.structs.replace(
            one,
            provider=one.provider if index % 8 == 0 else "openai",
            response_model=one.model if index % 2 else None,
        )
        for index, one in enumerate(varied(NUMBER))
    ]


def deliver(receiver, batch, **options):
    nothing_live = MetricsRegistry()  # the process's has gauges of what other tests had in progress
    sink = OTelMetricsSink(
        "svc", "prod", endpoint=receiver.url, tag_names=["feature"], registry=nothing_live, **options
    )
    collector = MetricsCollector(sinks=[sink], registry=MetricsRegistry())
    for at in range(0, len(batch), NUMBER // 2):
        for one in batch[at : at + NUMBER // 2]:
            collector.record(one)
        assert collector.flush_sync(60).complete
    assert collector.shutdown_sync(60).complete
    (stats,) = collector.stats().sinks.values()
    assert stats.delivered == len(batch)
    return collector


def received(receiver, number):
    """The points, once all `number` calls are there: receivers print and keep at their own pace."""
    deadline = time.monotonic() + 60
    while True:
        points = receiver.points()
        found = totals_of(points)
        if found["calls"] == number:
            return points
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def bucket(bounds, value):
    return next((index for index, bound in enumerate(bounds) if value <= bound), len(bounds))


def expected_of_the_convention(batch):
    """(name, attributes) -> [count, sum, bucket counts], counted here by hand."""
    found = defaultdict(lambda: [0, 0.0, Counter()])

    def note(name, value, **attributes):
        kept = {key.replace("__", "."): text for key, text in attributes.items() if text}
        one = found[name, tuple(sorted(kept.items()))]
        one[0] += 1
        one[1] += value
        one[2][bucket(HISTOGRAMS[name][2], value)] += 1

    for one in batch:
        who = {
            "gen_ai__operation__name": one.operation,
            "gen_ai__provider__name": one.provider,
            "gen_ai__request__model": one.model,
            "gen_ai__response__model": one.response_model,
            "feature": one.tags["feature"],
        }
        failed = one.status in ("error", "timeout", "rejected")
        failure = (one.error_class or one.error_category) if failed else None
        note("gen_ai.client.operation.duration", one.latency_ms / 1000, **who, error__type=failure)
        for kind, tokens in (("input", one.input_tokens), ("output", one.output_tokens)):
            if tokens and not one.tokens_estimated:
                note("gen_ai.client.token.usage", tokens, **who, gen_ai__token__type=kind)
        stream = one.stream
        if stream is not None and stream.time_to_first_chunk_ms is not None:
            note("gen_ai.client.operation.time_to_first_chunk", stream.time_to_first_chunk_ms / 1000, **who)
            if stream.chunks_received > 1:
                waited = max(0.0, stream.duration_ms - stream.time_to_first_chunk_ms - stream.consumer_wait_ms)
                mean = waited / 1000 / (stream.chunks_received - 1)
                note("gen_ai.client.operation.time_per_output_chunk", mean, **who)
    return found


def assert_close(found, expected, about):
    assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-300), about


@pytest.mark.heavy
def test_every_number_bucket_attribute_and_unit_arrives(receiver):
    batch = [msgspec.structs.replace(one, sample_rate=1.0) for one in records()]
    deliver(receiver, batch)
    points = received(receiver, NUMBER)
    assert not any(point.delta for point in points)
    assert {point.resource["service.name"] for point in points} == {"svc"}
    assert {point.resource["service.namespace"] for point in points} == {"prod"}

    # Ours: on Prometheus they are what /metrics shows of the same records.
    registry = MetricsRegistry()
    metrics = LLMMetrics(registry, ["feature"])
    for one in batch:
        metrics.count(one)
    page = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
        and sample.name not in ("llm_attempts_total", "llm_active_requests", "llm_active_streams")
    }
    found = prometheus_samples(points)
    ours = {key: value for key, value in found.items() if key[0].startswith("llm_")}
    assert set(ours) == set(page)
    for key, value in page.items():
        assert_close(ours[key], value, key)

    # The convention's.
    expected = expected_of_the_convention(batch)
    theirs = {key: value for key, value in settled(points).items() if key[0].startswith("gen_ai.")}
    assert set(theirs) == set(expected)
    for key, (count, total, buckets) in expected.items():
        assert theirs[key][0] == count, key
        assert_close(theirs[key][1], total, key)
        assert {index: number for index, number in enumerate(theirs[key][2]) if number} == dict(buckets), key
    meta = {point.name: (point.unit, point.bounds) for point in points if point.name.startswith("gen_ai.")}
    assert meta == {name: (unit, tuple(map(float, bounds))) for name, (unit, _, bounds) in HISTOGRAMS.items()}

    # Exemplars lead to traces of the records.
    traces = {(one.trace_id, one.span_id) for one in batch}
    exemplars = [exemplar for point in points for exemplar in point.exemplars]
    assert len(exemplars) > 100
    assert {(trace, span) for trace, span, _ in exemplars} <= traces


@pytest.mark.heavy
def test_sampled_records_stand_for_those_that_were_not_kept(receiver):
    batch = records()
    deliver(receiver, batch)
    weights = [1 / one.sample_rate for one in batch]
    found = totals_of(received(receiver, round(sum(weights))))
    tokens = sum(weight * (one.input_tokens + one.output_tokens) for weight, one in zip(weights, batch, strict=True))
    dollars = sum(weight * (one.cost_usd or 0) for weight, one in zip(weights, batch, strict=True))
    errors = sum(weight for weight, one in zip(weights, batch, strict=True) if one.failed)
    assert_close(found["tokens"], tokens, "tokens")
    assert_close(found["dollars"], dollars, "dollars")
    assert found["errors"] == round(errors)


@pytest.mark.parametrize("kind", [DatadogAgent, Rotel])
def test_grpc_where_its_exporter_is_installed(monkeypatch, kind):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    one = kind()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", one.grpc_url)
        batch = [msgspec.structs.replace(record, sample_rate=1.0) for record in records()]
        sink = OTelMetricsSink()
        collector = MetricsCollector(sinks=[sink], registry=MetricsRegistry())
        for record in batch:
            collector.record(record)
        assert collector.shutdown_sync(60).complete
        received(one, NUMBER)
    finally:
        one.close()


@pytest.mark.heavy
def test_delta_exports_add_up(monkeypatch, receiver):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    batch = [msgspec.structs.replace(one, sample_rate=1.0) for one in records()]
    deliver(receiver, batch)
    points = received(receiver, NUMBER)
    assert {point.delta for point in points} == {True}
    expected = Counter()
    for one in batch:
        key = (("feature", one.tags["feature"]), ("method", one.method), ("model", one.model))
        expected[*key, ("provider", one.provider), ("status", one.status)] += 1
    found = {key[1]: value for key, value in settled(points).items() if key[0] == "llm_requests"}
    assert found == expected
