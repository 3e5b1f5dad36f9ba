from __future__ import annotations

import gzip
import logging
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tellmeter
from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered, Rejected, RetryLater
from tellmeter.secret import Secret
from tellmeter.sinks.sending.answers import HTTPAnswer
from tellmeter.sinks.sending.sender import HTTP_PARSERS, HTTPSender, checked_headers
from tellmeter.testing import Answer, FaultServer
from tests.unit.sinks.made import deadline

LOGGER = "tellmeter.sinks.sending.sender"


@pytest.fixture
def server():
    with FaultServer() as one:
        yield one


@pytest.fixture
def sender_of(server):
    made = []

    def make(path="/", **options):
        made.append(HTTPSender(f"{server.url}{path}", name="Sink", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_body_is_posted_with_our_headers(server, sender_of):
    sender = sender_of("/p?q=1", headers={"X-Key": "k", "X-Other": Secret("s")})
    assert sender.send(b"hello", deadline(), headers={"X-One": "1"}) == Delivered()
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/p?q=1", b"hello")
    sent = request.headers
    assert sent["user-agent"] == f"tellmeter/{tellmeter.__version__}"
    assert (sent["x-key"], sent["x-other"], sent["x-one"]) == ("k", "s", "1")
    assert sent["accept-encoding"] == "identity"
    assert "content-encoding" not in sent


@pytest.mark.parametrize(("size", "packed"), [(1023, False), (1024, True)])
def test_bodies_from_a_kibibyte_are_packed(server, sender_of, size, packed):
    body = b"x" * size
    sender_of().send(body, deadline())
    sender_of().send(body, deadline())
    one, again = server.requests
    assert one.content == body
    assert (one.headers.get("content-encoding") == "gzip") is packed
    assert (one.body == gzip.compress(body, 6, mtime=0)) is packed
    assert one.body == again.body  # retries are the same bytes


def test_packing_can_be_off(server, sender_of):
    sender_of(compress=None).send(b"x" * 5000, deadline())
    assert server.requests[0].body == b"x" * 5000


def test_the_body_is_signed_as_it_is_sent(server, sender_of):
    seen = []

    def sign(body):
        seen.append(body)
        return {"X-Signature": str(len(body))}

    sender_of().send(b"x" * 5000, deadline(), sign=sign)
    (request,) = server.requests
    assert seen == [request.body]
    assert request.headers["x-signature"] == str(len(request.body))


def test_a_user_in_the_url_is_basic_authorization(server):
    sender = HTTPSender(server.url.replace("http://", "http://me:p%40ss@"), name="Sink")
    assert sender.send(b"", deadline()) == Delivered()
    sender.close()
    (request,) = server.requests
    assert request.headers["authorization"] == "Basic bWU6cEBzcw=="
    assert request.path == "/"
    with pytest.raises(ConfigError, match="user"):
        HTTPSender("http://me:p@h/", name="Sink", headers={"authorization": "Bearer x"})


def test_what_later_sinks_ask_for(server, sender_of):
    server.script(Answer(200, b"x" * 200_000, {"X-A": "b"}))
    answer = sender_of("/write?db=x").exchange(
        b"SELECT 1", deadline(), method="GET", target="/query?q=1", answer_bytes=300_000
    )
    assert answer == HTTPAnswer(200, {"x-a": "b", "content-length": "200000"}, b"x" * 200_000)
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/query?q=1")


def test_of_an_answer_64_kib_are_read(server, sender_of):
    server.default = Answer(200, b"x" * 1_000_000)
    assert len(sender_of().exchange(b"", deadline()).body) == 65536


def test_when_to_come_again_is_told(server, sender_of):
    server.script(Answer(429, headers={"Retry-After": "7"}), Answer(503, headers={"retry-after": "-1"}))
    sender = sender_of()
    assert sender.send(b"", deadline()) == RetryLater(7.0, "http_429")
    assert sender.send(b"", deadline()) == RetryLater(None, "http_503")


@pytest.mark.security(7)
def test_redirects_are_never_followed(server, sender_of):
    with FaultServer() as elsewhere:
        server.script(Answer(307, headers={"Location": elsewhere.url}))
        assert sender_of().send(b"secret", deadline()) == Rejected("redirected")
        assert elsewhere.received == 0


def test_packed_answers_are_not_unpacked(server, sender_of):
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 65536
    server.script(Answer(200, bomb, {"Content-Encoding": "gzip"}))
    assert sender_of().exchange(b"", deadline()).body == bomb


@pytest.mark.parametrize(
    ("status", "reason", "advice"),
    [(401, "unauthorized", "check the token"), (403, "forbidden", "may not write"), (302, "redirected", "redirect")],
)
def test_what_only_a_person_can_cure_is_logged_once(server, sender_of, caplog, status, reason, advice):
    sender = sender_of("/p?api_key=canary", headers={"authorization": "Bearer canary"})
    server.default = Answer(status)
    for _ in range(3):
        assert sender.send(b"", deadline()).reason == reason
    assert [record.name for record in caplog.records] == [LOGGER]
    (line,) = caplog.messages
    assert line.startswith(f"Sink: {server.url}/p?api_key=***: ")
    assert advice in line
    server.default = Answer()
    assert sender.send(b"", deadline()) == Delivered()
    server.default = Answer(status)
    sender.send(b"", deadline())
    assert len(caplog.records) == 2  # it was well in between


def test_a_link_local_address_behind_a_name_pauses_the_sink(caplog, monkeypatch):
    from tellmeter.sinks.sending import network as http_network

    real = http_network._addresses
    monkeypatch.setattr(
        http_network, "_addresses", lambda host, port, flags=0: real(host, port, flags) if flags else ["169.254.1.1"]
    )
    sender = HTTPSender("http://host.example/", name="Sink")
    assert sender.send(b"", deadline()) == RetryLater(60.0, "link_local")
    assert "allow_link_local" in caplog.text
    sender.close()


@pytest.mark.parametrize("proxy", ["socks5://canary:canary@127.0.0.1:1", "gopher://canary@h", "http://canary@h:99999"])
def test_a_proxy_that_cannot_be_used_is_told_of(caplog, monkeypatch, proxy):
    monkeypatch.setenv("all_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    sender = HTTPSender("http://host.example/", name="Sink")
    for _ in range(2):
        assert sender.send(b"", deadline(0.5)).reason in ("proxy", "dns", "unreachable")
    assert ("ALL_PROXY" in caplog.text) is proxy.startswith(("socks", "gopher"))
    assert "canary" not in caplog.text
    sender.close()


@pytest.mark.security(8)
def test_unverified_tls_is_warned_of_at_each_start(caplog):
    sender = HTTPSender("https://me:canary@h/", name="Sink", verify=False)
    assert caplog.records == []
    for number in (1, 2):
        sender.open()
        assert len(caplog.records) == number
    assert "verify=False" in caplog.text
    assert "canary" not in caplog.text
    HTTPSender("https://h/", name="Sink").open()
    assert len(caplog.records) == 2


def test_it_returns_by_the_deadline_that_is_past(server, sender_of):
    assert sender_of().send(b"", time.monotonic() - 1) == RetryLater(None, "timeout")
    assert server.received == 0


def test_closing_twice_and_sending_again(server, sender_of):
    sender = sender_of()
    sender.close()
    assert sender.send(b"", deadline()) == Delivered()
    sender.close()
    sender.close()
    assert sender.send(b"", deadline()) == Delivered()
    assert server.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("told", [True, False])
def test_a_forked_child_has_connections_of_its_own(server, sender_of, told):
    sender = sender_of()
    assert sender.send(b"parent", deadline()) == Delivered()
    (inherited,) = [stream.get_extra_info("socket") for stream in sender._network.streams]
    child = os.fork()
    if child == 0:
        try:
            if told:
                sender.after_fork()
            good = sender.send(b"child", deadline()) == Delivered() and inherited.fileno() == -1
            sender.close()
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sender.send(b"parent again", deadline()) == Delivered()
    assert [(request.body, request.connection) for request in server.requests] == [
        (b"parent", 1),
        (b"child", 2),
        (b"parent again", 1),
    ]


def test_closing_in_a_child_that_was_not_told_leaves_the_parent_alone(server, sender_of):
    sender = sender_of()
    sender.send(b"", deadline())
    sender._process = -1  # as after a fork
    sender.close()
    sender._network.forget()


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"a b": "x"},
        {"a:": "x"},
        {"a\r\nb": "x"},
        {5: "x"},
        {"Content-Length": "5"},
        {"HOST": "x"},
        {"transfer-encoding": "chunked"},
        {"x": "canary\r\nEvil: 1"},
        {"x": "canary\n"},
        {"x": "canary\x00"},
        {"x": "canary ü"},
        {"x": ""},
        {"x": None},
        {"x": 5},
        {"x": Secret("canary\n")},
    ],
)
def test_headers_that_cannot_be_sent_are_refused_without_their_values(headers):
    with pytest.raises(ConfigError, match="header") as caught:
        checked_headers(headers)
    assert "canary" not in str(caught.value)


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3))
def test_any_headers_are_sent_or_refused(headers):
    try:
        checked = checked_headers(headers)
    except ConfigError:
        return
    for name, value in checked.items():
        assert name.isascii() and value.reveal().isascii()
        assert not set("\r\n\0:") & set(name) and not set("\r\n\0") & set(value.reveal())


@pytest.mark.parametrize(
    "options",
    [{"compress": "zstd"}, {"timeout_seconds": 0}, {"timeout_seconds": "5"}, {"ca": "/nowhere.pem"}],
)
def test_arguments_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        HTTPSender("https://h/", name="Sink", **options)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("compress", "none", None),
        ("compress", "GZIP", "gzip"),
        ("timeout_seconds", "2.5", 2.5),
        ("ca", "/x", "/x"),
        ("verify", "no", False),
        ("allow_link_local", "yes", True),
    ],
)
def test_options_of_urls(name, text, value):
    assert HTTP_PARSERS[name](text) == value


def test_a_packing_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="gzip or none"):
        HTTP_PARSERS["compress"]("zstd")


def test_debug_logs_of_the_libraries_show_no_secret(server, sender_of, caplog):
    with caplog.at_level(logging.DEBUG):
        sender_of(headers={"authorization": "Bearer canary"}).send(b"", deadline())
    assert caplog.records
    assert "canary" not in caplog.text
