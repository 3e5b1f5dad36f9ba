"""The standalone server: for this machine by default, for others with a secret; errors say what to do."""

import base64
import gzip
import os
import socket
import subprocess
import sys
import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tellmeter.errors import ConfigError
from tellmeter.serve.server import MetricsServer, address, start_metrics_server

HAS_IPV6 = socket.has_ipv6 and os.path.exists("/proc/net/if_inet6")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ("PROMETHEUS_HOST", "PROMETHEUS_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_it_serves_the_metrics_and_is_gone_afterwards(registry, ask, capfd, until):
    with start_metrics_server(port=0, registry=registry) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/metrics"
        plain = ask(server.port)
        assert plain.status == 200
        (family,) = parse_text(plain.body.decode())
        assert len(family.samples) == 50
        assert gzip.decompress(ask(server.port, accept_encoding="gzip").body) == plain.body
        assert list(parse_openmetrics(ask(server.port, accept="application/openmetrics-text").body.decode()))
        head = ask(server.port, method="HEAD")
        assert (head.status, head.body, head.getheader("content-length")) == (200, b"", str(len(plain.body)))
        assert ask(server.port, "/metrics/?x=1").status == 200
        assert ask(server.port, "/").body == b"tellmeter: the metrics are at /metrics\n"
        assert ask(server.port, "/favicon.ico").status == 404
        posted = ask(server.port, method="POST")
        assert (posted.status, posted.getheader("allow")) == (405, "GET, HEAD")
        assert ask(server.port, "/", "DELETE").status == 405
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=20)
    server.close()
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("tellmeter-metrics")])
    assert capfd.readouterr() == ("", "")


def test_it_starts_once_and_again_after_its_end(page, ask):
    server = MetricsServer(port=0)
    assert server.start() is server.start()
    server.close()
    with server:
        assert ask(server.port).status == 200


def test_without_a_secret_other_names_are_refused(page, ask):
    with start_metrics_server(port=0) as server:
        assert ask(server.port, host="localhost").status == 200
        assert ask(server.port, Host="evil.example").status == 403
        assert ask(server.port, "/", Host="evil.example:80").status == 403
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 403 ")
    assert page.asked == [(None, False)]


def test_a_secret_is_asked_for_whatever_the_name(page, ask, caplog):
    with start_metrics_server(port=0, token="s3cret", basic_auth=("user", "hunter2")) as server:
        refused = ask(server.port)
        assert refused.status == 401
        assert refused.headers.get_all("www-authenticate") == [
            'Bearer realm="metrics"',
            'Basic realm="metrics", charset="UTF-8"',
        ]
        assert ask(server.port, "/").status == 401
        assert ask(server.port, "/nothing").status == 401
        assert ask(server.port, authorization="Bearer wrong").status == 401
        assert page.asked == []
        assert ask(server.port, authorization="Bearer s3cret", Host="any.example").status == 200
        basic = base64.b64encode(b"user:hunter2").decode()
        assert ask(server.port, authorization=f"Basic {basic}").status == 200
        shown = repr(server) + str(server) + caplog.text
    assert not [secret for secret in ("s3cret", "hunter2") if secret in shown]


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
def test_ipv6(page, ask):
    with start_metrics_server("::1", 0) as server:
        assert server.url == f"http://[::1]:{server.port}/metrics"
        assert ask(server.port, host="::1").status == 200
    with start_metrics_server("::", 0, token="s3cret") as server:
        assert ask(server.port, host="::1", authorization="Bearer s3cret").status == 200
        assert ask(server.port, authorization="Bearer s3cret").status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.security(5)
def test_others_are_let_in_with_a_secret_only(host, page, ask):
    if host == "::" and not HAS_IPV6:
        pytest.skip("no IPv6 here")
    with pytest.raises(
        ConfigError, match="others than this machine.*token=.*basic_auth=.*listen on 127.0.0.1"
    ) as error:
        start_metrics_server(host, 0)
    assert str(error.value).startswith(f"{host}:0: ")
    with start_metrics_server(host, 0, token="s3cret") as server:
        assert ask(server.port, authorization="Bearer s3cret").status == 200


def test_localhost_is_the_address_that_every_client_tries(page, ask):
    with start_metrics_server("localhost", 0) as server:
        assert ask(server.port, host="127.0.0.1").status == 200


def test_a_taken_port_is_one_clear_error(page):
    with start_metrics_server(port=0) as server:
        with pytest.raises(ConfigError) as error:
            start_metrics_server(port=server.port)
        with pytest.raises(ConfigError):
            start_metrics_server("0.0.0.0", server.port, token="s3cret")
    assert str(error.value) == (
        f"127.0.0.1:{server.port}: Address already in use; another program listens there, so choose another port "
        "(port=, --port, PROMETHEUS_PORT)"
    )


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("no such host", "no such host: there is no such host"),
        ("x" * 70, "there is no such host"),
        ("192.0.2.1", "192.0.2.1:0: Cannot assign requested address"),
        ("", "host = '': it must be an address"),
        (5, "host = 5: it must be an address"),
    ],
)
def test_an_address_that_is_not_ours(host, told):
    with pytest.raises(ConfigError, match=told):
        start_metrics_server(host, 0, token="s3cret")


def test_host_and_port_of_the_environment():
    assert address(None, None, {}) == ("127.0.0.1", 9090)
    assert address(None, None, {"PROMETHEUS_HOST": "0.0.0.0", "PROMETHEUS_PORT": " 9191 "}) == ("0.0.0.0", 9191)
    assert address("::1", 0, {"PROMETHEUS_HOST": "0.0.0.0", "PROMETHEUS_PORT": "x"}) == ("::1", 0)
    assert address(None, None, {"PROMETHEUS_HOST": " ", "PROMETHEUS_PORT": ""}) == ("127.0.0.1", 9090)


@pytest.mark.parametrize("port", ["x", "-1", "65536", "9e3", "1.5"])
def test_a_port_of_the_environment_that_is_none(port):
    with pytest.raises(ConfigError, match="PROMETHEUS_PORT = .*: it must be a whole number from 0 to 65,535"):
        address(None, None, {"PROMETHEUS_PORT": port})


@pytest.mark.parametrize("port", [-1, 65536, True, "9090", 1.5])
def test_a_port_that_is_none(port):
    with pytest.raises(ConfigError, match="port = .*: it must be a whole number"):
        MetricsServer(port=port)


def test_the_environment_is_read(page, ask, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_PORT", "0")
    monkeypatch.setenv("PROMETHEUS_HOST", "localhost")
    with start_metrics_server() as server:
        assert server.host == "localhost"
        assert ask(server.port).status == 200


@pytest.mark.security(5)
def test_the_fifth_scrape_at_a_time_is_told_to_come_again(page, ask):
    page.gate = threading.Event()
    with start_metrics_server(port=0) as server:
        threads = [threading.Thread(target=ask, args=(server.port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
            page.started.acquire()
        assert ask(server.port).status == 503
        page.gate.set()
        for thread in threads:
            thread.join()
        assert ask(server.port).status == 200


def test_an_error_in_the_page_is_a_500(page, ask):
    page.error = ValueError("sk-secret")
    with start_metrics_server(port=0) as server:
        answer = ask(server.port)
    assert (answer.status, answer.body.count(b"\n")) == (500, 1)


FORKED = """
import http.client, os
from tellmeter.serve.server import start_metrics_server

def status(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    return connection.getresponse().status

server = start_metrics_server(port=0)
port = server.port
child = os.fork()
if not child:
    ours = start_metrics_server(port=0)
    ok = status(port) == 200 and status(ours.port) == 200  # the parent's, and its own
    server.close()
    os._exit(0 if ok and status(port) == 200 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
held, told = os.pipe()
ready, forked = os.pipe()
child = os.fork()
if not child:
    os.close(told)
    os.write(forked, b"x")
    os.read(held, 1)  # until the parent has closed, and started again on the same port
    os._exit(0)
os.read(ready, 1)
server.close()
with start_metrics_server(port=port) as again:
    print(status(port))
os.close(told)
os.waitpid(child, 0)
"""


def test_a_forked_child_does_not_hold_its_parents_port():
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout == "0\n200\n", run.stderr


def test_a_program_ends_while_it_serves():
    code = "from tellmeter.serve.server import start_metrics_server; start_metrics_server(port=0)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (run.stdout, run.stderr) == ("", "")
