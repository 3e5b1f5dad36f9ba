"""Records for the tests of sinks: made by hand, and by hypothesis."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import strategies as st

from tellmeter.cleaning import MAX_INT
from tellmeter.records import STATUSES, STREAM_STATUSES, AgentMetrics, StreamMetrics

ROOT = Path(__file__).parents[3]
T0 = 1_700_000_000.0


def record(number: int = 0, **fields: object) -> AgentMetrics:
    """A record of `number` seconds after T0."""
    return AgentMetrics(**{"model": "gpt-4o", "provider": "openai", "timestamp": T0 + number, **fields})  # type: ignore[arg-type]


def recent(**fields: object) -> AgentMetrics:
    """A record of now."""
    return record(**{"timestamp": time.time(), **fields})


def run(awaitable):  # type: ignore[no-untyped-def]
    """Wait for one answer."""

    async def wait():  # type: ignore[no-untyped-def]
        return await awaitable

    return asyncio.run(wait())


def deadline(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def python(code: str, *arguments: object, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run code in another interpreter that finds tellmeter and these helpers."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
        env={**os.environ, **PATHS},
        **options,  # type: ignore[call-overload]
    )


PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}

names = st.sampled_from(["a", "b", "gpt-4o", "model with ' and \"", "ünïcode", "日本", "%", "back\\slash"])
texts = st.one_of(names, st.text(max_size=12))
amounts = st.one_of(
    st.integers(0, 5000), st.integers(0, MAX_INT), st.sampled_from([0, 2**31, 2**32 - 1, 2**32, MAX_INT])
)
durations = st.one_of(
    st.sampled_from([0.0, 1.0, 5.0, 0.1]),
    st.floats(0, 1e6, allow_nan=False),
    st.floats(0, 1e300, allow_nan=False),
)
dollars = st.one_of(st.none(), st.just(0.0), st.floats(0, 10), st.floats(0, 1e15))
tags = st.dictionaries(names, names, max_size=3)
times = st.one_of(st.integers(0, 5).map(lambda n: T0 + 10 * n), st.floats(T0, T0 + 40), st.floats(0, 1e12))

streams = st.builds(
    StreamMetrics,
    stream_id=texts,
    model=texts,
    start_time=durations,
    bytes_received=amounts,
    time_to_first_chunk_ms=st.one_of(st.none(), durations),
    time_to_first_token_ms=st.one_of(st.none(), durations),
    max_gap_ms=durations,
    stalls=amounts,
    tokens_per_second=durations,
    last_error=st.one_of(st.none(), texts),
    status=st.sampled_from(sorted(STREAM_STATUSES)),
    raw_chunks=st.one_of(st.none(), st.lists(st.binary(max_size=5), max_size=3).map(tuple)),
)
records = st.builds(
    AgentMetrics,
    model=names,
    timestamp=times,
    provider=st.sampled_from(["openai", "anthropic", "unknown"]),
    response_model=st.one_of(st.none(), texts),
    operation=st.sampled_from(["chat", "embeddings"]),
    method=st.sampled_from(["generate", "stream"]),
    latency_ms=durations,
    status=st.sampled_from(sorted(STATUSES)),
    error_class=st.one_of(st.none(), st.sampled_from(["RateLimitError", "TimeoutError"]), texts),
    status_code=st.one_of(st.none(), st.integers(100, 599)),
    input_tokens=amounts,
    output_tokens=amounts,
    cached_tokens=amounts,
    reasoning_tokens=amounts,
    tokens_estimated=st.booleans(),
    cost_usd=dollars,
    price_version=st.one_of(st.none(), texts),
    retries=amounts,
    retry_delay_ms=durations,
    finish_reason=st.one_of(st.none(), texts),
    tools_used=st.lists(texts, max_size=3).map(tuple),
    request_id=st.one_of(st.none(), st.sampled_from(["req_1", "req_2"])),
    stream=st.one_of(st.none(), streams),
    tags=tags,
    sample_rate=st.floats(0, 1),
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "start_time": times,
        "end_time": times,
        "provider": st.sampled_from(["openai", "anthropic", "nobody"]),
        "model": names,
        "request_id": st.sampled_from(["req_1", "nowhere"]),
        "status": st.sampled_from(sorted(STATUSES)),
        "tags": st.dictionaries(names, names, max_size=2),
    },
)
