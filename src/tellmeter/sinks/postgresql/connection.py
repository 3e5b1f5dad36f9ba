"""A connection to PostgreSQL on which nothing waits longer than a deadline. Import it where psycopg is there."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


class OutOfTimeError(psycopg.OperationalError, TimeoutError):
    """The deadline passed; the connection, if there was one, is closed."""


class TimedConnection(psycopg.Connection[tuple[Any, ...]]):
    """Closes itself where the server has not answered by `deadline` (of `time.monotonic`).

    The server's own timeouts end a statement that runs too long. They cannot help where the server hangs or the network
    is cut, so the waiting is ours.
    """

    deadline = 0.0

    def wait(self, gen: Generator[Any, Any, T], interval: float = 0.0, timeout: float | None = None) -> T:
        """Run one exchange with the server to its end.

        Raises:
            OutOfTimeError: it had not ended by the deadline.
        """
        try:
            wanted = int(next(gen))
            with selectors.DefaultSelector() as selector:
                selector.register(self.pgconn.socket, wanted)
                while True:
                    ready = selector.select(max(0.0, self.deadline - time.monotonic()))
                    if ready:
                        now = int(gen.send(ready[0][1]))
                        if now != wanted:
                            selector.modify(self.pgconn.socket, now)
                            wanted = now
                    if time.monotonic() >= self.deadline:
                        self.pgconn.finish()
                        raise OutOfTimeError("the deadline passed")
        except StopIteration as end:
            answer: T = end.value
            return answer


def connect(conninfo: str, parameters: dict[str, Any], deadline: float) -> TimedConnection:
    """Connect before `deadline`; the caller closes the connection.

    In a thread of its own, because looking up a host's name cannot be interrupted; libpq's own timeout knows whole
    seconds only and counts for each host. A thread that comes too late closes what it made.

    Raises:
        OutOfTimeError: the server did not answer in time.
        psycopg.Error: it refused.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise OutOfTimeError("the deadline passed")
    hosts = str(parameters.get("host") or parameters.get("hostaddr") or "").count(",") + 1
    settings: dict[str, Any] = {"client_encoding": "utf8", "fallback_application_name": "tellmeter"}
    if not parameters.get("connect_timeout"):
        settings["connect_timeout"] = max(2, int(left / hosts))  # so that the next host has its turn
    attempt = _Attempt(conninfo, settings)
    try:
        threading.Thread(target=attempt.run, name="tellmeter postgresql connect", daemon=True).start()
    except RuntimeError:  # no thread starts any more at the end of the interpreter
        attempt.run()
    return attempt.result(deadline)


class _Attempt:
    def __init__(self, conninfo: str, settings: dict[str, Any]) -> None:
        self._conninfo = conninfo
        self._settings = settings
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._late = False
        self._made: TimedConnection | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            made = TimedConnection.connect(self._conninfo, autocommit=True, prepare_threshold=None, **self._settings)
        except BaseException as error:
            self._error = error
        else:
            with self._lock:
                if self._late:
                    made.close()
                else:
                    self._made = made
        self._ended.set()

    def result(self, deadline: float) -> TimedConnection:
        self._ended.wait(max(0.0, deadline - time.monotonic()))
        with self._lock:
            self._late = True
        if self._made is not None:
            return self._made
        raise self._error or OutOfTimeError("the deadline passed")


@contextmanager
def transaction(connection: TimedConnection, deadline: float, mode: str = "") -> Iterator[None]:
    """One transaction. The server gives up a little before the deadline does, so that the connection can be kept.

    Everything is set within the transaction, for behind PgBouncer the next one may have another session. A client whose
    network was cut would hold its rows' locks until the server's keepalive finds out, after hours: hence the idle one.
    """
    connection.deadline = deadline
    left = max(10, int((deadline - time.monotonic()) * 1000))
    try:
        connection.execute(
            f"BEGIN {mode}; SET LOCAL lock_timeout = {left * 8 // 10}; SET LOCAL statement_timeout = {left * 9 // 10}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {left + 1000}"
        )
        yield
    except BaseException:
        if not connection.closed:
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                connection.close()
        raise
    connection.execute("COMMIT")
