"""The page of metrics: served where the settings want it and it is safe, or printed."""

import time
import urllib.error
import urllib.request

import pytest

from tellmeter.errors import ConfigError
from tellmeter.registry.registry import get_metrics_registry
from tellmeter.serve.server import MetricsServer
from tellmeter.telemetry.pages import ConsolePage, serve_page
from tellmeter.telemetry.settings import TelemetrySettings

pytestmark = pytest.mark.usefixtures("plain_environment")


def settings(**given):
    return TelemetrySettings.from_env({}, **{"prometheus_port": 0, **given})


def read(server, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def test_it_is_served():
    get_metrics_registry().increment("pages_served_total")
    with serve_page(settings()) as server:
        assert b"pages_served_total" in read(server)


def test_what_everybody_could_read_is_for_this_machine_alone(caplog):
    with serve_page(settings(prometheus_host="0.0.0.0")) as server:
        assert server.host == "127.0.0.1"
        assert read(server)
    (record,) = caplog.records
    assert "PROMETHEUS_TOKEN" in record.getMessage()


def test_with_a_token_it_is_for_who_has_it(caplog):
    with serve_page(settings(prometheus_host="0.0.0.0", prometheus_token="canary")) as server:
        assert server.host == "0.0.0.0"
        assert read(server, Authorization="Bearer canary")
        with pytest.raises(urllib.error.HTTPError):
            read(server)
    assert caplog.records == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", None])
def test_a_port_that_is_taken_is_an_error_that_says_so(host):
    with MetricsServer(port=0) as other, pytest.raises(ConfigError, match="PROMETHEUS_PORT"):
        serve_page(settings(prometheus_host=host, prometheus_port=other.port))


def test_a_bad_variable_that_was_told_of_is_not_read_again(monkeypatch):
    monkeypatch.setenv("PROMETHEUS_PORT", "canary")
    with MetricsServer(port=0) as other:
        monkeypatch.setattr("tellmeter.telemetry.pages.PORT", other.port)
        with pytest.raises(ConfigError, match="another program"):
            serve_page(TelemetrySettings.from_env())


def test_it_is_printed_on_demand_and_at_the_end(capsys):
    get_metrics_registry().increment("pages_printed_total")
    printed = ConsolePage(3600.0)
    assert printed.flush(20.0)
    assert "pages_printed_total" in capsys.readouterr().out
    get_metrics_registry().increment("pages_printed_total")
    parents = printed._timer
    printed.after_fork()
    printed.close(20.0)
    parents.stop(time.monotonic() + 20.0)
    assert "pages_printed_total" in capsys.readouterr().out
