"""What a real PostgreSQL does to the sink: going away, refusing, locking, hanging, and PgBouncer in between."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tellmeter.cli.stores import ask, chosen_url, file_of, opened
from tellmeter.cli.summary import summary
from tellmeter.errors import StoreError
from tellmeter.pipeline.outcome import Delivered, RetryLater
from tellmeter.sinks.postgresql import PostgreSQLMetricsSink
from tests.support.ports import free_port
from tests.support.postgresql import PASSWORD, PostgreSQL, shared, table
from tests.support.servers import require
from tests.unit.sinks import made
from tests.unit.sinks.made import deadline, recent, record, run


@pytest.fixture
def server():
    return shared()


@pytest.fixture
def own_server():
    server = PostgreSQL()
    server.start()
    yield server
    server.close()


@pytest.fixture
def sink(server):
    sink = PostgreSQLMetricsSink(server.url(), table=table())
    yield sink
    sink.close()


@pytest.fixture
def user(server):
    """A user with a password, and the right to connect only."""
    name = table()
    server.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    return name


def count(sink):
    return shared().run(f"SELECT count(*) FROM {sink.table}")[0][0]


def until(right, seconds=30.0):
    end = time.monotonic() + seconds
    while not right():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


# ---------------------------------------------------------------------- going away


def test_a_session_that_was_ended_between_two_batches_costs_nothing(sink, server):
    assert sink.send([recent()], deadline()) == Delivered()
    pid = sink._connection.info.backend_pid
    assert server.run("SELECT pg_terminate_backend(%s)", pid) == [(True,)]
    assert sink.send([recent()], deadline()) == Delivered()
    assert sink._connection.info.backend_pid != pid
    assert count(sink) == 2


def test_a_session_that_is_ended_in_the_middle_of_a_batch_costs_nothing(sink, server):
    assert sink.send([recent()], deadline()) == Delivered()
    pid = sink._connection.info.backend_pid
    batch, outcomes = [recent() for _ in range(500)], []
    with psycopg.connect(server.url()) as holder:
        holder.execute(f"LOCK TABLE {sink.table} IN ACCESS EXCLUSIVE MODE")
        sender = threading.Thread(target=lambda: outcomes.append(sink.send(batch, deadline(30))))
        sender.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        until(lambda: server.run(waiting, pid))
        server.run("SELECT pg_terminate_backend(%s)", pid)
    sender.join(60)
    assert outcomes == [Delivered()]
    assert count(sink) == 501


def test_a_server_that_goes_down_and_comes_back_loses_nothing(own_server):
    sink = PostgreSQLMetricsSink(own_server.url())
    rows = [record(number) for number in range(30)]
    assert sink.send(rows[:10], deadline()) == Delivered()
    own_server.stop()
    for _ in range(2):
        assert sink.send(rows[10:20], deadline()) == RetryLater(reason="unreachable")
    with pytest.raises(StoreError, match="check host, port and network"):
        run(sink.get_summary())
    own_server.start()
    assert sink.send(rows[10:20], deadline()) == Delivered()
    assert sink.send(rows[20:], deadline()) == Delivered()
    assert run(sink.get_metrics()) == rows[::-1]
    sink.close()


def test_a_server_that_accepts_and_never_answers_costs_no_more_than_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sink = PostgreSQLMetricsSink(f"postgresql://me:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/db")
        started = time.monotonic()
        assert sink.send([recent()], deadline(0.3)) == RetryLater(reason="timeout")
        assert time.monotonic() - started < 8
        sink.close()


# ---------------------------------------------------------------------- in the way


def test_a_locked_table_is_tried_again_on_the_same_connection(sink, server):
    assert sink.send([recent()], deadline()) == Delivered()
    connection = sink._connection
    with psycopg.connect(server.url()) as holder:
        holder.execute(f"LOCK TABLE {sink.table} IN ACCESS EXCLUSIVE MODE")
        assert sink.send([recent()], deadline(1.0)) == RetryLater(reason="locked")
    assert sink.send([recent()], deadline()) == Delivered()
    assert sink._connection is connection
    assert count(sink) == 2


def test_the_same_records_from_two_at_once_arrive_once(sink, server):
    other = PostgreSQLMetricsSink(server.url(), table=sink.table)
    rows, outcomes = [recent() for _ in range(2000)], []
    threads = [
        threading.Thread(target=lambda one=one, given=given: outcomes.append(one.send(given, deadline(60))))
        for one, given in ((sink, rows), (other, rows[::-1]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    # In opposite orders the two wait for each other: the server ends one of them, which comes again.
    assert set(outcomes) <= {Delivered(), RetryLater(reason="deadlock")}
    assert sink.send(rows, deadline()) == other.send(rows, deadline()) == Delivered()
    assert count(sink) == 2000
    other.close()


WRITER = """
import sys
from tellmeter.pipeline.outcome import Delivered
from tellmeter.sinks.postgresql import PostgreSQLMetricsSink
from tests.unit.sinks.made import deadline, recent
sink = PostgreSQLMetricsSink(sys.argv[1], table=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    assert sink.send([recent(provider=sys.argv[3]) for _ in range(50)], deadline(60)) == Delivered()
sink.close()
"""


def test_processes_that_start_at_once_make_one_table_and_lose_nothing(sink, server):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, server.url(), sink.table, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **made.PATHS},
        )
        for name in "abc"
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=90)
        assert (child.returncode, errors) == (0, "")
    assert run(sink.get_summary(None)).providers == dict.fromkeys("abc", 500)


def test_retention_goes_round_what_others_hold(sink, server):
    rows = [record(number) for number in range(20)]
    assert sink.send(rows, deadline()) == Delivered()
    cleaner = PostgreSQLMetricsSink(server.url(), table=sink.table, retention_days=1)
    with psycopg.connect(server.url()) as holder:
        holder.execute(f"SELECT 1 FROM {sink.table} WHERE id = %s FOR UPDATE", (rows[0].id,))
        assert cleaner.send([recent()], deadline()) == Delivered()
        assert count(sink) == 2
    cleaner._retention_due = 0.0
    assert cleaner.send([recent()], deadline()) == Delivered()
    assert count(sink) == 2
    cleaner.close()


# ---------------------------------------------------------------------- refusing


def test_a_wrong_password_pauses_and_is_in_no_message(server, user, caplog):
    sink = PostgreSQLMetricsSink(server.url(user, "other-canary"), table=table())
    assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="unauthorized")
    with pytest.raises(StoreError, match="check user, password and pg_hba.conf") as caught:
        run(sink.get_summary())
    assert "canary" not in f"{caplog.text} {caught.value!r} {sink!r}"
    server.run(f"ALTER ROLE {user} PASSWORD 'other-canary'")
    assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="forbidden")  # it gets in, no further
    sink.close()


def test_the_password_of_the_environment_is_used(server, user, monkeypatch):
    server.run(f"GRANT CREATE ON SCHEMA public TO {user}")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    sink = PostgreSQLMetricsSink(server.url(user), table=table())
    assert sink.send([recent()], deadline()) == Delivered()
    sink.close()
    monkeypatch.delenv("PGPASSWORD")
    assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="unauthorized")


def test_a_database_that_is_not_there_pauses(server):
    sink = PostgreSQLMetricsSink(server.url(database="nowhere"))
    assert sink.send([recent()], deadline()) == RetryLater(after=60.0, reason="no_such_database")
    with pytest.raises(StoreError, match="there is no such database; create it"):
        run(sink.get_summary())


def test_a_user_who_may_only_insert_writes_and_cannot_ask(sink, server, user):
    sink.check()
    server.run(f"GRANT INSERT ON {sink.table} TO {user}")
    writer = PostgreSQLMetricsSink(server.url(user, PASSWORD), table=sink.table, retention_days=1)
    rows = [recent(), record()]
    assert writer.send(rows, deadline()) == Delivered()
    assert writer.send(rows, deadline()) == Delivered()
    assert count(sink) == 2  # nor may it delete
    with pytest.raises(StoreError, match="the user lacks a privilege"):
        run(writer.get_summary())
    server.run(f"GRANT SELECT ON {sink.table} TO {user}")
    assert run(writer.get_summary()).count == 1
    writer.close()


def test_a_user_who_may_make_no_table_pauses_until_there_is_one(sink, server, user):
    writer = PostgreSQLMetricsSink(server.url(user, PASSWORD), table=sink.table)
    assert writer.send([recent()], deadline()) == RetryLater(after=60.0, reason="forbidden")
    sink.check()
    server.run(f"GRANT INSERT ON {sink.table} TO {user}")
    assert writer.send([recent()], deadline()) == Delivered()
    writer.close()


def test_a_server_that_only_reads_is_tried_again_and_can_be_asked(sink, server, user):
    sink.send([recent()], deadline())
    server.run(f"GRANT INSERT, SELECT ON {sink.table} TO {user}")
    server.run(f"ALTER ROLE {user} SET default_transaction_read_only = on")
    reader = PostgreSQLMetricsSink(server.url(user, PASSWORD), table=sink.table)
    assert reader.send([recent()], deadline()) == RetryLater(reason="read_only")
    assert run(reader.get_summary()).count == 1
    reader.close()


def test_what_the_page_shows_works(server):
    page = (made.ROOT / "docs" / "postgresql.md").read_text("utf-8")
    name = table()
    server.run(f"CREATE SCHEMA {name}")
    rows = [
        recent(model="m", cost_usd=0.1, latency_ms=100.0, tags={"feature": "chat"}),
        recent(model="m", cost_usd=0.2, latency_ms=200.0, tags={"feature": "chat"}),
        recent(model="n"),
        recent(timestamp=time.time() - 40 * 86_400),
    ]
    for role in ("writer", "reader", "janitor"):
        server.run(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        server.run(f"GRANT USAGE ON SCHEMA {name} TO {role}")
    options = f"?schema={name}&retention_days=30"
    PostgreSQLMetricsSink(server.url(query=options)).check()
    dollars, percentiles, grants = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"SET search_path = {name}")
        connection.execute(grants)
    sinks = [
        PostgreSQLMetricsSink(server.url(role, PASSWORD, query=options)) for role in ("writer", "reader", "janitor")
    ]
    assert sinks[0].send(rows, deadline()) == Delivered()
    assert run(sinks[1].get_summary(None)).count == 4
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"SET search_path = {name}")
        connection.execute(f"GRANT INSERT ON {name}.llm_metrics TO janitor")
        assert sinks[2].send([recent(model="n")], deadline()) == Delivered()
        found = [(model, calls, cost) for _, model, calls, cost in connection.execute(dollars)]
        assert found == [("m", 2, Decimal("0.3")), ("n", 2, None)]
        assert {one: p95 for one, p95, _ in connection.execute(percentiles)}["chat"] == 195.0
    assert run(sinks[1].get_summary(None)).count == 4
    for one in sinks:
        one.close()


# ---------------------------------------------------------------------- PgBouncer


@pytest.fixture
def pgbouncer(server, tmp_path_factory):
    """PgBouncer in transaction mode with two sessions for everybody; gives its port."""
    command = require("pgbouncer")
    folder, port = tmp_path_factory.mktemp("pgbouncer"), free_port()
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o011)
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nserver_reset_query_always = 0\n",
        "utf-8",
    )
    config.chmod(0o644)
    whom = ["-u", "nobody"] if os.getuid() == 0 else []
    process = subprocess.Popen([command, *whom, config], cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up():
        assert process.poll() is None
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    until(up)
    yield port
    process.terminate()
    process.wait(30)


def test_behind_pgbouncer_in_transaction_mode_all_works(server, pgbouncer):
    url = f"postgresql://postgres@127.0.0.1:{pgbouncer}/postgres"
    name, outcomes = table(), []
    sinks = [PostgreSQLMetricsSink(url, table=name, retention_days=1) for _ in range(4)]

    def write(one):
        for _ in range(10):
            outcomes.append(one.send([recent() for _ in range(50)], deadline(60)))

    threads = [threading.Thread(target=write, args=(one,)) for one in sinks]
    for thread in threads:
        thread.start()
    answers = [run(sinks[0].get_summary(None)).count for _ in range(10)]
    for thread in threads:
        thread.join(90)
    assert outcomes == [Delivered()] * 40
    assert answers == sorted(answers)
    assert run(sinks[0].get_summary(None)).count == 2000
    for one in sinks:
        one.close()


# ---------------------------------------------------------------------- commands


def test_the_command_asks_it_too(sink, server, capfdbinary):
    sink.send([record(1, model="one", cost_usd=0.5), record(2, model="two")], deadline())
    url = server.url(query=f"?table={sink.table}")
    assert summary(url, "all", as_json=True) == 0
    found = json.loads(capfdbinary.readouterr().out)
    assert {name: one["count"] for name, one in found["groups"].items()} == {"one": 1, "two": 1}
    assert found["total"]["total_cost"] == 0.5
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "tellmeter", "summary", "--store", url, "--since", "all"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **made.PATHS},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "one" in done.stdout


def test_a_command_that_is_about_to_write_makes_the_table(server, user):
    url = server.url(query=f"?table={table()}")
    store = opened(chosen_url(url))
    assert ask(store, "model").total.count == 0
    with pytest.raises(StoreError, match="the user lacks a privilege"):
        opened(server.url(user, PASSWORD, query=f"?table={table()}"))


def test_a_url_without_a_host_is_no_file():
    assert file_of("postgresql:///database") is None
    assert chosen_url("postgresql:///database?table=calls") == "postgresql:///database?table=calls"


def test_a_program_that_names_it_by_its_url_delivers(server):
    name = table()
    code = """
import sys, tellmeter
collector = tellmeter.configure(sinks=[sys.argv[1]])
for number in range(250):
    collector.record(tellmeter.AgentMetrics(model=f"m{number % 3}"))
"""
    made.python(code, server.url(query=f"?table={name}"), timeout=60)
    assert server.run(f"SELECT count(*), count(DISTINCT model) FROM {name}") == [(250, 3)]
