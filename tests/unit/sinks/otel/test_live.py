"""Calls in progress and circuit breakers, as OpenTelemetry sees them when it collects."""

import gc

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tellmeter.collector import MetricsCollector
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.otel.live import live_gauges


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def meter(reader):
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider.get_meter("tellmeter")
    provider.shutdown()


def seen(reader):
    data = reader.get_metrics_data()
    found = {}
    for scope in data.resource_metrics[0].scope_metrics if data else ():
        for metric in scope.metrics:
            for point in metric.data.data_points:
                found[metric.name, tuple(sorted(point.attributes.items()))] = point.value
    return found


WHO = (("model", "gpt-4o"), ("provider", "openai"))


def test_calls_in_progress_are_counted_while_they_are(reader, meter):
    registry = MetricsRegistry()
    collector = MetricsCollector(registry=registry)
    live_gauges(meter).show(registry)
    with collector.track_request(provider="openai", model="gpt-4o"):
        assert seen(reader)["llm_active_requests", WHO] == 1
        with collector.track_request(provider="openai", model="gpt-4o"):
            assert seen(reader)["llm_active_requests", WHO] == 2
    assert seen(reader)["llm_active_requests", WHO] == 0
    collector.shutdown_sync()


def test_circuit_breakers_are_shown_as_the_registry_has_them(reader, meter):
    registry = MetricsRegistry()
    live_gauges(meter).show(registry)
    assert seen(reader) == {}
    registry.set_gauge("llm_circuit_breaker_state", 2, {"provider": "openai"})
    registry.set_gauge("llm_circuit_breaker_open", 1, {"provider": "openai"})
    registry.set_gauge("queue_size", 1, {"queue_name": "q"})
    openai = (("provider", "openai"),)
    assert seen(reader) == {("llm_circuit_breaker_state", openai): 2, ("llm_circuit_breaker_open", openai): 1}


def test_registries_add_up_and_go_one_by_one(reader, meter):
    first, second = MetricsRegistry(), MetricsRegistry()
    for registry in (first, second):
        registry.increment_gauge("llm_active_requests", 3, {"provider": "openai", "model": "gpt-4o"})
    gauges = live_gauges(meter)
    assert live_gauges(meter) is gauges
    for registry in (first, first, second):
        gauges.show(registry)
    expected = [6, 6, 3]
    for registry, number in zip((first, first, second), expected, strict=True):
        assert seen(reader)["llm_active_requests", WHO] == number
        gauges.hide(registry)
    assert seen(reader) == {}


def test_a_meter_that_is_gone_is_forgotten():
    from tellmeter.sinks.otel.live import _by_meter

    provider = MeterProvider(shutdown_on_exit=False)
    live_gauges(provider.get_meter("tellmeter"))
    before = len(_by_meter)
    del provider
    gc.collect()
    assert len(_by_meter) < before
