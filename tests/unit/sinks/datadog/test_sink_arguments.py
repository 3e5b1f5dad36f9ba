"""What the sink for Datadog's API takes, as arguments, from the environment and by URL."""

from __future__ import annotations

import json
import os
import time

import pytest

from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.pipeline.outcome import Delivered
from tellmeter.secret import Secret
from tellmeter.sinks.datadog import DatadogMetricsSink
from tellmeter.sinks.urls import sink_from_url
from tests.support.datadog import KEY, Intake
from tests.unit.sinks.made import deadline, python, record


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("DD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def intake():
    with Intake() as one:
        yield one


def fresh(**fields):
    return [record(timestamp=time.time(), **fields)]


@pytest.mark.parametrize(
    ("arguments", "environment", "address"),
    [
        ({}, {}, "https://api.datadoghq.com:443/"),
        ({"site": "datadoghq.eu"}, {}, "https://api.datadoghq.eu:443/"),
        ({"site": "app.us3.datadoghq.com"}, {}, "https://api.us3.datadoghq.com:443/"),
        ({}, {"DD_SITE": "ddog-gov.com"}, "https://api.ddog-gov.com:443/"),
        ({}, {"DD_URL": "http://proxy:8080/dd", "DD_SITE": "x.y"}, "http://proxy:8080/dd"),
        ({"site": "datadoghq.eu"}, {"DD_URL": "http://proxy:8080"}, "https://api.datadoghq.eu:443/"),
        ({"url": "http://proxy:1"}, {"DD_URL": "http://proxy:2"}, "http://proxy:1/"),
    ],
)
def test_where_it_sends(arguments, environment, address, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert DatadogMetricsSink("key", **arguments).destination == f"{address}#llm"


def test_the_key_and_the_host_are_the_environments(monkeypatch, intake):
    with pytest.raises(ConfigError, match="DD_API_KEY"):
        DatadogMetricsSink()
    monkeypatch.setenv("DD_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("DD_HOSTNAME", "named")
    sink = DatadogMetricsSink(url=intake.url)
    assert sink.send(fresh(), deadline()) == Delivered()
    sink.close()
    assert {host for _, host, _ in intake.distributions} == {"named"}
    assert DatadogMetricsSink(Secret("k"))._sender


def test_urls_name_sinks(monkeypatch, intake):
    monkeypatch.setenv("DD_API_KEY", "k")
    monkeypatch.setenv("OTHER_KEY", KEY)
    assert sink_from_url("datadog://").destination == "https://api.datadoghq.com:443/#llm"
    assert sink_from_url("datadog://datadoghq.eu").destination == "https://api.datadoghq.eu:443/#llm"
    assert sink_from_url("datadog://api.datadoghq.eu").destination == "https://api.datadoghq.eu:443/#llm"
    assert sink_from_url("datadog://proxy:444/dd?namespace=x").destination == "https://proxy:444/dd#x"
    sink = sink_from_url(
        f"datadog://?url={intake.url}&api_key_env=OTHER_KEY&tags=team:a,zone:b&tag_names=f&counts=series&batch_size=7"
        "&service=shop&hostname=h&interval_seconds=5&compress=none&timeout_seconds=2"
    )
    assert type(sink) is DatadogMetricsSink
    assert sink.lane_options == {"batch_size": 7}
    assert sink.send(fresh(tags={"f": "v"}), deadline()) == Delivered()
    sink.close()
    assert intake.total("llm.requests", "team:a", "zone:b", "service:shop", "f:v") == 1
    (one, *_) = json.loads(intake.server.requests[0].body)["series"]
    assert one["interval"] == 5


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("datadog://canary@api.datadoghq.eu", "api_key_env"),
        ("datadog://?api_key_env=NO_SUCH_KEY", "NO_SUCH_KEY"),
        ("datadog://?api_key=canary", "no option"),
        ("datadog://?counts=some", "counts"),
        ("datadog://?interval_seconds=0", "interval_seconds"),
        ("datadog://?compress=gzip", "deflate"),
    ],
)
def test_urls_that_cannot_work_are_refused(url, told, monkeypatch):
    monkeypatch.setenv("DD_API_KEY", "k")
    with pytest.raises(ConfigError, match=told) as caught:
        sink_from_url(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"api_key": ""}, "api_key"),
        ({"api_key": b"canary"}, "api_key"),
        ({"api_key": "canary\n"}, "dd-api-key"),
        ({"site": "https://datadoghq.com"}, "site"),
        ({"site": "datadoghq"}, "site"),
        ({"url": "http://h/?a=b"}, "parameters"),
        ({"url": "ftp://h"}, "http://"),
        ({"counts": "gauges"}, "counts"),
        ({"counts": 5}, "counts"),
        ({"interval_seconds": 0}, "interval_seconds"),
        ({"interval_seconds": 601}, "interval_seconds"),
        ({"compress": "gzip"}, "compress"),
        ({"hostname": 5}, "hostname"),
        ({"namespace": "-"}, "namespace"),
        ({"tags": "a:b"}, "tags"),
        ({"tag_names": ["model"]}, "model"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"batch_size": 0}, "batch_size"),
        ({"batchsize": 1}, "batchsize"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options, told):
    with pytest.raises(ConfigError, match=f"(?i){told}") as caught:
        DatadogMetricsSink(**{"api_key": "canary", **options})
    assert "canary" not in str(caught.value)


def test_the_key_is_in_no_repr():
    sink = DatadogMetricsSink(KEY)
    assert KEY not in f"{sink!r} {vars(sink)!r} {vars(sink._sender)!r}"


def test_the_package_is_needed_when_the_sink_is_made():
    code = """
import sys
sys.modules["httpx2"] = None
from tellmeter import DatadogMetricsSink, DogStatsDMetricsSink, MissingExtra
DogStatsDMetricsSink()
try:
    DatadogMetricsSink("key")
except MissingExtra as error:
    print(error)
"""
    assert "tellmeter[datadog]" in python(code).stdout
    assert MissingExtra
