from __future__ import annotations

import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.cleaning import MAX_INT
from tellmeter.errors import SchemaTooNew, StoreError
from tellmeter.pipeline.outcome import Delivered
from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.clickhouse import ClickHouseMetricsSink
from tellmeter.sinks.clickhouse import schema as schemas
from tellmeter.sinks.clickhouse.client import Client
from tellmeter.sinks.clickhouse.rows import COLUMNS
from tellmeter.sinks.sending.sender import HTTPSender
from tests.support.clickhouse import shared, table
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, deadline, record, run


@pytest.fixture(scope="module")
def sink():
    one = ClickHouseMetricsSink(shared().url, table=table())
    yield one
    one.close()


def back(sink, row):
    """A record, written and read."""
    assert sink.send([row], deadline()) == Delivered()
    shared().run(f"OPTIMIZE TABLE {sink.table}")
    (found,) = [one for one in run(sink.get_metrics(start_time=row.timestamp)) if one.id == row.id]
    return found


def tables(name, **options):
    return schemas.Tables(database="default", table=name, **options)


def prepare(name, *, create=True, **options):
    client = Client(HTTPSender(shared().url, name="test"), "/")
    try:
        schemas.prepare(client, "there", tables(name, **options), time.monotonic() + 30, create=create)
    finally:
        client.sender.close()


def facts(name, what="comment"):
    (found,) = shared().run(f"SELECT {what} AS found FROM system.tables WHERE name = {{n:String}}", n=name)
    return found["found"]


any_float = st.floats(0, sys.float_info.max, allow_nan=False)
any_text = st.text(max_size=20)
any_record = st.builds(
    AgentMetrics,
    model=any_text,
    provider=any_text,
    error_class=any_text,
    finish_reason=any_text,
    request_id=any_text,
    trace_id=any_text,
    timestamp=any_float,
    latency_ms=any_float,
    cost_usd=any_float,
    retry_delay_ms=any_float,
    input_tokens=st.integers(0, MAX_INT),
    tools_used=st.lists(any_text, max_size=4).map(tuple),
    tags=st.dictionaries(any_text, any_text, max_size=4),
    stream=st.none()
    | st.builds(
        StreamMetrics,
        start_time=any_float,
        max_gap_ms=any_float,
        time_to_first_chunk_ms=any_float,
        last_error=any_text,
        bytes_received=st.integers(0, MAX_INT),
    ),
)


@given(batch=st.lists(st.one_of(made.records, any_record), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_number_and_any_text_come_back_as_they_were(sink, batch):
    sink.check()
    shared().run(f"TRUNCATE TABLE {sink.table}")
    assert sink.send(batch, deadline(60)) == Delivered()
    ordered = sorted(batch, key=lambda row: row.timestamp)[::-1]
    assert run(sink.get_metrics()) == ordered


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": MAX_INT, "output_tokens": MAX_INT, "reasoning_tokens": MAX_INT, "retries": MAX_INT},
        {"latency_ms": 1.7976931348623157e308, "cost_usd": 1.7976931348623157e308},
        {"latency_ms": 5e-324, "cost_usd": 5e-324},
        {"latency_ms": -0.0, "cost_usd": -0.0, "retry_delay_ms": -0.0},
        {"cost_usd": 0.1 + 0.2, "latency_ms": 1.7976931348623155e308, "retry_delay_ms": 2.2250738585072011e-308},
        {"timestamp": 0.0},
        {"timestamp": 1.7e308},
        {"timestamp": 1700000000.1234567},
        {"model": "'; DROP TABLE llm_metrics; --", "tags": {'{"a"}': "\\x00 %s NULL"}},
        {"tags": {"": "null", "a": "\\u0000"}, "tools_used": ("NULL", "", "{}", 'a","b', "\\")},
        {"model": "\0\ud800 \x1f", "tags": {"\0": "\ud800"}, "tools_used": ("\0",)},
        {"model": "日本 \U0010ffff \ufffe", "id": "any text, not a UUID"},
        {"model": "m" * 2048, "tags": {f"t{number}": "x" * 1000 for number in range(32)}},
    ],
)
def test_values_at_their_ends_come_back_as_they_were(sink, fields):
    row = record(**fields)
    assert back(sink, row) == row


def test_every_field_is_a_typed_column_for_other_tools(sink):
    row = record(
        cost_usd=0.1, tags={"feature": "chat"}, tools_used=("search",), stream=StreamMetrics(stalls=3), request_id="r"
    )
    back(sink, row)
    sql = f"""
        SELECT timestamp = fromUnixTimestamp64Milli({int(T0)} * 1000) AS time, cost_usd, tags['feature'] AS feature,
        tools_used[1] AS tool, stalls, JSONExtractInt(stream, 'stalls') AS inside, error_class,
        toTypeName(timestamp) AS kind FROM {sink.table} WHERE id = {{id:String}}
    """
    assert shared().run(sql, id=row.id) == [
        {
            "time": 1, "cost_usd": 0.1, "feature": "chat", "tool": "search", "stalls": 3, "inside": 3,
            "error_class": None, "kind": "DateTime64(6, 'UTC')",
        }
    ]  # fmt: skip
    columns = {row["name"] for row in shared().run(f"DESCRIBE TABLE {sink.table}")}
    assert columns == set(COLUMNS)


def test_a_time_beyond_what_other_tools_know_is_the_last_that_they_do(sink):
    row = record(timestamp=1e300)
    back(sink, row)
    sql = f"SELECT toString(timestamp) AS time, unix_seconds FROM {sink.table} WHERE id = {{id:String}}"
    assert shared().run(sql, id=row.id) == [{"time": "2299-12-31 23:59:59.000000", "unix_seconds": 1e300}]


def test_calls_of_many_months_are_one_batch(sink):
    rows = [record(number * 86_400 * 40) for number in range(150)]
    assert sink.send(rows, deadline(60)) == Delivered()


# ---------------------------------------------------------------------- versions


def test_tables_are_made_once_with_their_version_in_a_comment():
    name = table()
    with pytest.raises(StoreError, match="there is no such table; it is made when the first call is recorded"):
        prepare(name, create=False)
    prepare(name)
    assert facts(name) == f"tellmeter schema {len(schemas.MIGRATIONS)}: one row per LLM call"
    prepare(name, create=False)
    assert facts(name, "engine") == "ReplacingMergeTree"
    assert facts(f"{name}_minutes", "engine") == "AggregatingMergeTree"
    assert facts(f"{name}_to_minutes", "engine") == "MaterializedView"


def test_a_table_of_an_older_version_is_brought_to_the_newest(monkeypatch):
    name = table()
    old = ClickHouseMetricsSink(shared().url, table=name)
    assert old.send([record(1)], deadline()) == Delivered()
    mood = ("ALTER TABLE {local}{on_cluster} ADD COLUMN IF NOT EXISTS mood String",)
    other = ("ALTER TABLE {local}{on_cluster} ADD COLUMN IF NOT EXISTS other Int64 DEFAULT 7",)
    monkeypatch.setattr(schemas, "MIGRATIONS", (*schemas.MIGRATIONS, (mood, ()), (other, ())))
    new = ClickHouseMetricsSink(shared().url, table=name)
    assert new.send([record(2)], deadline()) == Delivered()
    (found,) = shared().run(f"SELECT count() AS n, sum(other) AS o, countIf(mood != '') AS m FROM {name}")
    assert [int(value) for value in found.values()] == [2, 14, 0]
    assert facts(name).startswith("tellmeter schema 3:")
    assert old.send([record(3)], deadline()) == Delivered()  # who wrote before goes on
    assert len(run(new.get_metrics())) == 3
    old.close()
    new.close()


def test_what_an_older_table_has_no_column_for_is_left_out(sink):
    name = table()
    prepare(name)
    one = ClickHouseMetricsSink(shared().url, table=name)
    line = b'{"id":"a","unix_seconds":1,"a_field_of_tomorrow":5}'
    one._insert_some(["a"], [line], 0, deadline())
    assert [row["id"] for row in shared().run(f"SELECT id FROM {name}")] == ["a"]
    one.close()


def test_making_that_was_broken_off_is_finished_by_the_next():
    name = table()
    half = tables(name).statements(0)[:1]
    shared().run(half[0])
    assert facts(name).startswith("tellmeter schema 0")
    prepare(name)
    assert facts(name).startswith("tellmeter schema 1")
    assert facts(f"{name}_to_minutes", "engine") == "MaterializedView"


def test_a_table_of_a_newer_version_is_refused():
    name = table()
    prepare(name)
    shared().run(f"ALTER TABLE {name} MODIFY COMMENT 'tellmeter schema 99: one row per LLM call'")
    with pytest.raises(SchemaTooNew, match=r"version 99 of the table.*upgrade tellmeter"):
        prepare(name)


@pytest.mark.parametrize(
    "ddl",
    [
        "CREATE TABLE {name} (id String) ENGINE = MergeTree ORDER BY id",
        "CREATE TABLE {name} (id String) ENGINE = Memory COMMENT 'mine'",
        "CREATE VIEW {name} AS SELECT 1",
    ],
)
def test_a_table_that_is_not_ours_is_left_alone(ddl):
    name = table()
    shared().run(ddl.format(name=name))
    with pytest.raises(StoreError, match="that tellmeter did not make; name another one"):
        prepare(name)
    assert shared().run("SELECT count() AS n FROM system.tables WHERE startsWith(name, {n:String})", n=name)[0][
        "n"
    ] in (1, "1")


def test_many_that_start_at_once_make_the_tables_once():
    name, failed = table(), []
    gate = threading.Barrier(6)

    def start():
        gate.wait(30)
        try:
            prepare(name, retention_days=5)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert facts(name).startswith("tellmeter schema 1:")


# ---------------------------------------------------------------------- retention


def test_retention_is_the_servers_and_days_are_thrown_away_whole():
    name = table()
    prepare(name, retention_days=2)
    engine = facts(name, "engine_full")
    assert "TTL toDateTime(least(unix_seconds + 172800, 4294967295.))" in engine
    assert "PARTITION BY toYYYYMMDD(timestamp)" in engine
    assert "ttl_only_drop_parts = 1" in engine
    one = ClickHouseMetricsSink(shared().url, table=name, retention_days=2)
    now = time.time()
    one.send([record(timestamp=now - days * 86_400) for days in (0, 1, 5, 50)], deadline())
    one.send([record(timestamp=9e300)], deadline())
    shared().run(f"OPTIMIZE TABLE {name} FINAL")
    assert len(run(one.get_metrics())) == 3
    one.close()


def test_a_long_retention_is_by_month():
    name = table()
    prepare(name, retention_days=365)
    assert "PARTITION BY toYYYYMM(timestamp)" in facts(name, "engine_full")


def test_retention_that_is_changed_changes_the_table():
    name = table()
    prepare(name)
    assert "TTL" not in facts(name, "engine_full")
    prepare(name, retention_days=30)
    assert f"unix_seconds + {30 * 86_400}" in facts(name, "engine_full")
    assert f"+ {30 * 86_400}" in facts(f"{name}_minutes", "engine_full")
    prepare(name, retention_days=7.5)
    assert f"unix_seconds + {int(7.5 * 86_400)}" in facts(name, "engine_full")
    prepare(name)  # who says nothing changes nothing
    assert f"unix_seconds + {int(7.5 * 86_400)}" in facts(name, "engine_full")


# ---------------------------------------------------------------------- minutes


def test_minutes_are_what_arrived_and_tell_how_much_came_twice():
    one = ClickHouseMetricsSink(shared().url, table=table())
    rows = [record(number, latency_ms=float(number), input_tokens=2, cost_usd=0.5) for number in range(40)]
    one.send(rows, deadline())
    one.send(rows, deadline())  # the same batch makes no part
    sql = f"""
        SELECT sum(calls) AS calls, uniqCombined64Merge(distinct_calls) AS distinct, sum(input_tokens) AS tokens,
        sum(cost_usd) AS dollars, arrayMap(x -> round(x), quantilesTDigestMerge(0.5, 0.95, 0.99)(latency_ms)) AS latency
        FROM {one.table}_minutes
    """

    def told():
        (found,) = shared().run(sql)
        return int(found["calls"]), int(found["distinct"]), int(found["tokens"]), found["dollars"], found["latency"][0]

    assert told() == (40, 40, 80, 20.0, 19.0)
    one.send(rows[:10], deadline())  # as another batch it is counted
    assert told()[:2] == (50, 40)
    one.close()


# ---------------------------------------------------------------------- clusters


def test_the_statements_for_a_cluster_are_clickhouses():
    statements = tables("calls", cluster="{cluster}", retention_days=30).statements(0)
    for statement in (*statements, *tables("calls", cluster="c", retention_days=30).retention()):
        (found,) = shared().run(
            "SELECT formatQuery({q:String}) AS q", q=statement.replace("\\", "\\\\").replace("\n", "\\n")
        )
        assert "ON CLUSTER" in found["q"]
    made = "\n".join(statements)
    assert "`default`.`calls_local` ON CLUSTER '{cluster}'" in made
    assert "ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', precedence)" in made
    assert "ReplicatedAggregatingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')" in made
    assert "ENGINE = Distributed('{cluster}', 'default', 'calls_local', cityHash64(id))" in made
    assert statements[-1].startswith("ALTER TABLE `default`.`calls_local` ON CLUSTER '{cluster}' MODIFY COMMENT")


def test_one_node_has_nothing_of_a_cluster():
    made = "\n".join(tables("calls").statements(0))
    assert not [word for word in ("CLUSTER", "Distributed", "Replicated", "_local") if word in made]
