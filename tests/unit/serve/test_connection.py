"""One connection: a request in any pieces, a client that stretches the time, one that says nonsense."""

import socket
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.serve import connection
from tellmeter.serve.connection import HEAD_BYTES, parse, serve
from tellmeter.serve.page import line

HEAD = b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nAccept: a\r\naccept:\tb \r\nEmpty:\r\n\r\n"


def test_a_request():
    request = parse(HEAD)
    assert (request.method, request.path) == ("GET", "/metrics")
    assert request.headers == {"host": "x", "accept": "a, b", "empty": ""}
    assert parse(b"GET / HTTP/1.0\r\n\r\nrest").headers == {}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / / HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nspace : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\x00\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * HEAD_BYTES + b"\r\n\r\n",
    ],
)
def test_what_is_no_request(head):
    assert parse(head) is None


@given(st.one_of(st.binary(), st.binary().map(lambda more: HEAD[:-2] + more + b"\r\n\r\n")))
def test_whatever_is_sent_is_a_request_or_none(head):
    request = parse(head)
    assert request is None or request.method.isascii()


def talk(*pieces, respond=lambda request: line(200, f"{request.method} {request.path}"), close=False):
    """What a client gets that sends `pieces`."""
    ours, theirs = socket.socketpair()
    failed = []

    def run():
        try:
            serve(ours, respond)
        except OSError as error:
            failed.append(error)
        ours.close()

    thread = threading.Thread(target=run)
    thread.start()
    theirs.settimeout(20)
    for piece in pieces:
        theirs.sendall(piece)
    if close:
        theirs.shutdown(socket.SHUT_WR)
    got = b""
    while piece := theirs.recv(65536):
        got += piece
    theirs.close()
    thread.join()
    return got, failed


def test_a_request_in_single_bytes():
    got, _ = talk(*[HEAD[n : n + 1] for n in range(len(HEAD))])
    head, _, body = got.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    assert first == "HTTP/1.1 200 OK"
    assert {"connection: close", "content-length: 13"} <= set(headers)
    assert body == b"GET /metrics\n"


def test_head_has_no_body():
    got, _ = talk(b"HEAD / HTTP/1.1\r\n\r\n")
    assert b"content-length: 7\r\n" in got
    assert got.endswith(b"\r\n\r\n")


def test_nonsense_and_too_much_are_answered():
    assert talk(b"nonsense\r\n\r\n")[0].startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert talk(b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 4000)[0].startswith(b"HTTP/1.1 431 ")
    assert talk(b"half a request", close=True)[0].startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_client_that_asks_nothing_gets_nothing():
    assert talk(close=True) == (b"", [])


def test_a_refused_body_does_not_take_the_answer_back():
    refused = line(405, "GET or HEAD")
    head = b"POST / HTTP/1.1\r\ncontent-length: 50000\r\n\r\n"
    got, _ = talk(head, b"x" * 50_000, respond=lambda request: refused, close=True)
    assert got.endswith(b"\r\n\r\nGET or HEAD\n")


def test_a_slow_request_ends(monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(connection, "_LINGER_SECONDS", 0.05)
    got, _ = talk(b"GET / HTT")
    assert got.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_single_bytes_do_not_stretch_the_time(monkeypatch):
    now = [0.0]
    ours, theirs = socket.socketpair()

    def clock():
        now[0] += 1.0
        theirs.send(b"x")
        return now[0]

    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=clock))
    with ours, theirs, pytest.raises(TimeoutError):
        connection._read_head(ours)


def test_a_client_that_does_not_read_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    big = line(200, "x" * 10_000_000)
    with ours, theirs, pytest.raises(TimeoutError):
        theirs.sendall(HEAD)
        serve(ours, lambda request: big)


def test_a_client_that_is_gone_is_an_os_error():
    ours, theirs = socket.socketpair()
    theirs.sendall(HEAD)
    theirs.close()
    with ours, pytest.raises(OSError):
        serve(ours, lambda request: line(200, "x" * 10_000_000))
