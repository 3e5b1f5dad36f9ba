"""What the sink sends, and what it takes. Faults are in tests/faults/test_http_sink.py, TLS in test_tls.py beside it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.pipeline.outcome import Delivered
from tellmeter.records import AgentMetrics
from tellmeter.secret import Secret
from tellmeter.sinks.http import HTTPMetricsSink, batch_key, payload
from tellmeter.sinks.urls import sink_from_url
from tellmeter.testing import FaultServer
from tests.unit.sinks.made import deadline, python, record, records


@pytest.fixture
def server():
    with FaultServer() as one:
        yield one


def sent_by(server, *batch, **options):
    """What the server gets for one batch."""
    sink = HTTPMetricsSink(server.url, **options)
    assert sink.send(batch or [record()], deadline()) == Delivered()
    sink.close()
    return server.requests[-1]


class Payload(msgspec.Struct):
    metrics: list[AgentMetrics]


def test_the_payload_is_that_of_the_guides(server):
    batch = [record(0, input_tokens=3, request_id="req_1"), record(1)]
    request = sent_by(server, *batch, token="tok")
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer tok"
    first, second = request.json()["metrics"]
    assert (first["model"], first["provider"], first["input_tokens"], first["request_id"]) == (
        "gpt-4o",
        "openai",
        3,
        "req_1",
    )
    assert (second["input_tokens"], second["cached_tokens"], second["status"]) == (0, 0, "success")
    assert "request_id" not in second
    assert [first["id"], second["id"]] == [one.id for one in batch]


@given(st.lists(records, max_size=5))
def test_any_batch_comes_back_from_its_payload(batch):
    body = payload(batch)
    assert list(json.loads(body)) == ["metrics"]
    assert msgspec.json.decode(body, type=Payload).metrics == batch


def test_a_batch_has_a_key_that_is_the_same_when_it_is_sent_again(server):
    batch = [record(), record()]
    keys = [sent_by(server, *one).headers["idempotency-key"] for one in (batch, batch, batch[:1], batch[::-1])]
    assert keys[0] == keys[1] == batch_key(batch)
    assert len(set(keys)) == 3
    assert all(len(key) == 64 for key in keys)


def test_the_arguments_of_the_guide_work(server):
    for sink in (
        HTTPMetricsSink(endpoint=f"{server.url}/v1/ingest", api_key="key"),
        HTTPMetricsSink(f"{server.url}/v1/ingest", "key"),
        HTTPMetricsSink(f"{server.url}/v1/ingest", token=Secret("key")),
    ):
        assert sink.send([record()], deadline()) == Delivered()
        sink.close()
        assert server.requests[-1].headers["authorization"] == "Bearer key"
        assert server.requests[-1].path == "/v1/ingest"
    sent_by(server, api_key=None)
    assert "authorization" not in server.requests[-1].headers


@pytest.mark.parametrize("count", [1, 200], ids=["plain", "packed"])
def test_the_signature_is_over_the_body_as_sent(server, count):
    key = "schlüssel"
    before = int(time.time())
    request = sent_by(server, *[record(number) for number in range(count)], signing_key=key)
    assert ("content-encoding" in request.headers) == (count > 1)
    timestamp = request.headers["x-tellmeter-timestamp"]
    assert before <= int(timestamp) <= int(time.time())
    expected = hmac.new(key.encode(), timestamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-tellmeter-signature"] == f"v1={expected}"


@given(st.binary(max_size=200), st.text(min_size=1))
def test_any_body_and_key_verify_and_no_other_does(body, key):
    sink = HTTPMetricsSink("http://h/", signing_key=key)
    headers = sink._signature(body)
    signed = headers["x-tellmeter-timestamp"].encode() + b"." + body
    secret = key.encode()
    assert headers["x-tellmeter-signature"] == "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
    assert headers["x-tellmeter-signature"] != "v1=" + hmac.new(secret, signed + b"x", hashlib.sha256).hexdigest()


def test_a_key_that_is_no_text_signs_with_its_bytes(monkeypatch):
    monkeypatch.setenv("METRICS_KEY", os.fsdecode(b"\xff\xfe"))
    sink = sink_from_url("http://h/?signing_key_env=METRICS_KEY")
    headers = sink._signature(b"body")
    signed = headers["x-tellmeter-timestamp"].encode() + b".body"
    assert headers["x-tellmeter-signature"] == "v1=" + hmac.new(b"\xff\xfe", signed, hashlib.sha256).hexdigest()


def test_without_a_key_there_is_no_signature(server):
    assert not [name for name in sent_by(server).headers if name.startswith("x-tellmeter")]


def test_more_headers_and_no_packing(server):
    request = sent_by(
        server, *[record(number) for number in range(100)], headers={"X-Team": "a", "User-Agent": "b"}, compress=None
    )
    assert (request.headers["x-team"], request.headers["user-agent"]) == ("a", "b")
    assert len(json.loads(request.body)["metrics"]) == 100


def test_a_url_names_a_sink_with_all_its_options(server, monkeypatch, tmp_path):
    monkeypatch.setenv("METRICS_TOKEN", "tok\n")
    monkeypatch.setenv("METRICS_KEY", "key")
    sink = sink_from_url(
        f"{server.url}/v1?team=a%20b&token_env=METRICS_TOKEN&signing_key_env=METRICS_KEY&compress=none"
        f"&spool={tmp_path}&batch_size=7&token=theirs&timeout_seconds=2"
    )
    assert type(sink) is HTTPMetricsSink
    assert sink.lane_options == {"spool": str(tmp_path), "batch_size": 7}
    assert sink.destination == f"{server.url}/v1"
    assert sink.send([record(number) for number in range(100)], deadline()) == Delivered()
    sink.close()
    (request,) = server.requests
    assert request.path == "/v1?team=a%20b&token=theirs"
    assert request.headers["authorization"] == "Bearer tok"
    assert "x-tellmeter-signature" in request.headers
    assert "content-encoding" not in request.headers


def test_https_is_a_scheme_too():
    assert sink_from_url("https://metrics.example.com/v1").destination == "https://metrics.example.com:443/v1"


@pytest.mark.parametrize(("option", "variable"), [("token_env", "NO_SUCH_TOKEN"), ("signing_key_env", "NO_SUCH_KEY")])
def test_a_missing_variable_is_named(option, variable):
    with pytest.raises(ConfigError, match=variable) as caught:
        sink_from_url(f"https://me:canary@h/?{option}={variable}")
    assert option in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        ((), {}, "url"),
        (("",), {}, "URL"),
        ((5,), {}, "URL"),
        (("http://h/",), {"endpoint": "http://h/"}, "url"),
        (("http://h/", "a"), {"api_key": "b"}, "token and api_key"),
        (("http://h/", 5), {}, "token"),
        (("http://h/", ""), {}, "token"),
        (("http://h/", "canary\n"), {}, "authorization"),
        (("http://h/",), {"signing_key": b"canary"}, "signing_key"),
        (("http://h/", "canary"), {"headers": {"authorization": "canary"}}, "Authorization"),
        (("http://me:canary@h/", "canary"), {}, "user"),
        (("http://h/",), {"compress": "br"}, "compress"),
        (("http://h/",), {"timeout_seconds": -1}, "timeout_seconds"),
        (("http://h/",), {"batch_size": 0}, "batch_size"),
        (("http://h/",), {"batchsize": 5}, "batchsize"),
        (("http://169.254.169.254/?key=canary",), {}, "link-local"),
        (("ftp://me:canary@h/",), {}, "http://"),
        (("https://h/",), {"ca": "/nowhere/ca.pem"}, "ca"),
    ],
)
def test_arguments_that_cannot_work_are_refused_without_secrets(arguments, options, told):
    with pytest.raises(ConfigError, match=f"(?i){told}") as caught:
        HTTPMetricsSink(*arguments, **options)
    assert "canary" not in str(caught.value)


def test_secrets_are_in_no_repr():
    sink = HTTPMetricsSink("https://me:canary@h/?api_key=canary", signing_key="canary", headers={"x-key": "canary"})
    seen, waiting = set(), [sink]
    while waiting:  # everything that a debugger's or an error reporter's repr may reach
        one = waiting.pop()
        if id(one) in seen or type(one).__module__.partition(".")[0] not in ("tellmeter", "builtins"):
            continue
        seen.add(id(one))
        waiting += vars(one).values() if hasattr(one, "__dict__") else []
        waiting += one.values() if isinstance(one, dict) else []
        assert "canary" not in repr(one) or one == sink._sender.url.target  # what is asked for must be somewhere


def test_the_package_is_needed_when_the_sink_is_made():
    code = """
import sys
sys.modules["httpx2"] = None
from tellmeter import HTTPMetricsSink, MissingExtra
try:
    HTTPMetricsSink("https://h/")
except MissingExtra as error:
    print(error)
"""
    assert "tellmeter[http]" in python(code).stdout
    assert MissingExtra


def test_closing_and_forking_before_the_first_batch():
    sink = HTTPMetricsSink("http://h/")
    sink.open()
    sink.after_fork()
    sink.close()
    sink.close()
