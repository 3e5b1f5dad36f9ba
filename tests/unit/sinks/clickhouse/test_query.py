from __future__ import annotations

import asyncio
import math
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
from tellmeter.sinks.clickhouse import ClickHouseMetricsSink
from tellmeter.sinks.clickhouse import query as module
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tests.support.clickhouse import shared, table
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, record, run


@pytest.fixture(scope="module")
def store():
    sink = ClickHouseMetricsSink(shared().url, table=table())
    yield sink
    sink.close()


def same(left: MetricsSummary, right: MetricsSummary) -> None:
    """Whole numbers, names and percentiles are equal; averages and dollars to the last digits of a float.

    Kahan's sum may differ in the last digits from the exact one.
    """
    for field, ours in msgspec.structs.asdict(left).items():
        theirs = getattr(right, field)
        if theirs is not None and (field.startswith("avg") or field == "total_cost"):
            assert ours == pytest.approx(theirs, rel=1e-15, abs=0), field
        else:
            assert ours == theirs, field
            if isinstance(ours, dict):
                assert list(ours) == list(theirs), field


def compare(store: ClickHouseMetricsSink, rows: list[Any], ask: Any) -> tuple[Any, Any]:
    """The answers of both stores to one question."""
    memory = InMemoryMetricsSink(ttl_seconds=None, max_size=100_000)
    for row in rows:
        memory.write(row)
    store.check()
    shared().run(f"TRUNCATE TABLE {store.table}")
    if rows:
        assert store.send(rows, deadline(60)) == Delivered()

    async def both() -> tuple[Any, Any]:
        return await ask(memory), await ask(store)

    return asyncio.run(both())


differential = settings(deadline=None, max_examples=30)
rows_of = st.lists(made.records, max_size=25)


@given(rows=rows_of, filters=made.filters)
@differential
def test_summaries_are_those_of_the_store_in_memory(store, rows, filters):
    same(*compare(store, rows, lambda one: one.get_summary(None, **filters)))


@given(rows=rows_of, filters=made.filters, limit=st.integers(0, 30))
@differential
def test_records_come_back_equal_and_in_the_same_order(store, rows, filters, limit):
    memory, ours = compare(store, rows, lambda one: one.get_metrics(limit=limit, **filters))
    assert ours == memory


@given(rows=rows_of, filters=made.filters, step=st.one_of(st.sampled_from([1.0, 7.0, 60.0]), st.floats(1e-3, 1e300)))
@differential
def test_series_are_those_of_the_store_in_memory(store, rows, filters, step):
    memory, ours = compare(store, rows, lambda one: one.get_series(step, **filters))
    assert [point.timestamp for point in memory] == [point.timestamp for point in ours]
    assert {point.step for point in ours} <= {step}
    for left, right in zip(memory, ours, strict=True):
        same(left.summary, right.summary)


@given(
    rows=rows_of,
    filters=made.filters,
    by=st.one_of(st.sampled_from(query.BREAKDOWN_FIELDS), made.names.map(lambda name: f"tag:{name}")),
    limit=st.integers(0, 4),
)
@differential
def test_breakdowns_are_those_of_the_store_in_memory(store, rows, filters, by, limit):
    memory, ours = compare(store, rows, lambda one: one.get_breakdown(by, limit=limit, **filters))
    assert list(memory) == list(ours)
    for key, summary in memory.items():
        same(summary, ours[key])


@given(
    rows=rows_of,
    metric=st.sampled_from(sorted(query.METRICS)),
    p=st.one_of(st.integers(0, 100), st.floats(0, 100)),
    filters=made.filters,
)
@differential
def test_percentiles_are_those_of_the_store_in_memory(store, rows, metric, p, filters):
    memory, ours = compare(store, rows, lambda one: one.get_percentile(p, metric, None, **filters))
    assert ours == memory
    assert type(ours) is float


@given(tags=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
@differential
def test_tags_of_any_spelling_are_found(store, tags):
    row = record(tags=tags)
    rows = [row, record(tags={"other": "x"}), record()]

    async def ask(one):
        found = [(await one.get_metrics(tags={name: value})) for name, value in row.tags.items()]
        return found, [list(await one.get_breakdown(f"tag:{name}")) for name in row.tags if name]

    memory, ours = compare(store, rows, ask)
    assert memory == ours


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "\ud800",
        "'; DROP TABLE calls; --",
        "%s %(a)s %%",
        "\\",
        "{}",
        '"',
        "null",
        "a\tb",
        "a\\nb",
        "{x:String}",
        "?&=%",
        "x" * 3000,
    ],
)
def test_filters_of_any_spelling_are_answered(store, text):
    filters = [{"model": text}, {"provider": text}, {"request_id": text}, {"tags": {text: text}}, {"tags": {"f": text}}]
    rows = [record(model=text, provider=text, request_id=text, tags={text: text, "f": text}), record()]
    rows = [row for row in rows if row.model == text] or [record()]

    async def ask(one):
        return [await one.get_metrics(**given) for given in filters], await one.get_breakdown(f"tag:{text}")

    memory, ours = compare(store, rows, ask)
    assert memory == ours


@pytest.mark.parametrize("bound", [math.inf, -math.inf, math.nan, 10**400, 0, -1.5])
def test_bounds_of_any_size_are_answered(store, bound):
    rows = [record(), record(timestamp=1.7e308), record(timestamp=5e-324)]

    async def ask(one):
        return [await one.get_metrics(start_time=bound), await one.get_metrics(end_time=bound)]

    memory, ours = compare(store, rows, ask)
    assert memory == ours


def test_sums_of_the_largest_whole_numbers_are_exact(store):
    rows = [record(input_tokens=MAX_INT, output_tokens=MAX_INT - 1, retries=MAX_INT) for _ in range(5)]
    _, summary = compare(store, rows, lambda one: one.get_summary(None))
    assert summary.input_tokens == 5 * MAX_INT
    assert summary.total_tokens == 10 * MAX_INT - 5
    assert summary.retries == 5 * MAX_INT


def test_sums_of_the_largest_floats_are_finite(store):
    stream = StreamMetrics(time_to_first_token_ms=1.7e308)
    rows = [record(latency_ms=1.7e308, cost_usd=1.7e308, stream=found) for found in (stream, stream, None)]
    memory, ours = compare(store, rows, lambda one: one.get_summary(None))
    same(memory, ours)
    assert all(map(math.isfinite, (ours.total_cost, ours.avg_latency_ms, ours.avg_ttft_ms)))


def test_dollars_add_up_where_plain_sums_lose_digits(store):
    costs = [1e5] + [0.1] * 1000
    rows = [record(cost_usd=cost, model=f"m{number % 7}") for number, cost in enumerate(costs)]
    _, summary = compare(store, rows, lambda one: one.get_summary(None))
    assert summary.total_cost == pytest.approx(100_100.0, rel=1e-15, abs=0)
    assert sum(costs) != pytest.approx(100_100.0, rel=1e-15, abs=0)


@given(costs=st.lists(st.floats(0, 1e300), min_size=1, max_size=2000))
@settings(deadline=None, max_examples=10)
def test_sums_of_any_floats_are_within_a_few_units_of_the_exact_one(store, costs):
    rows = [record(cost_usd=cost, latency_ms=cost) for cost in costs]
    same(*compare(store, rows, lambda one: one.get_summary(None)))


def test_more_points_than_an_answer_holds_are_refused(store):
    rows = [record(n) for n in range(query.MAX_POINTS + 1)]
    with pytest.raises(ConfigError, match="more than 20,000 points"):
        compare(store, rows, lambda one: one.get_series(1))


def test_what_came_twice_counts_once_in_every_answer_before_and_after_merges(store):
    rows = [record(n, cost_usd=1.0, input_tokens=2, tags={"f": "x"}) for n in range(50)]
    compare(store, rows, lambda one: one.get_summary(None))
    shared().run(f"SYSTEM STOP MERGES {store.table}")
    for again in (rows[10:30], rows[::-1], rows[:1]):  # other batches than before, as from a spool
        assert store.send(again, deadline()) == Delivered()
    assert int(shared().run(f"SELECT count() AS n FROM {store.table}")[0]["n"]) == 121

    async def ask(one):
        return [
            await one.get_metrics(),
            await one.get_summary(None),
            await one.get_series(10),
            await one.get_breakdown("tag:f"),
            await one.get_percentile(50, "tokens", None),
        ]

    before = run(ask(store))
    assert before[0] == rows[::-1]
    assert (before[1].count, before[1].total_cost, before[1].total_tokens) == (50, 50.0, 100)
    assert (before[3]["x"].count, before[4]) == (50, 2.0)
    shared().run(f"SYSTEM START MERGES {store.table}")
    shared().run(f"OPTIMIZE TABLE {store.table} FINAL")
    assert int(shared().run(f"SELECT count() AS n FROM {store.table}")[0]["n"]) == 50
    assert run(ask(store)) == before


def test_a_short_window_of_many_calls_reads_no_more_than_it_needs(store):
    compare(store, [record(number) for number in range(30_000)], lambda one: one.get_metrics(limit=1))
    condition, values = module.where(query.make_query(start_time=made.T0 + 29_990))
    sql = f"EXPLAIN ESTIMATE SELECT latency_ms FROM {store.table} FINAL WHERE {condition}"
    for name, value in values.items():
        sql = sql.replace(f"{{{name}:UInt64}}", str(value))
    (plan,) = shared().run(f"SELECT * FROM ({sql})") or shared().run(sql)
    assert int(plan["rows"]) < 10_000
    assert run(store.get_summary(None, start_time=made.T0 + 29_990)).count == 10


@pytest.mark.parametrize("limit", [0, 1, 2**63 - 1])
def test_limits_of_any_size_are_answered(store, limit):
    rows = [record(1), record(2, model="b")]

    async def ask(one):
        return [await one.get_metrics(limit=limit), list(await one.get_breakdown("model", limit=limit))]

    memory, ours = compare(store, rows, ask)
    assert memory == ours
