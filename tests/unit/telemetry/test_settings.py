"""TelemetrySettings: the standard's variables, the guide's, and arguments; and what wins."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.config import MetricsConfig
from tellmeter.errors import ConfigError
from tellmeter.secret import Secret
from tellmeter.telemetry import settings as module
from tellmeter.telemetry.settings import TelemetrySettings

# As the guide has it (seed 003).
GUIDE = """
export OTEL_SERVICE_NAME=tldw_server
export OTEL_SERVICE_VERSION=1.0.0
export DEPLOYMENT_ENV=production
export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317
export OTEL_EXPORTER_OTLP_PROTOCOL=grpc
export OTEL_METRICS_EXPORTER=prometheus,otlp
export OTEL_TRACES_EXPORTER=otlp
export PROMETHEUS_PORT=9090
export PROMETHEUS_HOST=0.0.0.0
export ENABLE_METRICS=true
export ENABLE_TRACING=true
export METRICS_SAMPLE_RATE=1.0
export METRICS_EXPORT_INTERVAL_MS=30000  # 30 seconds
export TRACES_EXPORT_BATCH_SIZE=1024
"""
NAMES = sorted({variable for field in module._FIELDS.values() for variable in field.variables})
OTLP = [
    f"OTEL_EXPORTER_OTLP_{signal}{word}"
    for signal in ("", "TRACES_", "METRICS_")
    for word in ("PROTOCOL", "ENDPOINT", "HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "INSECURE")
]
VALUES = st.one_of(
    st.text(st.sampled_from(string.printable), max_size=30),
    st.text(max_size=10),
    st.sampled_from(["true", "grpc", "otlp,console", "1e400", "-1", "0", "http://x:99999", "a=%ff,=b", "[::1", "nan"]),
)


def of_guide():
    lines = [line.removeprefix("export ").partition("  #")[0] for line in GUIDE.split("\n") if line]
    return dict(line.split("=", 1) for line in lines)


def test_the_guides_block_as_it_stands(caplog):
    found = TelemetrySettings.from_env(of_guide())
    assert caplog.records == []
    assert (found.service_name, found.service_version) == ("tldw_server", "1.0.0")
    assert found.deployment_environment == "production"
    assert (found.traces_exporters, found.metrics_exporters) == (("otlp",), ("prometheus", "otlp"))
    for signal in (found.traces, found.metrics):
        assert (signal.protocol, signal.endpoint) == ("grpc", "http://localhost:4317")
    assert (found.prometheus_host, found.prometheus_port) == ("0.0.0.0", 9090)
    assert found.enable_metrics and found.enable_tracing
    assert (found.metrics_interval_ms, found.span_batch_size) == (30_000, 1024)


def test_without_any_it_is_the_specifications_default(caplog):
    found = TelemetrySettings.from_env({})
    assert found.traces_exporters == found.metrics_exporters == ("otlp",)
    assert (found.sampler, found.max_spans, found.span_batch_size) == ("parentbased_always_on", 2048, 512)
    assert (found.span_delay_ms, found.metrics_interval_ms) == (5000, 60_000)
    assert found.enable_metrics and found.enable_tracing and not found.sdk_disabled
    assert caplog.records == []


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert TelemetrySettings.from_env().service_name == "mine"


def test_the_standards_variables_win_over_the_guides():
    environ = {
        "METRICS_EXPORT_INTERVAL_MS": "1000",
        "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        "TRACES_EXPORT_BATCH_SIZE": "10",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "20",
        "OTEL_SERVICE_VERSION": "1",
        "DEPLOYMENT_ENV": "development",
        "POD_NAME": "one",
        "POD_NAMESPACE": "here",
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=2,deployment.environment.name=production,k8s.pod.name=two%201",
    }
    found = TelemetrySettings.from_env(environ)
    assert (found.metrics_interval_ms, found.span_batch_size, found.service_version) == (2000, 20, "2")
    assert (found.deployment_environment, found.pod_name, found.pod_namespace) == ("production", "two 1", "here")


def test_the_service_has_the_name_of_its_own_variable():
    attributes = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=by-attribute"}
    assert TelemetrySettings.from_env(attributes).service_name == "by-attribute"
    assert TelemetrySettings.from_env({**attributes, "OTEL_SERVICE_NAME": "by-name"}).service_name == "by-name"
    assert TelemetrySettings.from_env(attributes, service_name="by-code").service_name == "by-code"


def test_arguments_win_over_all():
    found = TelemetrySettings.from_env(
        {**of_guide(), "OTEL_RESOURCE_ATTRIBUTES": "service.version=2", "PROMETHEUS_TOKEN": "x"},
        service_version="3",
        traces_exporters="console",
        metrics_exporters=[],
        enable_metrics=False,
        otlp_protocol="http/protobuf",
        otlp_endpoint="http://mine:1",
        otlp_headers={"key": "canary"},
        prometheus_token="canary",
        prometheus_port=None,
        instrument_libraries=True,
        trace_calls="live",
    )
    assert (found.service_version, found.traces_exporters, found.metrics_exporters) == ("3", ("console",), ())
    assert not found.enable_metrics and found.prometheus_port == 9090
    assert (found.traces.endpoint, found.metrics.endpoint) == ("http://mine:1/v1/traces", "http://mine:1/v1/metrics")
    assert found.prometheus_token == Secret("canary")
    assert found.instrument_libraries == ("fastapi", "httpx", "sqlalchemy")
    assert found.trace_calls == "live"
    assert "canary" not in repr(found)


@pytest.mark.parametrize(("given", "meant"), [(True, "finished"), (False, "off"), ("live", "live")])
def test_how_calls_become_spans(given, meant):
    assert TelemetrySettings.from_env({}, trace_calls=given).trace_calls == meant


@pytest.mark.parametrize(
    "given",
    [
        {"sevice_name": "x"},
        {"otlp_port": 1},
        {"traces": None},
        {"traces_exporters": "zipkin"},
        {"sampler_ratio": 2},
        {"trace_calls": "sometimes"},
        {"instrument_libraries": ["flask"]},
        {"otlp_endpoint": "nowhere"},
        {"prometheus_port": "99999"},
    ],
)
def test_a_bad_argument_is_an_error_that_names_it(given):
    with pytest.raises(ConfigError) as told:
        TelemetrySettings.from_env({}, **given)
    assert str(told.value).startswith(next(iter(given)))


@pytest.mark.parametrize(
    ("variable", "value", "field"),
    [
        ("OTEL_SDK_DISABLED", "1", "sdk_disabled"),
        ("ENABLE_METRICS", "maybe", "enable_metrics"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "sampler"),
        ("OTEL_TRACES_SAMPLER_ARG", "half", "sampler_ratio"),
        ("PROMETHEUS_PORT", "http", "prometheus_port"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_spans"),
        ("METRICS_EXPORT_INTERVAL_MS", "1m", "metrics_interval_ms"),
        ("OTEL_RESOURCE_ATTRIBUTES", "canary", "resource_attributes"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes", "metrics_temporality"),
    ],
)
def test_a_bad_variable_is_one_warning_and_the_default(variable, value, field, caplog):
    found = TelemetrySettings.from_env({variable: value})
    assert getattr(found, field) == getattr(TelemetrySettings(), field)
    (record,) = caplog.records
    assert record.getMessage().startswith(variable)
    assert "canary" not in caplog.text


def test_a_batch_is_no_larger_than_its_queue():
    assert TelemetrySettings.from_env({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}).span_batch_size == 100


def test_the_guides_sample_rate_is_that_of_records():
    assert MetricsConfig.from_env({"METRICS_SAMPLE_RATE": "0.1"}).request_sampling_rate == 0.1
    both = {"METRICS_SAMPLE_RATE": "0.1", "REQUEST_SAMPLING_RATE": "0.2"}
    assert MetricsConfig.from_env(both).request_sampling_rate == 0.2


@given(st.dictionaries(st.sampled_from(NAMES + OTLP), VALUES))
def test_no_environment_raises_and_no_secret_is_shown(environ):
    found = TelemetrySettings.from_env(environ)
    assert 1 <= found.span_batch_size <= found.max_spans
    assert set(found.traces_exporters) <= {"otlp", "console"}
    assert set(found.metrics_exporters) <= {"otlp", "prometheus", "console"}
    assert found.traces.endpoint and found.metrics.endpoint
    for headers in (found.traces.headers, found.metrics.headers):
        assert all(isinstance(value, Secret) for value in headers.values())


def test_every_variable_is_told_of():
    told = f"{TelemetrySettings.__doc__}"
    assert [name for name in NAMES if name not in told] == []
