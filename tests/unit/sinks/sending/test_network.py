"""Connections with a deadline. A name server that hangs or lies is patched in: no real one does that on demand."""

from __future__ import annotations

import os
import socket
import threading
import time

import httpcore2
import pytest

from tellmeter.sinks.sending import network as http_network
from tellmeter.sinks.sending.network import AddressRefused, Network
from tellmeter.testing import FaultServer
from tests.support.ports import free_port


@pytest.fixture
def network():
    return Network(1000.0, allow_link_local=False)  # so that only deadlines end anything


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


def until(seconds=5.0):
    return time.monotonic() + seconds


def looking_up(monkeypatch, lookup):
    """Have names be looked up by `lookup(host)`; addresses stay what they are."""
    real = http_network._addresses

    def addresses(host, port, flags=0):
        return real(host, port, flags) if flags else lookup(host)

    monkeypatch.setattr(http_network, "_addresses", addresses)


def test_it_reads_writes_and_closes(network):
    with FaultServer() as server:
        stream = network.connect_tcp("127.0.0.1", server.port, until())
        assert network.streams == {stream}
        stream.write(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, until())
        assert stream.read(100, until()).startswith(b"HTTP/1.1 200")
        assert len(server.requests[0].body) == 100_000
        stream.close()
        assert network.streams == set()
        assert stream.get_extra_info("socket").fileno() == -1


def test_a_name_is_looked_up_and_the_first_address_that_answers_is_taken(network, monkeypatch, listening):
    looking_up(monkeypatch, lambda host: ["::1", "127.0.0.1"])  # nobody listens on the first
    stream = network.connect_tcp("host.example", listening, until())
    assert stream.get_extra_info("server_addr") == ("127.0.0.1", listening)
    stream.close()


def test_when_no_address_answers_the_last_error_is_raised(network, monkeypatch):
    looking_up(monkeypatch, lambda host: ["127.0.0.1", "127.0.0.2"])
    with pytest.raises(httpcore2.ConnectError):
        network.connect_tcp("host.example", free_port(), until())


@pytest.mark.fault(28)
def test_an_unknown_name_is_an_oserror(network):
    for name in ("nothing.invalid", "x" * 70 + ".invalid"):
        with pytest.raises(socket.gaierror):
            network.connect_tcp(name, 80, until())


@pytest.mark.parametrize(
    "addresses", [["169.254.169.254"], ["127.0.0.1", "169.254.1.1"], ["fe80::1"], ["::ffff:a9fe:a9fe"]]
)
@pytest.mark.security(7)
def test_a_name_that_leads_to_a_link_local_address_is_refused(network, monkeypatch, listening, addresses):
    looking_up(monkeypatch, lambda host: addresses)
    with pytest.raises(AddressRefused):
        network.connect_tcp("host.example", listening, until())


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe"])
@pytest.mark.security(7)
def test_a_link_local_address_is_refused_in_every_form(network, host):
    with pytest.raises(AddressRefused):
        network.connect_tcp(host, 80, until())


def test_the_address_that_was_checked_is_the_one_connected_to(network, monkeypatch, listening):
    """A name server that answers otherwise the second time changes nothing: there is no second time."""
    asked = []

    def lookup(host):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    looking_up(monkeypatch, lookup)
    stream = network.connect_tcp("host.example", listening, until())
    assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
    assert asked == ["host.example"]
    stream.close()


def test_link_local_addresses_can_be_allowed(monkeypatch):
    tried = []

    class Tcp:
        def connect_tcp(self, host, port, timeout, *rest):
            tried.append(host)
            raise httpcore2.ConnectTimeout

    allowing = Network(5.0, allow_link_local=True)
    allowing._tcp = Tcp()
    with pytest.raises(httpcore2.ConnectTimeout):
        allowing.connect_tcp("169.254.169.254", 80, until())
    assert tried == ["169.254.169.254"]


def test_a_name_server_that_hangs_does_not_hold_the_sink(network, monkeypatch):
    answer, threads = threading.Event(), []

    def lookup(host):
        threads.append(threading.current_thread())
        answer.wait()
        raise socket.gaierror

    looking_up(monkeypatch, lookup)
    for _ in range(3):
        with pytest.raises(httpcore2.ConnectTimeout):
            network.connect_tcp("host.example", 80, until(0.02))
    assert len(threads) == 1  # later attempts wait for the first one's answer
    answer.set()
    threads[0].join(10)
    with pytest.raises(socket.gaierror):
        network.connect_tcp("host.example", 80, until())


def test_names_are_looked_up_where_no_thread_can_start(network, monkeypatch, listening):
    """As at the interpreter's exit from Python 3.12 on."""

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    looking_up(monkeypatch, lambda host: ["127.0.0.1"])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    network.connect_tcp("host.example", listening, until()).close()


@pytest.mark.parametrize(
    ("step", "late"),
    [
        (lambda stream, moment: stream.read(1, moment), httpcore2.ReadTimeout),
        (lambda stream, moment: stream.write(b"x" * 100_000_000, moment), httpcore2.WriteTimeout),
        (
            lambda stream, moment: stream.start_tls(httpcore2.default_ssl_context(), "h", moment),
            httpcore2.ConnectTimeout,
        ),
    ],
    ids=["read", "write", "tls"],
)
def test_every_step_ends_at_the_deadline(network, listening, step, late):
    """The peer accepts and does nothing: neither reads nor writes."""
    for seconds in (0.05, -1.0):
        stream = network.connect_tcp("127.0.0.1", listening, until())
        with pytest.raises(late):
            step(stream, until(seconds))
        stream.close()
    assert network.streams == set()


def test_a_step_is_bound_by_its_own_limit_too(listening):
    quick = Network(0.02, allow_link_local=False)
    stream = quick.connect_tcp("127.0.0.1", listening, until(1000))
    with pytest.raises(httpcore2.ReadTimeout):
        stream.read(1, until(1000))
    stream.close()


def test_a_connection_is_not_begun_after_the_deadline(network, listening):
    with pytest.raises(httpcore2.ConnectTimeout):
        network.connect_tcp("127.0.0.1", listening, until(-1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forgetting_closes_our_copies_and_the_other_side_sees_nothing(network):
    with FaultServer() as server:
        stream = network.connect_tcp("127.0.0.1", server.port, until())
        child = os.fork()
        if child == 0:
            network.forget()
            closed = stream.get_extra_info("socket").fileno() == -1 and network.streams == set()
            os._exit(0 if closed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stream.write(b"POST / HTTP/1.1\r\n\r\n", until())
        assert stream.read(100, until()).startswith(b"HTTP/1.1 200")
        stream.close()
