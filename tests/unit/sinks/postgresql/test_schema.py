from __future__ import annotations

import sys
import threading
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.cleaning import MAX_INT
from tellmeter.errors import SchemaTooNew, StoreError
from tellmeter.pipeline.outcome import Delivered
from tellmeter.records import AgentMetrics, StreamMetrics
from tellmeter.sinks.postgresql import PostgreSQLMetricsSink
from tellmeter.sinks.postgresql import schema as schemas
from tellmeter.sinks.postgresql.connection import connect, transaction
from tests.support.postgresql import shared, table
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, deadline, record, run


@pytest.fixture(scope="module")
def sink():
    one = PostgreSQLMetricsSink(shared().url(), table=table())
    yield one
    one.close()


def back(sink, row):
    """A record, written and read."""
    assert sink.send([row], deadline()) == Delivered()
    sql = f"{schemas.select(sink._name)} WHERE id = %s"
    (found,) = sink._answer(lambda connection: connection.execute(sql, (row.id,)).fetchall())
    return schemas.record_of(found)


def prepare(name, *, create=True):
    connection = connect(shared().url(), {}, time.monotonic() + 30)
    try:
        with transaction(connection, time.monotonic() + 30):
            schemas.prepare(connection, "there", None, name, create=create)
    finally:
        connection.close()


def comment(name):
    return shared().run("SELECT obj_description(%s::regclass)", name)[0][0]


any_float = st.floats(0, sys.float_info.max, allow_nan=False)
any_text = st.text(max_size=20)


@given(row=made.records)
@settings(max_examples=100)
def test_every_record_comes_back_as_it_was(sink, row):
    assert back(sink, row) == row


@given(
    row=st.builds(
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
        stream=st.one_of(
            st.none(),
            st.builds(
                StreamMetrics,
                start_time=any_float,
                max_gap_ms=any_float,
                time_to_first_chunk_ms=any_float,
                last_error=any_text,
                bytes_received=st.integers(0, MAX_INT),
            ),
        ),
    )
)
@settings(max_examples=150)
def test_any_number_and_any_text_come_back_as_they_were(sink, row):
    assert back(sink, row) == row


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": MAX_INT, "output_tokens": MAX_INT, "reasoning_tokens": MAX_INT, "retries": MAX_INT},
        {"latency_ms": 1.7976931348623157e308, "cost_usd": 1.7976931348623157e308},
        {"latency_ms": 5e-324, "cost_usd": 5e-324},
        {"latency_ms": -0.0, "cost_usd": -0.0, "retry_delay_ms": -0.0},
        {"cost_usd": 0.1 + 0.2},
        {"timestamp": 0.0},
        {"timestamp": 1.7e308},
        {"timestamp": 1700000000.1234567},
        {"model": "'; DROP TABLE llm_metrics; --", "tags": {'{"a"}': "\\x00 %s NULL"}},
        {"tags": {"": "null", "a": "\\u0000"}, "tools_used": ("NULL", "", "{}", 'a","b', "\\")},
        {"model": "\0\ud800 \x1f", "tags": {"\0": "\ud800"}, "tools_used": ("\0",)},
        {"model": "日本 \U0010ffff \ufffe", "id": "any text, not a UUID"},
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
        SELECT timestamp = to_timestamp(%s), cost_usd::text, tags->>'feature', tools_used[1], stalls,
        stream->>'status', pg_typeof(cost_usd)::text, pg_typeof(timestamp)::text, error_class
        FROM {sink.table} WHERE id = %s
    """
    assert shared().run(sql, T0, row.id) == [
        (True, "0.1", "chat", "search", 3, None, "numeric", "timestamp with time zone", None)
    ]
    columns = {
        name
        for (name,) in shared().run(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s", sink.table
        )
    }
    assert columns == {*schemas.COLUMNS, "timestamp", "arrival"}
    assert columns >= set(AgentMetrics.__struct_fields__)


def test_a_time_beyond_what_other_tools_know_is_the_last_day_that_they_do(sink):
    row = record(timestamp=1e300)
    back(sink, row)
    found = shared().run(f"SELECT timestamp, unix_seconds FROM {sink.table} WHERE id = %s", row.id)
    assert (found[0][0].timestamp(), found[0][1]) == (253402214400, 1e300)


def test_a_row_changed_by_hand_is_a_decode_error():
    row = [None] * (len(schemas._PLAIN) + 3)
    row[-3:] = [], "[1]", None
    with pytest.raises(msgspec.DecodeError):
        schemas.record_of(tuple(row))


# ---------------------------------------------------------------------- versions


def test_a_table_is_made_once_with_its_version_in_its_comment():
    name = table()
    with pytest.raises(StoreError, match="there is no such table; it is made when the first call is recorded"):
        prepare(name, create=False)
    prepare(name)
    assert comment(name) == f"tellmeter schema {len(schemas.MIGRATIONS)}: one row per LLM call"
    prepare(name, create=False)


def test_a_table_of_an_older_version_is_brought_to_the_newest(monkeypatch):
    name = table()
    old = PostgreSQLMetricsSink(shared().url(), table=name)
    assert old.send([record(1)], deadline()) == Delivered()
    added = (*schemas.MIGRATIONS, ("ALTER TABLE {table} ADD COLUMN mood text", "CREATE INDEX ON {table} (mood)"))
    monkeypatch.setattr(schemas, "MIGRATIONS", (*added, ("ALTER TABLE {table} ADD COLUMN other int DEFAULT 7",)))
    new = PostgreSQLMetricsSink(shared().url(), table=name)
    assert new.send([record(2)], deadline()) == Delivered()
    assert shared().run(f"SELECT count(*), sum(other), count(mood) FROM {name}") == [(2, 14, 0)]
    assert comment(name).startswith(f"tellmeter schema {len(schemas.MIGRATIONS)}:")
    assert old.send([record(3)], deadline()) == Delivered()  # who wrote before goes on, for it names its columns
    assert len(run(new.get_metrics())) == 3
    old.close()
    new.close()


def test_a_migration_that_fails_leaves_the_table_as_it_was(monkeypatch):
    name = table()
    prepare(name)
    broken = (*schemas.MIGRATIONS, ("ALTER TABLE {table} ADD COLUMN mood text", "SELECT 1 / 0"))
    with monkeypatch.context() as patch, pytest.raises(Exception, match="division by zero"):
        patch.setattr(schemas, "MIGRATIONS", broken)
        prepare(name)
    prepare(name, create=False)
    sql = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'mood' AND table_name = %s"
    assert shared().run(sql, name) == [(0,)]


def test_a_table_of_a_newer_version_is_refused(monkeypatch):
    name = table()
    prepare(name)
    shared().run(f"COMMENT ON TABLE {name} IS 'tellmeter schema 99: one row per LLM call'")
    with pytest.raises(SchemaTooNew, match="version 99 of the table.*upgrade tellmeter"):
        prepare(name)


SEED = """
CREATE TABLE {name} (
    id SERIAL PRIMARY KEY, timestamp TIMESTAMPTZ DEFAULT NOW(), request_id TEXT, model TEXT NOT NULL,
    provider TEXT NOT NULL, method TEXT, latency_ms INTEGER NOT NULL, prompt_tokens INTEGER DEFAULT 0,
    completion_tokens INTEGER DEFAULT 0, cached_tokens INTEGER DEFAULT 0, total_cost DECIMAL(10, 6),
    error_class TEXT, retries INTEGER DEFAULT 0, metadata JSONB
)
"""


@pytest.mark.parametrize("ddl", [SEED, "CREATE TABLE {name} ()", "CREATE VIEW {name} AS SELECT 1"])
def test_a_table_that_is_not_ours_is_left_alone(ddl):
    name = table()
    shared().run(ddl.format(name=name))
    with pytest.raises(StoreError, match="that tellmeter did not make; name another one"):
        prepare(name)


def test_many_that_start_at_once_make_the_table_once():
    name, failed = table(), []
    gate = threading.Barrier(6)

    def start():
        gate.wait(30)
        try:
            prepare(name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert shared().run("SELECT count(*) FROM pg_indexes WHERE tablename = %s", name) == [(3,)]
