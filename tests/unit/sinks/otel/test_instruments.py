"""What the instruments say is what /metrics says of the same records."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tellmeter import counts
from tellmeter.errors import ConfigError
from tellmeter.registry.catalogue import LLM_METRICS
from tellmeter.registry.llm import LLMMetrics
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.otel import instruments
from tellmeter.sinks.otel.instruments import Recorder, context_of, llm_metrics, naming, weight_of
from tests.support.otlp import points_in, prometheus_samples
from tests.support.varied import varied
from tests.unit.sinks.made import record, records

NOT_TOLD = ("llm_attempts_total", "llm_active_requests", "llm_active_streams")
TAGS = ("feature", "tenant")


def measured(batches, tag_names=()):
    """What a reader sees after these batches, as a receiver of OTLP would."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    recorder = Recorder(provider.get_meter("tellmeter"), tag_names)
    failed = [recorder.record(batch) for batch in batches]
    data = reader.get_metrics_data()
    provider.shutdown()
    encoded = [MessageToDict(encode_metrics(data), preserving_proto_field_name=True)] if data else []
    return points_in(encoded), failed


def page_of(batch, tag_names=()):
    """The samples that /metrics has of these records, without those that a record does not tell."""
    registry = MetricsRegistry()
    metrics = LLMMetrics(registry, tag_names)
    for one in batch:
        metrics.count(one)
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name not in NOT_TOLD and not sample.name.endswith("_created"):
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def ours(points):
    return {key: value for key, value in prometheus_samples(points).items() if key[0].startswith("llm_")}


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert math.isclose(found[key], value, rel_tol=1e-9), key


def kept(batch):
    return [msgspec.structs.replace(one, sample_rate=1.0) for one in batch]


def test_varied_records_are_on_prometheus_what_they_are_on_the_page():
    batch = kept(varied(3000))
    points, failed = measured([batch[:1000], batch[1000:1010], batch[1010:]], TAGS[:1])
    assert failed == [()] * 3
    expected = page_of(batch, TAGS[:1])
    assert len(expected) > 3000
    assert_same(ours(points), expected)


@settings(max_examples=30)
@given(st.lists(records, max_size=12))
def test_any_records_are_on_prometheus_what_they_are_on_the_page(batch):
    batch = kept(batch)
    points, failed = measured([batch], TAGS)
    assert not any(failed)
    assert_same(ours(points), page_of(batch, TAGS))


def test_names_and_units_follow_opentelemetry():
    named = {definition.exposed: naming(definition)[:2] for definition in LLM_METRICS}
    assert named["llm_requests_total"] == ("llm_requests", "")
    assert named["llm_request_duration_seconds"] == ("llm_request_duration", "s")
    assert named["llm_cost_dollars_total"] == ("llm_cost_dollars", "{dollars}")
    points, _ = measured([[record(latency_ms=5.0, cost_usd=0.5, retries=1, input_tokens=3)]])
    shown = {point.name: (point.unit, point.kind, point.monotonic) for point in points}
    assert shown["llm_request_duration"] == ("s", "histogram", False)
    assert shown["llm_cost_dollars"] == ("{dollars}", "sum", True)
    assert shown["llm_retries"] == ("", "sum", True)
    bounds = next(point.bounds for point in points if point.name == "llm_request_duration")
    assert bounds == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


def test_sampled_records_count_for_those_that_were_not_kept():
    batch = [record(sample_rate=0.1, input_tokens=3, cost_usd=0.5, latency_ms=1.0), record(sample_rate=1.0)]
    found = ours(measured([batch])[0])
    values = {name: value for (name, labels), value in found.items() if "le" not in dict(labels)}
    assert values["llm_requests_total"] == 11
    assert values["llm_tokens_total"] == 30
    assert values["llm_cost_dollars_total"] == 5.0
    # A histogram is of the records that were kept.
    assert values["llm_request_duration_seconds_count"] == 2


@pytest.mark.parametrize(("rate", "weight"), [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0), (1e-300, 1e6)])
def test_the_weight_of_a_record(rate, weight):
    assert weight_of(record(sample_rate=rate)) == weight


def test_totals_beyond_64_bits_are_still_exported():
    batch = [record(input_tokens=2**63 - 1)] * 3
    found = ours(measured([batch])[0])
    assert found["llm_tokens_total", (("model", "gpt-4o"), ("provider", "openai"), ("type", "input"))] == 3.0 * 2**63


def test_exemplars_lead_to_the_trace():
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    points, _ = measured([[record(latency_ms=1500.0, trace_id=trace, span_id=span, input_tokens=4)]])
    found = {point.name: point.exemplars for point in points}
    assert found["llm_request_duration"] == ((trace, span, 1.5),)
    assert found["gen_ai.client.operation.duration"] == ((trace, span, 1.5),)
    assert found["gen_ai.client.token.usage"] == ((trace, span, 4.0),)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"trace_id": "0af7651916cd43dd8448eb211c80319c"},
        {"trace_id": "not hex", "span_id": "b7ad6b7169203331"},
        {"trace_id": "0" * 32, "span_id": "0" * 16},
        {"trace_id": "f" * 64, "span_id": "b7ad6b7169203331"},
        {"trace_id": "-1", "span_id": "-1"},
    ],
)
def test_what_is_no_trace_is_no_exemplar(fields):
    assert context_of(record(**fields)) is None
    points, failed = measured([[record(latency_ms=1.0, **fields)]])
    assert failed == [()]
    assert not any(point.exemplars for point in points)


def test_tags_that_cannot_be_attributes_are_refused_by_name():
    with pytest.raises(ConfigError, match="tag_names"):
        llm_metrics(None, ["provider"])
    with pytest.raises(ConfigError, match="tag_names"):
        llm_metrics(None, ["__reserved"])
    llm_metrics(None, ["feature"])


def test_too_many_series_are_one_and_counted(monkeypatch):
    monkeypatch.setattr(instruments, "MAX_SERIES", 3)
    before = counts.snapshot().get("series_overflow", {}).get("llm_requests_total", 0)
    batch = [record(model=f"m{number % 6}", latency_ms=1.0) for number in range(12)]
    points, _ = measured([batch])
    requests = {point.attributes: point.value for point in points if point.name == "llm_requests"}
    assert len(requests) == 4
    assert requests[("otel.metric.overflow", True),] == 6
    duration = {point.attributes: point.value for point in points if point.name == "llm_request_duration"}
    assert duration[("otel.metric.overflow", True),][0] == 6
    assert counts.snapshot()["series_overflow"]["llm_requests_total"] > before


def test_a_record_that_cannot_be_measured_is_told_and_the_others_count():
    class Broken:
        def record(self, amount, attributes=None, context=None):
            if attributes.get("model") == "bad":
                raise RuntimeError("canary")
            seen.append(amount)

        def add(self, amount, attributes=None, context=None):
            seen.append(amount)

    class Meter:
        def create_counter(self, *arguments, **options):
            return Broken()

        create_histogram = create_counter

    seen = []
    recorder = Recorder(Meter())
    assert recorder.record([record(), record(model="bad"), record()]) == (1,)
    assert seen
