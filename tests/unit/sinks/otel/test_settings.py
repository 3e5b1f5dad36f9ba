"""What code and environment say together."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.secret import Secret
from tellmeter.sinks.otel import settings
from tellmeter.sinks.otel.settings import (
    GRPC,
    HTTP,
    ExportSettings,
    checked_headers,
    export_settings,
    has_exemplars,
    headers_in,
    is_switched_off,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def test_nothing_said_is_http_to_the_default_place():
    assert export_settings() == ExportSettings(protocol=HTTP, endpoint=None, headers={}, interval_seconds=60.0)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_METRIC_EXPORT_INTERVAL": "2500"}, {"interval_seconds": 2.5}),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, {"protocol": HTTP}),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": HTTP}, {"protocol": HTTP}),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": " Delta "}, {"delta": True}),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "lowmemory"}, {"delta": True}),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative"}, {"delta": False}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example.com/base"}, {"endpoint": None}),
    ],
)
def test_the_environment_is_obeyed(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = export_settings()
    assert {name: getattr(found, name) for name in expected} == expected


def test_what_is_given_in_code_wins(monkeypatch):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "2500")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    found = export_settings(endpoint="http://h:1", headers={"A": "b"}, protocol=HTTP, interval_seconds=1)
    assert (found.endpoint, found.protocol, found.interval_seconds) == ("http://h:1", HTTP, 1.0)
    assert found.headers["a"].reveal() == "b"
    assert "b'" not in repr(found)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "inf"}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}, "OTEL_EXPORTER_OTLP_COMPRESSION = 'zip'"),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "ALWAYS_ON"}, "trace_based, always_on, always_off"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, "OTEL_EXPORTER_OTLP_TIMEOUT = '10s'"),
        ({"OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "-1"}, "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL = 'http/json'"),
        ({"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "x"}, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:port"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem"}, "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ({"OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY": "/nowhere.pem"}, "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY"),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "x"}, "TEMPORALITY_PREFERENCE"),
    ],
)
def test_a_bad_variable_is_one_error_that_names_it(monkeypatch, variables, told):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=told):
        export_settings()


@pytest.mark.parametrize("endpoint", ["http://me:canary@h", "http://h/?api_key=canary", "https://canary@h:4318"])
def test_a_secret_in_an_endpoint_is_refused_and_not_told(monkeypatch, endpoint):
    with pytest.raises(ConfigError) as raised:
        export_settings(endpoint=endpoint)
    assert "canary" not in str(raised.value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    with pytest.raises(ConfigError) as raised:
        export_settings()
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("options", [{"endpoint": 5}, {"endpoint": ""}, {"interval_seconds": 0}, {"protocol": "udp"}])
def test_a_bad_argument_is_an_error(options):
    with pytest.raises(ConfigError):
        export_settings(**options)


def test_grpc_needs_its_exporter(monkeypatch):
    monkeypatch.setattr(settings, "has_exporter", lambda protocol: protocol == HTTP)
    with pytest.raises(ConfigError, match="opentelemetry-exporter-otlp-proto-grpc"):
        export_settings(protocol=GRPC)
    monkeypatch.setattr(settings, "has_exporter", lambda protocol: True)
    assert export_settings(protocol=GRPC).protocol == GRPC


@pytest.mark.parametrize(("installed", "expected"), [(True, GRPC), (False, HTTP)])
def test_the_port_of_grpc_means_grpc_where_nobody_says_otherwise(monkeypatch, installed, expected):
    monkeypatch.setattr(settings, "has_exporter", lambda protocol: installed or protocol == HTTP)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    assert export_settings().protocol == expected
    assert export_settings(protocol=HTTP).protocol == HTTP
    assert export_settings(endpoint="http://localhost:4318").protocol == HTTP


def test_without_the_exporter_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(settings, "has_exporter", lambda protocol: False)
    with pytest.raises(MissingExtra, match=r"tellmeter\[otel\]"):
        export_settings()


@pytest.mark.parametrize(("value", "expected"), [("true", True), (" TRUE ", True), ("false", False), ("", False)])
def test_the_switch(monkeypatch, value, expected):
    monkeypatch.setenv("OTEL_SDK_DISABLED", value)
    assert is_switched_off() is expected


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=10)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(st.dictionaries(names, values, max_size=5))
def test_any_headers_come_back_from_their_text(headers):
    from urllib.parse import quote

    text = " , ".join(f"{name}={quote(value, safe='')}" for name, value in headers.items())
    found = headers_in(Secret(text)) if text else {}
    assert {name: value.reveal() for name, value in found.items()} == headers


def test_a_header_is_split_at_its_first_equals_sign():
    found = headers_in(Secret("Authorization=Basic dTpw==,x-key=a%20b"))
    assert found["authorization"].reveal() == "Basic dTpw=="
    assert found["x-key"].reveal() == "a b"


@pytest.mark.parametrize("text", ["canary", "a=canary,b", "=canary", "a b=canary", "a=canary%0d%0ab"])
def test_bad_headers_are_an_error_that_does_not_show_them(text):
    with pytest.raises(ConfigError) as raised:
        headers_in(Secret(text))
    assert "canary" not in str(raised.value)


def test_headers_are_checked():
    with pytest.raises(ConfigError, match="no name"):
        checked_headers({"a b": "c"})
    with pytest.raises(ConfigError, match="ASCII"):
        checked_headers({"a": "é"})


@pytest.mark.parametrize(
    ("environment", "settings", "expected"),
    [
        ({}, ExportSettings(), "http://localhost:4318"),
        ({}, ExportSettings(protocol="grpc"), "http://localhost:4317"),
        ({}, ExportSettings(endpoint="http://a:1/base/"), "http://a:1/base"),
        ({}, ExportSettings(arguments={"endpoint": "http://a:1/base/v1/metrics"}), "http://a:1/base"),
        ({"": "http://b:2"}, ExportSettings(), "http://b:2"),
        ({"": "http://b:2", "METRICS_": "http://c:3/v1/metrics"}, ExportSettings(), "http://c:3"),
        ({"": "http://b:2"}, ExportSettings(endpoint="http://a:1"), "http://a:1"),
    ],
)
def test_the_same_place_has_the_same_name(monkeypatch, environment, settings, expected):
    for signal, url in environment.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT", url)
    assert settings.destination == expected


@pytest.mark.parametrize(("value", "expected"), [("", True), ("always_on", True), ("always_off", False)])
def test_exemplars_are_left_out_on_request(monkeypatch, value, expected):
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", value)
    assert has_exemplars() is expected


def test_nothing_of_opentelemetry_is_imported_to_look():
    code = "import sys; from tellmeter.sinks.otel import settings; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
