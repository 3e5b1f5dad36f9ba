"""The page of metrics: as bytes, and as an HTTP answer that every server sends in its own way."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..guard import note
from ..registry.page import page
from ..registry.registry import MetricsRegistry
from .negotiation import OPENMETRICS, TEXT, Header, wants_gzip, wants_openmetrics
from .places import Places

# Where the page is when nobody mounted it elsewhere; a mounted application sees "" or "/".
PATHS = frozenset({"", "/", "/metrics", "/metrics/"})
METHODS = ("GET", "HEAD")
# 100,000 series, 10 MB: level 1 takes 30 ms and leaves 13 %, level 6 takes 117 ms and leaves 11 %.
_GZIP_LEVEL = 1
_GZIP_BITS = 31
_NAMES = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """An HTTP answer. Headers have names in lower case, `content-length` among them."""

    status: int
    headers: tuple[tuple[str, str], ...]
    chunks: tuple[bytes, ...]

    @property
    def status_line(self) -> str:
        """As `200 OK`."""
        return f"{self.status} {_NAMES[self.status]}"

    def body(self, method: str) -> tuple[bytes, ...]:
        """What is sent after the headers: nothing where only they were asked for."""
        return () if method == "HEAD" else self.chunks


def get_metrics_text() -> bytes:
    """The process's metrics in the text format 0.0.4, merged over processes where `TELLMETER_MULTIPROC_DIR` is set."""
    return b"".join(page())


def refusal(method: str, path: str) -> Answer | None:
    """The answer to a request that asks for no metrics: 404 or 405; None for all others.

    Args:
        method: as it was sent.
        path: below where the application is mounted, without the query.
    """
    if path not in PATHS:
        return line(404, "not found; the metrics are at /metrics")
    if method not in METHODS:
        return line(405, "GET or HEAD", ("allow", ", ".join(METHODS)))
    return None


def answer(
    method: str,
    path: str,
    accept: Header,
    accept_encoding: Header,
    *,
    places: Places,
    registry: MetricsRegistry | None = None,
) -> Answer:
    """The whole answer to a request, for servers that may block. What is sent of it is `body(method)`."""
    refused = refusal(method, path)
    if refused is not None:
        return refused
    place = places.take()
    if place is None:
        return busy()
    with place:
        return scrape(accept, accept_encoding, registry=registry)


def scrape(accept: Header = None, accept_encoding: Header = None, *, registry: MetricsRegistry | None = None) -> Answer:
    """The page in the format and coding that the headers ask for; 500 where it cannot be written. Blocks meanwhile.

    It is written whole before it is sent: its length is known, and an error is an answer and no torn page.
    """
    try:
        openmetrics, zipped = wants_openmetrics(accept), wants_gzip(accept_encoding)
        pieces: Iterable[bytes] = _gently(page(registry, openmetrics=openmetrics))
        chunks = tuple(_zipped(pieces) if zipped else pieces)
    except Exception as error:
        note("metrics_page", error)
        return broken()
    coding = (("content-encoding", "gzip"),) if zipped else ()
    return _answer(200, OPENMETRICS if openmetrics else TEXT, chunks, ("vary", "Accept, Accept-Encoding"), *coding)


def busy() -> Answer:
    """The answer where too many scrapes are worked on."""
    return line(503, "too many scrapes at the same time", ("retry-after", "1"))


def broken() -> Answer:
    """The answer where the page cannot be written."""
    return line(500, "the metrics cannot be written; the program's log says more")


def line(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """An answer of one line of plain text."""
    return _answer(status, "text/plain; charset=utf-8", (f"{text}\n".encode(),), *headers)


def _answer(status: int, kind: str, chunks: tuple[bytes, ...], *headers: tuple[str, str]) -> Answer:
    return Answer(
        status,
        (
            ("content-type", kind),
            ("content-length", str(sum(map(len, chunks)))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            *headers,
        ),
        chunks,
    )


def _gently(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces, and between them a chance for other threads, which else wait 5 ms each time they want to run."""
    for piece in pieces:
        yield piece
        time.sleep(0)


def _zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_BITS)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
