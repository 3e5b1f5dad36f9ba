"""The exporters of spans get all of their settings from us, and their answers are seen."""

import gzip

import pytest

from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.secret import Secret
from tellmeter.telemetry import exporter_arguments
from tellmeter.telemetry.exporters import span_exporter
from tellmeter.telemetry.otlp_settings import OTLPSettings
from tellmeter.testing import Answer
from tests.support.otlp_spans import SpanReceiver

pytestmark = pytest.mark.usefixtures("plain_environment")


def test_over_http_with_everything_that_the_settings_say(monkeypatch):
    # As an exporter would read it, were it not told.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "br")
    with SpanReceiver() as receiver:
        seen = []
        settings = OTLPSettings(
            endpoint=f"{receiver.url}/in/v1/traces",
            headers={"x-key": Secret("k")},
            compression="gzip",
            timeout_seconds=5.0,
        )
        exporter = span_exporter(settings, lambda response, *rest, **more: seen.append(response.status_code))
        exporter.export([])
        exporter.shutdown()
        (request,) = receiver.wait_for(1)
    assert (request.path, request.headers["x-key"]) == ("/in/v1/traces", "k")
    assert gzip.decompress(request.body) == b""
    assert seen == [200]


def test_a_redirect_is_not_followed():
    with SpanReceiver() as receiver:
        receiver.script(Answer(302, headers={"Location": f"{receiver.url}/elsewhere"}))
        exporter = span_exporter(OTLPSettings(endpoint=f"{receiver.url}/v1/traces"), lambda *rest, **more: None)
        exporter.export([])
        exporter.shutdown()
        assert {request.path for request in receiver.requests} == {"/v1/traces"}


@pytest.mark.parametrize("field", ["certificate", "client_key", "client_certificate"])
def test_a_file_that_is_not_there_is_an_error(field, tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        span_exporter(OTLPSettings(**{field: str(tmp_path / "none.pem")}), print)


def test_what_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(exporter_arguments, "has_exporter", lambda protocol: False)
    with pytest.raises(MissingExtra, match=r"pip install 'tellmeter\[otel\]'"):
        span_exporter(OTLPSettings(), print)
    with pytest.raises(ConfigError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        span_exporter(OTLPSettings(protocol="grpc"), print)
