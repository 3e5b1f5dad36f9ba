"""The SQLite store's file: its table, its versions, and how it is opened."""

from __future__ import annotations

import operator
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

from ...errors import SchemaTooNew, StoreError
from ...records import AgentMetrics, StreamMetrics
from ..base import file_reason

# "tell" in the file's header: this database is ours, and its user_version a version of the migrations below.
APPLICATION_ID = 0x74656C6C

_TABLE = """
CREATE TABLE llm_metrics (
    id TEXT NOT NULL PRIMARY KEY,
    timestamp REAL NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    response_model TEXT,
    operation TEXT NOT NULL,
    method TEXT NOT NULL,
    latency_ms REAL NOT NULL,
    status TEXT NOT NULL,
    error_class TEXT,
    error_category TEXT,
    status_code INTEGER,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    tokens_estimated INTEGER NOT NULL,
    cost_usd REAL,
    price_version TEXT,
    retries INTEGER NOT NULL,
    retry_delay_ms REAL NOT NULL,
    finish_reason TEXT,
    request_id TEXT,
    trace_id TEXT,
    span_id TEXT,
    parent_id TEXT,
    sample_rate REAL NOT NULL,
    tools_used TEXT,              -- JSON list, NULL when empty
    tags TEXT,                    -- JSON object, NULL when empty
    time_to_first_chunk_ms REAL,  -- of the stream, as the next four
    time_to_first_token_ms REAL,
    max_gap_ms REAL,
    stalls INTEGER,
    tokens_per_second REAL,
    stream TEXT                   -- JSON of the whole StreamMetrics, NULL where the call was no stream
)
"""
# One index, appended to in time's order, that holds all that questions need: 100,000 records/s go in where separate
# indexes by model, provider and request take 40,000, and a summary of a million calls never reads the table itself.
_INDEX = """
CREATE INDEX llm_metrics_time ON llm_metrics (
    timestamp, provider, model, status, error_class, request_id, latency_ms, time_to_first_token_ms, cost_usd,
    input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, retries, tags, operation, method
)
"""
# The statements that lead from each version to the next one. What was released is never changed, only added to.
MIGRATIONS: tuple[tuple[str, ...], ...] = ((_TABLE, _INDEX),)

_PLAIN = (
    "id", "timestamp", "provider", "model", "response_model", "operation", "method", "latency_ms", "status",
    "error_class", "error_category", "status_code", "input_tokens", "output_tokens", "cached_tokens",
    "cache_write_tokens", "reasoning_tokens", "tokens_estimated", "cost_usd", "price_version", "retries",
    "retry_delay_ms", "finish_reason", "request_id", "trace_id", "span_id", "parent_id", "sample_rate",
)  # fmt: skip
_OF_STREAM = ("time_to_first_chunk_ms", "time_to_first_token_ms", "max_gap_ms", "stalls", "tokens_per_second")
COLUMNS = (*_PLAIN, "tools_used", "tags", *_OF_STREAM, "stream")
INSERT = (
    f"INSERT INTO llm_metrics ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "  # noqa: S608
    "ON CONFLICT (id) DO NOTHING"
)
SELECT = f"SELECT {', '.join((*_PLAIN, 'tools_used', 'tags', 'stream'))} FROM llm_metrics"  # noqa: S608

_plain_of = operator.attrgetter(*_PLAIN)
_stream_of = operator.attrgetter(*_OF_STREAM)
_no_stream = (None,) * (len(_OF_STREAM) + 1)
_encode = msgspec.json.Encoder().encode
_decode_tools = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_tags = msgspec.json.Decoder(dict[str, str]).decode
_decode_stream = msgspec.json.Decoder(StreamMetrics).decode


def row_of(record: AgentMetrics) -> tuple[Any, ...]:
    """A record as the values of `COLUMNS`."""
    stream = record.stream
    return (
        *_plain_of(record),
        _encode(record.tools_used).decode() if record.tools_used else None,
        _encode(record.tags).decode() if record.tags else None,
        *(_no_stream if stream is None else (*_stream_of(stream), _encode(stream).decode())),
    )


def record_of(row: tuple[Any, ...]) -> AgentMetrics:
    """The record that a row of `SELECT` was made from.

    Raises:
        msgspec.DecodeError: a row that was changed by hand.
    """
    *plain, tools, tags, stream = row
    fields = dict(zip(_PLAIN, plain, strict=True))
    fields["tokens_estimated"] = bool(fields["tokens_estimated"])
    return AgentMetrics(
        **fields,
        tools_used=() if tools is None else _decode_tools(tools),
        tags={} if tags is None else _decode_tags(tags),
        stream=None if stream is None else _decode_stream(stream),
    )


# ---------------------------------------------------------------------- errors

# SQLite's primary result code -> short name, and what to tell the user.
_ERRORS = {
    sqlite3.SQLITE_BUSY: ("locked", "it is locked by another program; try again"),
    sqlite3.SQLITE_LOCKED: ("locked", "it is locked by another program; try again"),
    sqlite3.SQLITE_READONLY: ("read_only", "it cannot be written; check the permissions of the file and its folder"),
    sqlite3.SQLITE_IOERR: ("io_error", "the disk reports an error"),
    sqlite3.SQLITE_CORRUPT: ("corrupt", "it is damaged; move it away (sqlite3's .recover may save what is in it)"),
    sqlite3.SQLITE_FULL: ("disk_full", "the disk is full"),
    sqlite3.SQLITE_CANTOPEN: ("cannot_open", "it cannot be opened; check the path and its permissions"),
    sqlite3.SQLITE_PERM: ("cannot_open", "it cannot be opened; check the path and its permissions"),
    sqlite3.SQLITE_NOTADB: ("not_a_database", "it is no SQLite database; move it away or name another store"),
    sqlite3.SQLITE_TOOBIG: ("too_big", "a value is too big for this SQLite"),
}


def _known(error: BaseException) -> tuple[str, str]:
    return _ERRORS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, ("sqlite_error", "SQLite cannot work with it"))


def reason_of(error: BaseException) -> str:
    """A short name for an error of SQLite, of the file system, or of this module."""
    if isinstance(error, SchemaTooNew):
        return "schema_too_new"
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(cause, OSError):
        return file_reason(cause)
    return _known(cause)[0] if isinstance(cause, sqlite3.Error) else "foreign_database"


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """An error of SQLite as one line that says what to do."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreError(f"{path}: {_known(error)[1]} ({name})")


# ---------------------------------------------------------------------- opening


def connect(path: Path, *, create: bool, reading: bool = False, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open the store and bring it to the newest version; the caller closes the connection.

    `create`: make the file (0600) and its folder (0700) where they are missing. `reading`: a file that cannot be
    written is opened all the same. `busy_seconds`: how long to wait for other programs.

    Raises:
        SchemaTooNew: a newer tellmeter wrote it.
        StoreError: it is missing, locked, damaged, no database, or another program's.
    """
    if create:
        _make_file(path)
    elif not path.exists():
        raise StoreError(f"{path}: there is no such store; it is made when the first call is recorded")
    try:
        return _open(path, "mode=rw", busy_seconds)
    except sqlite3.Error as error:
        if reading and reason_of(error) in ("read_only", "cannot_open"):
            # Readers of WAL need a -shm file beside the store. Where none can be made nobody writes.
            for mode in ("mode=ro", "mode=ro&immutable=1"):
                try:
                    return _open(path, mode, busy_seconds)
                except sqlite3.Error:
                    continue
        raise store_error(path, error) from error


def _make_file(path: Path) -> None:
    """Make the file ourselves: SQLite's would be readable for everybody. Its -wal and -shm files take over the mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never opened where it exists: closing any descriptor of it would drop SQLite's own locks.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if not path.parent.is_dir():
            raise StoreError(f"{path}: {path.parent} is no folder") from NotADirectoryError(20, "")
    except OSError as error:
        raise StoreError(f"{path}: it cannot be made: {os.strerror(error.errno or 0)}") from error


def _open(path: Path, mode: str, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{mode}", uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection, path, busy_seconds)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, busy_seconds: float) -> None:
    connection.execute("BEGIN")  # one look, between the steps of a process that is making the store right now
    version, application, tables = _state(connection)
    connection.execute("COMMIT")
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path}: it holds another program's data; name another store")
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{path}: it was written by a newer tellmeter (version {version} of the store, this one knows "
            f"{len(MIGRATIONS)}); upgrade tellmeter, or name another store"
        )
    if version < len(MIGRATIONS):
        _migrate(connection, busy_seconds)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 2000")
    connection.execute("PRAGMA journal_size_limit = 67108864")


def _state(connection: sqlite3.Connection) -> tuple[int, int, int]:
    return (
        connection.execute("PRAGMA user_version").fetchone()[0],
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0],
    )


def _migrate(connection: sqlite3.Connection, busy_seconds: float) -> None:
    connection.execute("PRAGMA page_size = 8192")  # of a new file; a record with a stream takes about 1 KB
    _use_wal(connection, time.monotonic() + busy_seconds)
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _state(connection)[0]  # another process may have been faster
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < len(MIGRATIONS):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait here where waiting could end in a deadlock, so we do.
            if reason_of(error) != "locked" or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
