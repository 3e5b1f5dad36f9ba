"""Which metrics a record becomes: one table. What adds up is apart from what is measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from ...records import AgentMetrics
from .labels import Labels, Tags

_MOST = sys.float_info.max


class Metric(NamedTuple):
    """One metric: its name below the namespace, its unit, and how a record (or its stream) says its value."""

    name: str
    unit: str
    value: Callable[[Any], float | None]
    adds_up: bool


def _sums(*table: tuple[str, str, Callable[[Any], float | None]]) -> tuple[Metric, ...]:
    return tuple(Metric(*row, adds_up=True) for row in table)


def _measures(*table: tuple[str, str, Callable[[Any], float | None]]) -> tuple[Metric, ...]:
    return tuple(Metric(*row, adds_up=False) for row in table)


OF_CALLS = _sums(
    ("requests", "request", lambda record: 1),
    ("requests.estimated", "request", lambda record: int(record.tokens_estimated)),
    ("requests.unpriced", "request", lambda record: int(record.cost_usd is None)),
    ("errors", "error", lambda record: int(record.failed)),
    ("retries", "attempt", attrgetter("retries")),
    ("retries.delay", "millisecond", attrgetter("retry_delay_ms")),
    ("tokens.input", "token", attrgetter("input_tokens")),
    ("tokens.output", "token", attrgetter("output_tokens")),
    ("tokens.cached", "token", attrgetter("cached_tokens")),
    ("tokens.cache_write", "token", attrgetter("cache_write_tokens")),
    ("tokens.reasoning", "token", attrgetter("reasoning_tokens")),
    ("cost", "dollar", attrgetter("cost_usd")),
) + _measures(("request.latency", "millisecond", attrgetter("latency_ms")))

OF_STREAMS = _sums(
    ("stream.bytes", "byte", attrgetter("bytes_received")),
    ("stream.chunks", "chunk", attrgetter("chunks_received")),
    ("stream.stalls", "event", attrgetter("stalls")),
    ("stream.errors", "error", attrgetter("error_count")),
) + _measures(
    ("stream.duration", "millisecond", attrgetter("duration_ms")),
    ("stream.ttfc", "millisecond", attrgetter("time_to_first_chunk_ms")),
    ("stream.ttft", "millisecond", attrgetter("time_to_first_token_ms")),
    ("stream.gap.max", "millisecond", attrgetter("max_gap_ms")),
    ("stream.gap.p50", "millisecond", attrgetter("p50_gap_ms")),
    ("stream.gap.p95", "millisecond", attrgetter("p95_gap_ms")),
    ("stream.jitter", "millisecond", attrgetter("jitter_ms")),
    ("stream.provider_wait", "millisecond", attrgetter("provider_wait_ms")),
    ("stream.consumer_wait", "millisecond", attrgetter("consumer_wait_ms")),
    ("stream.tokens_per_second", "token", attrgetter("tokens_per_second")),
)

METRICS = OF_CALLS + OF_STREAMS

# A sum or a sample of it belongs to a metric and a set of tags.
Context = tuple[Metric, Tags]


def facts(record: AgentMetrics) -> Iterator[tuple[Metric, float]]:
    """What a record says. A zero that would only be added is left out, and so is what is not known."""
    yield from _facts(record, OF_CALLS)
    if record.stream is not None:
        yield from _facts(record.stream, OF_STREAMS)


def _facts(source: Any, metrics: tuple[Metric, ...]) -> Iterator[tuple[Metric, float]]:
    for metric in metrics:
        value = metric.value(source)
        if value or (value is not None and not metric.adds_up):
            yield metric, value


def added_up(batch: Iterable[AgentMetrics], labels: Labels) -> dict[Context, float]:
    """The sums of a batch, of what adds up."""
    sums: dict[Context, float] = {}
    for record in batch:
        tags = labels.of(record)
        for metric, value in facts(record):
            if metric.adds_up:
                sums[metric, tags] = plus(sums.get((metric, tags), 0), value)
    return sums


def plus(one: float, other: float) -> float:
    """The sum; where it has left what a float can hold, the largest float."""
    try:
        return min(one + other, _MOST)
    except OverflowError:  # an int that no float can hold, plus a float
        return _MOST


def in_sums(batch: Iterable[AgentMetrics], labels: Labels) -> dict[Context, float]:
    """All in sums, for what knows no distributions: a measure becomes its `.sum` and the `.count` of its values."""
    sums: dict[Context, float] = {}
    for record in batch:
        tags = labels.of(record)
        for metric, value in facts(record):
            for part, more in (
                ((metric, value),) if metric.adds_up else zip(_PARTS[metric.name], (value, 1), strict=True)
            ):
                sums[part, tags] = plus(sums.get((part, tags), 0), more)
    return sums


_PARTS = {
    metric.name: tuple(metric._replace(name=f"{metric.name}.{part}", adds_up=True) for part in ("sum", "count"))
    for metric in METRICS
    if not metric.adds_up
}
