"""A meter without a meter provider: what it records is in the registry."""

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tellmeter.registry.registry import MetricsRegistry, get_metrics_registry
from tellmeter.sinks.otel import sink
from tellmeter.telemetry import meter as module
from tellmeter.telemetry.meter import RegistryMeter, get_meter


@pytest.fixture
def registry():
    return MetricsRegistry()


@pytest.fixture
def meter(registry):
    return RegistryMeter(registry)


def samples(registry):
    return [line for line in registry.text().decode().split("\n") if line and not line.startswith("#")]


def test_every_instrument(registry, meter):
    meter.create_counter("jobs", description="Jobs.").add(2, {"kind": "a"})
    level = meter.create_up_down_counter("level")
    level.add(5)
    level.add(-2)
    meter.create_gauge("heat", unit="Cel").set(21.5, {"room": "x"})
    meter.create_histogram("size", explicit_bucket_boundaries_advisory=[1, 2]).record(1.5)
    assert samples(registry) == [
        'jobs_total{kind="a"} 2.0',
        "level 3.0",
        'heat{room="x"} 21.5',
        'size_bucket{le="1.0"} 0.0',
        'size_bucket{le="2.0"} 1.0',
        'size_bucket{le="+Inf"} 1.0',
        "size_count 1.0",
        "size_sum 1.5",
    ]


def test_observables_are_asked_when_somebody_reads(registry, meter):
    count, options = [0.0], []

    def counted(given):
        options.append(given)
        return [Observation(count[0], {"kind": "a"})]

    def levels():
        while True:
            yield [Observation(count[0] + 1)]

    meter.create_observable_counter("seen", [counted])
    meter.create_observable_gauge("level", [levels()])
    meter.create_observable_up_down_counter("other", [lambda options: [Observation(-3)]])
    for value in (2, 7, 7):
        count[0] = value
        found = samples(registry)
        assert f'seen_total{{kind="a"}} {float(value)}' in found
        assert f"level {value + 1.0}" in found
        assert "other -3.0" in found
    assert isinstance(options[0], CallbackOptions)


def test_a_callback_that_raises_costs_its_own_values_alone(registry, meter, caplog):
    def broken(options):
        raise RuntimeError("canary")

    meter.create_observable_gauge("broken", [broken])
    meter.create_observable_gauge("fine", [lambda options: [Observation(1)]])
    assert "fine 1.0" in samples(registry)
    assert "canary" not in caplog.text


def test_a_name_that_is_another_kind_of_metric_raises_nothing(registry, meter):
    meter.create_counter("same").add(1)
    meter.create_histogram("same", description="x").record(3)
    assert samples(registry) == ["same_total 1.0"]


def test_the_programs_own_meter_provider_comes_first(monkeypatch):
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(sink, "global_provider", lambda: provider)
    get_meter("mine").create_counter("jobs").add(1)
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
    assert (scope.scope.name, scope.metrics[0].name) == ("mine", "jobs")


@pytest.mark.parametrize("installed", [True, False])
def test_without_one_it_is_the_processs_registry(installed, monkeypatch):
    monkeypatch.setattr(module, "OTEL_AVAILABLE", installed)
    monkeypatch.setattr(module, "_process_meter", None)
    monkeypatch.setattr(sink, "global_provider", lambda: None)
    made = get_meter("mine")
    made.create_counter(f"meter_jobs_{installed}").add(1)
    made.create_observable_gauge("meter_level", [lambda options: [Observation(4)]])
    assert get_meter("other") is made
    assert {f"meter_jobs_{installed}_total 1.0", "meter_level 4.0"} <= set(samples(get_metrics_registry()))
