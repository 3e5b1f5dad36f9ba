"""Records in a SQLite file: the store of one machine, for many processes at once, with nothing to install or run."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

import msgspec

from ...errors import ConfigError, StoreError
from ...guard import note
from ...pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater
from ...records import AgentMetrics
from ..address import LANE_PARSERS, file_path, parse, positive, whole
from ..asking import Asking
from ..base import BatchingMetricsSink, LaneOptions, Settle, Settles, lane_options_in
from ..checks import check_positive, check_whole
from . import query as sqlite_query
from . import schema

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY_SECONDS = 5.0
_RETENTION_EVERY = 60.0
_RETENTION_BUDGET = 0.2  # seconds of one send
_RETENTION_ROWS = 1000  # a delete of so many takes about 20 ms, in which others wait
# What waiting may cure: another program's lock, room on the disk, permissions. The rest needs the file moved away.
_CURABLE = {"locked", "disk_full", "read_only", "not_permitted", "io_error", "cannot_open"}
# Errors of one record's values, not of the store.
_INVALID = (OverflowError, UnicodeError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)

_NEEDS_FILE = "a store of several connections needs a file; records in memory are InMemoryMetricsSink, or memory:"

# After a fork the parent's connections must never be closed in the child. Python closes what it collects, so they stay.
_abandoned: list[sqlite3.Connection] = []


class SQLiteMetricsSink(Asking, BatchingMetricsSink):
    """Writes records to table `llm_metrics` of a SQLite file and answers questions about them.

    One row per call and one column per field, so that any SQL tool can read it. Several processes may write and ask at
    once (WAL). A record whose id is there already is ignored, so a replay adds nothing. The file (0600) and its folder
    (0700) are made when the first batch arrives. A file that was moved or deleted meanwhile is made anew.

    Args:
        path_or_url: `calls.db`, `sqlite:///relative.db` or `sqlite:////absolute.db`; the URL takes `retention_days`
            and `retention_rows` as options.
        retention_days: delete calls that started longer ago; looked after once a minute, while calls are written.
        retention_rows: keep so many of the newest calls. The file does not shrink, its room is used again.
        must_exist: refuse to make the store; for programs that only ask.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: a path, URL or option that cannot work.
        StoreError: with `must_exist`, a store that is missing or cannot be read.
    """

    def __init__(
        self,
        path_or_url: str | os.PathLike[str],
        *,
        retention_days: float | None = None,
        retention_rows: int | None = None,
        must_exist: bool = False,
        **lane: Unpack[LaneOptions],
    ) -> None:
        text = os.fspath(path_or_url)
        if not isinstance(text, str):
            raise ConfigError(f"path_or_url = {text!r}: it must be a text or a path")
        options: dict[str, Any] = {}
        if text.lower().startswith("sqlite:"):
            address = parse(text)
            if ":memory:" in address.location or address.location in ("", "//", "///"):
                raise ConfigError(f"{address.shown}: {_NEEDS_FILE}")
            self.path: Path = address.file()
            options = address.read(retention_days=positive, retention_rows=whole, **LANE_PARSERS)
        elif text == ":memory:":
            raise ConfigError(f"{text}: {_NEEDS_FILE}")
        else:
            self.path = file_path(text)
        super().__init__(**lane_options_in(options, lane))
        self.destination = str(self.path)
        self.retention_days = options.get("retention_days") if retention_days is None else retention_days
        self.retention_rows = options.get("retention_rows") if retention_rows is None else retention_rows
        if self.retention_days is not None:
            check_positive("retention_days", self.retention_days)
        if self.retention_rows is not None:
            check_whole("retention_rows", self.retention_rows)
        self._must_exist = must_exist
        self._settles = Settles()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._process = os.getpid()
        self._retention_due = 0.0
        self._logged: set[str] = set()
        if must_exist:
            self.check()

    @classmethod
    def from_url(cls, url: str, *, must_exist: bool = False) -> SQLiteMetricsSink:
        """The store that a `sqlite:` URL names."""
        return cls(url, must_exist=must_exist)

    def check(self) -> None:
        """Open the store once, and make or migrate it where needed.

        Raises:
            SchemaTooNew: a newer tellmeter wrote it.
            StoreError: it cannot be made, opened or read.
        """
        schema.connect(self.path, create=not self._must_exist, reading=self._must_exist).close()

    def bind(self, settle: Settle) -> None:
        """Settle this way too before every answer."""
        self._settles.add(settle)

    # ------------------------------------------------------------------ writing, on the lane's thread

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Insert the batch in one transaction."""
        rows = [schema.row_of(record) for record in batch]
        rejected: tuple[int, ...] = ()
        try:
            connection = self._writer(deadline)
            try:
                _insert(connection, rows)
            except _INVALID as error:
                note("sqlite", error)
                rejected = _insert_each(connection, rows)
        except (StoreError, sqlite3.Error) as error:
            return self._failed(error)
        try:
            self._retain(connection, deadline)
        except sqlite3.Error as error:  # the batch is delivered all the same
            note("sqlite retention", error)
        return Partial(rejected=rejected, reason="invalid_record") if rejected else Delivered()

    def close(self) -> None:
        """Close the connection; the last one of all processes tidies up the journal."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._process != os.getpid():
            _abandoned.append(connection)
            return
        try:
            connection.close()
        except sqlite3.Error as error:
            note("sqlite", error)

    def after_fork(self) -> None:
        """The connection is the parent's: closing it here would break the parent's locks."""
        if self._connection is not None:
            _abandoned.append(self._connection)
        self._connection = None
        self._process = os.getpid()

    def _writer(self, deadline: float) -> sqlite3.Connection:
        if self._process != os.getpid():  # forked without a collector that would have told us
            self.after_fork()
        if self._connection is not None and self._file != _identity(self.path):
            self.close()  # it still writes to the file that was deleted or moved away
        busy = max(0.0, min(_BUSY_SECONDS, deadline - time.monotonic()))
        if self._connection is None:
            self._connection = schema.connect(self.path, create=True, busy_seconds=busy)
            self._file = _identity(self.path)
        else:
            self._connection.execute(f"PRAGMA busy_timeout = {int(busy * 1000)}")
        return self._connection

    def _failed(self, error: Exception) -> Outcome:
        reason = schema.reason_of(error)
        if isinstance(error, StoreError) and reason not in self._logged:
            self._logged.add(reason)
            logger.warning("%s", error)  # it names the file and says what to do
        return RetryLater(reason=reason) if reason in _CURABLE else Rejected(reason)

    def _retain(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Delete what is too old or too much, a little at a time; where there is more, the next send goes on."""
        started = time.monotonic()
        if started < self._retention_due or (self.retention_days is None and self.retention_rows is None):
            return
        self._retention_due = started + _RETENTION_EVERY
        until = min(deadline, started + _RETENTION_BUDGET)
        for condition, values in self._outdated(connection):
            sql = (
                f"DELETE FROM llm_metrics WHERE rowid IN (SELECT rowid FROM llm_metrics WHERE {condition} "  # noqa: S608
                "ORDER BY timestamp LIMIT ?)"
            )
            while connection.execute(sql, (*values, _RETENTION_ROWS)).rowcount == _RETENTION_ROWS:
                if time.monotonic() >= until:
                    self._retention_due = 0.0
                    return

    def _outdated(self, connection: sqlite3.Connection) -> list[tuple[str, tuple[Any, ...]]]:
        found: list[tuple[str, tuple[Any, ...]]] = []
        if self.retention_days is not None:
            found.append(("timestamp < ?", (time.time() - self.retention_days * 86_400,)))
        if self.retention_rows is not None:
            sql = "SELECT timestamp, rowid FROM llm_metrics ORDER BY timestamp DESC, rowid DESC LIMIT 1 OFFSET ?"
            oldest_kept = connection.execute(sql, (self.retention_rows - 1,)).fetchone()
            if oldest_kept is not None:
                found.append(("(timestamp, rowid) < (?, ?)", oldest_kept))
        return found

    # ------------------------------------------------------------------ asking

    async def _ask(self, what: str, *arguments: Any) -> Any:
        import asyncio

        return await asyncio.to_thread(self._answer, getattr(sqlite_query, what), arguments)

    def _answer(self, question: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """One answer from one snapshot, on a connection of its own: 0.2 ms, and nothing is shared between threads."""
        self._settles.now()
        connection = schema.connect(self.path, create=not self._must_exist, reading=True)
        try:
            connection.execute("BEGIN")
            return question(connection, *arguments)
        except sqlite3.Error as error:
            raise schema.store_error(self.path, error) from error
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.path}: a row was changed by hand and cannot be read") from error
        finally:
            connection.close()


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(schema.INSERT, rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert_each(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> tuple[int, ...]:
    """Insert the rows one by one; the indexes of those that SQLite does not take."""
    rejected = []
    for index, row in enumerate(rows):
        try:
            _insert(connection, [row])
        except _INVALID:
            rejected.append(index)
    return tuple(rejected)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
