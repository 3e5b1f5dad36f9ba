"""Records in PostgreSQL: the store of several machines, where a program has a PostgreSQL server anyway."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import msgspec

from ...errors import StoreError
from ...guard import note
from ...pipeline.outcome import Delivered, Outcome, Partial
from ...records import AgentMetrics
from ..address import LANE_PARSERS, Parser, positive
from ..asking import Asking
from ..base import BatchingMetricsSink, LaneOptions, Settle, Settles, lane_options_in
from ..checks import check_positive
from . import dsn as dsns
from . import query as postgresql_query
from . import schema as schemas
from .errors import cause_of, is_lost, is_of_rows, outcome_of, store_error

if TYPE_CHECKING:
    from .connection import TimedConnection

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ASK_SECONDS = 30.0
_RETENTION_EVERY = 60.0
_RETENTION_BUDGET = 0.2  # seconds of one send
_RETENTION_ROWS = 1000
_RETENTION_PATIENCE = 2.0  # seconds that a delete may wait for others
_OPTIONS: dict[str, Parser] = {"table": str, "schema": str, "retention_days": positive, **LANE_PARSERS}
_SNAPSHOT = "ISOLATION LEVEL REPEATABLE READ READ ONLY"

# After a fork the parent's connections must never be closed in the child: that would end the parent's session.
_abandoned: list[TimedConnection] = []


class PostgreSQLMetricsSink(Asking, BatchingMetricsSink):
    """Writes records to a table of a PostgreSQL database (12 or newer) and answers questions about them.

    One row per call and one typed column per field, so that any SQL tool can read it. Nothing happens before the first
    batch, which connects and makes the table. Any number of processes may write and ask at once. A record whose id is
    there already is ignored, so a replay adds nothing. Works behind PgBouncer, also in transaction mode.

    Args:
        dsn: `postgresql://user:password@host:5432/database?sslmode=require`, or libpq's `host=... dbname=...`. What it
            does not say comes from libpq's environment variables and files (PGPASSWORD, ~/.pgpass). A URL takes the
            options below and those of the lane too.
        table: the table's name: letters, digits and _.
        schema: its schema, which must exist; without one, the first of the user's search_path.
        retention_days: delete calls that started longer ago; looked after once a minute, while calls are written.
        must_exist: refuse to make the table; for programs that only ask.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: a DSN, name or option that cannot work.
        MissingExtra: psycopg is not installed.
        StoreError: with `must_exist`, a store that is missing or cannot be reached.
    """

    def __init__(
        self,
        dsn: str,
        *,
        table: str | None = None,
        schema: str | None = None,
        retention_days: float | None = None,
        must_exist: bool = False,
        **lane: Unpack[LaneOptions],
    ) -> None:
        self._conninfo, options = dsns.split(dsn, _OPTIONS)
        self._parameters = dsns.read(self._conninfo)
        super().__init__(**lane_options_in(options, lane))
        self.table = dsns.check_name("table", table or options.get("table") or "llm_metrics")
        self.schema = schema or options.get("schema")
        if self.schema is not None:
            dsns.check_name("schema", self.schema)
        self.destination = dsns.destination(self._parameters, self.schema, self.table)
        self.retention_days = options.get("retention_days") if retention_days is None else retention_days
        if self.retention_days is not None:
            check_positive("retention_days", self.retention_days)
        self._must_exist = must_exist
        self._name = dsns.quoted(self.schema, self.table)
        self._insert = schemas.insert(self._name)
        self._settles = Settles()
        self._connection: TimedConnection | None = None
        self._process = os.getpid()
        self._retention_due = 0.0
        self._logged: set[str] = set()
        if must_exist:
            self.check()

    @classmethod
    def from_url(cls, url: str, *, must_exist: bool = False) -> PostgreSQLMetricsSink:
        """The store that a `postgresql:` URL names."""
        return cls(url, must_exist=must_exist)

    def __repr__(self) -> str:
        return f"PostgreSQLMetricsSink({self.destination!r})"

    def check(self) -> None:
        """Connect once, and make or migrate the table where needed.

        Raises:
            SchemaTooNew: a newer tellmeter made the table.
            StoreError: the server cannot be reached or refuses, or the table is another program's.
        """
        self._answer(lambda connection: None)

    def bind(self, settle: Settle) -> None:
        """Settle this way too before every answer."""
        self._settles.add(settle)

    # ------------------------------------------------------------------ writing, on the lane's thread

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Insert the batch."""
        if self._process != os.getpid():  # forked without a collector that would have told us
            self.after_fork()
        if not batch:
            return Delivered()
        while True:
            known = self._connection is not None
            try:
                connection = self._writer(deadline)
                rejected = self._insert_some(connection, batch, 0, deadline)
                break
            except Exception as error:
                gone = is_lost(error) or getattr(error, "sqlstate", None) == "42P01"
                if gone:
                    self.close()
                # The server may have been restarted, or the table dropped, since the last batch: once more from anew.
                if not (gone and known):
                    return self._failed(error)
        try:
            self._retain(connection, deadline)
        except Exception as error:  # the batch is delivered all the same
            note("postgresql retention", error)
        return Partial(rejected=tuple(rejected), reason="invalid_record") if rejected else Delivered()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._process != os.getpid():
            _abandoned.append(connection)
            return
        try:
            connection.close()
        except Exception as error:
            note("postgresql", error)

    def after_fork(self) -> None:
        """The connection is the parent's: it is neither used nor closed here."""
        if self._connection is not None:
            _abandoned.append(self._connection)
        self._connection = None
        self._process = os.getpid()

    def _writer(self, deadline: float) -> TimedConnection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect(deadline)
        return self._connection

    def _connect(self, deadline: float) -> TimedConnection:
        from .connection import connect, transaction

        connection = connect(self._conninfo, self._parameters, deadline)
        try:
            with transaction(connection, deadline):
                schemas.prepare(connection, self.destination, self.schema, self.table, create=not self._must_exist)
        except BaseException:
            connection.close()
            raise
        return connection

    def _insert_some(
        self, connection: TimedConnection, batch: Sequence[AgentMetrics], first: int, deadline: float
    ) -> list[int]:
        """Insert records; the indexes of those that PostgreSQL does not take, found by halves."""
        from .connection import transaction

        try:
            with transaction(connection, deadline):
                connection.execute(self._insert, schemas.arrays_of(batch))
        except Exception as error:
            if not is_of_rows(error):
                raise
            if len(batch) == 1:
                note("postgresql", error)
                return [first]
        else:
            return []
        half = len(batch) // 2
        return [
            *self._insert_some(connection, batch[:half], first, deadline),
            *self._insert_some(connection, batch[half:], first + half, deadline),
        ]

    def _failed(self, error: Exception) -> Outcome:
        cause = cause_of(error)
        if cause.name not in self._logged:
            self._logged.add(cause.name)
            logger.warning("%s", error if isinstance(error, StoreError) else store_error(self.destination, error))
        return outcome_of(cause)

    def _retain(self, connection: TimedConnection, deadline: float) -> None:
        """Delete what is too old, a little at a time; where there is more, the next send goes on."""
        started = time.monotonic()
        if self.retention_days is None or started < self._retention_due:
            return
        from .connection import transaction

        self._retention_due = started + _RETENTION_EVERY
        until = min(deadline, started + _RETENTION_BUDGET)
        # Others may delete at the same time: each takes rows that the others have not.
        sql = (
            f"DELETE FROM {self._name} WHERE id IN (SELECT id FROM {self._name} WHERE unix_seconds < %s "  # noqa: S608
            "ORDER BY unix_seconds LIMIT %s FOR UPDATE SKIP LOCKED)"
        )
        oldest_kept = time.time() - self.retention_days * 86_400
        deleted = _RETENTION_ROWS
        while deleted == _RETENTION_ROWS:
            with transaction(connection, min(deadline, time.monotonic() + _RETENTION_PATIENCE)):
                deleted = connection.execute(sql, (oldest_kept, _RETENTION_ROWS)).rowcount
            if deleted == _RETENTION_ROWS and time.monotonic() >= until:
                self._retention_due = 0.0
                return

    # ------------------------------------------------------------------ asking

    async def _ask(self, what: str, *arguments: Any) -> Any:
        import asyncio

        question = getattr(postgresql_query, what)

        def settled() -> Any:
            self._settles.now()
            return self._answer(lambda connection: question(connection, self._name, *arguments))

        return await asyncio.to_thread(settled)

    def _answer(self, question: Callable[[TimedConnection], T]) -> T:
        """One answer from one snapshot, on a connection of its own, so that nothing is shared between threads."""
        import psycopg

        from .connection import transaction

        deadline = time.monotonic() + _ASK_SECONDS
        try:
            connection = self._connect(deadline)
            try:
                with transaction(connection, deadline, _SNAPSHOT):
                    return question(connection)
            finally:
                connection.close()
        except (psycopg.Error, OSError) as error:
            # Without its cause: what the server says may quote what is in the table.
            raise (error if isinstance(error, StoreError) else store_error(self.destination, error)) from None
        except msgspec.MsgspecError:
            raise StoreError(f"{self.destination}: a row was changed by hand and cannot be read") from None
