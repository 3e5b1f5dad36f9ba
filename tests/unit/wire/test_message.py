from __future__ import annotations

import httpx
import httpx2
import pytest

from tellmeter.wire.message import NO_HEADERS, PlainHeaders, begins_event_stream, content_of


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_headers_are_found_whatever_their_case(http) -> None:
    headers = PlainHeaders(http.Headers([(b"X-Request-ID", b"r1"), (b"a", b"1"), (b"A", b"2"), (b"n", b"caf\xe9")]))
    assert (headers.get("x-request-id"), headers.get("a"), headers.get("none"), headers.get("none", "d")) == (
        "r1",
        "2",
        "",
        "d",
    )
    assert headers.get("n") == "caf\xe9"
    assert NO_HEADERS.get("a") == ""


def test_a_streamed_upload_has_no_content_here() -> None:
    assert content_of(httpx2.Request("POST", "http://x/", content=b"abc")) == b"abc"
    assert content_of(httpx2.Request("POST", "http://x/", content=iter([b"abc"]))) == b""


@pytest.mark.parametrize(
    "body", [b"data: {}", b"event: x", b": comment", b"\xef\xbb\xbfdata:", b"\n\nid: 3", b"retry: 1"]
)
def test_event_streams_are_known_by_their_beginning(body: bytes) -> None:
    assert begins_event_stream(body)


@pytest.mark.parametrize("body", [b"{}", b"", b"[1]", b'"data: x"', b"<html>", b"database: x"])
def test_and_nothing_else_is_taken_for_one(body: bytes) -> None:
    assert not begins_event_stream(body)
