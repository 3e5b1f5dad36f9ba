"""The HTTP sink against a server that fails in every way, through a real collector: what is sent, lost, told and when."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time

import httpx2
import msgspec
import pytest

from tellmeter import (
    AgentMetrics,
    Delivered,
    HTTPMetricsSink,
    InMemoryMetricsSink,
    MetricsCollector,
    Partial,
    Rejected,
    RetryLater,
    TooLarge,
    instrument,
    uninstrument,
)
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import (
    Answer,
    Dribble,
    FaultServer,
    Garbage,
    HalfBody,
    Hang,
    Reset,
    SinkContract,
    TooBig,
)
from tests.unit.sinks.made import record

CANARY = "canary-7f3a"
QUICK = {"batch_size": 10, "batch_timeout_seconds": 0.01}
OUTCOMES = (Delivered, RetryLater, Rejected, TooLarge, Partial)


class Endpoint:
    """A receiver that keeps each record once, by its id."""

    def __init__(self):
        self.records = {}
        self.server = FaultServer(self.take)

    def take(self, request):
        for one in request.json()["metrics"]:
            self.records[one["id"]] = msgspec.convert(one, AgentMetrics)
        return Answer(202)

    def take_ten(self, request):
        return Answer(413) if len(request.json()["metrics"]) > 10 else self.take(request)

    @contextlib.contextmanager
    def fails(self, kind):
        server = self.server
        if kind == "down":
            server.stop_listening()
            yield
            server.start_listening()
            return
        server.default = {
            "error": Answer(503),
            "reset": Reset(),
            "hang": Hang(),
            "dribble": Dribble(1.0),
            "retry_after": Answer(503, headers={"Retry-After": "120"}),
            "too_large": self.take_ten,
            "reject": Answer(400),
            "unauthorized": Answer(401),
        }[kind]
        yield 120
        server.default = self.take


class TestContract(SinkContract):
    idempotent = True
    keeps_fields = True
    secrets = (CANARY,)

    @pytest.fixture(autouse=True)
    def endpoint(self):
        self.backend = Endpoint()
        with self.backend.server:
            yield

    def make_sink(self):
        url = self.backend.server.url.replace("http://", f"http://{CANARY}:{CANARY}@")
        return HTTPMetricsSink(f"{url}/?api_key={CANARY}", signing_key=CANARY, headers={"x-api-key": CANARY})

    def read_back(self):
        return list(self.backend.records.values())

    def fault(self, kind):
        if kind == "partial":
            return super().fault(kind)
        return self.backend.fails(kind)


@pytest.fixture
def server():
    with FaultServer() as one:
        yield one


@pytest.fixture
def sink(server):
    one = HTTPMetricsSink(server.url, CANARY, signing_key=CANARY, timeout_seconds=1000, **QUICK)
    yield one
    one.close()


@contextlib.contextmanager
def collecting(*sinks):
    collector = MetricsCollector(sinks=sinks, registry=MetricsRegistry())
    try:
        yield collector
    finally:
        collector.shutdown_sync(timeout=2.0)


def ledger_of(collector, name="HTTPMetricsSink"):
    stats = collector.stats()
    assert stats.balanced
    return stats.sinks[name]


# fault -> what one attempt on a new connection comes to
ATTEMPTS = [
    (Hang(), RetryLater(None, "timeout")),
    (Answer(delay=1000), RetryLater(None, "timeout")),
    (Dribble(20), RetryLater(None, "timeout")),
    (Dribble(20, Answer(200, b"x" * 1000), body_only=True), RetryLater(None, "timeout")),
    (Reset(), RetryLater(None, "reset")),
    (HalfBody(), RetryLater(None, "incomplete")),
    (HalfBody(503), RetryLater(None, "http_503")),
    (Garbage(), RetryLater(None, "no_http")),
    (Garbage(b""), RetryLater(None, "closed")),
    (TooBig(10), TooLarge()),
    (TooBig(100_000), Delivered()),
    (Answer(408), RetryLater(None, "http_408")),
    (Answer(429, headers={"Retry-After": "9"}), RetryLater(9.0, "http_429")),
    (Answer(500), RetryLater(None, "http_500")),
    (Answer(503, headers={"Retry-After": "nonsense"}), RetryLater(None, "http_503")),
    (Answer(401), RetryLater(60.0, "unauthorized")),
    (Answer(403), RetryLater(60.0, "forbidden")),
    (Answer(301, headers={"Location": "/"}), Rejected("redirected")),
    (Answer(400, b"your key canary-7f3a is wrong"), Rejected("http_400")),
    (Answer(404), Rejected("http_404")),
    (Answer(200, b"x" * 10_000_000), Delivered()),
]


@pytest.mark.parametrize(("fault", "outcome"), ATTEMPTS, ids=lambda value: str(value)[:50])
def test_one_attempt(server, sink, fault, outcome, caplog):
    server.default = fault
    with caplog.at_level(logging.DEBUG):
        found = sink.send([record(number) for number in range(20)], time.monotonic() + 0.3)
    assert found == outcome
    assert CANARY not in repr(found)
    assert CANARY not in caplog.text


@pytest.mark.parametrize("fault", [Hang(), Dribble(50), Dribble(50, Answer(200, b"x" * 99), body_only=True)], ids=str)
@pytest.mark.fault(2)
def test_no_fault_holds_the_sink_longer_than_its_deadline(server, sink, fault):
    """A server that goes on for minutes is left at the deadline: were it not, this test would run into its own limit."""
    server.default = fault
    for _ in range(5):
        assert sink.send([record()], time.monotonic() + 0.1) == RetryLater(None, "timeout")


@pytest.mark.fault(2)
def test_a_server_that_does_not_read_is_left_at_the_deadline():
    with FaultServer() as server:
        server.stop_listening()
        import socket

        with socket.create_server(("127.0.0.1", server.port)):  # accepts, and never reads
            sink = HTTPMetricsSink(server.url, compress=None, timeout_seconds=1000)
            big = [record(tags={f"t{n}": "x" * 256 for n in range(32)}) for _ in range(1000)]
            assert sink.send(big, time.monotonic() + 0.3) == RetryLater(None, "timeout")
            sink.close()


@pytest.mark.parametrize(
    "faults",
    [
        [Reset()],
        [HalfBody()],
        [Garbage()],
        [Answer(500)],
        [Answer(502), Answer(504)],
        [Answer(429, headers={"Retry-After": "0"})],
        [Answer(503, headers={"Retry-After": "-5"})],
    ],
    ids=str,
)
@pytest.mark.fault(5)
def test_what_fails_for_a_while_is_delivered_with_the_same_key(server, sink, faults):
    server.script(*faults)
    with collecting(sink) as collector:
        collector.record(record())
        assert collector.flush_sync(timeout=30.0).complete
        ledger = ledger_of(collector)
    assert (ledger.delivered, dict(ledger.dropped)) == (1, {})
    assert len(server.requests) == len(faults) + 1
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("fault", "reason"), [(Answer(404), "http_404"), (Answer(302), "redirected"), (Answer(422), "http_422")], ids=str
)
@pytest.mark.fault(6)
def test_what_is_refused_is_dropped_once_and_counted(server, sink, fault, reason):
    server.default = fault
    with collecting(sink) as collector:
        for number in range(5):
            collector.record(record(number))
        collector.flush_sync(timeout=30.0)
        ledger = ledger_of(collector)
    assert dict(ledger.dropped) == {reason: 5}
    assert sum(len(request.json()["metrics"]) for request in server.requests) == 5


@pytest.mark.fault(3)
def test_batches_that_are_too_large_are_halved_until_they_fit(server):
    def two_at_most(request):
        return Answer(413) if len(request.json()["metrics"]) > 2 else Answer(200)

    server.default = two_at_most
    with collecting(HTTPMetricsSink(server.url, batch_size=16, batch_timeout_seconds=60.0)) as collector:
        for number in range(16):
            collector.record(record(number))
        collector.flush_sync(timeout=30.0)
        ledger = ledger_of(collector)
    assert (ledger.delivered, dict(ledger.dropped)) == (16, {})


@pytest.mark.fault(6)
def test_a_wrong_key_pauses_the_sink_with_one_line_without_the_key(server, sink, caplog):
    server.default = Answer(401)
    with collecting(sink) as collector:
        collector.record(record())
        server.wait_for(1)
        collector.record(record())
        collector.flush_sync(timeout=0.2)
        assert len(server.requests) == 1  # it rests
    assert "check the token" in caplog.text
    assert CANARY not in caplog.text


def test_one_connection_serves_ten_batches(server, sink):
    for _ in range(10):
        assert sink.send([record()], time.monotonic() + 5) == Delivered()
    assert server.connections == 1


def test_a_connection_closed_while_idle_costs_no_attempt(server, sink):
    for _ in range(3):
        assert sink.send([record()], time.monotonic() + 5) == Delivered()
        server.drop_connections()
    assert (server.received, server.connections) == (3, 3)


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.fault(26)
def test_what_the_sink_sends_is_never_metered(server, everything):
    memory = InMemoryMetricsSink()
    sink = HTTPMetricsSink(f"{server.url}/v1/chat/completions", **QUICK)
    with collecting(memory, sink) as collector:
        if everything:
            instrument(collector=collector)
        try:
            collector.record(record())
            for _ in range(3):  # a feedback would grow with each
                collector.flush_sync(timeout=10.0)
                assert memory.get_stats()["stored_metrics"] == 1
            if everything:  # what the program itself sends there is a call
                body = {"model": "gpt-4o", "messages": []}
                with httpx2.Client() as client:
                    client.post(f"{server.url}/v1/chat/completions", json=body)
                collector.flush_sync(timeout=10.0)
                assert memory.get_stats()["stored_metrics"] == 2
        finally:
            uninstrument()


EXIT = """
    import sys, tellmeter
    tellmeter.configure(sinks=[{url!r}])
    for number in range(50):
        with tellmeter.meter_call(model="gpt-4o", provider="openai") as call:
            call.output_tokens = number
    {ending}
"""


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_end_of_the_process_delivers(server, ending, host):
    url = server.url.replace("127.0.0.1", host) + "/v1?batch_timeout_seconds=3600"
    code = textwrap.dedent(EXIT.format(url=url, ending=ending))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(len(request.json()["metrics"]) for request in server.requests) == 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_sends_its_own_on_a_connection_of_its_own(server):
    code = """
    import os, sys, tellmeter
    collector = tellmeter.configure(sinks=[sys.argv[1]])
    collector.record(tellmeter.AgentMetrics(model="parent"))
    collector.flush_sync()
    child = os.fork()
    collector.record(tellmeter.AgentMetrics(model="child" if child == 0 else "parent"))
    collector.flush_sync()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    connections = {"parent": set(), "child": set()}
    models = []
    for request in server.requests:
        for one in request.json()["metrics"]:
            models.append(one["model"])
            connections[one["model"]].add(request.connection)
    assert sorted(models) == ["child", "parent", "parent"]
    assert len(connections["parent"]) == 1
    assert not connections["parent"] & connections["child"]


@pytest.mark.security(3)
def test_secrets_are_in_no_log_and_no_outcome(server, caplog):
    """Whatever happens, with the libraries at their most talkative."""
    url = server.url.replace("http://", f"http://{CANARY}:{CANARY}@")
    with caplog.at_level(logging.DEBUG):
        sink = HTTPMetricsSink(f"{url}/?api_key={CANARY}", signing_key=CANARY, headers={"x-key": CANARY})
        for fault, _ in ATTEMPTS:
            server.default = fault
            assert CANARY not in repr(sink.send([record()], time.monotonic() + 0.05))
        server.stop_listening()
        outcome = sink.send([record()], time.monotonic() + 1)
        assert isinstance(outcome, OUTCOMES) and CANARY not in repr(outcome)
        sink.close()
    assert len(caplog.records) > 50
    assert CANARY not in caplog.text
    assert CANARY not in sink.destination


def test_no_thread_is_left():
    before = threading.enumerate()
    with FaultServer() as server:
        sink = HTTPMetricsSink(server.url.replace("127.0.0.1", "localhost"))
        assert sink.send([record()], time.monotonic() + 5) == Delivered()
        sink.close()
    assert set(threading.enumerate()) <= set(before)
