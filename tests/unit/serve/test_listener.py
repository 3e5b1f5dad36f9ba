"""The listener: a few connections at a time, the others wait; it ends at once and goes on after errors."""

import errno
import os
import socket
import subprocess
import sys
import threading

import pytest

from tellmeter import counts
from tellmeter.serve.listener import CONNECTIONS, Listener
from tellmeter.serve.page import line

OK = line(200, "fine")


@pytest.fixture
def listening():
    made = []

    def listen(respond=lambda request: OK):
        server = socket.create_server(("127.0.0.1", 0), backlog=64)
        made.append(Listener(server, respond))
        return made[-1], server.getsockname()[1]

    yield listen
    for one in made:
        one.close()


def connected(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    return client


def test_one_after_another(listening, ask):
    _, port = listening()
    assert [ask(port).status for _ in range(CONNECTIONS * 3)] == [200] * CONNECTIONS * 3


def test_so_many_at_a_time_and_the_others_wait(listening, until):
    gate, lock = threading.Event(), threading.Lock()
    now = most = 0

    def respond(request):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        gate.wait(20)
        with lock:
            now -= 1
        return OK

    _, port = listening(respond)
    clients = [connected(port) for _ in range(CONNECTIONS + 5)]
    until(lambda: now == CONNECTIONS)
    gate.set()
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()
    assert most == CONNECTIONS


def test_it_ends_while_idle_while_full_and_only_once(listening, until):
    for number in (0, 1, CONNECTIONS, CONNECTIONS + 5):
        listener, port = listening()
        clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(number)]
        until(lambda listener=listener, number=number: len(listener._clients) == min(number, CONNECTIONS))
        listener.close()
        listener.close()
        assert not listener.alive
        for client in clients:
            try:
                assert client.recv(100) == b""
            except ConnectionResetError:
                pass
            client.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=20)
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("tellmeter-metrics")])


def test_what_respond_raises_is_counted_and_ends_one_connection(listening, until):
    errors = [ValueError("sk-secret"), None]

    def respond(request):
        if (error := errors.pop(0)) is not None:
            raise error
        return OK

    before = counts.total("guarded_errors")
    _, port = listening(respond)
    with connected(port) as client:
        assert client.recv(100) == b""
    with connected(port) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert counts.total("guarded_errors") == before + 1


def test_it_goes_on_when_descriptors_or_threads_are_back(listening, monkeypatch, until):
    listener, port = listening()
    real = listener._listening

    class Short:
        """No descriptors, twice."""

        left = 2

        def accept(self):
            if self.left:
                self.left -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return real.accept()

        def close(self):
            real.close()

    listener._listening = Short()
    with connected(port) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200")

    start = threading.Thread.start

    def no_thread(self):
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with connected(port) as client:
        try:
            assert client.recv(100) == b""
        except ConnectionResetError:
            pass
    with connected(port) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200")


FORKED = """
import os, socket, sys, time
from tellmeter.serve.listener import Listener
from tellmeter.serve.page import line

server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
listener = Listener(server, lambda request: line(200, "fine"))
client = socket.create_connection(("127.0.0.1", port), timeout=20)
while not listener._clients:
    time.sleep(0.001)
asked, told = os.pipe()
child = os.fork()
if not child:
    here = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) not in (asked, told, client.fileno())
            and os.path.exists(f"/proc/self/fd/{fd}")}
    os.write(told, f"{listener.alive} {[one for one in here if 'socket' in one or 'poll' in one]}".encode())
    listener.close()
    os._exit(0)
os.waitpid(child, 0)
print(os.read(asked, 1000).decode())
with socket.create_connection(("127.0.0.1", port), timeout=20) as other:
    other.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    print(other.recv(15).decode())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors are looked up in /proc")
def test_a_forked_child_holds_no_socket_and_takes_nothing_from_its_parent():
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout == "False []\nHTTP/1.1 200 OK\n", run.stderr
