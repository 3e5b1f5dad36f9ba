"""What is asked of each API and what its answers mean, against a server that answers by a script.

InfluxDB 2 and 3 are not to be had here: their answers are those of their documentations. tests/real/test_influxdb.py
has the real InfluxDB 1.
"""

from __future__ import annotations

import contextlib
import json
import logging

import pytest

from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.secret import Secret
from tellmeter.sinks.influxdb import InfluxDBMetricsSink
from tellmeter.sinks.urls import sink_from_url
from tellmeter.testing import Answer, Dribble, FaultServer, Hang, Reset, SinkContract, TooBig
from tests.support.line_protocol import points
from tests.unit.sinks.made import deadline, python, record

CANARY = "canary-7f3a"


@pytest.fixture
def server():
    with FaultServer(Answer(204)) as one:
        yield one


@pytest.fixture
def sink(server):
    one = InfluxDBMetricsSink(url=server.url, token=CANARY, org="org", bucket="bucket")
    yield one
    one.close()


def three(server, **options):
    return InfluxDBMetricsSink(server.url, CANARY, database="calls", **options)


def batch(number):
    return [record(number, retries=number) for number in range(number)]


class TestContract(SinkContract):
    """Points by their tags and time, as InfluxDB keeps them, here by the id that is among their fields."""

    idempotent = True
    secrets = (CANARY,)

    @pytest.fixture(autouse=True)
    def backend(self):
        self.points = {}
        with FaultServer(self.take) as self.server:
            yield

    def take(self, request):
        for point in points(request.content.decode()):
            self.points[point.measurement, tuple(sorted(point.tags.items())), point.time] = point.fields["id"]
        return Answer(204)

    def take_ten(self, request):
        return Answer(413) if len(points(request.content.decode())) > 10 else self.take(request)

    def make_sink(self):
        return three(self.server)

    def read_back(self):
        return list(self.points.values())

    @contextlib.contextmanager
    def fault(self, kind):
        if kind == "partial":
            pytest.skip("InfluxDB refuses lines for good, and never for a while")
        if kind == "down":
            self.server.stop_listening()
            yield
            self.server.start_listening()
            return
        self.server.default = {
            "error": Answer(503),
            "reset": Reset(),
            "hang": Hang(),
            "dribble": Dribble(1.0),
            "retry_after": Answer(429, headers={"Retry-After": "120"}),
            "too_large": self.take_ten,
            "reject": Answer(400, b'{"error":"field type conflict"}'),
            "unauthorized": Answer(401, f"no {CANARY}".encode()),
        }[kind]
        yield 120
        self.server.default = self.take


def test_version_2(server, sink):
    assert sink.send(batch(2), deadline()) == Delivered()
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/api/v2/write?org=org&bucket=bucket&precision=ns")
    assert request.headers["authorization"] == f"Token {CANARY}"
    assert request.headers["content-type"] == "text/plain; charset=utf-8"
    assert [point.fields["retries"] for point in points(request.content.decode())] == [0, 1]


def test_version_3(server):
    with contextlib.closing(three(server)) as sink:
        assert sink.send(batch(1), deadline()) == Delivered()
    (request,) = server.requests
    assert request.path == "/api/v3/write_lp?db=calls&precision=nanosecond&accept_partial=true"
    assert request.headers["authorization"] == f"Bearer {CANARY}"


def test_version_1_by_url(server, monkeypatch):
    monkeypatch.setenv("INFLUX_PASSWORD", CANARY)
    url = server.url.replace("http://", "influxdb://me@")
    sink = sink_from_url(f"{url}/calls?password_env=INFLUX_PASSWORD&tags=feature,team&compress=none&batch_size=7")
    assert sink.lane_options == {"batch_size": 7}
    assert sink.destination == f"{server.url}/write/calls/llm_request"
    assert CANARY not in repr(vars(sink))
    assert sink.send([record(tags={"feature": "f", "team": "t"})] * 50, deadline()) == Delivered()
    sink.close()
    (request,) = server.requests
    assert request.path == "/write?db=calls&precision=ns"
    assert request.headers["authorization"].startswith("Basic ")
    assert "content-encoding" not in request.headers
    assert points(request.content.decode())[0].tags["team"] == "t"


def test_a_large_batch_is_packed(server, sink):
    sink.send(batch(50), deadline())
    assert server.requests[0].headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(200), Delivered()),
        (Answer(413), TooLarge()),
        (TooBig(10), TooLarge()),
        (Answer(401), RetryLater(60.0, "unauthorized")),
        (Answer(403), RetryLater(60.0, "forbidden")),
        (Answer(404, b'{"code":"not found","message":"bucket \\"b\\" not found"}'), RetryLater(60.0, "not_found")),
        (Answer(500, b'{"error":"retention policy not found: x"}'), RetryLater(60.0, "not_found")),
        (Answer(500, b'{"error":"timeout"}'), RetryLater(None, "http_500")),
        (Answer(429, headers={"Retry-After": "9"}), RetryLater(9.0, "http_429")),
        (Answer(503, headers={"Retry-After": "7"}), RetryLater(7.0, "http_503")),
        (Answer(405), Rejected("http_405")),
        (Answer(400, b'{"error":"x dropped=4"}'), Rejected("http_400")),
        (Reset(), RetryLater(None, "reset")),
    ],
    ids=str,
)
def test_what_an_answer_means(server, sink, answer, outcome):
    server.default = answer
    assert sink.send(batch(4), deadline()) == outcome


def picky(*bad):
    """A server that refuses points by their number and does not say which, as InfluxDB 1 and 2."""

    def take(request):
        found = [point.fields["retries"] for point in points(request.content.decode())]
        dropped = sum(number in bad for number in found)
        error = f"partial write: field type conflict: ... dropped={dropped}"
        return Answer(400, json.dumps({"error": error}).encode()) if dropped else Answer(204)

    return take


@pytest.mark.parametrize("bad", [(0,), (6,), (2, 3), (0, 1, 2, 3, 4, 5)])
def test_refused_lines_are_found_by_halves(server, sink, bad):
    server.default = picky(*bad)
    assert sink.send(batch(7), deadline()) == Partial((), bad, "type_conflict")


def test_all_are_refused(server, sink):
    server.default = picky(*range(7))
    assert sink.send(batch(7), deadline()) == Rejected("type_conflict")
    assert len(server.requests) == 1


def test_lines_that_are_named_are_not_looked_for(server):
    told = [{"line_number": 3, "error_message": "invalid column type for column 'v'", "original_line": "..."}]
    server.default = Answer(400, json.dumps({"error": "partial write", "data": told}).encode())
    with contextlib.closing(three(server)) as sink:
        assert sink.send(batch(5), deadline()) == Partial((), (2,), "type_conflict")
    assert len(server.requests) == 1


def test_what_fails_while_lines_are_looked_for_is_tried_again(server, sink):
    server.script(picky(0), picky(0), picky(0), Answer(503))
    assert sink.send(batch(8), deadline()) == RetryLater(None, "http_503")
    server.script(picky(0), picky(0), picky(0), picky(0), Answer(503))
    assert sink.send(batch(8), deadline()) == Partial((1, 2, 3, 4, 5, 6, 7), (0,), "http_503")


def test_a_server_that_hangs_while_lines_are_looked_for(server, sink):
    server.script(picky(0), picky(0), picky(0), picky(0), picky(0), Hang())
    server.default = Hang()
    assert sink.send(batch(8), deadline(0.5)) == Partial((2, 3, 4, 5, 6, 7), (0,), "timeout")


def test_a_missing_bucket_is_told_once(server, sink, caplog):
    server.default = Answer(404, f"{CANARY} not found".encode())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sink.send(batch(1), deadline())
    assert len(caplog.records) == 1
    assert "make the database or bucket" in caplog.text
    assert CANARY not in caplog.text
    server.default = Answer(204)
    sink.send(batch(1), deadline())
    server.default = Answer(404)
    sink.send(batch(1), deadline())
    assert len(caplog.records) == 2


def test_version_1_makes_its_database(server):
    sink = InfluxDBMetricsSink(server.url + "/pre", database='my "calls"', create_database=True)
    made = Answer(200, b'{"results":[{"statement_id":0}]}')
    server.script(Answer(404), made, Answer(204))
    assert sink.send(batch(1), deadline()) == Delivered()
    assert [request.path.partition("?")[0] for request in server.requests] == ["/pre/write", "/pre/query", "/pre/write"]
    assert server.requests[1].content == b"q=CREATE+DATABASE+%22my+%5C%22calls%5C%22%22"
    for answer in (Answer(200, b'{"results":[{"error":"no"}]}'), Answer(200, b"?"), Answer(401), Reset()):
        server.script(Answer(404), answer)
        assert sink.send(batch(1), deadline()) == RetryLater(60.0, "not_found")
    sink.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "INFLUXDB_V2_TOKEN"),
        ({"database": "d", "create_database": True, "token": CANARY}, "create_database"),
        ({"database": "d", "measurement": ""}, "measurement"),
        ({"database": "d", "tags": ["model"]}, "tags"),
        ({"database": "d", "compress": "br"}, "compress"),
        ({"database": "d", "batch_size": 0}, "batch_size"),
        ({"database": "d", "token": CANARY, "headers": {"Authorization": CANARY}}, "Authorization"),
        ({"database": "d", "timeout_seconds": 0}, "timeout_seconds"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options, told, monkeypatch):
    for name in ("INFLUXDB_V2_TOKEN", "INFLUX_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=told) as caught:
        InfluxDBMetricsSink("http://localhost:8086", **options)
    assert CANARY not in str(caught.value)


def test_a_server_has_an_address():
    with pytest.raises(ConfigError, match="http://"):
        InfluxDBMetricsSink("localhost:8086", database="d")


def test_the_package_is_needed_when_the_sink_is_made():
    code = """
import sys
sys.modules["httpx2"] = None
from tellmeter import InfluxDBMetricsSink, MissingExtra
try:
    InfluxDBMetricsSink("http://h", database="d")
except MissingExtra as error:
    print(error)
"""
    assert "tellmeter[influxdb]" in python(code).stdout


def test_a_token_may_be_a_secret_and_is_in_no_repr(server):
    sink = InfluxDBMetricsSink(server.url, Secret(CANARY), "o", "b")
    assert CANARY not in repr(vars(sink)) + repr(vars(sink._sender)) + sink.destination
    sink.open()
    sink.after_fork()
    assert sink.send(batch(1), deadline()) == Delivered()
    sink.close()
    sink.close()
