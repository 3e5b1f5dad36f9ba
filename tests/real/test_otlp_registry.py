"""What independent receivers of OTLP decode of a registry's export, beside the registry's own page."""

import os
import time

import msgspec
import pytest

from tellmeter.collector import MetricsCollector
from tellmeter.config import MetricsConfig
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.otel.gen_ai import HISTOGRAMS
from tellmeter.telemetry.metrics_out import RegistryExport
from tellmeter.telemetry.settings import TelemetrySettings
from tests.support.otlp import DatadogAgent, Receiver, Rotel, settled
from tests.support.otlp_registry import assert_same_samples, exported_samples, many_series, page_samples
from tests.support.varied import varied


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(params=[Receiver, DatadogAgent, Rotel], ids=["ours", "datadog", "rotel"])
def receiver(request):
    one = request.param()
    yield one
    one.close()


def started(registry, receiver, **options):
    options = {"otlp_endpoint": receiver.url, "service_name": "svc", **options}
    settings = TelemetrySettings.from_env(**options)
    export = RegistryExport(registry, settings, {"service.name": settings.service_name})
    export.start()
    return export


def received(receiver, number):
    """The points, once there are so many: receivers print and keep at their own pace."""
    deadline = time.monotonic() + 60
    while len(points := receiver.points()) < number:
        assert time.monotonic() < deadline, len(points)
        time.sleep(0.1)
    return points


def points_in(registry):
    return sum(len(list(family.shown())) for family in registry.families())


@pytest.mark.heavy
@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_two_thousand_series_are_what_the_page_shows(monkeypatch, receiver, temporality):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality)
    registry = many_series(2000)
    export = started(registry, receiver)
    assert export.flush(60)
    for family in registry.families():  # and once more, so that deltas have something to add up
        for series in list(family.shown()):
            getattr(series, "observe", None) or series.inc(1)
    export.close(60)
    delta = temporality == "delta"
    points = received(receiver, points_in(registry) * (1 if delta else 2))
    found, expected = exported_samples(points), page_samples(registry)
    if delta:  # what has counted nothing yet is not told
        expected = {key: value for key, value in expected.items() if key in found or value}
    assert_same_samples(found, expected)
    assert {point.resource["service.name"] for point in points} == {"svc"}
    assert {point.delta for point in points if point.monotonic or point.kind == "histogram"} == {delta}


@pytest.mark.heavy
def test_calls_are_there_under_our_names_and_the_conventions_sampled_or_not(receiver):
    batch = [msgspec.structs.replace(one, sample_rate=1.0) for one in varied(2000)]
    registry = MetricsRegistry(max_series=100_000)
    export = started(registry, receiver, otlp_compression="gzip")
    config = MetricsConfig(request_sampling_rate=0.0, error_sampling_rate=0.0, label_tags=["feature"])
    collector = MetricsCollector(config, sinks=["memory:"], registry=registry)
    for one in batch:
        collector.record(one)
    assert export.flush(60)
    points = received(receiver, points_in(registry))
    assert_same_samples(exported_samples(points), page_samples(registry))
    durations = {key: value for key, value in settled(points).items() if key[0] == "gen_ai.client.operation.duration"}
    assert sum(value[0] for value in durations.values()) == len(batch)
    meta = {point.name: (point.unit, point.bounds) for point in points if point.name.startswith("gen_ai.")}
    assert meta == {name: (unit, tuple(map(float, bounds))) for name, (unit, _, bounds) in HISTOGRAMS.items()}
    # Exemplars lead to traces of the calls.
    traces = {(one.trace_id, one.span_id) for one in batch}
    exemplars = {exemplar[:2] for point in points for exemplar in point.exemplars if exemplar[0]}
    assert len(exemplars) > 50
    assert exemplars <= traces
    export.close(60)
    collector.shutdown_sync()


@pytest.mark.parametrize("kind", [DatadogAgent, Rotel])
def test_grpc_where_its_exporter_is_installed(kind):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    one = kind()
    try:
        registry = many_series(2000)
        export = started(registry, one, otlp_protocol="grpc", otlp_endpoint=one.grpc_url)
        assert export.flush(60)
        points = received(one, points_in(registry))
        assert_same_samples(exported_samples(points), page_samples(registry))
        export.close(60)
    finally:
        one.close()
