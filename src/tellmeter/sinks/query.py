"""What a store is asked and what it answers, in plain values: filters, percentiles, summaries."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ..errors import ConfigError
from ..records import AgentMetrics, MetricsSummary

BREAKDOWN_FIELDS = ("model", "provider", "status", "operation", "method", "error_class")


class SeriesPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The calls that started within `step` seconds from `timestamp` (Unix seconds, a multiple of the step)."""

    timestamp: float
    step: float
    summary: MetricsSummary


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which records: `start_time <= timestamp < end_time`, and equality on what is given."""

    start_time: float | None = None
    end_time: float | None = None
    provider: str | None = None
    model: str | None = None
    request_id: str | None = None
    status: str | None = None
    tags: Mapping[str, str] = {}

    def matches(self, record: AgentMetrics) -> bool:
        """Whether a record is one of those."""
        return (
            (self.start_time is None or record.timestamp >= self.start_time)
            and (self.end_time is None or record.timestamp < self.end_time)
            and (self.provider is None or record.provider == self.provider)
            and (self.model is None or record.model == self.model)
            and (self.request_id is None or record.request_id == self.request_id)
            and (self.status is None or record.status == self.status)
            and all(record.tags.get(name) == value for name, value in self.tags.items())
        )


def within(query: Query, window_seconds: float | None, now: float | None = None) -> Query:
    """The query, narrowed to the last `window_seconds`."""
    if window_seconds is None:
        return query
    start = (time.time() if now is None else now) - window_seconds
    return msgspec.structs.replace(query, start_time=max(start, query.start_time or start))


def percentile(ordered: Sequence[float], p: float) -> float:
    """The `p`-th percentile (0..100) of sorted values, linear between ranks (Hyndman and Fan's type 7, numpy's default)."""
    if not 0 <= p <= 100:
        raise ConfigError(f"percentile = {p!r}: it must be a number from 0 to 100")
    if not ordered:
        return 0.0
    rank = (len(ordered) - 1) * p / 100
    low = math.floor(rank)
    high = math.ceil(rank)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def breakdown_key(record: AgentMetrics, by: str) -> str | None:
    """The value of `by` in a record; None where it has none."""
    if by.startswith("tag:"):
        return record.tags.get(by[4:])
    value: str | None = getattr(record, by)
    return value


def check_breakdown(by: str) -> None:
    """Raise `ConfigError` for what cannot be broken down by."""
    if by not in BREAKDOWN_FIELDS and not (by.startswith("tag:") and len(by) > 4):
        raise ConfigError(f"by = {by!r}: it must be one of {', '.join(BREAKDOWN_FIELDS)}, or tag:<name>")


def summarise(records: Iterable[AgentMetrics]) -> MetricsSummary:
    """One view over many records."""
    rows = list(records)
    if not rows:
        return MetricsSummary()
    latencies = sorted(row.latency_ms for row in rows)
    firsts = sorted(row.ttft_ms for row in rows if row.ttft_ms is not None)
    errors = sum(row.failed for row in rows)
    costs = [row.cost_usd for row in rows if row.cost_usd is not None]
    return MetricsSummary(
        count=len(rows),
        error_count=errors,
        error_rate=errors / len(rows),
        retries=sum(row.retries for row in rows),
        avg_latency_ms=math.fsum(latencies) / len(rows),
        p50_latency_ms=percentile(latencies, 50),
        p95_latency_ms=percentile(latencies, 95),
        p99_latency_ms=percentile(latencies, 99),
        avg_ttft_ms=math.fsum(firsts) / len(firsts) if firsts else None,
        p50_ttft_ms=percentile(firsts, 50) if firsts else None,
        p95_ttft_ms=percentile(firsts, 95) if firsts else None,
        p99_ttft_ms=percentile(firsts, 99) if firsts else None,
        input_tokens=sum(row.input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        cached_tokens=sum(row.cached_tokens for row in rows),
        cache_write_tokens=sum(row.cache_write_tokens for row in rows),
        reasoning_tokens=sum(row.reasoning_tokens for row in rows),
        total_tokens=sum(row.total_tokens for row in rows),
        total_cost=math.fsum(costs),
        unpriced=len(rows) - len(costs),
        providers=dict(Counter(row.provider for row in rows).most_common()),
        models=dict(Counter(row.model for row in rows).most_common()),
        errors=dict(Counter(row.error_class for row in rows if row.failed and row.error_class).most_common()),
    )
