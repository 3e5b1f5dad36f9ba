"""Which provider it measures on, what it is told, and what it leaves alone."""

import logging
import os
import threading

import pytest
from opentelemetry import metrics as api
from opentelemetry.metrics import _internal as api_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tellmeter.collector import MetricsCollector
from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.secret import Secret
from tellmeter.sinks.otel import OTelMetricsSink
from tellmeter.sinks.otel import sink as module
from tellmeter.sinks.urls import sink_from_url
from tests.support.otlp import Receiver, settled, totals
from tests.unit.sinks.made import deadline, python, record


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def receiver():
    with Receiver() as one:
        yield one


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    one = MeterProvider([reader], shutdown_on_exit=False)
    yield one
    if not one._shutdown:
        one.shutdown()


@pytest.fixture
def is_global(monkeypatch):
    """Makes a provider the global one for this test, as a program may do once."""
    return lambda one: monkeypatch.setattr(api_internal, "_METER_PROVIDER", one)


def names_in(reader):
    data = reader.get_metrics_data()
    scopes = data.resource_metrics[0].scope_metrics if data else []
    return {metric.name for scope in scopes for metric in scope.metrics}


def send(sink, *batch):
    return sink.send(batch or [record(latency_ms=5.0)], deadline())


# ---------------------------------------------------------------------- which provider


def test_the_provider_that_is_given(provider, reader, receiver):
    sink = OTelMetricsSink(meter_provider=provider)
    assert send(sink) == Delivered()
    sink.flush()
    sink.close()
    assert names_in(reader) >= {"llm_requests", "llm_request_duration", "gen_ai.client.operation.duration"}
    assert not provider._shutdown


def test_the_applications_global_provider(provider, reader, is_global, monkeypatch, receiver, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    is_global(provider)
    sink = OTelMetricsSink("svc", "prod")
    with caplog.at_level(logging.INFO):
        assert send(sink) == Delivered()
    assert "names its service itself" in caplog.text
    sink.flush()
    sink.close()
    assert "llm_requests" in names_in(reader)
    assert not provider._shutdown
    assert receiver.received == 0


def test_a_global_provider_that_was_set_after_the_sink_was_made(provider, reader, is_global):
    sink = OTelMetricsSink()
    is_global(provider)
    assert send(sink) == Delivered()
    assert "llm_requests" in names_in(reader)
    sink.close()


def test_one_of_its_own_from_the_environment_which_is_not_made_global(monkeypatch, receiver):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "svc")
    before = api.get_meter_provider()
    sink = OTelMetricsSink(namespace="prod")
    assert send(sink) == Delivered()
    assert receiver.received == 0
    sink.flush()
    (resource, *_) = [point.resource for point in receiver.points()]
    assert (resource["service.name"], resource["service.namespace"]) == ("svc", "prod")
    assert send(sink) == Delivered()
    sink.close()
    assert totals(receiver)["calls"] == 2
    assert api.get_meter_provider() is before


def test_an_endpoint_means_a_provider_of_its_own(provider, reader, is_global, receiver):
    is_global(provider)
    sink = OTelMetricsSink("svc", endpoint=receiver.url)
    assert send(sink) == Delivered()
    sink.close()
    assert totals(receiver)["calls"] == 1
    assert names_in(reader) == set()


def test_a_closed_sink_begins_anew(receiver):
    sink = OTelMetricsSink(endpoint=receiver.url)
    sink.close()
    for _ in range(2):
        assert send(sink) == Delivered()
        sink.close()
        sink.close()
    assert totals(receiver)["calls"] == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "tellmeter-otlp"]


@pytest.mark.parametrize("of_its_own", [True, False])
def test_where_opentelemetry_is_switched_off_records_are_counted_as_such(monkeypatch, receiver, of_its_own):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    sink = OTelMetricsSink(**({"endpoint": receiver.url} if of_its_own else {"meter_provider": MeterProvider()}))
    assert send(sink) == Rejected("otel_is_off")
    sink.flush()
    sink.close()
    assert receiver.received == 0


def test_a_provider_that_was_shut_down_measures_nothing_more(provider):
    sink = OTelMetricsSink(meter_provider=provider)
    assert send(sink) == Delivered()
    provider.shutdown()
    assert send(sink) == Rejected("otel_is_off")
    sink.close()


def test_what_cannot_be_measured_is_rejected_alone(provider, monkeypatch):
    sink = OTelMetricsSink(meter_provider=provider)
    sink.open()
    monkeypatch.setattr(sink._recorder, "record", lambda batch: (1,))
    assert send(sink, record(), record()) == Partial(rejected=(1,), reason="not_measured")


def test_calls_in_progress_are_those_of_the_registry(provider, reader):
    registry = MetricsRegistry()
    registry.set_gauge("llm_circuit_breaker_open", 1, {"provider": "openai"})
    sink = OTelMetricsSink(meter_provider=provider, registry=registry)
    send(sink)
    assert "llm_circuit_breaker_open" in names_in(reader)
    sink.close()
    assert "llm_circuit_breaker_open" not in names_in(reader)


def test_two_sinks_on_one_provider_are_one_stream_of_numbers(provider, reader, caplog):
    registry = MetricsRegistry()
    registry.set_gauge("llm_circuit_breaker_open", 1, {"provider": "openai"})
    sinks = [OTelMetricsSink(meter_provider=provider, registry=registry) for _ in range(2)]
    with caplog.at_level(logging.WARNING):
        for sink in sinks:
            send(sink)
    sinks[0].close()
    data = reader.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    values = {
        metric.name: [point.value for point in metric.data.data_points]
        for metric in scope.metrics
        if hasattr(metric.data.data_points[0], "value")
    }
    assert values["llm_requests"] == [2]
    assert values["llm_circuit_breaker_open"] == [1]
    sinks[1].close()
    assert not caplog.records


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"service_name": ""}, "service_name"),
        ({"namespace": 5}, "namespace"),
        ({"registry": object()}, "registry"),
        ({"meter_provider": object()}, "meter_provider"),
        ({"tag_names": "feature"}, "tag_names"),
        ({"tag_names": [5]}, "tag_names"),
        ({"tag_names": ["model"]}, "tag_names"),
        ({"endpoint": "localhost:4318"}, "endpoint"),
        ({"protocol": "udp"}, "protocol"),
        ({"export_interval_seconds": -1}, "export_interval_seconds"),
        ({"headers": {"a b": "c"}}, "headers"),
        ({"spool": "folder"}, "spool"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_a_bad_argument_is_one_error_that_names_it(options, told):
    with pytest.raises(ConfigError, match=told):
        OTelMetricsSink(**options)


@pytest.mark.parametrize("option", ["service_name", "namespace", "endpoint", "protocol"])
def test_what_is_the_applications_providers_own_affair_is_refused(provider, option):
    with pytest.raises(ConfigError, match=option):
        OTelMetricsSink(meter_provider=provider, **{option: "http://h"})


def test_a_bad_environment_is_an_error_at_once_unless_the_application_has_a_provider(monkeypatch, provider, is_global):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        OTelMetricsSink()
    OTelMetricsSink(meter_provider=provider)
    is_global(provider)
    OTelMetricsSink()


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk"])
def test_without_the_package_the_extra_is_named(monkeypatch, missing):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(MissingExtra, match=r"tellmeter\[otel\]"):
        OTelMetricsSink()


def test_the_sdk_is_loaded_with_the_sink_and_nothing_starts_before_the_first_record():
    """Loading it takes longer than a short program has at its end."""
    python(
        """
import sys, threading
import tellmeter
assert "opentelemetry" not in sys.modules
sink = tellmeter.OTelMetricsSink(endpoint="http://127.0.0.1:9")
assert "opentelemetry.sdk.metrics" in sys.modules
assert threading.active_count() == 1
""",
    )


# ---------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("otlp://collector", "http://collector:4318"),
        ("otlp://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("otlp://[::1]", "http://[::1]:4318"),
        ("otlp://[::1]:9000/base", "http://[::1]:9000/base"),
        ("otlps://otlp.example.com:443/otlp", "https://otlp.example.com:443/otlp"),
        ("otlp:", None),
    ],
)
def test_a_url_says_where(url, endpoint):
    assert sink_from_url(url)._settings.endpoint == endpoint


def test_a_url_has_options(monkeypatch):
    monkeypatch.setenv("OTLP_HEADERS", "api-key=canary")
    sink = sink_from_url(
        "otlp://h?service_name=svc&namespace=prod&tag_names=feature,tenant&headers_env=OTLP_HEADERS"
        "&export_interval_seconds=5&protocol=http/protobuf&batch_size=7"
    )
    assert sink._names == {"service_name": "svc", "namespace": "prod"}
    assert sink._tags == ("feature", "tenant")
    assert sink._settings.headers["api-key"].reveal() == "canary"
    assert sink._settings.interval_seconds == 5.0
    assert sink.lane_options == {"batch_size": 7}
    assert "canary" not in repr(vars(sink))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("otlp://", "a host is needed"),
        ("otlps:", "a host is needed"),
        ("otlp://me:canary@h", "headers_env"),
        ("otlp://h?headers_env=NOT_SET_ANYWHERE", "headers_env"),
        ("otlp://h?unknown=1", "no option"),
        ("otlp://h:port", "endpoint"),
        ("otlp://h?tag_names=model", "tag_names"),
    ],
)
def test_a_bad_url_is_one_error(url, told):
    with pytest.raises(ConfigError, match=told) as raised:
        sink_from_url(url)
    assert "canary" not in str(raised.value)


def test_headers_of_a_url_that_are_none_are_not_told(monkeypatch):
    monkeypatch.setenv("OTLP_HEADERS", "canary")
    with pytest.raises(ConfigError, match="headers_env") as raised:
        sink_from_url("otlp://h?headers_env=OTLP_HEADERS")
    assert "canary" not in str(raised.value)


# ---------------------------------------------------------------------- through a collector


def test_a_collector_flushes_it_and_the_numbers_are_there(receiver):
    sink = OTelMetricsSink(endpoint=receiver.url, tag_names=["feature"], headers={"X-Key": Secret("canary")})
    collector = MetricsCollector(sinks=[sink], registry=MetricsRegistry())
    for number in range(10):
        collector.record(
            record(
                number,
                input_tokens=number,
                output_tokens=1,
                cost_usd=0.25,
                latency_ms=10.0,
                status="error" if number % 5 == 0 else "success",
                tags={"feature": "search", "user": "u1"},
            )
        )
    assert collector.flush_sync().complete
    assert totals(receiver) == {"calls": 10, "tokens": 55, "dollars": 2.5, "errors": 2}
    attributes = {name for (_, pairs) in settled(receiver.points()) for name, _ in pairs}
    assert "feature" in attributes
    assert "user" not in attributes
    (stats,) = collector.stats().sinks.values()
    assert stats.delivered == 10
    collector.shutdown_sync()


def test_a_short_programs_only_record_is_exported_at_its_exit(receiver):
    done = python(
        """
import sys
import tellmeter
tellmeter.configure(sinks=[sys.argv[1]])
with tellmeter.meter_call(provider="openai", model="gpt-4o"):
    pass
""",
        f"otlp://127.0.0.1:{receiver.port}?batch_timeout_seconds=60",
    )
    assert totals(receiver)["calls"] == 1
    assert done.stderr == ""
