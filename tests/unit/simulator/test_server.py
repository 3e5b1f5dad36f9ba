"""The server: ready when it says so, on the loopback only, gone when it is told."""

import http.client
import json
import socket
import sys
import threading

import pytest

from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic

BODY = json.dumps({"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hello"}]})


def post(server, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/v1/chat/completions", BODY, headers)
    return connection, connection.getresponse()


def test_it_answers_at_once_and_is_gone_afterwards():
    with SimulatorServer(Traffic(speed=0)) as server:
        connection, answer = post(server)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.openai_url == f"{server.url}/v1"
        assert [served.status for served in server.served] == [200]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "tellmeter-simulator"]
    server.stop()


def test_it_listens_on_the_loopback_only():
    with SimulatorServer() as server:
        (listener,) = server._server.servers[0].sockets
        assert listener.getsockname()[0] == "127.0.0.1"


def test_it_stops_in_the_middle_of_streams_and_of_silence():
    with SimulatorServer(Traffic(speed=0), faults=["stall;after=2;seconds=3600"]) as server:
        connection, answer = post(server)
        assert answer.readline().startswith(b"data: ")
        silent = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
    for one in (connection, silent, half):
        one.close()
    assert not server.served[0].whole


def test_faults_are_added_while_it_runs():
    with SimulatorServer(Traffic(speed=0)) as server:
        server.script(500, "429")
        statuses = []
        for _ in range(3):
            connection, answer = post(server)
            statuses.append(answer.status)
            connection.close()
        assert statuses == [500, 429, 200]


def test_a_port_that_is_taken_is_an_os_error():
    with SimulatorServer() as server, pytest.raises(OSError, match="in use"):
        SimulatorServer(port=server.port).start()


def test_it_can_be_started_again_on_its_port():
    with SimulatorServer(Traffic(speed=0)) as server:
        connection, answer = post(server)
        answer.read()
    connection.close()
    with SimulatorServer(Traffic(speed=0), port=server.port) as again:
        connection, answer = post(again)
        assert answer.status == 200
        connection.close()


def test_a_missing_package_says_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r"uvicorn.*tellmeter\[demo\]"):
        SimulatorServer().start()


def test_recordings_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no recorded exchanges"):
        SimulatorServer(exchanges=tmp_path)
