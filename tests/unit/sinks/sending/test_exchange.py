"""One exchange, whatever the server does, and proxies. TLS is in tests/faults/test_tls.py."""

from __future__ import annotations

import ssl
import time

import httpcore2
import pytest

from tellmeter.sinks.sending.answers import HTTPAnswer, NoAnswer
from tellmeter.sinks.sending.exchange import HTTPRequest, exchange, make_pool, no_answer
from tellmeter.sinks.sending.network import AddressRefused, Network
from tellmeter.testing import Answer, Dribble, FaultServer, Garbage, HalfBody, Hang, Reset
from tests.support.ports import free_port

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with FaultServer() as one:
        yield one


@pytest.fixture
def pool():
    # 1000 s for one step: only the deadline ends anything.
    with make_pool(Network(1000.0, allow_link_local=False), None, "http", "127.0.0.1") as one:
        yield one


def ask(pool, url, seconds=5.0, answer_bytes=100, body=b"hello", method="POST"):
    request = HTTPRequest(method, httpcore2.URL(url), {"x-a": "b"}, body)
    return exchange(pool, request, time.monotonic() + seconds, answer_bytes)


def test_an_answer(server, pool):
    server.script(Answer(202, b"fine", {"X-Y": "1", "x-y": "2"}))
    assert ask(pool, f"{server.url}/p?q=1") == HTTPAnswer(202, {"x-y": "1", "content-length": "4"}, b"fine")
    (request,) = server.requests
    assert (request.method, request.path, request.body, request.headers["x-a"]) == ("POST", "/p?q=1", b"hello", "b")


def test_connections_are_kept(server, pool):
    for _ in range(10):
        assert ask(pool, server.url).status == 200
    assert server.connections == 1


def test_an_answer_is_read_up_to_its_limit_and_the_rest_thrown_away(server, pool):
    server.script(Answer(200, b"x" * 100), Answer(200, b"x" * 101), Answer(200, b"x" * 10_000_000))
    bodies = [ask(pool, server.url).body for _ in range(3)]
    assert [len(body) for body in bodies] == [100, 100, 100]
    assert ask(pool, server.url).status == 200
    assert server.connections == 3  # one that was read to its end is kept


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Hang(), "timeout"),
        (Answer(delay=1000), "timeout"),
        (Dribble(20), "timeout"),
        (Dribble(20, Answer(200, b"x" * 1000), body_only=True), "timeout"),
        (Reset(), "reset"),
        (HalfBody(), "incomplete"),
        (Garbage(), "no_http"),
        (Garbage(b""), "closed"),
        (Garbage(b"HTTP/1.1 20"), "closed"),
        (Garbage(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "incomplete"),
        (Garbage(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000), "no_http"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_faults(server, pool, fault, reason):
    server.default = fault
    assert ask(pool, server.url, seconds=0.2) == NoAnswer(reason)
    server.default = Answer()
    assert ask(pool, server.url).status == 200  # what failed is not in the way


def test_dribbling_interim_answers_end_at_the_deadline(server, pool):
    server.default = Garbage(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
    assert ask(pool, server.url, seconds=0.5).reason in ("closed", "reset", "timeout")


@pytest.mark.parametrize("status", [400, 413, 503])
def test_the_status_of_a_refusal_counts_though_its_body_is_cut(server, pool, status):
    server.script(HalfBody(status))
    assert ask(pool, server.url).status == status


def test_nobody_listens(pool):
    assert ask(pool, f"http://127.0.0.1:{free_port()}") == NoAnswer("unreachable")


@pytest.mark.fault(28)
def test_an_unknown_name(pool):
    assert ask(pool, "http://nothing.invalid") == NoAnswer("dns")


@pytest.mark.security(7)
def test_a_link_local_address(pool):
    assert ask(pool, "http://169.254.169.254/latest") == NoAnswer("link_local")


def test_after_the_deadline_nothing_is_sent(server, pool):
    assert ask(pool, server.url, seconds=-1) == NoAnswer("timeout")
    assert server.received == 0


def test_a_kept_connection_that_was_closed_is_replaced_at_once(server, pool):
    assert ask(pool, server.url).status == 200
    server.drop_connections()
    assert ask(pool, server.url).status == 200
    assert (server.connections, server.received) == (2, 2)


@pytest.mark.parametrize("fault", [Reset(), Garbage(b"")], ids=str)
def test_a_kept_connection_that_breaks_under_a_request_is_replaced_once(server, pool, fault):
    assert ask(pool, server.url).status == 200
    server.script(fault)
    assert ask(pool, server.url).status == 200
    assert (server.connections, server.received) == (2, 3)
    server.script(fault, fault)
    assert isinstance(ask(pool, server.url), NoAnswer)
    assert server.received == 5


def test_a_new_connection_that_breaks_is_not_replaced(server, pool):
    server.script(Reset())
    assert ask(pool, server.url) == NoAnswer("reset")
    assert server.received == 1


def test_a_kept_connection_that_hangs_is_not_replaced(server, pool):
    assert ask(pool, server.url).status == 200
    server.script(Hang())
    assert ask(pool, server.url, seconds=0.1) == NoAnswer("timeout")
    assert server.received == 2


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.fault(28)
def test_the_proxy_of_the_environment_is_used(server, monkeypatch, name):
    monkeypatch.setenv(name, server.url.replace("http://", "http://me:secret@"))
    scheme = "https" if "HTTPS" in name else "http"
    with make_pool(Network(5.0, allow_link_local=False), None, scheme, "far.example") as pool:
        server.default = Answer(502)
        answer = ask(pool, f"{scheme}://far.example/p")
    (request,) = server.requests
    assert request.headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    if scheme == "https":
        assert answer == NoAnswer("proxy")
        assert (request.method, request.path) == ("CONNECT", "far.example:443")
    else:
        assert answer.status == 502
        assert request.path == "http://far.example/p"


def test_hosts_without_a_proxy_are_asked_directly(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with make_pool(Network(5.0, allow_link_local=False), None, "http", "127.0.0.1") as pool:
        assert ask(pool, server.url).status == 200


def test_a_proxy_that_hangs_ends_at_the_deadline(server, monkeypatch):
    server.default = Hang()
    monkeypatch.setenv("https_proxy", server.url)
    with make_pool(Network(5.0, allow_link_local=False), None, "https", "far.example") as pool:
        assert ask(pool, "https://far.example/", seconds=0.1) == NoAnswer("timeout")


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (AddressRefused(), NoAnswer("link_local")),
        (chained(httpcore2.ConnectError(), ssl.SSLError(1, "handshake")), NoAnswer("tls", "no handshake")),
        (chained(httpcore2.ReadError(), ssl.SSLError(1, "alert")), NoAnswer("tls", "no handshake")),
        (chained(httpcore2.ConnectError(), ssl.SSLEOFError(8, "EOF")), NoAnswer("reset")),
        (chained(httpcore2.ConnectError(), ConnectionResetError()), NoAnswer("reset")),
        (chained(httpcore2.ConnectError(), ConnectionRefusedError()), NoAnswer("unreachable")),
        (OSError(), NoAnswer("unreachable")),
        (KeyError("canary"), NoAnswer("failed")),
    ],
    ids=repr,
)
def test_reasons(error, answer):
    assert no_answer(error) == answer
