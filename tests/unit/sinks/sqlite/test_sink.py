from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tellmeter.errors import ConfigError, SchemaTooNew, StoreError
from tellmeter.pipeline.outcome import Delivered, Partial, Rejected, RetryLater
from tellmeter.records import StreamMetrics
from tellmeter.sinks.sqlite import SQLiteMetricsSink, schema
from tellmeter.sinks.sqlite import query as sqlite_query
from tellmeter.sinks.sqlite import sink as module
from tests.unit.sinks import made
from tests.unit.sinks.made import T0, deadline, python, recent, record, run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "calls.db"


@pytest.fixture
def sink(path):
    sink = SQLiteMetricsSink(path)
    yield sink
    sink.close()


def spawn(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **made.PATHS},
    )


def count(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM llm_metrics").fetchone()[0]
    finally:
        connection.close()


def test_making_a_sink_touches_nothing(tmp_path):
    SQLiteMetricsSink(tmp_path / "folder" / "calls.db").close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_sent_comes_back_whole(sink):
    rows = [
        record(
            1, stream=StreamMetrics(time_to_first_token_ms=120.5, raw_chunks=(b"a", b"\xff")), tags={"feature": "chat"}
        ),
        record(2, tools_used=("search",), cost_usd=0.25, tokens_estimated=True, sample_rate=0.5),
    ]
    assert sink.send(rows, deadline()) == Delivered()
    assert run(sink.get_metrics()) == rows[::-1]


def test_every_field_is_a_column_for_other_tools(sink, path):
    sink.send([record(model="m", cost_usd=0.5, tags={"feature": "chat"}, stream=StreamMetrics(stalls=3))], deadline())
    connection = sqlite3.connect(path)
    sql = "SELECT model, cost_usd, json_extract(tags, '$.feature'), stalls, status, error_class FROM llm_metrics"
    assert connection.execute(sql).fetchone() == ("m", 0.5, "chat", 3, "success", None)
    connection.close()


def test_what_is_there_already_is_not_added_again(sink):
    rows = [recent(input_tokens=5), recent(input_tokens=7)]
    assert sink.send(rows, deadline()) == Delivered()
    assert sink.send([*rows, recent()], deadline()) == Delivered()
    assert sink.send([rows[0], rows[0]], deadline()) == Delivered()
    summary = run(sink.get_summary())
    assert (summary.count, summary.total_tokens) == (3, 12)


def test_a_store_that_nobody_wrote_to_answers_with_nothing(sink):
    assert run(sink.get_metrics()) == []
    assert run(sink.get_summary()).count == 0
    assert run(sink.get_series(60)) == []
    assert run(sink.get_breakdown("model")) == {}
    assert run(sink.get_percentile(50)) == 0.0


def test_the_window_is_the_last_five_minutes_unless_told(sink):
    now = time.time()
    sink.send([recent(timestamp=now - age) for age in (10, 200, 400, 4000)], deadline())
    assert run(sink.get_summary()).count == 2
    assert run(sink.get_summary(500)).count == 3
    assert run(sink.get_summary(None)).count == 4
    assert run(sink.get_percentile(50, window_seconds=60)) == 0.0


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
    sink.send([recent(latency_ms=5.0)], deadline())
    percentiles = sqlite_query._percentiles

    def late(*arguments):
        sink.send([recent(latency_ms=1.0)], deadline())
        return percentiles(*arguments)

    monkeypatch.setattr(sqlite_query, "_percentiles", late)
    summary = run(sink.get_summary())
    assert (summary.count, summary.p50_latency_ms) == (1, 5.0)


def test_questions_at_once_are_all_answered(sink):
    sink.send([recent() for _ in range(50)], deadline())

    async def ask():
        return await asyncio.gather(*(sink.get_summary() for _ in range(20)))

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
def test_a_question_that_cannot_be_answered_is_refused(sink, question):
    with pytest.raises(ConfigError):
        run(question(sink))


# ---------------------------------------------------------------------- where it is


def test_a_url_names_a_relative_or_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert SQLiteMetricsSink("sqlite:///calls.db").path == tmp_path / "calls.db"
    assert SQLiteMetricsSink(f"sqlite:///{tmp_path}/calls.db").path == tmp_path / "calls.db"
    assert SQLiteMetricsSink("calls.db").path == tmp_path / "calls.db"
    assert SQLiteMetricsSink("~/calls.db").path == tmp_path / "home" / "calls.db"


def test_the_default_store_is_an_absolute_path(tmp_path):
    from tellmeter.config import default_store_url

    url = default_store_url({"XDG_DATA_HOME": str(tmp_path)})
    assert SQLiteMetricsSink(url).path == tmp_path / "tellmeter" / "calls.db"


def test_a_url_sets_retention_and_arguments_win(path):
    sink = SQLiteMetricsSink(f"sqlite:///{path}?retention_days=1.5&retention_rows=100", retention_rows=7)
    assert (sink.retention_days, sink.retention_rows) == (1.5, 7)


@pytest.mark.parametrize(
    "where", [":memory:", "sqlite://", "sqlite:", "sqlite:///", "sqlite:///:memory:", "", "a\0b", b"x"]
)
def test_what_names_no_file_is_refused(where):
    with pytest.raises(ConfigError):
        SQLiteMetricsSink(where)


@pytest.mark.parametrize("options", [{"retention_days": 0}, {"retention_days": "7"}, {"retention_rows": 1.5}])
def test_bad_arguments_are_refused(path, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SQLiteMetricsSink(path, **options)


def test_who_only_asks_makes_no_store(path):
    with pytest.raises(StoreError, match="there is no such store"):
        SQLiteMetricsSink(path, must_exist=True)
    assert not path.exists()
    SQLiteMetricsSink(path).check()
    assert run(SQLiteMetricsSink(path, must_exist=True).get_summary()).count == 0
    path.unlink()
    with pytest.raises(StoreError):
        SQLiteMetricsSink.from_url(f"sqlite:///{path}", must_exist=True)


def test_check_says_at_once_what_is_wrong(path):
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="no SQLite database"):
        SQLiteMetricsSink(path).check()


# ---------------------------------------------------------------------- several processes

WRITER = """
import sys
from tellmeter.pipeline.outcome import Delivered, RetryLater
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.unit.sinks.made import deadline, recent
sink = SQLiteMetricsSink(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    batch = [recent(provider=sys.argv[2]) for _ in range(50)]
    while (outcome := sink.send(batch, deadline(30))) != Delivered():
        assert outcome == RetryLater(reason="locked"), outcome
sink.close()
"""


def test_processes_that_write_at_once_lose_nothing(path):
    children = [spawn(WRITER, path, name) for name in "abcd"]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    reader = SQLiteMetricsSink(path)
    seen = 0
    while any(child.poll() is None for child in children):
        now = run(reader.get_summary(None)).count
        assert now >= seen
        assert now % 50 == 0
        seen = now
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert (child.returncode, errors) == (0, "")
    assert run(reader.get_summary(None)).providers == dict.fromkeys("abcd", 1000)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_writer_killed_in_the_middle_leaves_whole_batches(path):
    code = """
import sys
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.unit.sinks.made import deadline, recent
sink = SQLiteMetricsSink(sys.argv[1])
number = 0
while True:
    sink.send([recent() for _ in range(100)], deadline())
    number += 1
    print(number, flush=True)
"""
    for _ in range(3):
        path.unlink(missing_ok=True)
        child = spawn(code, path)
        told = 0
        while told < 5:
            told = int(child.stdout.readline())
        child.kill()
        told = max([told, *map(int, child.stdout.read().split())])  # not communicate(): it forgets what was read ahead
        child.communicate(timeout=60)
        sink = SQLiteMetricsSink(path)
        found = run(sink.get_summary(None)).count
        assert found in (told * 100, told * 100 + 100)
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        assert sink.send([recent()], deadline()) == Delivered()
        assert run(sink.get_summary(None)).count == found + 1
        sink.close()
        for journal in (f"{path}-wal", f"{path}-shm"):
            assert not Path(journal).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("told", [True, False])
def test_a_forked_child_writes_on_its_own_connection(path, told):
    code = f"""
import os, sys
from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.unit.sinks.made import deadline, recent, run
sink = SQLiteMetricsSink(sys.argv[1])
assert sink.send([recent()], deadline()) == Delivered()
child = os.fork()
if child == 0:
    if {told}:
        sink.after_fork()
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert sink.send([recent()], deadline()) == Delivered()
print(run(sink.get_summary()).count)
sink.close()
"""
    assert python(code, path, timeout=60).stdout.strip() == "3"
    assert count(path) == 3


def test_the_parents_connection_is_left_open_in_a_child(sink):
    sink.send([recent()], deadline())
    inherited = sink._connection
    sink.after_fork()
    assert sink._connection is None
    assert inherited.execute("SELECT count(*) FROM llm_metrics").fetchone() == (1,)
    inherited.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_that_only_closes_leaves_the_parents_journal(path):
    code = """
import os, sys
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.unit.sinks.made import deadline, recent, run
sink = SQLiteMetricsSink(sys.argv[1])
sink.send([recent()], deadline())
child = os.fork()
if child == 0:
    sink.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(os.path.exists(sys.argv[1] + "-wal"))
sink.send([recent()], deadline())
sink.close()
"""
    assert python(code, path, timeout=60).stdout.strip() == "True"
    assert count(path) == 2


# ---------------------------------------------------------------------- faults


def test_a_locked_store_is_tried_again_later(sink, path):
    assert sink.send([recent()], deadline()) == Delivered()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert sink.send([recent()], deadline(0.05)) == RetryLater(reason="locked")
    assert time.monotonic() - started < 4
    holder.execute("COMMIT")
    holder.close()
    assert sink.send([recent()], deadline()) == Delivered()


def test_a_store_that_others_write_to_can_be_asked(sink, path):
    sink.send([recent()], deadline())
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert run(sink.get_summary()).count == 1
    holder.close()


def test_a_full_disk_is_tried_again_later_and_leaves_no_half_batch(sink, path):
    assert sink.send([recent()], deadline()) == Delivered()
    pages = sink._connection.execute("PRAGMA page_count").fetchone()[0]
    sink._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    batch = [recent() for _ in range(500)]
    assert sink.send(batch, deadline()) == RetryLater(reason="disk_full")
    assert count(path) == 1
    sink._connection.execute("PRAGMA max_page_count = 1073741823")
    assert sink.send(batch, deadline()) == Delivered()
    assert count(path) == 501


def test_a_file_that_may_not_grow_is_tried_again_later(path):
    resource = pytest.importorskip("resource")
    code = """
import resource, signal, sys
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tests.unit.sinks.made import deadline, recent
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = SQLiteMetricsSink(sys.argv[1])
sink.send([recent()], deadline())
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
batch = [recent() for _ in range(1000)]
print(type(sink.send(batch, deadline())).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(type(sink.send(batch, deadline())).__name__)
sink.close()
"""
    assert resource
    assert python(code, path, timeout=60).stdout.split() == ["RetryLater", "Delivered"]
    assert count(path) == 1001


def test_what_is_no_database_rejects_and_is_said_once(sink, path, caplog):
    path.write_bytes(b"dear diary, " * 1000)
    for _ in range(3):
        assert sink.send([recent()], deadline()) == Rejected("not_a_database")
    assert len(caplog.records) == 1
    assert "no SQLite database; move it away" in caplog.text
    with pytest.raises(StoreError, match="no SQLite database"):
        run(sink.get_summary())
    path.unlink()
    assert sink.send([recent()], deadline()) == Delivered()


def test_a_newer_store_rejects_and_says_what_to_do(sink, path, caplog):
    sink.check()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert sink.send([recent()], deadline()) == Rejected("schema_too_new")
    assert "upgrade tellmeter" in caplog.text
    with pytest.raises(SchemaTooNew, match="upgrade tellmeter"):
        run(sink.get_summary())


def test_a_truncated_store_rejects_or_says_so(path):
    writer = SQLiteMetricsSink(path)
    writer.send([record(number) for number in range(2000)], deadline())
    writer.close()
    whole = path.read_bytes()
    os.truncate(path, path.stat().st_size // 2)
    sink = SQLiteMetricsSink(path)
    assert sink.send([record(number) for number in range(200)], deadline()) == Rejected("corrupt")
    with pytest.raises(StoreError, match="it is damaged"):
        run(sink.get_summary(None))
    path.write_bytes(whole)
    assert sink.send([record()], deadline()) == Delivered()
    assert run(sink.get_summary(None)).count == 2001
    sink.close()


def test_a_folder_that_cannot_be_made_rejects_until_it_can(tmp_path):
    (tmp_path / "in the way").touch()
    sink = SQLiteMetricsSink(tmp_path / "in the way" / "calls.db")
    assert sink.send([recent()], deadline()) == Rejected("no_such_folder")
    (tmp_path / "in the way").unlink()
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()


def test_a_row_changed_by_hand_is_named_not_raised_through(sink, path):
    sink.send([recent(tags={"f": "x"})], deadline())
    connection = sqlite3.connect(path)
    connection.execute("UPDATE llm_metrics SET tags = '[1]'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="changed by hand"):
        run(sink.get_metrics())


def test_a_record_that_sqlite_does_not_take_is_rejected_alone(sink, path, monkeypatch):
    good, bad, other = recent(), recent(model="bad"), recent()
    row_of = schema.row_of

    def spoiled(one):
        row = row_of(one)
        return (row[0], None, *row[2:]) if one is bad else row

    monkeypatch.setattr(schema, "row_of", spoiled)
    assert sink.send([good, bad, other], deadline()) == Partial(rejected=(1,), reason="invalid_record")
    assert count(path) == 2


def test_a_store_deleted_under_it_is_made_anew(sink, path):
    sink.send([recent()], deadline())
    path.unlink()
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink()
    assert sink.send([recent(), recent()], deadline()) == Delivered()
    assert count(path) == 2
    assert run(sink.get_summary()).count == 2


def test_a_store_replaced_under_it_keeps_the_new_ones_journal(sink, path, tmp_path):
    sink.send([recent()], deadline())
    path.rename(tmp_path / "old.db")
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink()
    other = SQLiteMetricsSink(path)
    other.send([recent() for _ in range(10)], deadline())
    sink.close()  # by name, the journal that it would tidy up is now the new store's
    assert run(SQLiteMetricsSink(path).get_summary()).count == 10
    assert other.send([recent()], deadline()) == Delivered()
    other.close()
    assert count(path) == 11


def test_errors_carry_no_text_of_records(sink, path, caplog):
    path.write_bytes(b"x" * 5000)
    outcome = sink.send([recent(model="secret-model", tags={"t": "secret-tag"})], deadline())
    assert "secret" not in f"{outcome} {caplog.text}"


def test_closing_twice_and_writing_after_it_work(sink, path):
    sink.close()
    sink.send([recent()], deadline())
    sink.close()
    sink.close()
    assert sink.send([recent()], deadline()) == Delivered()
    assert count(path) == 2


# ---------------------------------------------------------------------- retention


def test_calls_that_started_too_long_ago_are_deleted(path):
    sink = SQLiteMetricsSink(path, retention_days=2)
    now = time.time()
    sink.send([recent(timestamp=now - days * 86_400) for days in (0, 1, 1.9, 2.1, 50)], deadline())
    assert count(path) == 3
    sink.close()


def test_only_so_many_of_the_newest_calls_are_kept(path):
    sink = SQLiteMetricsSink(path, retention_rows=3)
    sink.send([record(number) for number in (5, 1, 4, 2, 3, 3)], deadline())
    assert [row.timestamp - T0 for row in run(sink.get_metrics())] == [5, 4, 3]
    sink.close()


def test_retention_is_looked_after_once_a_minute(path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    sink = SQLiteMetricsSink(path, retention_rows=1)
    sink.send([record(1), record(2)], clock[0] + 10)
    assert count(path) == 1
    sink.send([record(3)], clock[0] + 10)
    clock[0] += 59
    sink.send([record(4)], clock[0] + 10)
    assert count(path) == 3
    clock[0] += 2
    sink.send([record(5)], clock[0] + 10)
    assert count(path) == 1
    sink.close()


def test_much_to_delete_is_deleted_a_little_at_a_time(path, monkeypatch):
    monkeypatch.setattr(module, "_RETENTION_ROWS", 10)
    monkeypatch.setattr(module, "_RETENTION_BUDGET", 0.0)
    sink = SQLiteMetricsSink(path, retention_rows=1)
    sink.send([record(number) for number in range(36)], deadline())
    left = [count(path)]
    while left[-1] > 1:
        sink.send([record(100 + len(left))], deadline())
        left.append(count(path))
    assert left == [26, 17, 8, 1]
    sink.close()


def test_retention_that_fails_does_not_fail_the_batch(path, monkeypatch):
    sink = SQLiteMetricsSink(path, retention_rows=1)

    def locked(connection):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(sink, "_outdated", locked)
    assert sink.send([record(1), record(2)], deadline()) == Delivered()
    sink.close()


def test_the_room_of_deleted_calls_is_used_again(path):
    sink = SQLiteMetricsSink(path, retention_rows=200)
    sizes = []
    for start in range(0, 6000, 200):
        sink.send([record(start + number) for number in range(200)], deadline())
        sink._retention_due = 0.0
        sizes.append(sink._connection.execute("PRAGMA page_count").fetchone()[0])
    assert max(sizes[10:]) <= max(sizes[:10]) * 1.5
    sink.close()


def test_a_file_too_big_has_a_short_name():
    assert schema.reason_of(OSError(errno.EFBIG, "secret")) == "file_too_big"
