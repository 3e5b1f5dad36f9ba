"""The PostgreSQL store's table: its columns, its versions, how records become rows and rows records."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import SchemaTooNew, StoreError
from ...records import AgentMetrics, StreamMetrics
from .dsn import quoted

if TYPE_CHECKING:
    from .connection import TimedConnection

# `id` is text, not uuid: who makes records may give any. It is compared byte by byte, which is fast and the same under
# every locale. `unix_seconds` is the record's time as it is. `timestamp` is the same for people and their tools, to the
# microsecond; what lies beyond the year 9999, which their languages do not know, is the last day of it.
# Without a partition by time: PostgreSQL allows no unique id across partitions, and the id is what makes a replay safe.
_TABLE = """
CREATE TABLE {table} (
    id text COLLATE "C" PRIMARY KEY,
    timestamp timestamptz NOT NULL GENERATED ALWAYS AS (to_timestamp(least(unix_seconds, 253402214400))) STORED,
    unix_seconds double precision NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    response_model text,
    operation text NOT NULL,
    method text NOT NULL,
    latency_ms double precision NOT NULL,
    status text NOT NULL,
    error_class text,
    error_category text,
    status_code bigint,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    tokens_estimated boolean NOT NULL,
    cost_usd numeric,
    price_version text,
    retries bigint NOT NULL,
    retry_delay_ms double precision NOT NULL,
    finish_reason text,
    request_id text,
    trace_id text,
    span_id text,
    parent_id text,
    sample_rate double precision NOT NULL,
    tools_used text[] NOT NULL,
    tags jsonb NOT NULL,
    time_to_first_chunk_ms double precision,
    time_to_first_token_ms double precision,
    max_gap_ms double precision,
    stalls bigint,
    tokens_per_second double precision,
    stream jsonb,
    arrival bigint NOT NULL GENERATED ALWAYS AS IDENTITY
)
"""
# The first serves the store's questions and retention, the second people's: it costs next to nothing, for rows arrive
# nearly in time's order.
_INDEXES = ("CREATE INDEX ON {table} (unix_seconds)", "CREATE INDEX ON {table} USING brin (timestamp)")
# The statements that lead from each version to the next one. What was released is never changed, only added to.
MIGRATIONS: tuple[tuple[str, ...], ...] = ((_TABLE, *_INDEXES),)

# Column -> the record's field, where it has another name.
_FIELDS = {"unix_seconds": "timestamp"}
# Those that are read as another type than they are stored.
_READ = {"cost_usd": "cost_usd::float8", "tags": "tags::text", "stream": "stream::text"}
# Columns that are a field each, in the table's order, with their types; then those that are made from a field.
_PLAIN = {
    "id": "text", "unix_seconds": "float8", "provider": "text", "model": "text", "response_model": "text",
    "operation": "text", "method": "text", "latency_ms": "float8", "status": "text", "error_class": "text",
    "error_category": "text", "status_code": "bigint", "input_tokens": "bigint", "output_tokens": "bigint",
    "cached_tokens": "bigint", "cache_write_tokens": "bigint", "reasoning_tokens": "bigint",
    "tokens_estimated": "boolean", "cost_usd": "numeric", "price_version": "text", "retries": "bigint",
    "retry_delay_ms": "float8", "finish_reason": "text", "request_id": "text", "trace_id": "text", "span_id": "text",
    "parent_id": "text", "sample_rate": "float8",
}  # fmt: skip
_OF_STREAM = {
    "time_to_first_chunk_ms": "float8", "time_to_first_token_ms": "float8", "max_gap_ms": "float8", "stalls": "bigint",
    "tokens_per_second": "float8",
}  # fmt: skip
_DOCUMENTS = {"tools_used": "text[]", "tags": "jsonb", "stream": "jsonb"}
COLUMNS = (*_PLAIN, *_OF_STREAM, *_DOCUMENTS)

_plain_of = operator.attrgetter(*(_FIELDS.get(name, name) for name in _PLAIN))
_stream_of = operator.attrgetter(*_OF_STREAM)
_no_stream = (None,) * len(_OF_STREAM)
_encode = msgspec.json.Encoder().encode
_decode_tags = msgspec.json.Decoder(dict[str, str]).decode
_decode_stream = msgspec.json.Decoder(StreamMetrics).decode


def insert(table: str) -> str:
    """The statement that takes `arrays_of` a batch. What is there already stays as it is.

    It names no column to conflict on, so that a user who may only INSERT can write.
    """
    # Arrays of arrays must be rectangles in PostgreSQL, so what is a list or document itself travels as text.
    kinds = {**_PLAIN, **_OF_STREAM, **dict.fromkeys(_DOCUMENTS, "text")}
    # As columns, not as one function of FROM, which would keep each array in a store of its own: 12 % faster.
    given = ", ".join(f"unnest(%s::{kind}[]) AS {name}" for name, kind in kinds.items())
    values = ", ".join(f"{name}::{_DOCUMENTS[name]}" if name in _DOCUMENTS else name for name in COLUMNS)
    return (
        f"INSERT INTO {table} ({', '.join(COLUMNS)}) SELECT {values} FROM (SELECT {given}) AS given "  # noqa: S608
        "ON CONFLICT DO NOTHING"
    )


def select(table: str) -> str:
    """The statement whose rows `record_of` takes."""
    names = (*_PLAIN, *_DOCUMENTS)
    return f"SELECT {', '.join(_READ.get(name, name) for name in names)} FROM {table}"  # noqa: S608


def arrays_of(records: Iterable[AgentMetrics]) -> list[str]:
    """One array per column of `COLUMNS`, as PostgreSQL writes arrays."""
    rows = [
        (
            *_plain_of(record),
            *(_no_stream if record.stream is None else _stream_of(record.stream)),
            _array(record.tools_used),
            _encode(record.tags).decode(),
            None if record.stream is None else _encode(record.stream).decode(),
        )
        for record in records
    ]
    return [_array(column) for column in zip(*rows, strict=True)]


def _array(values: Sequence[object]) -> str:
    """Values as an array's text.

    JSON's list is one but for its brackets: null and numbers are the same, and in quotes a backslash stands before
    quotes and backslashes. Control characters, the only ones where they differ, are in no record.
    """
    return f"{{{_encode(values)[1:-1].decode()}}}"


def record_of(row: tuple[Any, ...]) -> AgentMetrics:
    """The record that a row of `select` was made from.

    Raises:
        msgspec.DecodeError: a row that was changed by hand.
    """
    *plain, tools, tags, stream = row
    fields = {_FIELDS.get(name, name): value for name, value in zip(_PLAIN, plain, strict=True)}
    return AgentMetrics(
        **fields,
        tools_used=tuple(tools),
        tags=_decode_tags(tags),
        stream=None if stream is None else _decode_stream(stream),
    )


# ---------------------------------------------------------------------- versions

# The version is in the table's comment: it goes where the table goes, and who may read the table may read it.
_COMMENT = "tellmeter schema {version}: one row per LLM call"
_VERSION = re.compile(r"tellmeter schema (\d{1,9})\b")
_STATE = """
SELECT c.oid IS NOT NULL, obj_description(c.oid, 'pg_class')
FROM (SELECT) AS one LEFT JOIN pg_class c
ON c.relname = %s AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = coalesce(%s, current_schema()))
"""


def prepare(connection: TimedConnection, where: str, schema: str | None, table: str, *, create: bool) -> None:
    """Bring the table to the newest version, within a transaction; `create`: make it where it is missing.

    Raises:
        SchemaTooNew: a newer tellmeter made it.
        StoreError: it is missing, or another program's.
        psycopg.Error: anything else.
    """
    version = _version(connection, where, schema, table)
    if version is None and not create:
        raise StoreError(f"{where}: there is no such table; it is made when the first call is recorded")
    if version == len(MIGRATIONS):
        return
    # Several processes may start at once. The lock ends with the transaction, also where the process is killed.
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('tellmeter'), hashtext(%s))", (f"{schema}.{table}",))
    name = quoted(schema, table)
    for statements in MIGRATIONS[_version(connection, where, schema, table) or 0 :]:
        for statement in statements:
            connection.execute(statement.format(table=name))
    connection.execute(f"COMMENT ON TABLE {name} IS '{_COMMENT.format(version=len(MIGRATIONS))}'")


def _version(connection: TimedConnection, where: str, schema: str | None, table: str) -> int | None:
    row = connection.execute(_STATE, (table, schema)).fetchone()
    exists, comment = row or (False, None)
    if not exists:
        return None
    found = _VERSION.match(comment or "")
    if found is None:
        raise StoreError(
            f"{where}: there is a table of that name that tellmeter did not make; name another one, as ?table=llm_calls"
        )
    version = int(found[1])
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{where}: it was made by a newer tellmeter (version {version} of the table, this one knows "
            f"{len(MIGRATIONS)}); upgrade tellmeter, or name another table"
        )
    return version
