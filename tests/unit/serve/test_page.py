"""The page as an answer: formats that prometheus_client reads, compression, what is refused, what goes wrong."""

import gzip
import zlib
from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import tellmeter.serve.page as page_module
from tellmeter import counts
from tellmeter.registry.registry import get_metrics_registry
from tellmeter.serve.negotiation import OPENMETRICS, TEXT
from tellmeter.serve.page import answer, get_metrics_text, refusal, scrape
from tellmeter.serve.places import Places


def of(answered, name):
    return dict(answered.headers).get(name)


def test_text_of_the_process_is_bytes_that_prometheus_reads():
    get_metrics_registry().counter("serve_page_test", "For this test").inc(3)
    families = {family.name: family for family in parse_text(get_metrics_text().decode())}
    assert families["serve_page_test"].samples[0].value == 3
    assert families["serve_page_test"].type == "counter"


def test_text_and_openmetrics_of_a_registry(registry):
    plain = scrape(registry=registry)
    assert (plain.status, plain.status_line, of(plain, "content-type")) == (200, "200 OK", TEXT)
    (family,) = parse_text(b"".join(plain.chunks).decode())
    assert sum(sample.value for sample in family.samples) == sum(range(50))

    rich = scrape("application/openmetrics-text;version=0.0.1", registry=registry)
    assert of(rich, "content-type") == OPENMETRICS
    (family,) = parse_openmetrics(b"".join(rich.chunks).decode())
    assert sum(sample.value for sample in family.samples if sample.name.endswith("_total")) == sum(range(50))


def test_headers(page):
    answered = scrape("*/*", "gzip, deflate")
    assert of(answered, "content-encoding") == "gzip"
    assert of(answered, "content-length") == str(sum(map(len, answered.chunks)))
    assert of(answered, "vary") == "Accept, Accept-Encoding"
    assert of(answered, "cache-control") == "no-store"
    assert of(answered, "x-content-type-options") == "nosniff"
    assert of(scrape(), "content-encoding") is None
    assert page.asked == [(None, False), (None, False)]


@pytest.mark.parametrize("pieces", [[], [b"one 1.0\n"], [b"a" * 60_000, b"b" * 60_000] * 20])
def test_compressed_and_plain_say_the_same(page, pieces):
    page.pieces = pieces
    plain, zipped = scrape(None, "gzip;q=0"), scrape(None, "gzip")
    assert gzip.decompress(b"".join(zipped.chunks)) == b"".join(plain.chunks) == b"".join(pieces)
    assert b"" not in zipped.chunks
    first = zlib.decompressobj(31).decompress(zipped.chunks[0])
    assert b"".join(pieces).startswith(first)


def test_the_same_page_is_the_same_bytes(page):
    assert scrape(None, "gzip") == scrape(None, "gzip")


def test_head_has_the_headers_of_get_and_no_body(page):
    answered = scrape()
    assert answered.body("HEAD") == ()
    assert answered.body("GET") == (b"one 1.0\n", b"two 2.0\n")
    assert of(answered, "content-length") == "16"


@pytest.mark.parametrize("path", ["", "/", "/metrics", "/metrics/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_paths_and_methods_that_are_answered(method, path):
    assert refusal(method, path) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "", "TRACE", "\r\n"])
def test_other_methods_are_refused(method):
    refused = refusal(method, "/metrics")
    assert (refused.status, of(refused, "allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/favicon.ico", "/metrics/x", "/metrics//", "//metrics", "metrics", "/\r\n<script>"])
def test_other_paths_are_not_found_and_not_repeated(path):
    refused = refusal("GET", path)
    assert refused.status == 404
    assert refused.chunks == (b"not found; the metrics are at /metrics\n",)


@pytest.mark.parametrize("accept_encoding", [None, "gzip"])
@pytest.mark.parametrize("pieces", [[], [b"one 1.0\n"]])
def test_an_error_is_one_line_and_is_counted(page, pieces, accept_encoding):
    page.pieces, page.error = pieces, ValueError("sk-secret")
    before = counts.snapshot().get("guarded_errors", {}).get("metrics_page", 0)
    answered = scrape(None, accept_encoding)
    assert answered.status == 500
    assert answered.chunks == (b"the metrics cannot be written; the program's log says more\n",)
    assert of(answered, "content-encoding") is None
    assert counts.snapshot()["guarded_errors"]["metrics_page"] == before + 1


def test_ctrl_c_is_no_error_of_the_page(page):
    page.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        scrape()


def test_a_whole_answer_takes_a_place_and_gives_it_back(page):
    places = Places(1)
    assert answer("GET", "/metrics", None, None, places=places).status == 200
    page.error = ValueError()
    assert answer("GET", "/metrics", None, None, places=places).status == 500
    assert answer("POST", "/metrics", None, None, places=places).status == 405
    with places.take():
        full = answer("GET", "/metrics", None, None, places=places)
        assert (full.status, of(full, "retry-after")) == (503, "1")
        assert answer("GET", "/nothing", None, None, places=places).status == 404
    page.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        answer("GET", "/metrics", None, None, places=places)
    assert places.take() is not None


def test_other_threads_get_a_chance_between_the_pieces(page, monkeypatch):
    rested = []
    monkeypatch.setattr(page_module, "time", SimpleNamespace(sleep=rested.append))
    page.pieces = [b"a"] * 5
    scrape()
    assert rested == [0] * 5
