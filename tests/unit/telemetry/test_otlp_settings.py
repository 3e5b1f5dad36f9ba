"""OTLP's variables: the signal's own before those of both, and a default that works without any."""

import pytest

from tellmeter.errors import ConfigError
from tellmeter.secret import Secret
from tellmeter.telemetry import otlp_settings as module
from tellmeter.telemetry.otlp_settings import OTLPSettings, otlp_settings
from tellmeter.telemetry.variables import Reader

BOTH, TRACES, METRICS = (f"OTEL_EXPORTER_OTLP_{word}" for word in ("", "TRACES_", "METRICS_"))


def read(signal="traces", given=(), **environ):
    return otlp_settings(signal, Reader(environ), dict(given))


def test_without_any_it_is_the_specifications_default():
    assert read("traces") == OTLPSettings(endpoint="http://localhost:4318/v1/traces")
    assert read("metrics").endpoint == "http://localhost:4318/v1/metrics"
    assert read(**{f"{BOTH}PROTOCOL": "grpc"}).endpoint == "http://localhost:4317"


def test_a_base_url_gets_the_signals_path_and_a_signals_own_url_is_whole():
    environ = {f"{BOTH}ENDPOINT": "http://collector:4318/base/", f"{TRACES}ENDPOINT": "https://traces.example/in"}
    assert read("traces", **environ).endpoint == "https://traces.example/in"
    assert read("metrics", **environ).endpoint == "http://collector:4318/base/v1/metrics"


def test_grpc_has_no_path():
    environ = {f"{BOTH}PROTOCOL": "grpc", f"{BOTH}ENDPOINT": "collector:4317"}
    assert read(**environ).endpoint == "collector:4317"
    environ[f"{BOTH}ENDPOINT"] = "https://[::1]:4317"
    assert read(**environ).endpoint == "https://[::1]:4317"


@pytest.mark.parametrize(("installed", "protocol"), [(True, "grpc"), (False, "http/protobuf")])
def test_grpcs_port_means_grpc_where_that_is_installed(installed, protocol, monkeypatch):
    monkeypatch.setattr(module, "has_exporter", lambda name: installed)
    assert read(**{f"{BOTH}ENDPOINT": "http://localhost:4317"}).protocol == protocol
    assert read(**{f"{BOTH}ENDPOINT": "http://localhost:4318"}).protocol == "http/protobuf"


def test_every_variable_of_a_signal_wins_over_that_of_both():
    words = {
        "PROTOCOL": ("http/protobuf", "grpc", "protocol", "grpc"),
        "HEADERS": ("a=1", "b=2%20x,C=3", "headers", {"b": Secret("2 x"), "c": Secret("3")}),
        "TIMEOUT": ("1", "2.5", "timeout_seconds", 2.5),
        "COMPRESSION": ("none", "GZIP", "compression", "gzip"),
        "CERTIFICATE": ("ca1", "ca2", "certificate", "ca2"),
        "CLIENT_KEY": ("k1", "k2", "client_key", "k2"),
        "CLIENT_CERTIFICATE": ("c1", "c2", "client_certificate", "c2"),
        "INSECURE": ("false", "true", "insecure", True),
    }
    for word, (both, own, field, meant) in words.items():
        found = read(**{f"{BOTH}{word}": both, f"{METRICS}{word}": own}, signal="metrics")
        assert getattr(found, field) == meant
        assert getattr(read(**{f"{BOTH}{word}": own, f"{METRICS}{word}": both}), field) == meant


def test_arguments_win_over_all():
    environ = {f"{TRACES}ENDPOINT": "http://other/in", f"{TRACES}HEADERS": "a=1", f"{BOTH}PROTOCOL": "grpc"}
    given = {"otlp_endpoint": "http://mine:1", "otlp_headers": {"x": Secret("y")}, "otlp_protocol": "http/protobuf"}
    found = read(given=given, **environ)
    assert (found.endpoint, found.headers, found.protocol) == (
        "http://mine:1/v1/traces",
        {"x": Secret("y")},
        "http/protobuf",
    )


def test_an_endpoint_given_in_code_that_cannot_work_is_an_error():
    with pytest.raises(ConfigError, match="otlp_endpoint = 'collector:4318': it must be a URL like"):
        read(given={"otlp_endpoint": "collector:4318"})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("ENDPOINT", "localhost:4318"),
        ("ENDPOINT", "ftp://x"),
        ("ENDPOINT", "http://user:canary@host"),
        ("ENDPOINT", "http://host?key=canary"),
        ("HEADERS", "canary"),
        ("HEADERS", "a b=canary"),
        ("PROTOCOL", "http/json"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "-1"),
        ("COMPRESSION", "br"),
        ("INSECURE", "1"),
    ],
)
def test_a_bad_variable_is_one_warning_and_the_default(word, value, caplog):
    assert read(**{f"{BOTH}{word}": value}) == read()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{BOTH}{word}")
    assert "canary" not in caplog.text


def test_headers_with_values_like_base64_are_split_at_the_first_sign():
    assert read(**{f"{BOTH}HEADERS": "authorization=Basic%20dXNlcjpwYXNz=="}).headers == {
        "authorization": Secret("Basic dXNlcjpwYXNz==")
    }
    assert "dXNl" not in repr(read(**{f"{BOTH}HEADERS": "authorization=Basic%20dXNlcjpwYXNz=="}))
