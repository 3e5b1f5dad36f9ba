"""What exporters are made with, of what the settings say."""

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.telemetry import exporter_arguments as module
from tellmeter.telemetry.exporter_arguments import exporter_arguments
from tellmeter.telemetry.otlp_settings import OTLPSettings


def test_they_are_the_http_exporters_own(tmp_path):
    files = {name: tmp_path / name for name in ("certificate", "client_key", "client_certificate")}
    for file in files.values():
        file.write_text("x")
    settings = OTLPSettings(
        endpoint="http://localhost:4318/v1/metrics",
        timeout_seconds=3.5,
        compression="gzip",
        **{name: str(file) for name, file in files.items()},
    )
    assert exporter_arguments(settings) == {
        "endpoint": "http://localhost:4318/v1/metrics",
        "timeout": 3.5,
        "compression": Compression.Gzip,
        "certificate_file": str(files["certificate"]),
        "client_key_file": str(files["client_key"]),
        "client_certificate_file": str(files["client_certificate"]),
    }


@pytest.mark.parametrize("exporter", [OTLPMetricExporter, OTLPSpanExporter])
def test_the_exporters_take_them(exporter):
    settings = OTLPSettings(endpoint="http://localhost:4318/x", compression="deflate")
    exporter(**exporter_arguments(settings)).shutdown()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("field", ["certificate", "client_key", "client_certificate"])
def test_a_file_that_is_not_there_is_told(protocol, field):
    settings = OTLPSettings(endpoint="http://x", protocol=protocol, **{field: "/nowhere/of.pem"})
    with pytest.raises(ConfigError, match=r"/nowhere/of\.pem"):
        exporter_arguments(settings)


@pytest.mark.parametrize(
    ("protocol", "error", "told"),
    [("http/protobuf", MissingExtra, "otel"), ("grpc", ConfigError, "opentelemetry-exporter-otlp-proto-grpc")],
)
def test_an_exporter_that_is_not_installed_is_told(monkeypatch, protocol, error, told):
    monkeypatch.setattr(module, "has_exporter", lambda protocol: False)
    with pytest.raises(error, match=told):
        exporter_arguments(OTLPSettings(endpoint="http://x", protocol=protocol))


@pytest.mark.parametrize(
    ("endpoint", "insecure", "expected"),
    [
        ("http://x:4317", False, True),
        ("https://x:4317", True, False),
        ("x:4317", True, True),
        ("x:4317", False, False),
    ],
)
def test_grpc_goes_without_tls_where_its_endpoint_or_the_setting_says_so(endpoint, insecure, expected):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    settings = OTLPSettings(endpoint=endpoint, protocol="grpc", insecure=insecure)
    assert exporter_arguments(settings)["insecure"] is expected
