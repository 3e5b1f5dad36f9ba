from __future__ import annotations

import asyncio
import gc
import os
import sys
import time

import pytest

from tellmeter.errors import ConfigError, MissingExtra, SchemaTooNew, StoreError
from tellmeter.pipeline.outcome import Delivered, Partial, RetryLater
from tellmeter.records import StreamMetrics
from tellmeter.sinks.postgresql import PostgreSQLMetricsSink
from tellmeter.sinks.postgresql import sink as module
from tellmeter.sinks.urls import sink_from_url, store_from_url
from tests.support.ports import free_port
from tests.support.postgresql import shared, table
from tests.unit.sinks.made import T0, deadline, python, recent, record, run


@pytest.fixture
def server():
    return shared()


@pytest.fixture
def sink(server):
    sink = PostgreSQLMetricsSink(server.url(), table=table())
    yield sink
    sink.close()


def count(sink):
    return shared().run(f"SELECT count(*) FROM {sink.table}")[0][0]


# ---------------------------------------------------------------------- making one; no server is needed


def test_making_a_sink_connects_nowhere_and_hides_the_password():
    sink = PostgreSQLMetricsSink("postgresql://user:canary@localhost/metrics")
    assert sink._connection is None
    assert sink.destination == "postgresql://localhost:5432/metrics/llm_metrics"
    assert "canary" not in f"{sink!r} {sink} {sink.destination}"
    sink.close()


def test_a_url_sets_options_and_arguments_win():
    url = "postgresql://h/d?sslmode=require&table=calls&schema=app&retention_days=2&batch_size=7&spool=folder"
    sink = sink_from_url(url)
    assert type(sink) is PostgreSQLMetricsSink
    assert (sink.table, sink.schema, sink.retention_days) == ("calls", "app", 2.0)
    assert sink.lane_options == {"batch_size": 7, "spool": "folder"}
    assert sink._parameters == {"host": "h", "dbname": "d", "sslmode": "require"}
    other = PostgreSQLMetricsSink(url, table="mine", retention_days=3, batch_size=9)
    assert (other.table, other.retention_days, other.lane_options["batch_size"]) == ("mine", 3, 9)
    assert type(store_from_url("postgres://h/d")) is PostgreSQLMetricsSink


@pytest.mark.parametrize(
    "options",
    [{"table": "a b"}, {"table": 5}, {"schema": 'a"'}, {"retention_days": 0}, {"retention_days": "7"}, {"colour": 1}],
)
def test_bad_arguments_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        PostgreSQLMetricsSink("postgresql://h/d", **options)


def test_without_psycopg_it_says_what_to_install(monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] == "psycopg":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install 'tellmeter\[postgresql\]'"):
        PostgreSQLMetricsSink("postgresql://h/d")


def test_naming_it_does_not_import_psycopg():
    code = "import sys, tellmeter; tellmeter.PostgreSQLMetricsSink; print('psycopg' in sys.modules)"
    assert python(code).stdout.strip() == "False"


def test_a_server_that_is_not_there_is_tried_again_and_said_once(caplog):
    port = free_port()
    sink = PostgreSQLMetricsSink(f"postgresql://me:canary@127.0.0.1:{port}/db")
    for _ in range(2):
        assert sink.send([recent()], deadline()) == RetryLater(reason="unreachable")
    assert len(caplog.records) == 1
    assert f"postgresql://127.0.0.1:{port}/db/llm_metrics: the connection failed; check host" in caplog.text
    with pytest.raises(StoreError, match="check host, port and network") as caught:
        run(sink.get_summary())
    with pytest.raises(StoreError):
        store_from_url(f"postgresql://me:canary@127.0.0.1:{port}/db", must_exist=True)
    assert "canary" not in f"{caught.value} {caplog.text}"


# ---------------------------------------------------------------------- writing and asking


def test_what_was_sent_comes_back_whole(sink):
    rows = [
        record(1, stream=StreamMetrics(time_to_first_token_ms=120.5, raw_chunks=(b"a", b"\xff")), tags={"f": "chat"}),
        record(2, tools_used=("search",), cost_usd=0.25, tokens_estimated=True, sample_rate=0.5),
    ]
    assert sink.send(rows, deadline()) == Delivered()
    assert run(sink.get_metrics()) == rows[::-1]


def test_what_is_there_already_is_not_added_again(sink):
    rows = [recent(input_tokens=5), recent(input_tokens=7)]
    assert sink.send(rows, deadline()) == Delivered()
    assert sink.send([*rows, recent()], deadline()) == Delivered()
    assert sink.send([rows[0], rows[0]], deadline()) == Delivered()
    summary = run(sink.get_summary())
    assert (summary.count, summary.total_tokens) == (3, 12)


def test_ten_thousand_records_arrive_once_each(sink):
    rows = [record(number, tags={"n": str(number)}) for number in range(10_000)]
    for start in range(0, 10_000, 2500):
        assert sink.send(rows[start : start + 2500], deadline(60)) == Delivered()
    assert sink.send(rows[4000:6000], deadline(60)) == Delivered()
    assert run(sink.get_metrics(limit=20_000)) == rows[::-1]


def test_no_records_are_delivered(sink):
    assert sink.send([], deadline()) == Delivered()


def test_a_store_that_nobody_wrote_to_answers_with_nothing(sink):
    assert run(sink.get_metrics()) == []
    assert run(sink.get_summary()).count == 0
    assert run(sink.get_series(60)) == []
    assert run(sink.get_breakdown("model")) == {}
    assert run(sink.get_percentile(50)) == 0.0


def test_the_summary_of_hours_in_six_numbers(sink):
    now = time.time()
    sink.send(
        [
            recent(latency_ms=100.0, input_tokens=3, output_tokens=4, cost_usd=0.5),
            recent(latency_ms=300.0, status="error", error_class="APIError"),
            recent(timestamp=now - 90_000, latency_ms=9000.0),
        ],
        deadline(),
    )
    assert run(sink.get_summary_stats()) == {
        "total_requests": 2,
        "avg_latency": 200.0,
        "p95_latency": 290.0,
        "total_tokens": 7,
        "total_cost": 0.5,
        "error_count": 1,
    }
    assert run(sink.get_summary_stats(hours=48))["total_requests"] == 3
    with pytest.raises(ConfigError, match="hours"):
        run(sink.get_summary_stats(0))


def test_every_question_settles_first_off_the_event_loop(sink):
    waiting, seen = [], []

    def settle(timeout):
        seen.append(timeout)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        while waiting:
            sink.send([waiting.pop()], deadline())
        return True

    sink.bind(settle)
    questions = [
        sink.get_metrics,
        sink.get_summary,
        sink.get_summary_stats,
        lambda: sink.get_percentile(50),
        lambda: sink.get_series(60),
        lambda: sink.get_breakdown("model"),
    ]
    for question in questions:
        waiting.append(recent())
        run(question())
        assert waiting == []
    assert seen == [None] * len(questions)
    assert run(sink.get_summary()).count == len(questions)


def test_an_answer_is_of_one_moment(sink, monkeypatch):
    from tellmeter.sinks.postgresql import query as postgresql_query

    sink.send([recent(latency_ms=5.0)], deadline())
    percentiles = postgresql_query._percentiles

    def late(*arguments):
        sink.send([recent(latency_ms=1.0)], deadline())
        return percentiles(*arguments)

    monkeypatch.setattr(postgresql_query, "_percentiles", late)
    summary = run(sink.get_summary())
    assert (summary.count, summary.p50_latency_ms) == (1, 5.0)


def test_questions_at_once_are_all_answered(sink):
    sink.send([recent() for _ in range(50)], deadline())

    async def ask():
        return await asyncio.gather(*(sink.get_summary() for _ in range(12)))

    assert {summary.count for summary in asyncio.run(ask())} == {50}


@pytest.mark.parametrize(
    "question",
    [
        lambda sink: sink.get_percentile(101),
        lambda sink: sink.get_percentile(50, "speed"),
        lambda sink: sink.get_metrics(limit=-1),
        lambda sink: sink.get_summary(colour="red"),
        lambda sink: sink.get_series(0),
        lambda sink: sink.get_breakdown("latency_ms; DROP TABLE llm_metrics"),
        lambda sink: sink.get_breakdown("model", limit=-1),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(question):
    with pytest.raises(ConfigError):
        run(question(PostgreSQLMetricsSink("postgresql://nowhere.invalid/db")))


def test_a_question_that_takes_too_long_is_ended(sink, monkeypatch):
    sink.send([recent()], deadline())
    monkeypatch.setattr(module, "_ASK_SECONDS", 1.0)
    with pytest.raises(StoreError, match="it took too long; ask for less"):
        sink._answer(lambda connection: connection.execute("SELECT pg_sleep(30)"))


def test_who_only_asks_makes_no_table(server):
    name = table()
    url = server.url(query=f"?table={name}")
    with pytest.raises(StoreError, match="there is no such table"):
        store_from_url(url, must_exist=True)
    assert server.run("SELECT to_regclass(%s)", name) == [(None,)]
    writer = sink_from_url(url)
    writer.send([recent()], deadline())
    writer.close()
    assert run(store_from_url(url, must_exist=True).get_summary()).count == 1


def test_a_row_changed_by_hand_is_named_not_raised_through(sink, server):
    sink.send([recent(tags={"f": "x"})], deadline())
    server.run(f"UPDATE {sink.table} SET tags = '[1]'")
    with pytest.raises(StoreError, match="changed by hand"):
        run(sink.get_metrics())


def test_tables_of_a_schema_of_its_own(server):
    name = table()
    server.run(f"CREATE SCHEMA {name}")
    sink = PostgreSQLMetricsSink(server.url(), schema=name)
    assert sink.send([recent()], deadline()) == Delivered()
    assert server.run(f"SELECT count(*) FROM {name}.llm_metrics") == [(1,)]
    sink.close()
    missing = PostgreSQLMetricsSink(server.url(), schema=table())
    assert missing.send([recent()], deadline()) == RetryLater(after=60.0, reason="no_such_schema")
    missing.close()


# ---------------------------------------------------------------------- what cannot be written


def test_a_newer_table_waits_for_the_upgrade(sink, server, caplog):
    sink.check()
    server.run(f"COMMENT ON TABLE {sink.table} IS 'tellmeter schema 99: '")
    assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="schema_too_new")
    assert "upgrade tellmeter" in caplog.text
    with pytest.raises(SchemaTooNew, match="upgrade tellmeter"):
        run(sink.get_summary())


def test_another_programs_table_waits_for_somebody_and_is_said_once(sink, server, caplog):
    server.run(f"CREATE TABLE {sink.table} (id serial, model text)")
    for _ in range(3):
        assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="foreign_table")
    assert len(caplog.records) == 1
    assert "that tellmeter did not make; name another one" in caplog.text
    assert server.run(f"SELECT count(*) FROM {sink.table}") == [(0,)]


def test_records_that_the_database_does_not_take_are_rejected_alone(sink, server, caplog):
    sink.check()
    server.run(f"ALTER TABLE {sink.table} ADD CHECK (model <> 'canary')")
    rows = [recent(model="canary" if number in (0, 7, 8) else "m") for number in range(20)]
    assert sink.send(rows, deadline()) == Partial(rejected=(0, 7, 8), reason="invalid_record")
    assert count(sink) == 17
    assert sink.send([rows[7]], deadline()) == Partial(rejected=(0,), reason="invalid_record")
    assert "canary" not in caplog.text


def test_a_table_dropped_under_it_is_made_anew(sink, server):
    assert sink.send([recent()], deadline()) == Delivered()
    server.run(f"DROP TABLE {sink.table}")
    assert sink.send([recent(), recent()], deadline()) == Delivered()
    assert count(sink) == 2


def test_a_table_whose_columns_were_dropped_rejects(sink, server, caplog):
    assert sink.send([recent()], deadline()) == Delivered()
    server.run(f"ALTER TABLE {sink.table} DROP COLUMN retries")
    assert sink.send([recent(model="canary")], deadline()).reason == "rejected"
    assert "42703" in caplog.text
    assert "canary" not in caplog.text


def test_closing_twice_and_writing_after_it_work(sink):
    sink.close()
    sink.send([recent()], deadline())
    sink.close()
    sink.close()
    assert sink.send([recent()], deadline()) == Delivered()
    assert count(sink) == 2


def test_a_deadline_that_has_passed_is_a_retry(sink):
    assert sink.send([recent()], time.monotonic() - 1) == RetryLater(reason="timeout")
    assert sink.send([recent()], deadline()) == Delivered()
    assert sink.send([recent()], time.monotonic() - 1) == RetryLater(reason="timeout")
    assert sink.send([recent()], deadline()) == Delivered()


# ---------------------------------------------------------------------- forks


def test_the_parents_connection_is_neither_used_nor_closed_in_a_child(sink):
    sink.send([recent()], deadline())
    inherited = sink._connection
    sink.after_fork()
    assert sink._connection is None
    gc.collect()
    inherited.deadline = deadline()
    assert inherited.execute("SELECT 1").fetchone() == (1,)
    module._abandoned.remove(inherited)
    inherited.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("told", [True, False])
def test_a_forked_child_writes_on_its_own_connection(server, sink, told):
    code = f"""
import os, sys
from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks.postgresql import PostgreSQLMetricsSink
from tests.unit.sinks.made import deadline, recent, run
sink = PostgreSQLMetricsSink(sys.argv[1], table=sys.argv[2])
assert sink.send([recent()], deadline()) == Delivered()
first = sink._connection.info.backend_pid
child = os.fork()
if child == 0:
    if {told}:
        sink.after_fork()
    assert sink.send([recent()], deadline()) == Delivered()
    assert sink._connection.info.backend_pid != first
    sink.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
child = os.fork()
if child == 0:
    sink.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert sink.send([recent()], deadline()) == Delivered()
assert sink._connection.info.backend_pid == first
sink.close()
"""
    answer = python(code, server.url(), sink.table, timeout=60)
    assert answer.stderr == ""
    assert count(sink) == 3


# ---------------------------------------------------------------------- retention


def test_calls_that_started_too_long_ago_are_deleted(server):
    sink = PostgreSQLMetricsSink(server.url(), table=table(), retention_days=2)
    now = time.time()
    sink.send([recent(timestamp=now - days * 86_400) for days in (0, 1, 1.9, 2.1, 50)], deadline())
    assert count(sink) == 3
    sink.close()


def test_much_to_delete_is_deleted_a_little_at_a_time(server, monkeypatch):
    monkeypatch.setattr(module, "_RETENTION_ROWS", 10)
    monkeypatch.setattr(module, "_RETENTION_BUDGET", 0.0)
    sink = PostgreSQLMetricsSink(server.url(), table=table(), retention_days=2)
    sink.send([record(number) for number in range(35)], deadline())
    left = [count(sink)]
    while left[-1] > 1 and len(left) < 9:
        sink.send([recent()], deadline())
        left.append(count(sink) - len(left))
    assert left == [25, 15, 5, 0]
    sink.close()


def test_retention_is_looked_after_once_a_minute(server, monkeypatch):
    sink = PostgreSQLMetricsSink(server.url(), table=table(), retention_days=2)
    sink.send([recent()], deadline())
    sink.send([record(1)], deadline())
    assert count(sink) == 2
    sink._retention_due = time.monotonic()
    sink.send([recent()], deadline())
    assert count(sink) == 2
    assert run(sink.get_metrics(end_time=T0 + 100)) == []
    sink.close()


def test_retention_that_fails_does_not_fail_the_batch(sink, monkeypatch):
    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(sink, "_retain", refuse)
    assert sink.send([recent()], deadline()) == Delivered()
