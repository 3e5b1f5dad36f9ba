"""What a store is asked and what it answers, in plain values: filters, percentiles, summaries.

Every store gives the answers that these functions give over the same records.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..cleaning import MAX_INT
from ..errors import ConfigError
from ..records import FAILURES, AgentMetrics, MetricsSummary
from .checks import check_positive

BREAKDOWN_FIELDS = ("model", "provider", "status", "operation", "method", "error_class")
MAX_POINTS = 20_000
PERCENTILES = (50, 95, 99)  # of a summary
# What a summary adds up of whole numbers.
WHOLE = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "retries")
# A failed call, in SQL that every database of ours reads.
FAILED = f"status IN ({', '.join(repr(status) for status in sorted(FAILURES))})"
MAX_FLOAT = sys.float_info.max

# What a percentile can be asked of. None: the record has no such value and does not count.
METRICS: dict[str, Callable[[AgentMetrics], float | None]] = {
    "latency_ms": lambda record: record.latency_ms,
    "ttft_ms": lambda record: record.ttft_ms,
    "tokens": lambda record: record.total_tokens,
    "input_tokens": lambda record: record.input_tokens,
    "output_tokens": lambda record: record.output_tokens,
    "cost_usd": lambda record: record.cost_usd,
}


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


_TEXTS = ("provider", "model", "request_id", "status")
_FILTERS = ("window_seconds", *Query.__struct_fields__)


def make_query(*, now: float | None = None, **filters: Any) -> Query:
    """The filters of a question, checked: those of `Query`, and `window_seconds`.

    A window is the time before `end_time` (before `now` without one, then without an end). It gives way to a
    `start_time`.

    Raises:
        ConfigError: a filter that is not known, or a value of the wrong kind.
    """
    for name in filters:
        if name not in _FILTERS:
            raise ConfigError(f"{name} is no filter; there are {', '.join(_FILTERS)}")
    given = {name: value for name, value in filters.items() if value is not None}
    for name in _TEXTS:
        if not isinstance(given.get(name, ""), str):
            raise ConfigError(f"{name} = {given[name]!r}: it must be a text")
    for name in ("start_time", "end_time", "window_seconds"):
        if name in given:
            given[name] = _number(name, given[name])
    tags = given.get("tags", {})
    if not isinstance(tags, Mapping) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise ConfigError(f"tags = {tags!r}: it must map texts to texts")
    window = given.pop("window_seconds", None)
    if window is not None and "start_time" not in given:
        end = given.get("end_time", time.time() if now is None else now)
        given["start_time"] = end - window
    return Query(**given)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} = {value!r}: it must be a number of seconds")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def ranks(count: int, p: float) -> tuple[int, int, float]:
    """Where the `p`-th percentile (0..100) of `count` sorted values lies: two ranks, and how far from the lower one.

    Linear between ranks: Hyndman and Fan's type 7, numpy's default.
    """
    check_percentile(p)
    rank = max(0, count - 1) * p / 100
    low = math.floor(rank)
    return low, math.ceil(rank), rank - low


def check_percentile(p: object) -> None:
    """Raise `ConfigError` for what is no percentage."""
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 100:
        raise ConfigError(f"percentile = {p!r}: it must be a number from 0 to 100")


def percentile(ordered: Sequence[float], p: float) -> float:
    """The `p`-th percentile (0..100) of sorted values; 0.0 without any."""
    low, high, share = ranks(len(ordered), p)
    return interpolate(ordered[low], ordered[high], share) if ordered else 0.0


def interpolate(low: float, high: float, share: float) -> float:
    """The value that lies `share` (0..1) of the way from `low` to `high`."""
    return low + (high - low) * share


def percentile_of(records: Iterable[AgentMetrics], metric: str, p: float) -> float:
    """The `p`-th percentile of one of `METRICS`; 0.0 where no record has it."""
    check_metric(metric)
    value_of = METRICS[metric]
    return float(percentile(sorted(value for record in records if (value := value_of(record)) is not None), p))


def check_metric(metric: str) -> None:
    """Raise `ConfigError` for what no percentile can be asked of."""
    if metric not in METRICS:
        raise ConfigError(f"metric = {metric!r}: it must be one of {', '.join(METRICS)}")


def check_breakdown(by: object) -> None:
    """Raise `ConfigError` for what cannot be broken down by."""
    if by not in BREAKDOWN_FIELDS and not (isinstance(by, str) and by.startswith("tag:") and len(by) > 4):
        raise ConfigError(f"by = {by!r}: it must be one of {', '.join(BREAKDOWN_FIELDS)}, or tag:<name>")


def breakdown_key(record: AgentMetrics, by: str) -> str | None:
    """The value of `by` in a record; None where it has none."""
    if by.startswith("tag:"):
        return record.tags.get(by[4:])
    value: str | None = getattr(record, by)
    return value


def breakdown(records: Iterable[AgentMetrics], by: str, limit: int) -> dict[str, MetricsSummary]:
    """One summary per value of `by`, for the `limit` values with the most calls, most calls first."""
    check_breakdown(by)
    groups: dict[str, list[AgentMetrics]] = {}
    for record in records:
        key = breakdown_key(record, by)
        if key is not None:
            groups.setdefault(key, []).append(record)
    largest = sorted(groups, key=lambda key: (-len(groups[key]), key))[:limit]
    return {key: summarise(groups[key]) for key in largest}


def newest(records: Iterable[AgentMetrics], limit: int) -> list[AgentMetrics]:
    """At most `limit` records, newest first by `timestamp`, what came later first among equals."""
    # Sorting is stable, also in reverse: what came last stays first among equal times.
    rows = list(records)[::-1]
    rows.sort(key=lambda record: record.timestamp, reverse=True)
    return rows[:limit]


def check_points(number: int, step: float) -> None:
    """Raise `ConfigError` for more points than an answer holds."""
    if number > MAX_POINTS:
        raise ConfigError(f"step = {step:g}: it gives more than {MAX_POINTS:,} points; ask for longer steps")


def series(records: Iterable[AgentMetrics], step: float) -> list[SeriesPoint]:
    """One point per `step` seconds that has calls, oldest first."""
    step = check_positive("step", step)
    groups: dict[int, list[AgentMetrics]] = {}
    for record in records:
        groups.setdefault(int(min(record.timestamp / step, float(MAX_INT))), []).append(record)
    check_points(len(groups), step)
    return [
        SeriesPoint(timestamp=number * step, step=step, summary=summarise(groups[number])) for number in sorted(groups)
    ]


def ranked(counts: Mapping[str, int]) -> dict[str, int]:
    """Names with their counts, the largest first, by name among equals."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def total(values: Iterable[float]) -> float:
    """The exact sum, rounded once; the largest float where it is larger than that."""
    try:
        return min(math.fsum(values), MAX_FLOAT)
    except OverflowError:
        return MAX_FLOAT


def may_be_in_a_record(value: str | float) -> bool:
    """Whether a record may be equal to, or compare with, a value: no NUL, no lone surrogate, no NaN."""
    if isinstance(value, str):
        return "\0" not in value and value.encode("utf-8", "ignore").decode("utf-8") == value
    return value == value


def tally(parts: Iterable[tuple[str, str, str | None, int]]) -> dict[str, dict[str, int]]:
    """How many calls there are of each provider, model and class of error, from (provider, model, error, number)."""
    providers, models, errors = Counter[str](), Counter[str](), Counter[str]()
    for provider, model, error, number in parts:
        providers[provider] += number
        models[model] += number
        if error is not None:
            errors[error] += number
    return {"providers": providers, "models": models, "errors": errors}


def view(
    *,
    count: int,
    failed: int,
    latency: float,
    latencies: Sequence[float],
    streams: int,
    first: float,
    firsts: Sequence[float],
    priced: int,
    cost: float,
    whole: Mapping[str, int],
    providers: Mapping[str, int],
    models: Mapping[str, int],
    errors: Mapping[str, int],
) -> MetricsSummary:
    """One view from what a backend has added up.

    Args:
        count: the calls.
        failed: those that failed.
        latency: the sum in milliseconds.
        latencies: the `PERCENTILES` in milliseconds.
        streams: the calls with a first token.
        first: the sum of the times to it, in milliseconds.
        firsts: their `PERCENTILES`, where there are any.
        priced: the calls with a known price.
        cost: the sum in US dollars.
        whole: the sum of each of `WHOLE`.
        providers: name -> number of calls.
        models: name -> number of calls.
        errors: class -> number of calls.
    """
    p50, p95, p99 = latencies
    first_p50, first_p95, first_p99 = firsts if streams else (None, None, None)
    return MetricsSummary(
        count=count,
        error_count=failed,
        error_rate=failed / count,
        avg_latency_ms=latency / count,
        p50_latency_ms=p50,
        p95_latency_ms=p95,
        p99_latency_ms=p99,
        avg_ttft_ms=first / streams if streams else None,
        p50_ttft_ms=first_p50,
        p95_ttft_ms=first_p95,
        p99_ttft_ms=first_p99,
        total_tokens=whole["input_tokens"] + whole["output_tokens"],
        total_cost=cost,
        unpriced=count - priced,
        providers=ranked(providers),
        models=ranked(models),
        errors=ranked(errors),
        **whole,
    )


def summarise(records: Iterable[AgentMetrics]) -> MetricsSummary:
    """One view over many records."""
    rows = list(records)
    if not rows:
        return MetricsSummary()
    latencies = sorted(row.latency_ms for row in rows)
    firsts = sorted(first for row in rows if (first := row.ttft_ms) is not None)
    costs = [row.cost_usd for row in rows if row.cost_usd is not None]
    return view(
        count=len(rows),
        failed=sum(row.failed for row in rows),
        latency=total(latencies),
        latencies=[percentile(latencies, p) for p in PERCENTILES],
        streams=len(firsts),
        first=total(firsts),
        firsts=[percentile(firsts, p) for p in PERCENTILES],
        priced=len(costs),
        cost=total(costs),
        whole={name: sum(getattr(row, name) for row in rows) for name in WHOLE},
        **tally((row.provider, row.model, (row.error_class or None) if row.failed else None, 1) for row in rows),
    )
