from __future__ import annotations

import asyncio
import math
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.cleaning import MAX_INT
from tellmeter.errors import ConfigError
from tellmeter.pipeline.outcome import Delivered
from tellmeter.records import MetricsSummary, StreamMetrics
from tellmeter.sinks import query
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, deadline, record


def same(left: MetricsSummary, right: MetricsSummary) -> None:
    """Whole numbers, names and percentiles are equal; averages and dollars to the last digits of a float."""
    for field, ours in msgspec.structs.asdict(left).items():
        theirs = getattr(right, field)
        if theirs is not None and (field.startswith("avg") or field == "total_cost"):
            assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-9), field
        else:
            assert ours == theirs, field
            if isinstance(ours, dict):
                assert list(ours) == list(theirs), field


async def compare(rows: list[Any], ask: Any) -> tuple[Any, Any]:
    """The answers of both stores to one question."""
    memory = InMemoryMetricsSink(ttl_seconds=None)
    for row in rows:
        memory.write(row)
    with tempfile.TemporaryDirectory() as folder:
        sqlite = SQLiteMetricsSink(Path(folder) / "calls.db")
        if rows:
            assert sqlite.send(rows, deadline()) == Delivered()
        try:
            return await ask(memory), await ask(sqlite)
        finally:
            sqlite.close()


differential = settings(deadline=None, max_examples=150)
rows_of = st.lists(made.records, max_size=25)


@given(rows_of, made.filters)
@differential
def test_summaries_are_those_of_the_store_in_memory(rows, filters):
    same(*asyncio.run(compare(rows, lambda store: store.get_summary(None, **filters))))


@given(rows_of, made.filters, st.integers(0, 30))
@differential
def test_records_come_back_equal_and_in_the_same_order(rows, filters, limit):
    memory, sqlite = asyncio.run(compare(rows, lambda store: store.get_metrics(limit=limit, **filters)))
    assert sqlite == memory


@given(rows_of, made.filters, st.one_of(st.sampled_from([1.0, 7.0, 60.0]), st.floats(1e-3, 1e13)))
@differential
def test_series_are_those_of_the_store_in_memory(rows, filters, step):
    memory, sqlite = asyncio.run(compare(rows, lambda store: store.get_series(step, **filters)))
    assert [point.timestamp for point in memory] == [point.timestamp for point in sqlite]
    assert {point.step for point in sqlite} <= {step}
    for left, right in zip(memory, sqlite, strict=True):
        same(left.summary, right.summary)


@given(
    rows_of,
    made.filters,
    st.one_of(st.sampled_from(query.BREAKDOWN_FIELDS), made.names.map(lambda name: f"tag:{name}")),
    st.integers(0, 4),
)
@differential
def test_breakdowns_are_those_of_the_store_in_memory(rows, filters, by, limit):
    memory, sqlite = asyncio.run(compare(rows, lambda store: store.get_breakdown(by, limit=limit, **filters)))
    assert list(memory) == list(sqlite)
    for key, summary in memory.items():
        same(summary, sqlite[key])


@given(rows_of, st.sampled_from(sorted(query.METRICS)), st.one_of(st.integers(0, 100), st.floats(0, 100)), made.filters)
@differential
def test_percentiles_are_those_of_the_store_in_memory(rows, metric, p, filters):
    memory, sqlite = asyncio.run(compare(rows, lambda store: store.get_percentile(p, metric, None, **filters)))
    assert sqlite == pytest.approx(memory, rel=1e-12)
    assert type(sqlite) is float


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
@settings(deadline=None, max_examples=60)
def test_tags_of_any_spelling_are_found(tags):
    row = record(tags=tags)
    rows = [row, record(tags={"other": "x"}), record()]

    async def ask(store):
        found = [(await store.get_metrics(tags={name: value})) for name, value in row.tags.items()]
        return found, [list(await store.get_breakdown(f"tag:{name}")) for name in row.tags if name]

    memory, sqlite = asyncio.run(compare(rows, ask))
    assert memory == sqlite


def test_sums_of_the_largest_whole_numbers_are_exact():
    rows = [record(input_tokens=MAX_INT, output_tokens=MAX_INT - 1, retries=MAX_INT) for _ in range(5)]
    _, summary = asyncio.run(compare(rows, lambda store: store.get_summary(None)))
    assert summary.input_tokens == 5 * MAX_INT
    assert summary.total_tokens == 10 * MAX_INT - 5
    assert summary.retries == 5 * MAX_INT


def test_sums_of_the_largest_floats_are_finite():
    stream = StreamMetrics(time_to_first_token_ms=1.7e308)
    rows = [record(latency_ms=1.7e308, cost_usd=1.7e308, stream=found) for found in (stream, stream, None)]
    memory, sqlite = asyncio.run(compare(rows, lambda store: store.get_summary(None)))
    same(memory, sqlite)
    assert all(map(math.isfinite, (sqlite.total_cost, sqlite.avg_latency_ms, sqlite.avg_ttft_ms)))


def test_dollars_add_up_to_the_last_digit_where_plain_sums_lose_some():
    costs = [1e5] + [0.1] * 1000
    exact, plain = math.fsum(costs), 0.0
    for cost in costs:
        plain += cost
    assert abs(plain - exact) > 1e-10
    rows = [record(cost_usd=cost) for cost in costs]
    _, summary = asyncio.run(compare(rows, lambda store: store.get_summary(None)))
    assert summary.total_cost == pytest.approx(exact, abs=1e-11, rel=0)


def test_more_points_than_an_answer_holds_are_refused():
    rows = [record(n) for n in range(query.MAX_POINTS + 1)]
    with pytest.raises(ConfigError, match="more than 20,000 points"):
        asyncio.run(compare(rows, lambda store: store.get_series(1)))


def test_questions_are_answered_from_the_index_alone(tmp_path):
    from tellmeter.sinks.sqlite import query as sqlite_query
    from tellmeter.sinks.sqlite import schema as sqlite_schema

    connection = sqlite_schema.connect(tmp_path / "calls.db", create=True)
    plans = []

    class Explained:
        def execute(self, sql, arguments=()):
            plans.extend(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", arguments))
            return connection.execute(sql, arguments)

    connection.execute(sqlite_schema.INSERT, sqlite_schema.row_of(record(tags={"f": "x"})))
    some = query.make_query(start_time=T0, model="gpt-4o", status="success", tags={"f": "x"})
    for question in (query.Query(), some):
        sqlite_query.summary(Explained(), question)
        sqlite_query.series(Explained(), question, 60.0)
        for by in (*query.BREAKDOWN_FIELDS, "tag:f"):
            sqlite_query.breakdown(Explained(), question, by, 10)
        for metric in query.METRICS:
            sqlite_query.percentile(Explained(), question, metric, 50)
    connection.close()
    reads = [plan for plan in plans if "llm_metrics" in plan]
    assert reads
    assert [plan for plan in reads if "COVERING INDEX llm_metrics_time" not in plan] == []
