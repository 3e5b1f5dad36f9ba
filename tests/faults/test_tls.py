"""TLS: what cannot be trusted gets no byte of a record, is told in one line, and is never tried without TLS."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
import warnings

import pytest
import trustme

from tellmeter import Delivered, HTTPMetricsSink, RetryLater
from tellmeter.testing import Answer, Dribble, Fault, FaultServer, HalfBody, Hang, Reset
from tests.unit.sinks.made import deadline, record

CANARY = "canary-7f3a"
TLS = RetryLater(60.0, "tls")
PAST = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def context_of(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def sink_for(server, host="localhost", **options):
    return HTTPMetricsSink(server.url.replace("127.0.0.1", host), CANARY, **options)


@pytest.fixture
def server(authority):
    with FaultServer(tls=context_of(authority.issue_cert("localhost", "127.0.0.1"))) as one:
        yield one


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_authority_given_by_its_path_is_trusted(server, ca, host):
    sink = sink_for(server, host, ca=ca)
    for _ in range(10):
        assert sink.send([record()], deadline()) == Delivered()
        assert len(sink._sender._network.streams) == 1
    sink.close()
    assert not sink._sender._network.streams
    assert server.connections == 1
    assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"


def test_an_authority_of_the_system_is_trusted(server, ca, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    sink = sink_for(server)
    assert sink.send([record()], deadline()) == Delivered()
    sink.close()


def refused(server, caplog, told, **options):
    """The batch is refused and kept, one line names host and cause, and nothing was sent."""
    sink = sink_for(server, **options)
    for _ in range(3):
        assert sink.send([record()], deadline()) == TLS
    sink.close()
    assert server.received == 0
    (line,) = caplog.messages
    assert "https://localhost:" in line
    assert told in line
    assert "ca=" in line
    assert CANARY not in caplog.text


@pytest.mark.fault(28)
def test_an_unknown_authority_is_refused(server, caplog):
    refused(server, caplog, "unable to get local issuer certificate")


@pytest.mark.fault(28)
def test_a_self_signed_certificate_is_refused(caplog, tmp_path):
    itself = trustme.CA()  # its own certificate is signed by itself
    pem = tmp_path / "self.pem"
    itself.private_key_pem.write_to_path(pem)
    itself.cert_pem.write_to_path(pem, append=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with FaultServer(tls=context) as server:
        refused(server, caplog, "self-signed certificate")


@pytest.mark.fault(28)
def test_an_expired_certificate_is_refused(authority, ca, caplog):
    with FaultServer(tls=context_of(authority.issue_cert("localhost", not_before=PAST, not_after=PAST))) as server:
        refused(server, caplog, "certificate has expired", ca=ca)


@pytest.mark.fault(28)
def test_a_certificate_of_another_host_is_refused(authority, ca, caplog):
    with FaultServer(tls=context_of(authority.issue_cert("other.example"))) as server:
        refused(server, caplog, "localhost", ca=ca)
    assert "mismatch" in caplog.text.lower()


@pytest.mark.fault(28)
def test_tls_below_1_2_is_refused(authority, ca, caplog):
    context = context_of(authority.issue_cert("localhost"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with FaultServer(tls=context) as server:
        refused(server, caplog, "PROTOCOL", ca=ca)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_from_1_2_on_works(authority, ca, version):
    context = context_of(authority.issue_cert("localhost"))
    context.minimum_version = context.maximum_version = version
    with FaultServer(tls=context) as server:
        sink = sink_for(server, ca=ca)
        for _ in range(3):
            assert sink.send([record()], deadline()) == Delivered()
        sink.close()
        assert server.connections == 1


def test_a_server_without_tls_is_not_spoken_to(caplog, ca):
    with FaultServer() as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        sink = HTTPMetricsSink(url, CANARY, ca=ca)
        outcome = sink.send([record()], deadline(1.0))
        sink.close()
        assert isinstance(outcome, RetryLater)
        assert outcome.reason in ("tls", "reset", "closed", "timeout")  # it may wait for the end of a line
        assert server.requests == []
    assert CANARY not in caplog.text


def test_without_verification_it_is_delivered_and_warned_of(server, caplog):
    sink = sink_for(server, verify=False)
    sink.open()
    assert sink.send([record()], deadline()) == Delivered()
    sink.close()
    assert "verify=False" in caplog.text


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Hang(), "timeout"),
        (Dribble(20), "timeout"),
        (Reset(), "reset"),
        (HalfBody(), "incomplete"),
        (Answer(500), "http_500"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_faults_under_tls(server, ca, fault, reason):
    server.default = fault
    sink = sink_for(server, ca=ca, timeout_seconds=1000)
    outcome = sink.send([record()], time.monotonic() + 0.5)
    # Under TLS a reset may look like an end.
    assert outcome == RetryLater(None, reason) or (reason == "reset" and outcome == RetryLater(None, "closed"))
    server.default = Answer()
    assert sink.send([record()], deadline()) == Delivered()
    sink.close()


class Tunnel(Fault):
    """A proxy: what CONNECT asks for, piped both ways."""

    def __init__(self, port):
        self.port = port

    def play(self, talk, request):
        assert request.method == "CONNECT"
        with socket.create_connection(("127.0.0.1", self.port)) as far:
            talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self.pipe, args=(far.recv, talk.send))
            back.start()
            self.pipe(talk._client.recv, far.sendall)
            far.shutdown(socket.SHUT_RDWR)
            back.join()
        return False

    @staticmethod
    def pipe(read, write):
        with contextlib.suppress(OSError):
            while data := read(65536):
                write(data)


def test_through_a_proxy_the_far_end_is_checked(server, ca, monkeypatch):
    with FaultServer(Tunnel(server.port)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        sink = sink_for(server, ca=ca, timeout_seconds=1000)
        for _ in range(3):
            assert sink.send([record()], deadline()) == Delivered()
        server.default = Dribble(20)
        assert sink.send([record()], time.monotonic() + 0.3) == RetryLater(None, "timeout")
        sink.close()
        server.default = Answer()
        sink = sink_for(server)
        assert sink.send([record()], deadline()) == TLS
        sink.close()
        assert server.received == 4
        assert [request.path for request in proxy.requests] == [f"localhost:{server.port}"] * 2


def test_a_handshake_that_hangs_ends_at_the_deadline(ca):
    with FaultServer() as server:  # waits for a request, in plain text
        server.default = Hang()
        sink = HTTPMetricsSink(server.url.replace("http://127.0.0.1", "https://localhost"), ca=ca, timeout_seconds=1000)
        assert sink.send([record()], time.monotonic() + 0.2).reason in ("timeout", "reset")
        sink.close()


def test_a_certificate_that_is_replaced_is_trusted_at_the_next_try(authority, ca, caplog):
    """Nothing is remembered of a failure but that it was told."""
    with FaultServer(tls=context_of(trustme.CA().issue_cert("localhost"))) as server:
        sink = sink_for(server, ca=ca)
        assert sink.send([record()], deadline()) == TLS
        server._tls = context_of(authority.issue_cert("localhost"))
        assert sink.send([record()], deadline()) == Delivered()
        sink.close()
    assert len(caplog.records) == 1
