from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks import query
from tellmeter.sinks.clickhouse import ClickHouseMetricsSink
from tellmeter.sinks.clickhouse import query as module
from tests.support.answers import store_answers
from tests.support.clickhouse import shared, table
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, record, run


@pytest.fixture(scope="module")
def store():
    sink = ClickHouseMetricsSink(shared().url, table=table())
    yield sink
    sink.close()


def empty(store):
    store.check()
    shared().run(f"TRUNCATE TABLE {store.table}")


class TestAnswers(store_answers(30, rel=1e-15, abs=0)):
    """Kahan's sum may differ in the last digits from the exact one."""

    def empty(self, store):
        empty(store)

    @given(costs=st.lists(st.floats(0, 1e300), min_size=1, max_size=2000))
    @settings(deadline=None, max_examples=10)
    def test_sums_of_any_floats_are_within_a_few_units_of_the_exact_one(self, store, costs):
        rows = [record(cost_usd=cost, latency_ms=cost) for cost in costs]
        self.same(*self.compare(store, rows, lambda one: one.get_summary(None)))


def test_what_came_twice_counts_once_in_every_answer_before_and_after_merges(store):
    rows = [record(n, cost_usd=1.0, input_tokens=2, tags={"f": "x"}) for n in range(50)]
    empty(store)
    assert store.send(rows, deadline()) == Delivered()
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
    empty(store)
    assert store.send([record(number) for number in range(30_000)], deadline(60)) == Delivered()
    condition, values = module.where(query.make_query(start_time=made.T0 + 29_990))
    sql = f"EXPLAIN ESTIMATE SELECT latency_ms FROM {store.table} FINAL WHERE {condition}"
    for name, value in values.items():
        sql = sql.replace(f"{{{name}:UInt64}}", str(value))
    (plan,) = shared().run(f"SELECT * FROM ({sql})") or shared().run(sql)
    assert int(plan["rows"]) < 10_000
    assert run(store.get_summary(None, start_time=made.T0 + 29_990)).count == 10
