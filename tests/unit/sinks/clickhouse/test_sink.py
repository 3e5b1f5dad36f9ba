from __future__ import annotations

import asyncio
import math
import os
import time
import urllib.parse

import pytest

from tellmeter.errors import ConfigError, MissingExtra, SchemaTooNew, StoreError
from tellmeter.pipeline.outcome import Delivered, Partial, RetryLater
from tellmeter.records import StreamMetrics
from tellmeter.sinks.clickhouse import ClickHouseMetricsSink
from tellmeter.sinks.clickhouse import sink as module
from tellmeter.sinks.urls import sink_from_url, store_from_url
from tests.support.clickhouse import PASSWORD, USER, shared, table
from tests.support.ports import free_port
from tests.unit.sinks.made import T0, deadline, python, recent, record, run


@pytest.fixture
def server():
    return shared()


@pytest.fixture
def sink(server):
    sink = ClickHouseMetricsSink(server.url, table=table())
    yield sink
    sink.close()


def count(sink):
    return int(shared().run(f"SELECT count() AS n FROM {sink.table} FINAL")[0]["n"])


# ---------------------------------------------------------------------- making one; no server is needed


def test_making_a_sink_connects_nowhere_and_hides_the_password(monkeypatch):
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "canary")
    sink = ClickHouseMetricsSink("http://user:canary@localhost:8123", database="metrics")
    assert sink.destination == "clickhouse://localhost:8123/metrics/llm_metrics"
    seen = f"{sink!r} {sink} {sink.destination} {sink._server!r} {vars(sink)}"
    assert "canary" not in seen
    sink.close()


def test_a_url_sets_every_option(monkeypatch):
    monkeypatch.setenv("STORE_PASSWORD", "canary")
    url = "clickhouse://me@h:8124/db?table=calls&retention_days=2&batch_size=7&spool=folder&password_env=STORE_PASSWORD"
    sink = sink_from_url(f"{url}&cluster=prod&async_insert=yes&compress=none&timeout_seconds=2")
    assert type(sink) is ClickHouseMetricsSink
    assert (sink.database, sink.table, sink.retention_days) == ("db", "calls", 2.0)
    assert sink.lane_options == {"batch_size": 7, "spool": "folder"}
    assert sink.destination == "clickhouse://h:8124/db/calls"
    assert sink._tables.cluster == "prod"
    assert sink._insert_settings["async_insert"] == "1"
    assert sink._insert_settings["distributed_foreground_insert"] == "1"
    assert type(store_from_url("clickhouses://h/d")) is ClickHouseMetricsSink


@pytest.mark.parametrize(
    "options",
    [
        {"table": "a b"},
        {"table": 5},
        {"database": "a`b"},
        {"cluster": "a'b"},
        {"retention_days": 0},
        {"retention_days": "7"},
        {"password": 5},
        {"compress": "br"},
        {"timeout_seconds": 0},
        {"ca": "/nowhere/ca.pem", "url": "https://h"},
        {"colour": 1},
        {"url": "ftp://h:8123"},
    ],
)
def test_bad_arguments_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ConfigError, match={"url": "must begin with http"}.get(name, name)):
        ClickHouseMetricsSink(**options)


@pytest.mark.parametrize("password", ["canary\n", "kanarienvögel-canary"])
def test_a_password_that_no_header_can_hold_is_refused_unseen(password):
    with pytest.raises(ConfigError, match="X-ClickHouse-Key") as caught:
        ClickHouseMetricsSink(user="me", password=password)
    assert "canary" not in str(caught.value)


def test_the_package_is_needed_when_the_sink_is_made():
    code = """
import sys
sys.modules["httpx2"] = None
import tellmeter
try:
    tellmeter.ClickHouseMetricsSink()
except tellmeter.MissingExtra as error:
    print(error)
"""
    assert "pip install 'tellmeter[clickhouse]'" in python(code).stdout
    assert MissingExtra


def test_naming_it_does_not_import_httpx2():
    code = "import sys, tellmeter; tellmeter.ClickHouseMetricsSink; print('httpx2' in sys.modules)"
    assert python(code).stdout.strip() == "False"


def test_a_server_that_is_not_there_is_tried_again_and_said_once(caplog):
    port = free_port()
    sink = sink_from_url(f"clickhouse://me:canary@127.0.0.1:{port}/db")
    for _ in range(2):
        assert sink.send([recent()], deadline()) == RetryLater(reason="unreachable")
    assert len(caplog.records) == 1
    assert (
        f"clickhouse://127.0.0.1:{port}/db/llm_metrics: it cannot be reached (unreachable); check host" in caplog.text
    )
    with pytest.raises(StoreError, match="check host, port and network") as caught:
        run(sink.get_summary())
    with pytest.raises(StoreError):
        store_from_url(f"clickhouse://me:canary@127.0.0.1:{port}/db", must_exist=True)
    assert "canary" not in f"{caught.value} {caplog.text}"
    sink.close()


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


def test_the_same_batch_again_makes_no_part(sink):
    rows = [record(number) for number in range(5)]
    for _ in range(3):
        assert sink.send(rows, deadline()) == Delivered()
    (parts,) = shared().run("SELECT sum(rows) AS n FROM system.parts WHERE active AND table = {t:String}", t=sink.table)
    assert int(parts["n"]) == 5


def test_of_two_calls_at_the_same_time_the_later_comes_first(sink):
    first, second, third = record(model="a"), record(model="b"), record(model="c")
    sink.send([first, second], deadline())
    sink.send([third], deadline())
    sink.send([third, second, first], deadline())  # which changes nothing
    assert run(sink.get_metrics()) == [third, second, first]


def test_no_records_are_delivered(sink):
    assert sink.send([], deadline()) == Delivered()


def test_joined_inserts_are_written_when_they_are_answered(server):
    sink = ClickHouseMetricsSink(server.url, table=table(), async_insert=True)
    rows = [record(number) for number in range(20)]
    assert sink.send(rows, deadline()) == Delivered()
    assert sink.send(rows, deadline()) == Delivered()
    assert count(sink) == 20
    sink.close()


def test_a_store_that_nobody_wrote_to_answers_with_nothing(sink):
    assert run(sink.get_metrics()) == []
    assert run(sink.get_summary()).count == 0
    assert run(sink.get_series(60)) == []
    assert run(sink.get_breakdown("model")) == {}
    assert run(sink.get_percentile(50)) == 0.0


def test_the_summary_of_hours_in_six_numbers(sink):
    sink.send(
        [
            recent(latency_ms=100.0, input_tokens=3, output_tokens=4, cost_usd=0.5),
            recent(latency_ms=300.0, status="error", error_class="APIError"),
            recent(timestamp=time.time() - 90_000, latency_ms=9000.0),
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
        run(question(ClickHouseMetricsSink("http://nowhere.invalid")))


def test_a_question_that_takes_too_long_is_ended(sink, monkeypatch):
    sink.send([recent()], deadline())
    monkeypatch.setattr(module, "_ASK_SECONDS", 0.3)
    with pytest.raises(StoreError, match="timeout"):
        sink._answer(lambda client, until: client.run("SELECT sleep(1)", until))
    monkeypatch.setattr(module, "_ASK_SECONDS", 30.0)
    limit = {"max_execution_time": "0.1"}
    sql = "SELECT sum(sleepEachRow(0.05)) FROM numbers(100)"
    with pytest.raises(StoreError, match="take too long|took too long"):
        sink._answer(lambda client, until: client.run(sql, until, settings=limit))


def test_a_question_may_only_read(sink):
    from tellmeter.sinks.clickhouse import query as clickhouse_query

    sink.check()
    settings = clickhouse_query._SETTINGS
    assert settings["readonly"] == "2"
    with pytest.raises(StoreError, match="too large"):
        limit = {**settings, "max_result_bytes": "1000"}
        sink._answer(lambda client, until: client.run("SELECT number FROM numbers(1000000)", until, settings=limit))


def test_who_only_asks_makes_no_table(server):
    name = table()
    with pytest.raises(StoreError, match="there is no such table"):
        store_from_url(server.store(name), must_exist=True)
    assert server.run("SELECT name FROM system.tables WHERE name = {n:String}", n=name) == []
    writer = sink_from_url(server.store(name))
    writer.send([recent()], deadline())
    writer.close()
    assert run(store_from_url(server.store(name), must_exist=True).get_summary()).count == 1


def test_a_row_changed_by_hand_is_named_not_raised_through(sink, server):
    sink.send([recent(stream=StreamMetrics())], deadline())
    server.run(f"ALTER TABLE {sink.table} UPDATE stream = '[1]' WHERE 1 SETTINGS mutations_sync = 1")
    with pytest.raises(StoreError, match="changed by hand"):
        run(sink.get_metrics())


def test_a_table_of_another_database(server):
    name = table()
    server.run(f"CREATE DATABASE {name}")
    sink = ClickHouseMetricsSink(server.url, database=name)
    assert sink.send([recent()], deadline()) == Delivered()
    assert int(server.run(f"SELECT count() AS n FROM {name}.llm_metrics")[0]["n"]) == 1
    assert run(sink.get_summary()).count == 1
    sink.close()
    missing = ClickHouseMetricsSink(server.url, database=table())
    assert missing.send([recent()], deadline()) == RetryLater(after=60.0, reason="no_such_database")
    with pytest.raises(StoreError, match="there is no such database; create it"):
        run(missing.get_summary())
    missing.close()


# ---------------------------------------------------------------------- what cannot be written


def test_a_wrong_password_pauses_and_is_in_no_message(server, caplog):
    sink = ClickHouseMetricsSink(server.url, user=USER, password="other-canary", table=table())
    assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="unauthorized")
    with pytest.raises(StoreError, match=r"check user and password \(516\)") as caught:
        run(sink.get_summary())
    assert "canary" not in f"{caplog.text} {caught.value!r} {sink!r}"
    sink.close()


def test_the_right_password_is_taken_from_where_it_is_named(server, monkeypatch):
    monkeypatch.setenv("STORE_PASSWORD", PASSWORD)
    sink = sink_from_url(server.store(table(), "&password_env=STORE_PASSWORD", f"{USER}@"))
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()
    monkeypatch.setenv("CLICKHOUSE_USER", USER)
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", PASSWORD)
    sink = ClickHouseMetricsSink(server.url, table=table())
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()


def test_a_newer_table_waits_for_the_upgrade(sink, server, caplog):
    sink.check()
    server.run(f"ALTER TABLE {sink.table} MODIFY COMMENT 'tellmeter schema 99: '")
    other = ClickHouseMetricsSink(server.url, table=sink.table)
    assert other.send([recent()], deadline()) == RetryLater(after=60.0, reason="schema_too_new")
    assert "upgrade tellmeter" in caplog.text
    with pytest.raises(SchemaTooNew, match="upgrade tellmeter"):
        run(other.get_summary())
    other.close()


def test_another_programs_table_waits_for_somebody_and_is_said_once(sink, server, caplog):
    server.run(f"CREATE TABLE {sink.table} (id String) ENGINE = MergeTree ORDER BY id")
    for _ in range(3):
        assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="foreign_table")
    assert len(caplog.records) == 1
    assert "that tellmeter did not make; name another one" in caplog.text


def test_records_that_the_database_does_not_take_are_rejected_alone(sink, server, caplog):
    sink.check()
    server.run(f"ALTER TABLE {sink.table} ADD CONSTRAINT c CHECK model != 'canary'")
    rows = [recent(model="canary" if number in (0, 7, 8) else "m") for number in range(20)]
    assert sink.send(rows, deadline()) == Partial(rejected=(0, 7, 8), reason="invalid_record")
    assert count(sink) == 17
    assert sink.send([rows[7]], deadline()) == Partial(rejected=(0,), reason="invalid_record")
    assert "canary" not in caplog.text


def test_a_line_that_is_no_row_is_rejected_alone(sink):
    sink.check()
    lines = [b'{"id": "a"}', b'{"id": 5x}', b'{"id": "b", "unix_seconds": "never"}', b'{"id": "c"}']
    assert sink._insert_some(list("abcd"), lines, 100, deadline()) == [101, 102]
    assert count(sink) == 2


def test_a_table_dropped_under_it_is_made_anew(sink, server):
    assert sink.send([recent()], deadline()) == Delivered()
    server.run(f"DROP TABLE {sink.table} SYNC")
    assert sink.send([recent(), recent()], deadline()) == Delivered()
    assert count(sink) == 2
    server.run(f"DROP TABLE {sink.table} SYNC")
    assert run(sink.get_summary()).count == 0


def test_too_many_parts_are_tried_again(sink, server):
    sink.check()
    server.run(f"SYSTEM STOP MERGES {sink.table}")
    server.run(f"ALTER TABLE {sink.table} MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 0")
    outcomes = [sink.send([recent()], deadline()) for _ in range(3)]
    assert RetryLater(reason="too_many_parts") in outcomes
    server.run(f"ALTER TABLE {sink.table} RESET SETTING parts_to_throw_insert, parts_to_delay_insert")
    server.run(f"SYSTEM START MERGES {sink.table}")
    assert sink.send([recent()], deadline()) == Delivered()


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


def test_what_is_sent_says_what_it_is():
    sink = ClickHouseMetricsSink()
    seen = {}

    class Sender:
        def exchange(self, body, until, *, target, headers, answer_bytes):
            seen.update(urllib.parse.parse_qsl(target.partition("?")[2]), body=body)
            from tellmeter.sinks.sending.answers import HTTPAnswer

            return HTTPAnswer(200, {}, b"")

        close = after_fork = lambda self: None

    sink._client.sender, sink._ready = Sender(), True
    row = record()
    assert sink.send([row], deadline()) == Delivered()
    token = seen["insert_deduplication_token"]
    assert seen["query"] == "INSERT INTO `default`.`llm_metrics` FORMAT JSONEachRow"
    assert (seen["wait_end_of_query"], seen["input_format_skip_unknown_fields"]) == ("1", "1")
    assert (seen["async_insert"], len(token)) == ("0", 64)
    sink.send([row], deadline())
    assert seen["insert_deduplication_token"] == token
    sink.send([record()], deadline())
    assert seen["insert_deduplication_token"] != token


# ---------------------------------------------------------------------- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("told", [True, False])
def test_a_forked_child_writes_on_its_own_connection(server, sink, told):
    code = f"""
import os, sys
from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks.clickhouse import ClickHouseMetricsSink
from tests.unit.sinks.made import deadline, recent, run
sink = ClickHouseMetricsSink(sys.argv[1], table=sys.argv[2])
assert sink.send([recent()], deadline()) == Delivered()
child = os.fork()
if child == 0:
    if {told}:
        sink.after_fork()
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert sink.send([recent()], deadline()) == Delivered()
sink.close()
"""
    answer = python(code, server.url, sink.table, timeout=60)
    assert answer.stderr == ""
    assert count(sink) == 3


def test_times_are_those_of_the_records(sink):
    sink.send([record(5)], deadline())
    assert run(sink.get_metrics(start_time=T0 + 5, end_time=T0 + 6))
    assert run(sink.get_metrics(start_time=math.nextafter(T0 + 5, math.inf))) == []


def test_a_cluster_that_the_server_does_not_know_waits_for_somebody(server, caplog):
    sink = ClickHouseMetricsSink(server.url, table=table(), cluster="nowhere")
    assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="no_such_cluster")
    assert "the server knows no such cluster" in caplog.text
    sink.close()
