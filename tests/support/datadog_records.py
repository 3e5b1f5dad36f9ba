"""Records in every variety that Datadog's sinks have to take, and what must be found of them there."""

from __future__ import annotations

import functools
import random
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tellmeter.records import STATUSES, STREAM_STATUSES, AgentMetrics, StreamMetrics
from tellmeter.sinks.datadog.labels import tag

_TEXTS = (
    "gpt-4o",
    "Claude Opus 4",
    "a \"b\" 'c' `d`",
    "comma,equals=colon:pipe|hash#at@",
    "back\\slash\nbreak\ttab",
    "😀",
    "日本語モデル",
    "ÜNÏCODE",
    "__under__score__",
    "x" * 1000,
    "é" * 300,
    "arn:aws:bedrock:eu-west-1:123:model/anthropic.claude-v2",
    "llm.evil:1|c|#a:b\nllm.requests:1000|c",
)


def varied(number: int, *, extremes: bool = True) -> list[AgentMetrics]:
    """So many records, the same ones each time but for their ids and times, which are of the last minutes."""
    dice = random.Random(1)
    statuses, endings = sorted(STATUSES), sorted(STREAM_STATUSES)
    now = time.time()
    records = []
    for index in range(number):
        status = statuses[index % len(statuses)]
        output = dice.choice((0, 1, dice.randrange(5000)))
        records.append(
            AgentMetrics(
                model=_TEXTS[index % len(_TEXTS)],
                provider=dice.choice(("openai", "anthropic", "aws.bedrock")),
                operation=dice.choice(("chat", "embeddings")),
                timestamp=now - dice.random() * 600,
                latency_ms=1e308 if extremes and index % 997 == 3 else dice.choice((0.0, dice.random() * 60_000)),
                status=status,
                error_class=None if status in ("success", "closed_early") else dice.choice(("Rate", "Time_out", None)),
                input_tokens=2**63 - 1 if extremes and index % 991 == 5 else dice.randrange(100_000),
                output_tokens=output,
                cached_tokens=dice.choice((0, 7)),
                cache_write_tokens=dice.choice((0, 3)),
                reasoning_tokens=dice.randrange(output + 1),
                tokens_estimated=index % 11 == 0,
                cost_usd=None if index % 5 == 0 else dice.choice((0.0, dice.random() / 100)),
                retries=dice.choice((0, 0, 2)),
                retry_delay_ms=dice.choice((0.0, 512.5)),
                stream=_stream(dice, endings[index % len(endings)]) if index % 3 == 0 else None,
                tags={"feature": dice.choice(_TEXTS), "not chosen": str(index)},
            )
        )
    return records


def _stream(dice: random.Random, status: str) -> StreamMetrics:
    return StreamMetrics(
        duration_ms=dice.random() * 1e4,
        bytes_received=dice.randrange(10**6),
        chunks_received=dice.randrange(10**3),
        time_to_first_chunk_ms=dice.choice((None, dice.random() * 900)),
        time_to_first_token_ms=dice.choice((None, 0.0, dice.random() * 1000)),
        max_gap_ms=dice.random() * 100,
        p50_gap_ms=dice.random() * 10,
        p95_gap_ms=dice.random() * 50,
        jitter_ms=dice.random(),
        stalls=dice.randrange(3),
        provider_wait_ms=dice.random() * 1e3,
        consumer_wait_ms=dice.random() * 1e2,
        tokens_per_second=dice.random() * 100,
        error_count=dice.randrange(2),
        status=status,
    )


# What the document promises, field by field: sums, then measures.
SUMS = {
    "requests": lambda one: 1,
    "requests.estimated": lambda one: 1 if one.tokens_estimated else 0,
    "requests.unpriced": lambda one: 1 if one.cost_usd is None else 0,
    "errors": lambda one: 1 if one.status in ("error", "timeout", "rejected") else 0,
    "retries": lambda one: one.retries,
    "retries.delay": lambda one: one.retry_delay_ms,
    "tokens.input": lambda one: one.input_tokens,
    "tokens.output": lambda one: one.output_tokens,
    "tokens.cached": lambda one: one.cached_tokens,
    "tokens.cache_write": lambda one: one.cache_write_tokens,
    "tokens.reasoning": lambda one: one.reasoning_tokens,
    "cost": lambda one: one.cost_usd or 0.0,
    "stream.bytes": lambda one: one.stream.bytes_received if one.stream else 0,
    "stream.chunks": lambda one: one.stream.chunks_received if one.stream else 0,
    "stream.stalls": lambda one: one.stream.stalls if one.stream else 0,
    "stream.errors": lambda one: one.stream.error_count if one.stream else 0,
}
MEASURES = {
    "request.latency": lambda one: one.latency_ms,
    "stream.duration": lambda one: one.stream and one.stream.duration_ms,
    "stream.ttfc": lambda one: one.stream and one.stream.time_to_first_chunk_ms,
    "stream.ttft": lambda one: one.stream and one.stream.time_to_first_token_ms,
    "stream.gap.max": lambda one: one.stream and one.stream.max_gap_ms,
    "stream.gap.p50": lambda one: one.stream and one.stream.p50_gap_ms,
    "stream.gap.p95": lambda one: one.stream and one.stream.p95_gap_ms,
    "stream.jitter": lambda one: one.stream and one.stream.jitter_ms,
    "stream.provider_wait": lambda one: one.stream and one.stream.provider_wait_ms,
    "stream.consumer_wait": lambda one: one.stream and one.stream.consumer_wait_ms,
    "stream.tokens_per_second": lambda one: one.stream and one.stream.tokens_per_second,
}

_tag = functools.cache(tag)

Found = dict[tuple[str, frozenset[str]], list[float]]


def tags_of(record: AgentMetrics, names: Iterable[str] = (), constant: Iterable[str] = ()) -> frozenset[str]:
    """The tags that a record's metrics must have."""
    given: dict[str, Any] = {
        "provider": record.provider,
        "model": record.model,
        "operation": record.operation,
        "status": record.status,
        "error": record.error_class,
        "error_category": record.error_category,
        **{name: record.tags.get(name) for name in names},
    }
    return frozenset({_tag(name, value) for name, value in given.items() if value is not None} | {*constant})


def expected(records: Iterable[AgentMetrics], names: Iterable[str] = (), constant: Iterable[str] = ()) -> Found:
    """Every value of every metric, by its tags; zeros of sums are not sent."""
    found: Found = defaultdict(list)
    for record in records:
        tags = tags_of(record, names, constant)
        for name, of in {**SUMS, **MEASURES}.items():
            value = of(record)
            if value or (value is not None and name in MEASURES):
                found[f"llm.{name}", tags].append(float(value))
    return dict(found)
