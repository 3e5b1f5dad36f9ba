from __future__ import annotations

import pytest

from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks import query
from tellmeter.sinks.postgresql import PostgreSQLMetricsSink
from tests.support.answers import store_answers
from tests.support.postgresql import shared, table
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, record, run


@pytest.fixture(scope="module")
def store():
    sink = PostgreSQLMetricsSink(shared().url(), table=table())
    yield sink
    sink.close()


class TestAnswers(store_answers(60, rel=1e-15, abs=0)):
    """Averages and dollars are added up as decimals: their sum may differ in the last digit from that of the floats."""

    def empty(self, store):
        shared().run(f"TRUNCATE {store.table}")

    def test_dollars_add_up_to_the_last_digit(self, store):
        rows = [record(cost_usd=cost, model=f"m{number % 7}") for number, cost in enumerate([1e5] + [0.1] * 1000)]
        _, summary = self.compare(store, rows, lambda one: one.get_summary(None))
        assert summary.total_cost == 100_100.0

    def test_dollars_of_several_models_are_rounded_once(self, store):
        rows = [record(model=str(cost), cost_usd=cost) for cost in (2.0**53, 1.0, 1e-20)]
        memory, ours = self.compare(store, rows, lambda one: one.get_summary(None))
        assert memory.total_cost == ours.total_cost == 2.0**53 + 2


def test_a_short_window_of_many_calls_reads_the_index_not_the_table(store):
    store.check()
    server = shared()
    server.run(f"TRUNCATE {store.table}")
    assert store.send([record(number) for number in range(5000)], deadline(60)) == Delivered()
    server.run(f"ANALYZE {store.table}")
    plans = []

    class Explained:
        def __init__(self, connection):
            self.connection = connection

        def execute(self, sql, arguments=()):
            plans.extend(row[0] for row in self.connection.execute(f"EXPLAIN {sql}", arguments))
            return self.connection.execute(sql, arguments)

    from tellmeter.sinks.postgresql import query as module

    window = query.make_query(start_time=made.T0 + 4990)
    store._answer(lambda connection: module.summary(Explained(connection), store._name, window))
    assert "Seq Scan" not in "".join(plans)
    assert "Index" in "".join(plans)
    assert run(store.get_summary(None, start_time=made.T0 + 4990)).count == 10
