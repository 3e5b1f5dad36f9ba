from __future__ import annotations

import math
import sqlite3

import pytest

from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks import query
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.support.answers import store_answers
from tests.unit.sinks.made import T0, deadline, record, run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    sink = SQLiteMetricsSink(tmp_path_factory.mktemp("answers") / "calls.db")
    yield sink
    sink.close()


class TestAnswers(store_answers(150, rel=1e-12, abs=1e-9)):
    def empty(self, store):
        connection = sqlite3.connect(store.path, isolation_level=None)
        connection.execute("DELETE FROM llm_metrics")
        connection.close()


def test_dollars_add_up_to_the_last_digit_where_plain_sums_lose_some(tmp_path):
    costs = [1e5] + [0.1] * 1000
    sink = SQLiteMetricsSink(tmp_path / "calls.db")
    assert sink.send([record(cost_usd=cost) for cost in costs], deadline()) == Delivered()
    assert run(sink.get_summary(None)).total_cost == pytest.approx(math.fsum(costs), abs=1e-11, rel=0)
    sink.close()


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
