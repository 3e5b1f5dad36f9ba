"""The server itself: scripts, memory, ports, threads. The faults are in test_faults.py."""

import contextlib
import http.client
import socket
import ssl
import threading

import pytest
import trustme

from tellmeter.testing import Answer, Dribble, FaultServer, Hang, Reset


def ask(server, method="POST", path="/x", body=b"hello", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def threads():
    return {thread for thread in threading.enumerate() if thread.name == "tellmeter-fault-server"}


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threads()
    yield
    assert threads() <= before


def test_the_script_is_played_in_turn_and_then_the_default():
    with FaultServer() as server:
        server.script(Answer(503), Answer(429, b"later"))
        assert [ask(server) for _ in range(4)] == [(503, b""), (429, b"later"), (200, b""), (200, b"")]
        server.default = Answer(204)
        assert ask(server)[0] == 204


def test_a_new_script_replaces_what_was_left():
    with FaultServer() as server:
        server.script(Answer(500), Answer(501))
        assert ask(server)[0] == 500
        server.script(Answer(502))
        assert [ask(server)[0] for _ in range(2)] == [502, 200]


def test_a_function_chooses_the_fault():
    with FaultServer(lambda request: Answer(200, request.body.upper())) as server:
        server.script(lambda request: Answer(201 if request.path == "/made" else 404))
        assert ask(server, path="/made")[0] == 201
        assert ask(server, body=b"abc") == (200, b"ABC")


def test_requests_are_remembered_as_they_were_sent():
    with FaultServer() as server:
        ask(server, "PUT", "/a/b?c=d", b"\x00\xff", Authorization="Bearer t")
        (request,) = server.wait_for(1)
        assert (request.method, request.path, request.body) == ("PUT", "/a/b?c=d", b"\x00\xff")
        assert request.headers["authorization"] == "Bearer t"
        assert server.requests == [request]
        assert request.at > 0


def test_waiting_for_more_than_arrives_says_how_many_did():
    with FaultServer() as server:
        ask(server)
        with pytest.raises(TimeoutError, match="1 of 2"):
            server.wait_for(2, timeout=0.01)


def test_waiting_ends_when_the_request_arrives():
    with FaultServer() as server:
        asking = threading.Thread(target=ask, args=(server,))
        asking.start()
        assert len(server.wait_for(1)) == 1
        asking.join()


def test_only_the_newest_are_remembered(monkeypatch):
    monkeypatch.setattr("tellmeter.testing.fault_server._KEPT_BYTES", 10)
    with FaultServer() as server:
        for number in range(5):
            ask(server, body=b"%05d" % number)
        assert [request.body for request in server.requests] == [b"00003", b"00004"]
        assert server.received == 5
        assert len(server.wait_for(5)) == 2


def test_one_connection_serves_many_requests():
    with FaultServer() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for _ in range(3):
            connection.request("POST", "/", b"x")
            connection.getresponse().read()
        connection.close()
        assert server.connections == 1
        assert [request.connection for request in server.requests] == [1, 1, 1]


def test_a_port_that_stops_listening_refuses_and_comes_back():
    with FaultServer() as server:
        kept = socket.create_connection(("127.0.0.1", server.port))
        kept.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        port = server.port
        server.stop_listening()
        server.stop_listening()
        assert kept.recv(1) == b""  # open connections ended
        kept.close()
        with pytest.raises(ConnectionRefusedError):
            ask(server)
        server.start_listening()
        server.start_listening()
        assert server.port == port
        assert ask(server)[0] == 200


def test_connections_are_dropped_while_the_port_goes_on():
    with FaultServer() as server:
        kept = socket.create_connection(("127.0.0.1", server.port))
        kept.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        server.drop_connections()
        assert kept.recv(1) == b""
        kept.close()
        assert ask(server)[0] == 200


@pytest.mark.parametrize("fault", [Hang(), Dribble(0.01), Answer(delay=1000)], ids=lambda fault: type(fault).__name__)
def test_closing_ends_what_hangs(fault):
    server = FaultServer(fault)
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
    server.wait_for(1)
    server.close()
    server.close()
    assert not threads()
    client.close()


def test_closing_ends_a_client_that_says_nothing_more():
    with FaultServer() as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.recv(1) == b""
    client.close()


def test_a_chunked_body_is_put_together():
    with FaultServer() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/", iter([b"ab", b"cd"]), encode_chunked=True)
        assert connection.getresponse().status == 200
        connection.close()
        assert server.requests[0].body == b"abcd"


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    ],
)
def test_a_body_that_is_far_too_large_is_not_read(sent):
    with FaultServer() as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(sent)
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert server.requests == []


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x00", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_no_http_ends_the_connection_only(sent):
    with FaultServer() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(4096) == b""
        assert ask(server)[0] == 200


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def test_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with FaultServer(tls=context) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        server.script(Answer(201), Reset())
        for status in (201, None, 200):
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=trusting)
            connection.request("POST", "/", b"secret")
            if status is None:
                with pytest.raises((ConnectionError, ssl.SSLError)):
                    connection.getresponse()
            else:
                assert connection.getresponse().status == status
            connection.close()
        assert [request.body for request in server.requests] == [b"secret"] * 3


def test_a_client_that_hangs_in_its_tls_handshake_keeps_nothing_open(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FaultServer(tls=context) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"\x16")
    with contextlib.suppress(ConnectionResetError):  # where it was not accepted yet
        assert client.recv(1) == b""
    client.close()


def test_many_at_once():
    with FaultServer() as server:
        asking = [threading.Thread(target=ask, args=(server,)) for _ in range(20)]
        for one in asking:
            one.start()
        assert len(server.wait_for(20)) == 20
        for one in asking:
            one.join()
        assert {request.connection for request in server.requests} == set(range(1, 21))
