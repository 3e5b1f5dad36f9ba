"""The convention's metrics in a registry of their own: what OTelMetricsSink measures of the same calls."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tellmeter import counts
from tellmeter.collector import MetricsCollector
from tellmeter.config import MetricsConfig
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.otel import gen_ai
from tellmeter.sinks.otel.gen_ai import HISTOGRAMS, GenAIMetrics
from tellmeter.telemetry.gen_ai_metrics import GenAISeries
from tellmeter.telemetry.points import Points
from tests.support.varied import varied
from tests.unit.sinks.made import record


def points_of(metrics):
    """(name, attributes) -> (count, sum, bucket counts); units and bounds as the convention has them."""
    found = {}
    for metric in metrics:
        unit, description, bounds = HISTOGRAMS[metric.name]
        assert (metric.unit, metric.description) == (unit, description)
        for point in metric.data.data_points:
            assert tuple(point.explicit_bounds) == tuple(bounds)
            key = metric.name, tuple(sorted(point.attributes.items()))
            found[key] = (point.count, pytest.approx(point.sum), tuple(point.bucket_counts))
    return found


def told(series, **options):
    return points_of(Points([series.registry], delta=False, **options).collect())


def test_they_are_what_instruments_measure_of_the_same_calls():
    batch = varied(500)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    theirs = GenAIMetrics(provider.get_meter("tellmeter"), ["feature"])
    for one in batch:
        theirs.record(one)
    expected = points_of(reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics)
    provider.shutdown()
    ours = GenAISeries()
    ours.count(batch[:100], ("feature",))
    ours.count(batch[100:], ("feature",))
    found = told(ours)
    assert len(found) > 100
    assert found == expected


def test_a_collector_tells_of_every_call_and_sampling_takes_none_away():
    registry, series = MetricsRegistry(), GenAISeries()
    registry.on_calls = (series.count,)
    config = MetricsConfig(request_sampling_rate=0.0, label_tags=["feature"])
    collector = MetricsCollector(config, sinks=["memory:"], registry=registry)
    for number in range(10):
        collector.record(record(number, latency_ms=1500.0, tags={"feature": "search"}))
    registry.settle()
    ((name, attributes), (count, _, _)) = next(iter(told(series).items()))
    assert (name, count) == ("gen_ai.client.operation.duration", 10)
    assert dict(attributes)["feature"] == "search"
    assert b"\ngen_ai" not in b"\n" + registry.text(), "on the page they would say everything twice"


def test_exemplars_lead_to_the_trace_of_the_call():
    series = GenAISeries()
    series.count([record(trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331")], ())
    (metric,) = Points([series.registry], delta=False).collect()
    (exemplar,) = metric.data.data_points[0].exemplars
    assert f"{exemplar.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{exemplar.span_id:016x}" == "b7ad6b7169203331"


def test_more_label_sets_than_there_is_room_for_are_one_series(monkeypatch):
    monkeypatch.setattr(gen_ai, "MAX_SERIES", 3)
    before = counts.snapshot().get("series_overflow", {}).get("gen_ai.client", 0)
    series = GenAISeries()
    series.count([record(model=f"m{number}", latency_ms=1000.0) for number in range(10)], ())
    found = {dict(attributes).get("gen_ai.request.model"): value[0] for (_, attributes), value in told(series).items()}
    assert found == {"m0": 1, "m1": 1, "m2": 1, "__overflow__": 7}
    assert counts.snapshot()["series_overflow"]["gen_ai.client"] == before + 7


@pytest.mark.parametrize("tag", ["error_type", "error.type"])
def test_a_tag_that_is_one_of_the_conventions_attributes_costs_no_call(tag):
    series = GenAISeries()
    series.count([record(latency_ms=1000.0, tags={tag: "x"})] * 2, (tag,))
    assert [value[0] for value in told(series).values()] == [2]


def test_collectors_with_other_tags_share_the_metrics():
    series = GenAISeries()
    one = record(latency_ms=1000.0, tags={"feature": "f", "tenant": "t"})
    series.count([one], ("feature",))
    series.count([one], ("tenant",))
    found = [{key: value for key, value in attributes if "." not in key} for _, attributes in told(series)]
    assert found == [{"feature": "f"}, {"tenant": "t"}]
