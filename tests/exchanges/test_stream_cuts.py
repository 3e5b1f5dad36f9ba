"""Recorded streams, cut as networks cut them: what is counted and told depends on the bytes alone, which pass unchanged."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import struct
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tellmeter import AgentMetrics, StreamReport
from tellmeter.wire.formats import by_path
from tests.exchanges.test_sdk_replay import SHAPES, run_async, run_sync
from tests.support.exchanges import EXCHANGES, Recorded, load, need_exchanges
from tests.support.paced import from_memory
from tests.support.sdk import http_of
from tests.support.watched import Watched

WAYS = [(http, is_async) for http in (httpx, httpx2) for is_async in (False, True)]
SEEN: Counter[str] = Counter()

# Seed 004's map of a stream's metrics, and the types of its values.
GUIDE = {
    "stream_id": str,
    "provider": str,
    "start_time": float,
    "current_time": float,
    "duration_ms": float,
    "bytes_received": int,
    "chunks_received": int,
    "bytes_per_second": float,
    "chunks_per_second": float,
    "avg_chunk_size": float,
    "error_count": int,
    "last_error": str | None,
    "status": str,
    "raw_chunks": tuple | None,
}


@cache
def streams() -> tuple[Recorded, ...]:
    """Every recorded stream to a path that is metered."""
    names = sorted({file.name.removesuffix(".jsonl").removesuffix(".stream") for file in EXCHANGES.glob("*.jsonl")})
    found = [one for name in names for one in load(*name.split(".", 1)) if one.is_stream]
    return tuple(one for one in found if one.body and by_path(one.path.partition("?")[0]) is not None)


def events_in(body: bytes) -> int:
    """The provider's events, counted in the plainest way."""
    if body.startswith(b"\0"):  # Amazon's messages begin with their length
        return sum(1 for _ in messages(body))
    if body.lstrip().startswith(b"["):
        return len(json.loads(body))
    text = body.decode().replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip().startswith("{"):
        return len([line for line in text.split("\n") if line.strip()])
    return sum(1 for event in text.split("\n\n") if is_event(event.split("\n")))


def is_event(lines: list[str]) -> bool:
    fields = [(name, value.removeprefix(" ")) for name, _, value in (line.partition(":") for line in lines)]
    data = "\n".join(value for name, value in fields if name == "data")
    return bool(data) and data != "[DONE]" and ("event", "ping") not in fields


def messages(body: bytes) -> Iterator[bytes]:
    while body:
        (size,) = struct.unpack_from(">I", body)
        yield body[:size]
        body = body[size:]


def cut(body: bytes, places: set[int]) -> list[bytes]:
    return [body[start:end] for start, end in pairwise([0, *sorted(places), len(body)])]


def some_cuts(body: bytes, seed: str) -> list[bytes]:
    """Pieces as TCP has them: mostly full segments, some that end early."""
    dice = random.Random(seed)
    places, at = set(), 0
    while (at := at + dice.choice((1, 7, dice.randint(1, 1448), 1448))) < len(body):
        places.add(at)
    return cut(body, places)


numbers = st.integers(0, 10_000)  # of a recorded stream, around and around
ways = st.sampled_from(WAYS)
# Pieces all of one size (one byte, too), or ends in any places.
cuts = st.one_of(st.integers(1, 1500), st.sets(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=60))


def pieces_of(body: bytes, where: int | set[float]) -> list[bytes]:
    places = range(where, len(body), where) if isinstance(where, int) else {int(at * len(body)) for at in where}
    return cut(body, set(places) - {0})


def play(
    watched: Watched, exchange: Recorded, pieces: list[bytes], http: ModuleType, is_async: bool, **more: str
) -> bytes:
    """What an application reads that asks without an SDK."""
    transports = from_memory(http, lambda: pieces, {**exchange.headers, **more})
    asked = {"method": "POST", "url": f"https://{exchange.host}{exchange.path}", "json": exchange.request}

    def read() -> bytes:
        with http.Client(transport=transports[0]) as client, client.stream(**asked) as response:
            return b"".join(response.iter_bytes())

    async def read_async() -> bytes:
        async with http.AsyncClient(transport=transports[1]) as client, client.stream(**asked) as response:
            return b"".join([part async for part in response.aiter_bytes()])

    return asyncio.run(read_async()) if is_async else read()


def told(watched: Watched) -> tuple[AgentMetrics, StreamReport]:
    found = watched.only()
    watched.reports.clear()
    asyncio.run(watched.sink.clear())
    return found


def counted(record: AgentMetrics) -> dict[str, Any]:
    """All of a record that its bytes decide."""
    names = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd")
    names += ("status", "error_class", "error_category", "finish_reason", "tools_used", "response_model", "method")
    names += ("tokens_estimated", "provider", "model")
    assert record.stream is not None
    stream = (
        "chunks_received",
        "bytes_received",
        "avg_chunk_size",
        "output_tokens",
        "status",
        "error_count",
        "last_error",
    )
    return {name: getattr(record, name) for name in names} | {
        f"stream.{name}": getattr(record.stream, name) for name in stream
    }


@cache
def whole(number: int) -> dict[str, Any]:
    """What is counted where the body comes in one piece."""
    exchange = streams()[number]
    with Watched() as watched:
        play(watched, exchange, [exchange.body], httpx, False)
        return counted(told(watched)[0])


def check_report(report: StreamReport, exchange: Recorded, pieces: list[bytes] | None) -> None:
    """Every key of the guide's map, of its type, and as the bytes have it."""
    for name, kind in GUIDE.items():
        assert isinstance(getattr(report, name), kind), name
    assert report.chunks_received == events_in(exchange.body)
    assert report.bytes_received == len(exchange.body)
    seconds = report.duration_ms / 1e3
    assert seconds > 0
    assert report.bytes_per_second == pytest.approx(len(exchange.body) / seconds)
    assert report.chunks_per_second == pytest.approx(report.chunks_received / seconds)
    assert report.avg_chunk_size == pytest.approx(len(exchange.body) / max(1, report.chunks_received))
    assert report.current_time - report.start_time == pytest.approx(report.duration_ms, abs=0.01)
    assert report.provider_wait_ms + report.consumer_wait_ms <= report.duration_ms + 0.01
    assert report.p50_gap_ms <= report.p95_gap_ms <= report.max_gap_ms <= report.duration_ms
    failed = exchange.expected["stream_error"]
    assert report.status == ("error" if failed else "completed")
    assert (report.error_count, report.last_error is not None) == ((1, True) if failed else (0, False))
    if pieces is None:
        assert report.raw_chunks is None
    elif exchange.headers.get("content-type"):
        assert report.raw_chunks == tuple(pieces)
    else:  # by its first bytes it is known for a stream, and those are one chunk
        assert b"".join(report.raw_chunks or ()) == exchange.body
    assert report.tags == {}


@pytest.mark.heavy
def test_each_recorded_stream_in_pieces_gives_what_it_gives_in_one() -> None:
    need_exchanges()
    wrong = []
    for number in range(len(streams())):
        whole(number)
    with Watched(include_raw_chunks=True) as watched:
        for number, exchange in enumerate(streams()):
            pieces = some_cuts(exchange.body, exchange.id)
            http, is_async = WAYS[number % len(WAYS)]
            try:
                assert play(watched, exchange, pieces, http, is_async) == exchange.body
                record, report = told(watched)
                check_report(report, exchange, pieces)
                assert counted(record) == whole(number)
                pings = exchange.body.count(b"event: ping")
                assert report.chunks_received + pings == exchange.expected["stream_events"]
            except AssertionError as fault:
                wrong.append(f"{exchange.provider} {exchange.api} {exchange.id}: {str(fault)[:300]}")
                watched.reports.clear()
                asyncio.run(watched.sink.clear())
            SEEN[exchange.provider] += 1
    assert not wrong, "\n".join(wrong)
    assert sum(SEEN.values()) >= 460 and len(SEEN) >= 19, SEEN


def check_cut(number: int, pieces: list[bytes], way: tuple[ModuleType, bool], **headers: str) -> None:
    number %= len(streams())
    exchange = streams()[number]
    with Watched() as watched:
        assert play(watched, exchange, pieces, *way, **headers) == exchange.body
        record, report = told(watched)
    check_report(report, exchange, None)
    assert counted(record) == whole(number)


def body_of(number: int) -> bytes:
    need_exchanges()
    return streams()[number % len(streams())].body


@settings(max_examples=150)
@given(numbers, cuts, ways)
def test_any_cut_gives_the_same(number: int, where: int | set[float], way: tuple[ModuleType, bool]) -> None:
    check_cut(number, pieces_of(body_of(number), where), way)


@settings(max_examples=60)
@given(numbers, cuts, ways)
def test_any_cut_of_a_compressed_stream_gives_the_same(
    number: int, where: int | set[float], way: tuple[ModuleType, bool]
) -> None:
    packed = gzip.compress(body_of(number), mtime=0)
    check_cut(number, pieces_of(packed, where), way, **{"content-encoding": "gzip"})


@settings(max_examples=60)
@given(numbers, cuts, ways)
def test_a_stream_whose_type_nobody_says_is_told_of_all_the_same(
    number: int, where: int | set[float], way: tuple[ModuleType, bool]
) -> None:
    body = body_of(number)
    check_cut(number, pieces_of(body, where), way, **{"content-type": "text/plain"})


def sdk_client(exchange: Recorded, pieces: list[bytes], is_async: bool) -> Any:
    sdk: Any = anthropic if exchange.api == "messages" else openai
    name = "Anthropic" if exchange.api == "messages" else "OpenAI"
    http = http_of(getattr(sdk, name))
    transport = from_memory(http, lambda: pieces, exchange.headers)[is_async]
    return getattr(sdk, f"Async{name}" if is_async else name)(
        api_key="k",
        base_url=f"https://{exchange.host}{exchange.path.partition('?')[0].removesuffix(SHAPES[exchange.api][0])}",
        max_retries=0,
        http_client=(http.AsyncClient if is_async else http.Client)(transport=transport),
    )


@pytest.mark.sdk
@settings(max_examples=100)
@given(numbers, cuts, st.booleans())
def test_an_sdk_reads_the_same_from_any_cut(number: int, where: int | set[float], is_async: bool) -> None:
    pieces = pieces_of(body_of(number), where)
    number %= len(streams())
    exchange = streams()[number]
    assume(exchange.api in SHAPES and exchange.path.partition("?")[0].endswith(SHAPES[exchange.api][0]))
    bare = run_sync(sdk_client(exchange, [exchange.body], False), exchange)[0]
    with Watched() as watched:
        client = sdk_client(exchange, pieces, is_async)
        got, _ = asyncio.run(run_async(client, exchange)) if is_async else run_sync(client, exchange)
        assert got == bare
        record, report = told(watched)
    assert report.chunks_received == events_in(exchange.body)
    assert report.bytes_received <= len(exchange.body)
    for name, value in counted(record).items():
        # An SDK stops at the end of the answer, and raises errors of its own.
        if name not in ("stream.bytes_received", "stream.avg_chunk_size", "error_class", "stream.last_error"):
            assert value == whole(number)[name], name
