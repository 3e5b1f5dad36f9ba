import json
import logging
import ssl
import threading
import time

import pytest
import trustme

from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.pipeline.outcome import Delivered, Rejected, RetryLater, TooLarge
from tellmeter.sinks.cloudwatch import CloudWatchMetricsSink
from tellmeter.sinks.cloudwatch import sink as module
from tellmeter.sinks.urls import sink_from_url
from tellmeter.testing import Answer, Dribble, FaultServer, Garbage, HalfBody, Hang, Reset
from tests.support.cloudwatch import SECRET, client, session
from tests.unit.sinks.made import deadline, python, recent

DATA = {"x-amzn-requestid": "1", "Content-Type": "application/json"}


def answer(code, status=400, **headers):
    body = json.dumps({"__type": f"com.amazonaws#{code}", "message": f"{SECRET} in there"}).encode()
    return Answer(status, body, {**DATA, **headers})


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server():
    with FaultServer(Answer(200, b"{}", DATA)) as one:
        yield one


@pytest.fixture
def sink(server):
    one = CloudWatchMetricsSink(session=session(), endpoint_url=server.url)
    yield one
    one.close()


# ---------------------------------------------------------------------- making one


def test_making_a_sink_does_nothing():
    code = """
import sys, threading, tellmeter
sink = tellmeter.CloudWatchMetricsSink(profile="nobodys")
sink.close(); sink.close(); sink.after_fork()
print("boto3" in sys.modules, threading.active_count(), repr(sink))
"""
    out = python(code).stdout.split(maxsplit=2)
    assert out[:2] == ["False", "1"]
    assert "LLM/Metrics" in out[2]


def test_the_guides_arguments_work(monkeypatch):
    sink = CloudWatchMetricsSink(namespace="MyApp/LLM", region="eu-west-1")
    assert (sink.namespace, sink.destination) == ("MyApp/LLM", "cloudwatch://eu-west-1/MyApp/LLM")
    assert CloudWatchMetricsSink("MyApp/LLM", "eu-west-1").destination == sink.destination
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert CloudWatchMetricsSink().destination == "cloudwatch://eu-north-1/LLM/Metrics"


def test_batches_are_large_unless_it_is_said_otherwise():
    assert CloudWatchMetricsSink().lane_options == {"batch_size": 1000, "batch_timeout_seconds": 10.0}
    assert CloudWatchMetricsSink(batch_size=5).lane_options == {"batch_size": 5, "batch_timeout_seconds": 10.0}


@pytest.mark.parametrize(
    ("url", "destination"),
    [
        ("cloudwatch:", "cloudwatch://default/LLM/Metrics"),
        ("cloudwatch://", "cloudwatch://default/LLM/Metrics"),
        ("cloudwatch://eu-west-1", "cloudwatch://eu-west-1/LLM/Metrics"),
        ("cloudwatch://eu-west-1/My%20App/LLM", "cloudwatch://eu-west-1/My App/LLM"),
        ("cloudwatch:///App?endpoint_url=http%3A%2F%2Flocalhost%3A5000", "cloudwatch://localhost:5000/App"),
        ("cloudwatch:///App?profile=mine", "cloudwatch://mine/App"),
    ],
)
def test_urls(url, destination):
    sink = sink_from_url(url)
    assert type(sink) is CloudWatchMetricsSink
    assert sink.destination == destination


def test_a_url_has_options():
    sink = sink_from_url(
        "cloudwatch://eu-west-1/App?dimensions=provider+feature;&metrics=Cost+Errors&high_resolution=true&batch_size=7"
    )
    assert [[one.name for one in some] for some in sink._sets] == [["Provider", "feature"], []]
    assert [one.name for one in sink._metrics] == ["Errors", "Errors", "Cost"]
    assert sink._high_resolution
    assert sink.lane_options["batch_size"] == 7


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"namespace": "AWS/Mine"}, "namespace"),
        ({"region": ""}, "region"),
        ({"region": 5}, "region"),
        ({"profile": " "}, "profile"),
        ({"endpoint_url": "localhost:5000"}, "endpoint_url"),
        ({"endpoint_url": "http://me:canary@h"}, "endpoint_url"),
        ({"endpoint_url": "http://h:99999"}, "endpoint_url"),
        ({"dimensions": ["provider"]}, "dimensions"),
        ({"metrics": ["Speed"]}, "metrics"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"client": object(), "region": "eu-west-1"}, "client"),
        ({"session": object(), "profile": "a"}, "session"),
        ({"batchsize": 5}, "batchsize"),
    ],
)
def test_arguments_that_cannot_work(options, told):
    with pytest.raises(ConfigError, match=told) as caught:
        CloudWatchMetricsSink(**options)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["cloudwatch://key:canary@eu-west-1/App", "cloudwatch://h/App?colour=red", "cloudwatch:a?x=1"]
)
def test_urls_that_cannot_work(url):
    with pytest.raises(ConfigError) as caught:
        sink_from_url(url)
    assert "canary" not in str(caught.value)


def test_without_boto3_it_says_what_to_install():
    code = """
import sys
sys.modules["boto3"] = None
from tellmeter import CloudWatchMetricsSink, MissingExtra
try:
    CloudWatchMetricsSink()
except MissingExtra as error:
    print(error)
CloudWatchMetricsSink(client=object())
"""
    assert "tellmeter[cloudwatch]" in python(code).stdout
    assert MissingExtra


def test_what_a_short_program_recorded_is_sent_at_its_exit(server, monkeypatch):
    code = """
import sys, tellmeter
config = tellmeter.MetricsConfig(exit_timeout_seconds=60)
tellmeter.configure(config, sinks=[tellmeter.CloudWatchMetricsSink(endpoint_url=sys.argv[1])])
with tellmeter.meter_call(model="m", provider="openai"):
    pass
"""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    done = python(code, server.url)
    assert (done.stdout, done.stderr) == ("", "")
    assert server.received == 1


# ---------------------------------------------------------------------- sending

ATTEMPTS = [
    (answer("ThrottlingException"), RetryLater(reason="throttled")),
    (answer("ThrottlingException", 400, **{"Retry-After": "9"}), RetryLater(9.0, "throttled")),
    (answer("InternalServiceFault", 500), RetryLater(reason="server_error")),
    (Answer(503, headers={"Retry-After": "120"}), RetryLater(120.0, "server_error")),
    (Answer(502, b"<html>bad gateway</html>"), RetryLater(reason="server_error")),
    (answer("InvalidParameterValueException"), Rejected("invalid_record")),
    (answer("AccessDeniedException"), RetryLater(60.0, "forbidden")),
    (answer("UnrecognizedClientException"), RetryLater(60.0, "unauthorized")),
    (answer("ExpiredTokenException"), RetryLater(60.0, "unauthorized")),
    (Answer(413), TooLarge()),
    (Reset(), RetryLater(reason="unreachable")),
    (Garbage(), RetryLater(reason="unreachable")),
]


@pytest.mark.parametrize(("fault", "outcome"), ATTEMPTS, ids=lambda value: str(value)[:40])
def test_one_attempt(server, sink, fault, outcome, caplog):
    server.default = fault
    with caplog.at_level(logging.INFO):
        assert sink.send([recent() for _ in range(4)], deadline()) == outcome
    assert SECRET not in caplog.text
    server.default = Answer(200, b"{}", DATA)
    assert sink.send([recent()], deadline()) == Delivered()


def test_of_half_an_answer_the_status_counts(server, sink):
    server.default = HalfBody(503)
    assert isinstance(sink.send([recent()], deadline()), RetryLater)
    server.default = HalfBody(200)
    assert sink.send([recent()], deadline()) == Delivered()


@pytest.mark.parametrize(
    "fault",
    [Hang(), Dribble(20.0), Dribble(20.0, Answer(200, b"x" * 999), body_only=True)],
    ids=["hang", "dribble", "dribbled body"],
)
def test_no_fault_holds_it_longer_than_its_deadline_nor_leaves_a_thread(server, fault):
    sink = CloudWatchMetricsSink(session=session(), endpoint_url=server.url, timeout_seconds=1000)
    assert sink.send([recent()], deadline()) == Delivered()
    server.default = fault
    for _ in range(3):
        assert sink.send([recent()], deadline(0.3)) == RetryLater(reason="timeout")
    end = time.monotonic() + 30
    while [one for one in threading.enumerate() if one.name == "tellmeter-cloudwatch"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    server.default = Answer(200, b"{}", DATA)
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()


def test_without_credentials_it_pauses_and_says_so_once(server, caplog):
    sink = CloudWatchMetricsSink(region="eu-west-1", endpoint_url=server.url)
    for _ in range(2):
        assert sink.send([recent()], deadline()) == RetryLater(60.0, "no_credentials")
    (told,) = [one.getMessage() for one in caplog.records if one.name.startswith("tellmeter")]
    assert told.startswith(
        f"cloudwatch://127.0.0.1:{server.port}/LLM/Metrics: no AWS credentials are found: set a role"
    )
    assert server.received == 0


def test_a_profile_that_is_not_there_pauses(caplog):
    sink = CloudWatchMetricsSink(profile="nobodys")
    assert sink.send([recent()], deadline()) == RetryLater(60.0, "misconfigured")
    assert "check region=, profile= and endpoint_url=" in caplog.text


def test_credentials_of_the_environment_are_used_and_told_to_nobody(server, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    sink = CloudWatchMetricsSink(endpoint_url=server.url)
    assert sink.send([recent()], deadline()) == Delivered()
    (request,) = server.requests
    assert "AKIATESTING" in request.headers["authorization"]
    assert SECRET not in f"{request} {sink!r} {vars(sink)} {caplog.text}"
    sink.close()


def test_a_refused_connection(server, sink):
    server.stop_listening()
    assert sink.send([recent()], deadline()) == RetryLater(reason="unreachable")
    server.start_listening()
    assert sink.send([recent()], deadline()) == Delivered()


def test_a_client_that_was_given_is_used_and_not_closed(server):
    class Server:
        url = server.url

    given = client(Server)
    sink = CloudWatchMetricsSink(client=given)
    assert sink.destination == f"cloudwatch://127.0.0.1:{server.port}/LLM/Metrics"
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()
    given.put_metric_data(Namespace="n", MetricData=[{"MetricName": "m", "Value": 1.0}])
    assert server.received == 2
    assert server.connections == 1
    sink.after_fork()
    assert sink.send([recent()], deadline()) == Delivered()
    given.close()


@pytest.fixture
def tls(tmp_path):
    """A server's context, and the file of its authority."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return context, str(tmp_path / "ca.pem")


def test_over_tls_it_is_left_at_the_deadline_without_a_word_of_tls(tls, monkeypatch, caplog):
    context, file = tls
    monkeypatch.setenv("AWS_CA_BUNDLE", file)
    with FaultServer(Answer(200, b"{}", DATA), tls=context) as server:
        sink = CloudWatchMetricsSink(session=session(), endpoint_url=server.url, timeout_seconds=1000)
        assert sink.send([recent()], deadline()) == Delivered()
        server.default = Hang()
        for _ in range(3):
            assert sink.send([recent()], deadline(0.3)) == RetryLater(reason="timeout")
        server.default = Answer(200, b"{}", DATA)
        assert sink.send([recent()], deadline()) == Delivered()
        sink.close()
    assert "TLS" not in caplog.text


def test_a_certificate_that_nobody_signed_pauses(tls, caplog):
    with FaultServer(tls=tls[0]) as server:
        sink = CloudWatchMetricsSink(session=session(), endpoint_url=server.url)
        assert sink.send([recent()], deadline()) == RetryLater(60.0, "tls")
        assert server.received == 0
    assert "check the certificate" in caplog.text


def test_one_connection_serves_all_batches(server, sink):
    for _ in range(3):
        assert sink.send([recent()], deadline()) == Delivered()
    assert server.connections == 1
    sink.close()
    assert sink.send([recent()], deadline()) == Delivered()
    assert server.connections == 2


def test_an_empty_batch_is_delivered(server, sink):
    assert sink.send([], deadline()) == Delivered()
    assert server.received == 0


def test_a_fault_of_our_own_is_an_exception(server, sink, monkeypatch):
    monkeypatch.setattr(module.Encoder, "points", lambda self, record: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sink.send([recent()], deadline())


def test_its_own_calls_are_never_metered(server, sink):
    from tellmeter.context import suppressed, suppression

    seen = []
    made = sink._opened

    def opened():
        seen.append(suppression.get())
        return made()

    sink._opened = opened
    with suppressed():
        sink.send([recent()], deadline())
    assert seen == [True]
