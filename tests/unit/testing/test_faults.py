"""Each fault as a client sees it, byte by byte."""

import contextlib
import gzip
import json
import socket

import pytest

from tellmeter.testing import Answer, Dribble, Fault, FaultServer, Garbage, HalfBody, Hang, Reset, TooBig


@contextlib.contextmanager
def told(fault, method=b"POST", body=b"hello"):
    """A client that has sent a request to a server that plays `fault`."""
    with FaultServer(fault) as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"%s / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (method, len(body), body))
        server.wait_for(1)
        yield client


def everything(client, until=None):
    """All that arrives until the connection ends, or until `until` is at its end."""
    data = b""
    while part := client.recv(65536):
        data += part
        if until is not None and data.endswith(until):
            break
    return data


def test_an_answer():
    with told(Answer(503, b"later", {"Retry-After": "1"})) as client:
        assert everything(client, b"later") == (
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\nlater"
        )


def test_an_answer_of_a_status_without_a_name_or_a_body():
    with told(Answer(599)) as client:
        assert everything(client, b"\r\n\r\n").startswith(b"HTTP/1.1 599 Unknown\r\n")
    with told(Answer(204, b"ignored")) as client:
        assert everything(client, b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"
    with told(Answer(200, b"ignored"), method=b"HEAD") as client:
        assert everything(client, b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"


def test_a_late_answer_says_nothing_before():
    with told(Answer(delay=1000)) as client:
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_hanging():
    with told(Hang()) as client:
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_dribbling_sends_one_byte_at_a_time():
    with told(Dribble(2000, Answer(200, b"ok"))) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parts = [client.recv(65536)]
        while not b"".join(parts).endswith(b"ok"):
            parts.append(client.recv(65536))
    assert b"".join(parts) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert len(parts) > 5


def test_dribbling_a_body_sends_its_head_at_once():
    with told(Dribble(0.01, Answer(200, b"ok"), body_only=True)) as client:
        assert b"\r\n\r\n" in everything(client, b"\r\n\r\no")


def test_a_reset():
    with told(Reset()) as client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_half_a_body():
    with told(HalfBody(body=b"half", missing=6)) as client:
        assert everything(client) == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"


@pytest.mark.parametrize(("limit", "status"), [(4, b"413"), (5, b"200")])
def test_too_big(limit, status):
    with told(TooBig(limit), body=b"hello") as client:
        assert everything(client, b"\r\n\r\n").split()[1] == status


def test_garbage():
    with told(Garbage(b"\x00\xff")) as client:
        assert everything(client) == b"\x00\xff"


def test_a_fault_of_ones_own():
    class Twice(Fault):
        def play(self, talk, request):
            talk.send(request.body * 2)
            return False

    with told(Twice(), body=b"ab") as client:
        assert everything(client) == b"abab"


def test_a_request_says_what_its_body_holds():
    for packed in (False, True):
        body = json.dumps({"a": 1}).encode()
        header = b"Content-Encoding: gzip\r\n" if packed else b""
        sent = gzip.compress(body) if packed else body
        with FaultServer() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"POST / HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (header, len(sent), sent))
            (request,) = server.wait_for(1)
        assert request.body == sent
        assert request.content == body
        assert request.json() == {"a": 1}


def test_an_expected_continue_is_given():
    with FaultServer() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ok")
        assert server.wait_for(1)[0].body == b"ok"
