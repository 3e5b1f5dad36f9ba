from __future__ import annotations

import contextlib
import socket
import threading
import time

import psycopg
import pytest

from tellmeter.sinks.postgresql.connection import OutOfTimeError, connect, transaction
from tests.support.postgresql import shared


@contextlib.contextmanager
def silent():
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://me:canary@127.0.0.1:{listener.getsockname()[1]}/db?sslmode=disable"


@contextlib.contextmanager
def cut_off(port):
    """A way to a server that can be cut: `cut.set()`, and nothing passes any more, but nothing is closed either."""
    cut = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as opened:

        def pump(source, target):
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if cut.is_set():
                        return
                    target.sendall(data)

        def serve():
            with contextlib.suppress(OSError):
                client = opened.enter_context(listener.accept()[0])
                server = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"postgresql://postgres@127.0.0.1:{listener.getsockname()[1]}/postgres?sslmode=disable", cut


def connected(url, seconds=30.0):
    return connect(url, {}, time.monotonic() + seconds)


def test_a_server_that_accepts_and_never_answers_costs_no_more_than_the_deadline():
    with silent() as url:
        started = time.monotonic()
        with pytest.raises(OutOfTimeError):
            connected(url, 0.2)
        assert time.monotonic() - started < 5  # of the 130 s that psycopg would wait
        with pytest.raises(OutOfTimeError):
            connected(url, -1)


def test_a_connection_that_comes_too_late_is_closed(monkeypatch):
    from tellmeter.sinks.postgresql import connection as module

    gate, closed = threading.Event(), threading.Event()

    class Late:
        def close(self):
            closed.set()

    def slow(*arguments, **settings):
        gate.wait(30)
        return Late()

    monkeypatch.setattr(module.TimedConnection, "connect", slow)
    with pytest.raises(OutOfTimeError):
        connected("", 0.05)
    gate.set()
    assert closed.wait(30)


def test_where_no_thread_starts_any_more_it_connects_all_the_same(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    connection = connected(shared().url())
    connection.deadline = time.monotonic() + 30
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


def test_a_network_that_is_cut_closes_the_connection_at_the_deadline():
    with cut_off(shared().port) as (url, cut):
        connection = connected(url)
        connection.deadline = time.monotonic() + 30
        assert connection.execute("SELECT 1").fetchone() == (1,)
        cut.set()
        connection.deadline = time.monotonic() + 0.2
        with pytest.raises(OutOfTimeError):
            connection.execute("SELECT 1")
        assert connection.closed


def test_a_transaction_is_whole_or_not_at_all():
    connection = connected(shared().url())
    deadline = time.monotonic() + 30
    with transaction(connection, deadline):
        connection.execute("CREATE TEMP TABLE one (n int)")
    with pytest.raises(ZeroDivisionError), transaction(connection, deadline):
        connection.execute("INSERT INTO one VALUES (1)")
        raise ZeroDivisionError
    with transaction(connection, deadline):
        assert connection.execute("SELECT * FROM one").fetchall() == []
    connection.close()


def test_the_server_gives_up_before_the_deadline_so_that_the_connection_is_kept():
    connection = connected(shared().url())
    with pytest.raises(psycopg.errors.QueryCanceled), transaction(connection, time.monotonic() + 2):
        connection.execute("SELECT pg_sleep(30)")
    with transaction(connection, time.monotonic() + 30):
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        inside = [connection.execute(f"SHOW {name}").fetchone()[0] for name in names]
    outside = [connection.execute(f"SHOW {name}").fetchone()[0] for name in names]
    assert "0" not in inside
    assert outside == ["0", "0", "0"]  # behind PgBouncer the session is somebody else's next
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    connection.close()
