"""The store of a fleet: records of any number of processes and machines in one ClickHouse table."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Unpack

import msgspec

from ...errors import StoreError
from ...pipeline.outcome import Delivered, Outcome, Partial
from ...records import AgentMetrics
from ...secret import Secret
from ..asking import Asking
from ..base import BatchingMetricsSink, LaneOptions, Settle, Settles
from ..checks import check_positive
from ..sending.sender import HTTPSender
from . import address, rows, schema
from . import query as clickhouse_query
from .client import Client
from .errors import Failure, cause_of, store_error

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ASK_SECONDS = 30.0
_NO_TABLE = 60
_LAST = 2**63 - 1
_INSERT_SETTINGS = {
    "input_format_skip_unknown_fields": "1",  # a newer process may write to an older table
    "precise_float_parsing": "1",  # without, the last digit of a float may be another
    "max_partitions_per_insert_block": "0",  # a batch of a long outage has days of many months
    "wait_for_async_insert": "1",
}


class ClickHouseMetricsSink(Asking, BatchingMetricsSink):
    """Writes records to a ClickHouse table over the server's HTTP interface, and answers questions about them.

    One row per call and one typed column per field. Nothing happens before the first batch, which connects and makes
    the tables. Any number of processes may write and ask at once. A record that comes twice counts once in every
    answer: rows of the same id and start time are one, in ClickHouse's merges and, before these, in each question.

    Args:
        url: http or https, with the port of ClickHouse's HTTP interface. `user:password@` may be in it.
        database: where the table is; it must exist.
        table: the table's name: letters, digits and _. Others begin with it: `<table>_minutes`, `<table>_to_minutes`.
        user, password: without them CLICKHOUSE_USER and CLICKHOUSE_PASSWORD; they travel in headers.
        cluster: make replicated tables on all nodes of this cluster, and `table` as Distributed over its shards.
        retention_days: calls that started longer ago are deleted by the server when it merges.
        async_insert: let the server join small inserts of many processes; a batch is answered when it is written.
        must_exist: refuse to make the table; for programs that only ask.
        compress, timeout_seconds, ca, verify, allow_link_local: as of `HTTPMetricsSink`.
        lane: settings for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: an argument that cannot work.
        MissingExtra: httpx2 is not installed.
        StoreError: with `must_exist`, a store that is missing or cannot be reached.
    """

    def __init__(
        self,
        url: str = "http://localhost:8123",
        *,
        database: str = "default",
        table: str = "llm_metrics",
        user: str | None = None,
        password: str | Secret | None = None,
        cluster: str | None = None,
        retention_days: float | None = None,
        async_insert: bool = False,
        must_exist: bool = False,
        compress: str | None = "gzip",
        timeout_seconds: float = 5.0,
        ca: str | os.PathLike[str] | None = None,
        verify: bool = True,
        allow_link_local: bool = False,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        self.database = address.check_name("database", database)
        self.table = address.check_name("table", table)
        self.retention_days = None if retention_days is None else check_positive("retention_days", retention_days)
        self._tables = schema.Tables(
            database=database,
            table=table,
            cluster=None if cluster is None else address.check_cluster(cluster),
            retention_days=retention_days,
        )
        self._server = address.server(url, user, password, allow_link_local=allow_link_local)
        self._sending: dict[str, Any] = {
            "compress": compress,
            "timeout_seconds": timeout_seconds,
            "ca": ca,
            "verify": verify,
            "allow_link_local": allow_link_local,
        }
        self._client = self._connect()
        self.destination = f"clickhouse://{self._server.place}/{database}/{table}"
        self._must_exist = must_exist
        self._insert = f"INSERT INTO {self._tables.name} FORMAT JSONEachRow"
        self._insert_settings = {
            **_INSERT_SETTINGS,
            "async_insert": str(int(async_insert)),
            # Joined inserts are not told apart by batches, and ClickHouse refuses both at once.
            "deduplicate_blocks_in_dependent_materialized_views": str(int(not async_insert)),
            **({} if cluster is None else {"distributed_foreground_insert": "1"}),
        }
        self._settles = Settles()
        self._ready = False
        self._precedence = _LAST
        self._logged: set[str] = set()
        if must_exist:
            self.check()

    @classmethod
    def from_url(cls, url: str, *, must_exist: bool = False) -> ClickHouseMetricsSink:
        """The store that a `clickhouse://user@host:8123/database` URL names.

        Options: `table`, `cluster`, `retention_days`, `async_insert`, `secure` (https), `password_env` (the environment
        variable that holds the password), `compress`, `timeout_seconds`, `ca`, `verify`, `allow_link_local`, and the
        lane's.
        """
        return cls(**address.arguments_of(url), must_exist=must_exist)

    def __repr__(self) -> str:
        return f"ClickHouseMetricsSink({self.destination!r})"

    def check(self) -> None:
        """Connect once, and make or migrate the tables where needed.

        Raises:
            SchemaTooNew: a newer tellmeter made them.
            StoreError: the server cannot be reached or refuses, or the table is another program's.
        """
        self._answer(lambda client, deadline: None)

    def bind(self, settle: Settle) -> None:
        """Settle this way too before every answer."""
        self._settles.add(settle)

    # ------------------------------------------------------------------ writing, on the lane's thread

    def open(self) -> None:
        """Warn of what is not safe."""
        self._client.sender.open()

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Insert the batch."""
        if not batch:
            return Delivered()
        # By the wall clock, so that other processes and later runs go on from there.
        first = min(self._precedence, _LAST - time.time_ns())
        self._precedence = first - len(batch)
        try:
            rejected = self._prepared(
                self._client,
                deadline,
                lambda: self._insert_some([record.id for record in batch], rows.lines_of(batch, first), 0, deadline),
            )
        except (Failure, StoreError) as error:
            return self._failed(error)
        self._logged.clear()
        return Partial(rejected=tuple(rejected), reason="invalid_record") if rejected else Delivered()

    def close(self) -> None:
        """Close the connections."""
        self._client.sender.close()

    def after_fork(self) -> None:
        """The connections are the parent's."""
        self._client.sender.after_fork()

    def _connect(self) -> Client:
        name = type(self).__name__
        sender = HTTPSender(self._server.url, name=name, headers=self._server.headers, **self._sending)
        return Client(sender, self._server.path)

    def _prepared(self, client: Client, deadline: float, work: Callable[[], T]) -> T:
        """The result of work that needs the tables: they are looked for once, and again where they are gone."""
        while True:
            known = self._ready
            if not known:
                schema.prepare(client, self.destination, self._tables, deadline, create=not self._must_exist)
                self._ready = True
            try:
                return work()
            except Failure as error:
                if error.code != _NO_TABLE or not known:
                    raise
                self._ready = False

    def _insert_some(self, ids: list[str], lines: list[bytes], first: int, deadline: float) -> list[int]:
        """Insert rows; the indexes of those that ClickHouse does not take, found by halves."""
        # The same for the same records: what ClickHouse took, though its answer was lost, makes no second part.
        settings = {**self._insert_settings, "insert_deduplication_token": _key_of(ids)}
        try:
            self._client.run(self._insert, deadline, settings=settings, data=b"\n".join(lines))
        except Failure as error:
            if not error.cause.of_rows:
                raise
            if len(lines) == 1:
                return [first]
        else:
            return []
        half = len(lines) // 2
        return [
            *self._insert_some(ids[:half], lines[:half], first, deadline),
            *self._insert_some(ids[half:], lines[half:], first + half, deadline),
        ]

    def _failed(self, error: Failure | StoreError) -> Outcome:
        cause = cause_of(error)
        if cause.name not in self._logged:
            self._logged.add(cause.name)
            logger.warning("%s", error if isinstance(error, StoreError) else store_error(self.destination, error))
        return cause.outcome

    # ------------------------------------------------------------------ asking

    async def _ask(self, what: str, *arguments: Any) -> Any:
        import asyncio

        question = getattr(clickhouse_query, what)

        def settled() -> Any:
            self._settles.now()
            return self._answer(lambda client, until: question(client, until, self._tables.name, *arguments))

        return await asyncio.to_thread(settled)

    def _answer(self, question: Callable[[Client, float], T]) -> T:
        """One answer, on a connection of its own, so that nothing is shared between threads."""
        deadline = time.monotonic() + _ASK_SECONDS
        client = self._connect()
        try:
            return self._prepared(client, deadline, lambda: question(client, deadline))
        except Failure as error:
            # Without its cause: what the server says may quote what is in the table.
            raise store_error(self.destination, error) from None
        except msgspec.MsgspecError:
            raise StoreError(f"{self.destination}: a row was changed by hand and cannot be read") from None
        finally:
            client.sender.close()


def _key_of(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
