"""Numbers, texts and clocks that nobody expects: what sinks write stays valid, and reads back as the record says."""

from __future__ import annotations

import datetime
import decimal
import fractions
import json
import math
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tellmeter import (
    AgentMetrics,
    InMemoryMetricsSink,
    JSONLMetricsSink,
    MetricsCollector,
    SQLiteMetricsSink,
)
from tellmeter.pipeline.spool import frames
from tellmeter.records import StreamMetrics
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.http import payload
from tests.support.metrics import read_page

NUMBERS = st.one_of(
    st.sampled_from(
        [
            math.nan,
            math.inf,
            -math.inf,
            -0.0,
            1e308,
            5e-324,
            10**400,
            -(10**400),
            2**63,
            2**63 - 1,
            True,
            False,
            None,
            "1",
            "nan",
            b"1",
            decimal.Decimal("NaN"),
            decimal.Decimal("1e999999"),
            decimal.Decimal("0.1"),
            fractions.Fraction(1, 3),
            numpy.float32("nan"),
            numpy.float64("inf"),
            numpy.int64(-5),
            numpy.uint64(2**64 - 1),
            numpy.bool_(True),
            numpy.array([1.0]),
            datetime.timedelta(1),
            1j,
            object(),
        ]
    ),
    st.floats(),
    st.integers(),
    st.decimals(),
)
FIELDS = ["timestamp", "latency_ms", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"]
FIELDS += ["reasoning_tokens", "cost_usd", "retries", "retry_delay_ms", "status_code", "sample_rate"]
TEXTS = st.one_of(
    st.text(max_size=50),
    st.sampled_from(
        ['"', "\\", "\n", "}", "\x00", "\ud800", "', DROP TABLE x; --", "a\u2028b", "\x1b[31m", "x" * 2000]
    ),
)
RECORDS = st.builds(
    lambda numbers, stream, text: AgentMetrics(
        model=text or "m",
        provider=text,
        request_id=text,
        tags={text or "t": text},
        stream=StreamMetrics(duration_ms=stream, bytes_received=stream, time_to_first_token_ms=stream),
        **numbers,
    ),
    st.dictionaries(st.sampled_from(FIELDS), NUMBERS),
    NUMBERS,
    TEXTS,
)
quick = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def strict(text: str | bytes) -> Any:
    """As a parser that takes no NaN reads it."""
    return json.loads(text, parse_constant=refuse)


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@pytest.mark.fault(18, 20)
@quick
@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_the_lines_of_a_file_are_json(tmp_path: Path, records: list[AgentMetrics]) -> None:
    path = tmp_path / "calls.jsonl"
    path.unlink(missing_ok=True)
    sink = JSONLMetricsSink(str(path))
    sink.send(records, time.monotonic() + 10)
    sink.close()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) == len(records)
    for line, record in zip(lines, records, strict=True):
        assert finite(strict(line))
        assert msgspec.json.decode(line, type=AgentMetrics) == record


@pytest.mark.fault(18, 20)
@quick
@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_the_body_of_a_request_is_json(records: list[AgentMetrics]) -> None:
    found = strict(payload(records))["metrics"]
    assert finite(found)
    assert msgspec.convert(found, list[AgentMetrics]) == records


@pytest.mark.security(9)
@pytest.mark.fault(18, 20)
@quick
@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_the_rows_of_a_database_are_the_records(tmp_path: Path, records: list[AgentMetrics]) -> None:
    path = tmp_path / "calls.db"
    path.unlink(missing_ok=True)
    sink = SQLiteMetricsSink(str(path))
    sink.open()
    sink.send(records, time.monotonic() + 10)
    sink.close()
    with sqlite3.connect(path) as database:
        tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
        rows = database.execute("select * from llm_metrics").fetchall()
    database.close()
    assert "llm_metrics" in tables and len(rows) == len(records)
    assert all(finite(row) for row in rows)
    for file in tmp_path.glob("calls.db*"):
        file.unlink()


@pytest.mark.fault(18, 20)
@quick
@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_the_frames_of_the_spool_are_the_records(records: list[AgentMetrics]) -> None:
    data = frames.encode(records, 0)
    frame = frames.find(lambda size, offset: data[offset : offset + size], 0, len(data))
    assert frame is not None
    assert frames.decode(frame) == records
    assert finite([msgspec.to_builtins(record) for record in records])


@pytest.mark.security(9)
@pytest.mark.fault(18, 20)
@quick
@given(st.lists(st.tuples(NUMBERS, TEXTS), max_size=5), st.lists(RECORDS, max_size=3))
@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_page_of_metrics_is_what_prometheus_reads(
    openmetrics: bool, values: list[tuple[Any, str]], records: list[AgentMetrics]
) -> None:
    registry = MetricsRegistry()
    collector = MetricsCollector(sinks=[InMemoryMetricsSink()], registry=registry)
    for value, text in values:
        collector.increment_counter("c", value, {"label": text})
        collector.record_histogram("h", value, {"label": text})
        collector.set_gauge("g", value, {"label": text})
    for record in records:
        collector.record(record)
    page = registry.text(openmetrics=openmetrics)
    read = read_page(page, openmetrics=openmetrics)  # refuses what a scraper would, and any series that is there twice
    assert not any(math.isnan(value) for family in read.values() for value in family.samples.values())
    assert collector.shutdown_sync(20).complete


# ---------------------------------------------------------------------- clocks


@pytest.mark.fault(21)
@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e9, 1e9])
def test_a_wall_clock_that_jumps_makes_no_duration_wrong(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[AgentMetrics] = []

    class Memory:
        write = staticmethod(kept.append)

    collector = MetricsCollector(sinks=[Memory()], registry=MetricsRegistry())
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    with collector.track_request("openai", "gpt-4o") as call:
        offset = jump
        call.output_tokens = 1
    with collector.track_request("openai", "gpt-4o"):
        offset = 0.0
    assert collector.shutdown_sync(60).complete  # and no wait goes by that clock
    assert len(kept) == 2
    assert all(0.0 <= record.latency_ms < 60_000 for record in kept)  # an hour would be 3,600,000


@pytest.mark.fault(21)
def test_times_before_1970_and_beyond_the_calendar_do_no_harm(tmp_path: Path) -> None:
    sink = JSONLMetricsSink(str(tmp_path / "calls.jsonl"))
    collector = MetricsCollector(sinks=[sink, InMemoryMetricsSink()], registry=MetricsRegistry())
    for timestamp in (-1e12, -1.0, 0.0, 1e18, 253402300800.0):
        collector.record(AgentMetrics(model="m", timestamp=timestamp, latency_ms=-5.0))
    assert collector.shutdown_sync(20).complete
    lines = [strict(line) for line in (tmp_path / "calls.jsonl").read_bytes().splitlines()]
    assert len(lines) == 5
    assert all(line["latency_ms"] == 0.0 for line in lines)
