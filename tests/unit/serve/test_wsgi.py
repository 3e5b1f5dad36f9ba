"""The WSGI application: by the letter of PEP 3333, under a real server, mounted or alone."""

import gzip
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tellmeter.serve.wsgi import get_metrics_wsgi_app


def asked(app, method="GET", path="/metrics", script="", **headers):
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": script, "QUERY_STRING": "", **headers}
    setup_testing_defaults(environ)
    told = []
    body = validator(app)(environ, lambda status, headers, error=None: told.extend([status, dict(headers)]))
    chunks = list(body)
    body.close()
    return told[0], told[1], b"".join(chunks)


def test_text_openmetrics_and_gzip(registry):
    app = get_metrics_wsgi_app(registry)
    status, headers, plain = asked(app)
    assert (status, headers["content-length"]) == ("200 OK", str(len(plain)))
    (family,) = parse_text(plain.decode())
    assert len(family.samples) == 50
    _, headers, zipped = asked(app, HTTP_ACCEPT_ENCODING="gzip")
    assert gzip.decompress(zipped) == plain
    _, headers, rich = asked(app, HTTP_ACCEPT="application/openmetrics-text")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert list(parse_openmetrics(rich.decode()))


@pytest.mark.parametrize(
    ("script", "path", "status"),
    [
        ("", "/metrics", "200 OK"),
        ("", "/metrics/", "200 OK"),
        ("", "/", "200 OK"),
        ("/internal/prom", "", "200 OK"),
        ("/metrics", "/", "200 OK"),
        ("", "/other", "404 Not Found"),
    ],
)
def test_paths(page, script, path, status):
    assert asked(get_metrics_wsgi_app(), path=path, script=script)[0] == status


def test_head_and_other_methods(page):
    app = get_metrics_wsgi_app("mine")
    _, headers, _ = asked(app)
    status, headers_of_head, body = asked(app, "HEAD")
    assert (status, headers_of_head, body) == ("200 OK", headers, b"")
    status, headers, _ = asked(app, "DELETE")
    assert (status, headers["allow"]) == ("405 Method Not Allowed", "GET, HEAD")
    assert {registry for registry, _ in page.asked} == {"mine"}


def test_an_error_is_a_500(page):
    page.error = ValueError("sk-secret")
    status, _, body = asked(get_metrics_wsgi_app())
    assert (status, body.count(b"\n")) == ("500 Internal Server Error", 1)
    assert b"sk-secret" not in body


def test_the_fifth_scrape_at_a_time_is_told_to_come_again(page, until):
    page.gate = threading.Event()
    app = get_metrics_wsgi_app()
    threads = [threading.Thread(target=asked, args=(app,)) for _ in range(4)]
    for thread in threads:
        thread.start()
        page.started.acquire()
    status, headers, _ = asked(app)
    page.gate.set()
    for thread in threads:
        thread.join()
    assert (status, headers["retry-after"]) == ("503 Service Unavailable", "1")
    assert asked(app)[0] == "200 OK"


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


def test_under_a_real_server(registry, ask):
    with make_server("127.0.0.1", 0, validator(get_metrics_wsgi_app(registry)), handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert len(list(parse_text(ask(server.server_port).body.decode()))) == 1
            assert ask(server.server_port, method="HEAD").body == b""
            assert ask(server.server_port, "/x").status == 404
        finally:
            server.shutdown()
            thread.join()
