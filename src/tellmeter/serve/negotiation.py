"""What a scraper asks for, read from its headers: text or OpenMetrics, compressed or not. Hostile values never raise.

A header that asks for nothing we have is answered all the same, with plain text: a scrape that fails loses data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Header = str | bytes | None

_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_PART = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_QUALITY = re.compile(r"[01](\.[0-9]*)?|\.[0-9]+")

# How precisely a format is named.
_ANYTHING, _KIND, _TYPE, _VERSION = range(4)
# Versions that may be asked for, the one that we write first. Prometheus names both of OpenMetrics.
_TEXT_VERSIONS = ("0.0.4",)
_OPENMETRICS_VERSIONS = ("1.0.0", "0.0.1")


def wants_openmetrics(accept: Header) -> bool:
    """Whether an `Accept` header (None: there is none) is answered with OpenMetrics 1.0, else with text 0.0.4."""
    text, openmetrics = _Asked(), _Asked()
    for name, parameters, quality in _elements(accept):
        version = parameters.get("version", "")
        if name == "application/openmetrics-text":
            openmetrics.add(_precision(version, _OPENMETRICS_VERSIONS), quality)
        elif name == "text/plain":
            text.add(_precision(version, _TEXT_VERSIONS), quality)
        elif name == "application/*":
            openmetrics.add(_KIND, quality)
        elif name == "text/*":
            text.add(_KIND, quality)
        elif name == "*/*":
            text.add(_ANYTHING, quality)
            openmetrics.add(_ANYTHING, quality)
    return openmetrics.before(text)


def wants_gzip(accept_encoding: Header) -> bool:
    """Whether an `Accept-Encoding` header (None: there is none) is answered with gzip, else with plain bytes."""
    plain, gzip = _Asked(), _Asked()
    for name, _, quality in _elements(accept_encoding):
        if name in {"gzip", "x-gzip"}:
            gzip.add(_TYPE, quality)
        elif name == "identity":
            plain.add(_TYPE, quality)
        elif name == "*":
            plain.add(_ANYTHING, quality)
            gzip.add(_ANYTHING, quality)
    if plain.quality == 0 and gzip.quality is None:
        return True  # the one other coding that everybody reads
    return gzip.before(plain)


class _Asked:
    """How much one answer is wanted: what names it most precisely counts (RFC 9110, 12.5.1)."""

    __slots__ = ("precision", "quality")

    def __init__(self) -> None:
        self.precision = -1
        self.quality: float | None = None

    def add(self, precision: int | None, quality: float) -> None:
        if precision is None or precision < self.precision:
            return
        if precision > self.precision or self.quality is None or quality > self.quality:
            self.precision, self.quality = precision, quality

    def before(self, default: _Asked) -> bool:
        """Whether this is wanted more than `default`, or as much and by its name."""
        if not self.quality:
            return False
        mine, other = (self.quality, self.precision), (default.quality or 0.0, default.precision)
        return mine > other or (mine == other and self.precision >= _TYPE)


def _precision(version: str, known: tuple[str, ...]) -> int | None:
    """How precisely a range names a format; None where it is a version that we do not write."""
    if version == known[0]:
        return _VERSION
    return _TYPE if not version or version in known else None


def _elements(header: Header) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Name in lower case, parameters and quality (0..1) of each element; those with an unreadable quality left out."""
    text = header.decode("latin-1") if isinstance(header, bytes) else header or ""
    for element in _ELEMENT.findall(text):
        parts = [part.strip() for part in _PART.findall(element)] or [""]
        parameters: dict[str, str] = {}
        for part in parts[1:]:
            key, _, value = part.partition("=")
            parameters.setdefault(key.strip().lower(), value.strip().strip('"'))
        quality = parameters.get("q", "1")
        if _QUALITY.fullmatch(quality):
            yield parts[0].lower(), parameters, min(1.0, float(quality))
