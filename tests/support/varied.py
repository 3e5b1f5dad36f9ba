"""Many records, no two alike and always the same: every status, hard texts and numbers, streams, no price."""

from __future__ import annotations

import random
import uuid

from tellmeter.cleaning import MAX_INT
from tellmeter.records import STATUSES, STREAM_STATUSES, AgentMetrics, StreamMetrics

_T0 = 1_700_000_000.0
_TEXTS = (
    "gpt-4o",
    "plain",
    "with space, comma and = sign",
    "a \"b\" 'c' `d`",
    "back\\slash\\",
    "\\\\,x=1 y",
    "{'json': [\"1\"]}",
    "one\ntwo\r\nthree\tfour",
    "nul\x00",
    "日本語 😀 é",
    "\u2028\u202e%s {0} $1",
    "#hash",
    "1i",
    "true",
    "é" * 256,
    "😀" * 1024,
)
_AMOUNTS = (0, 1, 7, 1000, 2**31, 2**53 + 1, MAX_INT)
_DURATIONS = (0.0, 0.1, 5.0, 123.456, 1e-9, 5e-324, 1e15, 1e308)
_DOLLARS = (None, 0.0, 0.01, 0.000000123, 12.5)


def varied(number: int, seed: int = 1) -> list[AgentMetrics]:
    """So many records, of the 3 ms from T0 on for each."""
    draw = random.Random(seed)
    statuses, stream_statuses = sorted(STATUSES), sorted(STREAM_STATUSES)
    return [_one(draw, index, statuses[index % len(statuses)], stream_statuses) for index in range(number)]


def _one(draw: random.Random, index: int, status: str, stream_statuses: list[str]) -> AgentMetrics:
    def maybe(value: object) -> object:
        return value if draw.random() < 0.5 else None

    text, amount, duration = (lambda many: lambda: draw.choice(many)), draw.randrange(2000), draw.random() * 5000
    hard = draw.random() < 0.2
    texts, amounts, durations = text(_TEXTS), text(_AMOUNTS), text(_DURATIONS)
    cached = amounts() if hard else amount // 3
    return AgentMetrics(
        id=str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        timestamp=_T0 + index * 0.003 + draw.random() * 0.003,
        model=texts() if hard else f"gpt-4o-{index % 7}",
        provider=texts() if hard else draw.choice(["openai", "anthropic"]),
        response_model=maybe(texts()),
        operation=draw.choice(["chat", "embeddings"]),
        method=draw.choice(["generate", "stream"]),
        latency_ms=durations() if hard else duration,
        status=status,
        error_class=None if status == "success" else texts() if hard else "RateLimitError",
        status_code=None if status == "success" else draw.choice([None, 400, 429, 503]),
        input_tokens=amounts() if hard else amount,
        output_tokens=amounts() if hard else amount // 2,
        cached_tokens=cached,
        cache_write_tokens=cached // 2,
        reasoning_tokens=amount // 5,
        tokens_estimated=draw.random() < 0.1,
        cost_usd=draw.choice(_DOLLARS),
        price_version=maybe("2026-11-01"),
        retries=draw.randrange(3),
        retry_delay_ms=durations() if hard else 0.0,
        finish_reason=maybe("stop"),
        tools_used=tuple(texts() for _ in range(draw.randrange(3))) if hard else (),
        request_id=maybe(f"req_{index}"),
        trace_id=maybe(f"{draw.getrandbits(128):032x}"),
        span_id=maybe(f"{draw.getrandbits(64):016x}"),
        parent_id=maybe(texts()),
        stream=_stream(draw, hard, stream_statuses) if index % 3 == 0 else None,
        tags={"feature": draw.choice(["search", "chat"]), **({texts(): texts()} if hard else {})},
        sample_rate=draw.choice([1.0, 0.5, 0.1]),
    )


def _stream(draw: random.Random, hard: bool, statuses: list[str]) -> StreamMetrics:
    one = draw.choice(_DURATIONS) if hard else draw.random() * 1000
    return StreamMetrics(
        stream_id=f"{draw.getrandbits(32):08x}",
        provider="openai",
        model=draw.choice(_TEXTS) if hard else "gpt-4o",
        start_time=_T0 * 1000,
        current_time=_T0 * 1000 + draw.random(),
        duration_ms=one,
        bytes_received=draw.choice(_AMOUNTS),
        chunks_received=draw.randrange(500),
        bytes_per_second=one,
        avg_chunk_size=draw.random() * 100,
        time_to_first_chunk_ms=None if hard else one / 3,
        time_to_first_token_ms=None if draw.random() < 0.2 else one / 2,
        max_gap_ms=one / 7,
        jitter_ms=draw.random(),
        stalls=draw.randrange(3),
        output_tokens=draw.randrange(1000),
        tokens_per_second=draw.random() * 100,
        error_count=draw.randrange(2),
        last_error=draw.choice([None, "TimeoutError"]),
        status=draw.choice(statuses),
    )
