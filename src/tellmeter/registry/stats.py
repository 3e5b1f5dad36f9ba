"""A metric in figures, for code and tests: what Prometheus would compute, without one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from .family import VALUE_LENGTH, Family
from .labels import clean_value
from .series import Counter, Gauge, Histogram


class MetricStats(TypedDict, total=False):
    """Figures of a metric's series together.

    count: recordings of a counter or histogram; the number of series of a gauge.
    sum: the total of a counter or gauge, the sum of what a histogram observed.
    mean: sum / count.
    min, max: exact for a histogram; for counters and gauges of the series' values. None where there is nothing.
    p50, p95, p99: of a histogram by linear interpolation inside its buckets, whose ends are cut at min and max, so as
        wrong as a bucket is wide; of counters and gauges over the series' values.
    """

    count: int
    sum: float
    mean: float
    min: float | None
    max: float | None
    p50: float | None
    p95: float | None
    p99: float | None


_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def stats_of(family: Family[Any], labels: Mapping[str, Any] | None) -> MetricStats:
    """The figures of the series whose labels include `labels`."""
    chosen = [series for series in family.shown() if _matches(family, series.values, labels)]
    if issubclass(family.series_kind, Histogram):
        return _of_histograms(family.bounds, chosen)
    values = sorted(float(series.read()) for series in chosen)
    number = len(values)
    if issubclass(family.series_kind, Counter):
        number = sum(series.number for series in chosen)
    elif not issubclass(family.series_kind, Gauge):
        raise TypeError(family.series_kind.__name__)
    try:
        total = math.fsum(values)
    except (OverflowError, ValueError):  # more than a float holds
        total = sum(values)
    found: MetricStats = {
        "count": number,
        "sum": total,
        "mean": total / number if number else 0.0,
        "min": values[0] if values else None,
        "max": values[-1] if values else None,
    }
    for name, share in _SHARES.items():
        found[name] = values[min(len(values) - 1, int(share * len(values)))] if values else None  # type: ignore[literal-required]
    return found


def _matches(family: Family[Any], values: Sequence[str], labels: Mapping[str, Any] | None) -> bool:
    if not labels:
        return True
    known = dict(zip(family.definition.labels, values, strict=False))
    return all(known.get(name) == clean_value(value, VALUE_LENGTH) for name, value in labels.items())


def _of_histograms(bounds: Sequence[float], chosen: Sequence[Histogram]) -> MetricStats:
    counts = [0] * (len(bounds) + 1)
    total, low, high = 0.0, math.inf, -math.inf
    for series in chosen:
        its_counts, its_total, its_low, its_high = series.read()
        counts = [one + other for one, other in zip(counts, its_counts, strict=True)]
        total += its_total
        low, high = min(low, its_low), max(high, its_high)
    number = sum(counts)
    found: MetricStats = {
        "count": number,
        "sum": total,
        "mean": total / number if number else 0.0,
        "min": low if number else None,
        "max": high if number else None,
    }
    for name, share in _SHARES.items():
        found[name] = quantile(share, bounds, counts, low, high) if number else None  # type: ignore[literal-required]
    return found


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int], low: float, high: float) -> float:
    """What `share` of the values do not exceed, by linear interpolation inside the bucket that holds it."""
    rank = share * sum(counts)
    below = 0
    for index, number in enumerate(counts):
        if number and below + number >= rank:
            start = max(low, bounds[index - 1]) if index else low
            end = min(high, bounds[index]) if index < len(bounds) else high
            return start + (end - start) * (rank - below) / number
        below += number
    return high
