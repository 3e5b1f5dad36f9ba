"""What the API is sent: series and distribution points as JSON, packed, each payload within the API's limits."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...records import AgentMetrics
from ..json_record import encode
from .buckets import AHEAD_SECONDS
from .labels import Labels, Tags
from .schema import Context, Metric, facts

# https://docs.datadoghq.com/api/latest/metrics/#submit-metrics: bytes of one payload, as sent and unpacked. Those of
# distribution points are not documented and taken to be the same.
SENT_BYTES = 512_000
PLAIN_BYTES = 5_242_880 - 1
# The same page: not more than an hour in the past. Five minutes less, for the way.
OLDEST_SECONDS = 3300

_LEVEL = 3


class Series(NamedTuple):
    """One point of a metric with its tags: its values, or its one value where it is a sum."""

    metric: Metric
    tags: Tags
    second: int
    values: list[float]


class Form(NamedTuple):
    """One endpoint, and how series are written for it.

    Args:
        path: below the API's address.
        name: what stands before the metrics' names.
        host: whose they are; "" says nothing.
        interval: the seconds that a sum is about.
    """

    path: str
    write: Callable[[Form, Series, int], dict[str, Any]]
    name: str
    host: str
    interval: int = 1

    def body(self, series: Sequence[Series], now: float) -> bytes:
        """A payload, before it is packed."""
        return encode({"series": [self.write(self, one, taken(one.second, now, AHEAD_SECONDS)) for one in series]})


def _distribution(form: Form, one: Series, second: int) -> dict[str, Any]:
    points = [[second, [float(value) for value in one.values]]]
    written: dict[str, Any] = {"metric": form.name + one.metric.name, "points": points, "tags": one.tags}
    return written | {"type": "distribution"} | ({"host": form.host} if form.host else {})


def _count(form: Form, one: Series, second: int) -> dict[str, Any]:
    points = [{"timestamp": second, "value": float(one.values[0])}]
    written: dict[str, Any] = {"metric": form.name + one.metric.name, "type": 1, "points": points, "tags": one.tags}
    host = {"resources": [{"type": "host", "name": form.host}]} if form.host else {}
    return written | {"interval": form.interval} | host


def _count_v1(form: Form, one: Series, second: int) -> dict[str, Any]:
    points = [[second, float(one.values[0])]]
    written: dict[str, Any] = {"metric": form.name + one.metric.name, "points": points, "tags": one.tags}
    return written | {"type": "count", "interval": form.interval} | ({"host": form.host} if form.host else {})


def forms(name: str, host: str, interval: int) -> dict[str, Form]:
    """The endpoints by what they are for."""
    return {
        "distributions": Form("/api/v1/distribution_points", _distribution, name, host),
        "series": Form("/api/v2/series", _count, name, host, interval),
        "series-v1": Form("/api/v1/series", _count_v1, name, host, interval),
    }


def taken(second: float, now: float, ahead: float = 0.0) -> int:
    """The nearest second that the API takes at `now`: what is older would be thrown away without a word."""
    return int(max(now - OLDEST_SECONDS, min(second, now + ahead)))


def samples(batch: Iterable[AgentMetrics], labels: Labels, now: float, *, measures_only: bool) -> list[Series]:
    """Every value by itself, at the second in which its call ended."""
    found: dict[tuple[Tags, int], dict[str, Series]] = {}
    for record in batch:
        tags = labels.of(record)
        second = taken(record.timestamp + record.latency_ms / 1000, now)
        here = found.setdefault((tags, second), {})
        for metric, value in facts(record):
            if measures_only and metric.adds_up:
                continue
            series = here.get(metric.name)
            if series is None:
                series = here[metric.name] = Series(metric, tags, second, [])
            series.values.append(value)
    return [series for here in found.values() for series in here.values()]


def sums(totals: Mapping[Context, float], second: int) -> list[Series]:
    """One point for each sum."""
    return [Series(metric, tags, second, [value]) for (metric, tags), value in totals.items()]


def pack(body: bytes, *, compress: bool) -> bytes | None:
    """A payload as it is sent; None where it is more than the API takes. Deflate is what every endpoint takes."""
    if len(body) > PLAIN_BYTES:
        return None
    packed = zlib.compress(body, _LEVEL) if compress else body
    return packed if len(packed) <= SENT_BYTES else None


def fitting(
    form: Form, series: list[Series], now: float, *, compress: bool
) -> Iterator[tuple[list[Series], bytes | None]]:
    """The same series in as many payloads as are needed; None for one that cannot be made small enough."""
    if not series:
        return
    packed = pack(form.body(series, now), compress=compress)
    parts = halves(series) if packed is None else None
    if parts is None:
        yield series, packed
        return
    for part in parts:
        yield from fitting(form, part, now, compress=compress)


def halves(series: list[Series]) -> tuple[list[Series], list[Series]] | None:
    """The same in two parts, a single series by its values; None for a single value."""
    middle = len(series) // 2
    if middle:
        return series[:middle], series[middle:]
    (one,) = series
    middle = len(one.values) // 2
    if not middle:
        return None
    return [one._replace(values=one.values[:middle])], [one._replace(values=one.values[middle:])]
