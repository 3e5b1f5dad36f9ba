"""A registry over OTLP: what arrives when, what an outage costs, and that nothing counts twice."""

import logging
import os
import threading
from itertools import pairwise

import pytest
from opentelemetry.sdk.resources import Resource

from tellmeter import counts
from tellmeter.collector import MetricsCollector
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.otel import OTelMetricsSink
from tellmeter.telemetry.metrics_out import RegistryExport
from tellmeter.telemetry.settings import TelemetrySettings
from tellmeter.testing import Answer, Dribble, Hang
from tests.support.otlp import Receiver, partial_success, settled, totals
from tests.support.otlp_registry import assert_same_samples, exported_samples, many_series, page_samples
from tests.unit.sinks.made import record

TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


@pytest.fixture
def registry():
    return MetricsRegistry()


@pytest.fixture
def make(receiver, registry):
    made = []

    def export(resource=None, **options):
        # So short that the exporter does not try again by itself.
        options = {"otlp_endpoint": receiver.url, "otlp_timeout_seconds": 0.4, **options}
        one = RegistryExport(options.pop("registry", registry), TelemetrySettings.from_env(**options), resource)
        one.start()
        made.append(one)
        return one

    yield export
    for one in made:
        one.close(10)


@pytest.fixture
def exports():
    before = counts.snapshot().get("otlp_exports", {})

    def since():
        now = counts.snapshot().get("otlp_exports", {})
        return {name: number - before.get(name, 0) for name, number in now.items() if number > before.get(name, 0)}

    return since


def value(receiver, name="calls"):
    return {
        dict(attributes).get("n", ""): value
        for (found, attributes), value in settled(receiver.points()).items()
        if found == name
    }


def test_a_flush_brings_what_the_page_shows(make, receiver):
    registry = many_series(2000)
    assert make(registry=registry).flush(60)
    assert_same_samples(exported_samples(receiver.points()), page_samples(registry))


def test_where_to_and_how_is_the_settings(make, receiver, registry):
    registry.increment("calls")
    export = make(
        {"service.name": "svc", "process.pid": 1},
        otlp_endpoint=f"{receiver.url}/base/",
        otlp_headers={"X-Key": "secret"},
        otlp_compression="gzip",
    )
    assert export.flush(10)
    (request,) = receiver.requests
    assert (request.path, request.headers["x-key"]) == ("/base/v1/metrics", "secret")
    assert request.headers["content-encoding"] == "gzip"
    (point,) = receiver.points()
    assert point.resource["service.name"] == "svc"
    assert point.resource["process.pid"] == str(os.getpid())


def test_without_settings_it_is_the_environment(monkeypatch, receiver, registry):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{receiver.url}/mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=env,service.instance.id=me")
    export = RegistryExport(registry)
    export.start()
    registry.increment("calls")
    assert export.flush(10)
    export.close(10)
    assert {request.path for request in receiver.requests} == {"/mine"}
    assert export._resource.attributes.items() >= {"service.name": "env", "service.instance.id": "me"}.items()


@pytest.mark.parametrize("resource", [{"service.name": "a"}, Resource({"service.name": "a"})])
def test_each_is_an_instance_of_its_own(make, receiver, registry, resource):
    for _ in range(2):
        registry.increment("calls")
        one = make(resource)
        one.flush(10)
        one.close(10)
    assert len({point.resource["service.instance.id"] for point in receiver.points()}) == 2
    assert {point.resource["service.name"] for point in receiver.points()} == {"a"}


def test_it_exports_by_itself(make, receiver, registry):
    registry.increment("calls", 7)
    make(metrics_interval_ms=20)
    receiver.wait_for(3)
    assert value(receiver) == {"": 7}


def test_a_close_exports_ends_the_thread_and_may_come_twice(make, receiver, registry):
    export = make()
    registry.increment("calls", 4)
    export.close(10)
    export.close(10)
    assert value(receiver) == {"": 4}
    assert not export.flush(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "tellmeter-otlp"]
    assert (registry.on_calls, registry.exported_to) == ((), set())


def test_a_second_start_does_nothing(make, registry):
    make().start()
    assert len(registry.on_calls) == 1


def test_a_call_that_ended_is_in_the_export(make, receiver, registry):
    collector = MetricsCollector(sinks=["memory:"], registry=registry)
    export = make()
    for number in range(100):
        collector.record(record(number, latency_ms=1500.0, input_tokens=10, **TRACE))
    assert export.flush(10)
    assert totals(receiver)["calls"] == 100
    found = {point.name: point for point in receiver.points()}
    assert found["gen_ai.client.operation.duration"].value[:2] == (100, 150.0)
    assert found["gen_ai.client.token.usage"].value[:2] == (100, 1000.0)
    for name in ("llm_request_duration", "gen_ai.client.operation.duration"):
        assert found[name].exemplars == ((*TRACE.values(), 1.5),)


@pytest.mark.parametrize("answer", [Answer(503), Answer(429), Answer(500), Answer(401), Hang(), None])
@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_an_outage_loses_nothing(monkeypatch, make, receiver, registry, exports, answer, temporality):
    monkeypatch.setenv(TEMPORALITY, temporality)
    export = make()
    calls = registry.counter("calls", "d", [])
    if answer is None:
        receiver.stop_listening()
    else:
        receiver.default = answer
    for _ in range(3):
        calls.inc(1, TRACE)
        assert not export.flush(10)
    refused = len(receiver.points())
    receiver.start_listening()
    receiver.default = Answer()
    calls.inc(4, TRACE)
    assert export.flush(10)
    arrived = [point for point in receiver.points()[refused:] if point.name == "calls"]
    assert [point.value for point in arrived] == ([1, 6] if temporality == "delta" else [7])
    assert all(first.time <= second.start for first, second in pairwise(arrived))
    assert {exemplar[2] for point in arrived for exemplar in point.exemplars} == (
        {1.0, 4.0} if temporality == "delta" else {4.0}
    )
    assert exports() == {"failed": 3, "delivered": len(arrived)}


def test_a_long_outage_holds_one_delta_export(monkeypatch, make, receiver, registry):
    monkeypatch.setenv(TEMPORALITY, "delta")
    export = make()
    receiver.default = Answer(500)
    calls = registry.counter("calls", "d", [])
    for _ in range(20):
        calls.inc()
        export.flush(10)
        assert len(export._exporter._unsent) == 1
    refused, receiver.default = len(receiver.points()), Answer()
    assert export.flush(10)
    assert [point.value for point in receiver.points()[refused:]] == [1, 19]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_a_receiver_that_takes_less_at_once_gets_every_point_once(monkeypatch, make, receiver, registry, temporality):
    monkeypatch.setenv(TEMPORALITY, temporality)
    accepted, seen = [], 0

    def at_most_ten(request):
        nonlocal seen
        fresh = receiver.points()[seen:]
        seen += len(fresh)
        if len(fresh) > 10:
            return Answer(413)
        accepted.extend(fresh)
        return Answer()

    receiver.default = at_most_ten
    calls = registry.counter("calls", "d", ["n"])
    for number in range(45):
        calls.labels(str(number)).inc(number + 1)
    assert make().flush(30)
    assert sorted(point.value for point in accepted) == list(range(1, 46))


def test_refused_points_are_told_once_without_the_receivers_words(make, receiver, registry, exports, caplog):
    receiver.default = Answer(200, partial_success(3))
    registry.increment("calls")
    export = make()
    with caplog.at_level(logging.WARNING):
        assert not export.flush(10)
        assert not export.flush(10)
    assert exports() == {"partial": 2}
    assert [one.message for one in caplog.records] == ["metrics export: the receiver of OTLP refused 3 data points"]


def test_a_receiver_that_dribbles_holds_nobody_up(make, receiver, registry):
    receiver.default = Dribble(bytes_per_second=20, answer=Answer(200, b"\x00" * 4000))
    registry.increment("calls")
    export = make(otlp_timeout_seconds=30)
    assert not export.flush(0.2)
    registry.increment("calls")
    export.close(0.1)


def test_exemplars_are_left_out_where_the_environment_says_so(monkeypatch, make, receiver, registry):
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")
    registry.counter("calls", "d", []).inc(1, TRACE)
    assert make().flush(10)
    assert receiver.points()[0].exemplars == ()


def test_nothing_starts_where_opentelemetry_is_switched_off(make, receiver, registry):
    registry.increment("calls")
    export = make(sdk_disabled=True)
    assert not export.flush(10)
    export.close(10)
    assert receiver.requests == []


def test_nothing_secret_is_shown(make, receiver, registry, caplog):
    receiver.default = Answer(400)
    registry.increment("calls")
    with caplog.at_level(logging.DEBUG, "tellmeter"):
        export = make(otlp_headers={"x-key": "canary-7d1f"})
        export.flush(10)
    assert receiver.requests[0].headers["x-key"] == "canary-7d1f"
    assert "canary" not in caplog.text + repr(export) + repr(export._settings)


# ---------------------------------------------------------------------- beside an OTelMetricsSink


def by_instance(receiver):
    found = {}
    for point in receiver.points():
        if point.name == "llm_requests":
            found[point.resource["service.instance.id"]] = point.value
    return sorted(found.values())


@pytest.mark.parametrize("first", ["sink", "export"])
def test_a_sink_to_the_same_place_gives_way(monkeypatch, make, receiver, registry, first, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    caplog.set_level(logging.INFO, "tellmeter")
    export = make() if first == "export" else None
    collector = MetricsCollector(sinks=[OTelMetricsSink(registry=registry)], registry=registry)
    collector.record(record())
    assert collector.flush_sync(30).complete
    export = export or make()
    for number in range(9):
        collector.record(record(number))
    assert collector.flush_sync(30).complete
    assert export.flush(30)
    assert by_instance(receiver) == ([10] if first == "export" else [1, 10])
    assert collector.stats().sinks["OTelMetricsSink"].delivered == 10
    assert caplog.text.count("nothing is measured here") == 1
    # And when the export has ended, the sink measures again.
    export.close(10)
    collector.record(record())
    assert collector.shutdown_sync(30).complete
    assert by_instance(receiver) == ([1, 10] if first == "export" else [1, 1, 10])


def test_a_sink_to_another_place_does_not(make, receiver, registry):
    with Receiver() as elsewhere:
        export = make()
        collector = MetricsCollector(
            sinks=[OTelMetricsSink(endpoint=elsewhere.url, registry=registry)], registry=registry
        )
        collector.record(record())
        assert collector.shutdown_sync(30).complete
        assert export.flush(30)
        assert (by_instance(receiver), by_instance(elsewhere)) == ([1], [1])


def test_a_sink_with_a_provider_of_the_programs_does_not(make, registry):
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    make()
    collector = MetricsCollector(sinks=[OTelMetricsSink(meter_provider=provider, registry=registry)], registry=registry)
    collector.record(record())
    assert collector.flush_sync(30).complete
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    assert "llm_requests" in {metric.name for metric in metrics}
    collector.shutdown_sync()
    provider.shutdown()
