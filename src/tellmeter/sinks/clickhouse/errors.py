"""What went wrong at a ClickHouse server, by its exception's code: a short name, what to do, whether waiting helps."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import SchemaTooNew, StoreError
from ...pipeline.outcome import Outcome, Rejected, RetryLater

_PAUSE = 60.0  # where somebody has to do something first


class Cause(NamedTuple):
    """`outcome` is what a batch comes to, `advice` for the user. `of_rows`: other records of the batch may be taken."""

    outcome: Outcome
    advice: str
    of_rows: bool = False

    @property
    def name(self) -> str:
        """The outcome's reason."""
        return getattr(self.outcome, "reason", "") or "too_large"


class Failure(Exception):
    """A statement that was not carried out; `code` is ClickHouse's, None where ClickHouse did not answer."""

    def __init__(self, cause: Cause, code: int | None = None) -> None:
        super().__init__(cause.name)
        self.cause = cause
        self.code = code


def _later(name: str, advice: str) -> Cause:
    return Cause(RetryLater(reason=name), advice)


def _operator(name: str, advice: str) -> Cause:
    return Cause(RetryLater(after=_PAUSE, reason=name), advice)


_UNAUTHORIZED = _operator("unauthorized", "the server refuses the user; check user and password")
_NETWORK = _later("server_network", "the server cannot reach others that it needs; its log tells more")
_KEEPER = _later("keeper", "the server cannot reach its Keeper; its log tells more")
_NO_CLUSTER = _operator("no_such_cluster", "the server knows no such cluster, or has no macros shard and replica")
_SETTING = _operator("setting", "the user's profile forbids a setting that is needed; see docs/clickhouse.md")
_NO_COLUMN = _operator("no_such_column", "the table lacks a column that tellmeter made; name another table")
_OF_ROWS = Cause(Rejected("invalid_record"), "the server cannot take a record", of_rows=True)
_OF_RESULT = _later("too_much", "the answer is too large; ask for less")

# ErrorCodes.cpp of ClickHouse has them all; their names are held against the engine's in the tests.
CAUSES = {
    6: _OF_ROWS,  # CANNOT_PARSE_TEXT
    16: _NO_COLUMN,  # NO_SUCH_COLUMN_IN_TABLE
    26: _OF_ROWS,  # CANNOT_PARSE_QUOTED_STRING
    27: _OF_ROWS,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    33: _OF_ROWS,  # CANNOT_READ_ALL_DATA
    38: _OF_ROWS,  # CANNOT_PARSE_DATE
    41: _OF_ROWS,  # CANNOT_PARSE_DATETIME
    47: _NO_COLUMN,  # UNKNOWN_IDENTIFIER
    53: _OF_ROWS,  # TYPE_MISMATCH
    60: _later("no_such_table", "the table is gone; it is made anew with the next batch"),  # UNKNOWN_TABLE
    69: _OF_ROWS,  # ARGUMENT_OUT_OF_BOUND
    70: _OF_ROWS,  # CANNOT_CONVERT_TYPE
    72: _OF_ROWS,  # CANNOT_PARSE_NUMBER
    81: _operator("no_such_database", "there is no such database; create it"),  # UNKNOWN_DATABASE
    115: _SETTING,  # UNKNOWN_SETTING
    117: _OF_ROWS,  # INCORRECT_DATA
    131: _OF_ROWS,  # TOO_LARGE_STRING_SIZE
    139: _NO_CLUSTER,  # NO_ELEMENTS_IN_CONFIG
    158: _OF_RESULT,  # TOO_MANY_ROWS
    159: _later("timeout", "it took too long; ask for less"),  # TIMEOUT_EXCEEDED
    160: _later("timeout", "it would take too long; ask for less"),  # TOO_SLOW
    164: _operator("read_only", "the user may only read, or may not even change settings (readonly = 1)"),  # READONLY
    170: _NO_CLUSTER,  # CLUSTER_DOESNT_EXIST, as BAD_GET in older versions
    192: _UNAUTHORIZED,  # UNKNOWN_USER
    193: _UNAUTHORIZED,  # WRONG_PASSWORD
    194: _UNAUTHORIZED,  # REQUIRED_PASSWORD
    201: _operator("quota", "the user's quota is used up"),  # QUOTA_EXCEEDED
    202: _later("too_many_queries", "the server has too many queries at once"),  # TOO_MANY_SIMULTANEOUS_QUERIES
    209: _NETWORK,  # SOCKET_TIMEOUT
    210: _NETWORK,  # NETWORK_ERROR
    225: _KEEPER,  # NO_ZOOKEEPER
    236: _later("shutting_down", "the server is going down; try again"),  # ABORTED
    241: _later("no_memory", "the server is out of memory"),  # MEMORY_LIMIT_EXCEEDED
    242: _later("read_only_replica", "the replica is read-only; its log tells more"),  # TABLE_IS_READ_ONLY
    243: _later("disk_full", "the server's disk is full"),  # NOT_ENOUGH_SPACE
    252: _later("too_many_parts", "inserts are faster than merges; see docs/clickhouse.md"),  # TOO_MANY_PARTS
    279: _NETWORK,  # ALL_CONNECTION_TRIES_FAILED
    285: _later("too_few_replicas", "too few replicas are alive"),  # TOO_FEW_LIVE_REPLICAS
    307: _OF_RESULT,  # TOO_MANY_BYTES
    319: _later("unknown_status", "the server does not know whether the insert succeeded"),  # UNKNOWN_STATUS_OF_INSERT
    321: _OF_ROWS,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349: _OF_ROWS,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    394: _later("cancelled", "somebody ended the query"),  # QUERY_WAS_CANCELLED
    395: _OF_ROWS,  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
    396: _OF_RESULT,  # TOO_MANY_ROWS_OR_BYTES
    452: _SETTING,  # SETTING_CONSTRAINT_VIOLATION
    469: _OF_ROWS,  # VIOLATED_CONSTRAINT
    497: _operator("forbidden", "the user lacks a privilege; see the grants in docs/clickhouse.md"),  # ACCESS_DENIED
    516: _UNAUTHORIZED,  # AUTHENTICATION_FAILED
    701: _NO_CLUSTER,  # CLUSTER_DOESNT_EXIST
    999: _KEEPER,  # KEEPER_EXCEPTION
}
NOT_CLICKHOUSE = _operator("not_clickhouse", "what answers there is no ClickHouse; check host, port and path")
TOO_MUCH = _OF_RESULT
UNREADABLE = _later("unreadable", "the answer cannot be read")


def cause_of_code(code: int, status: int) -> Cause:
    """Why ClickHouse refused; a code that is not known is judged by the HTTP status that came with it."""
    if code in CAUSES:
        return CAUSES[code]
    reason = f"clickhouse_{code}"
    outcome = Rejected(reason) if 400 <= status < 500 else RetryLater(reason=reason)
    return Cause(outcome, "the server refused; its log tells more")


def cause_of_outcome(outcome: Outcome) -> Cause:
    """Why there was no answer of ClickHouse's, by what the HTTP exchange came to."""
    reason = getattr(outcome, "reason", "")
    if reason in ("http_404", "http_405"):  # a proxy without its backend, or another server
        return NOT_CLICKHOUSE
    return Cause(outcome, f"it cannot be reached ({reason or 'too_large'}); check host, port and network")


def cause_of(error: BaseException) -> Cause:
    """Why something failed: of a `Failure` or of the schema's errors."""
    if isinstance(error, Failure):
        return error.cause
    return _operator("schema_too_new" if isinstance(error, SchemaTooNew) else "foreign_table", "")


def store_error(where: str, error: Failure) -> StoreError:
    """A failure as one line that says what to do; never the server's own words, for they quote values."""
    told = f" ({error.code})" if error.code is not None else ""
    return StoreError(f"{where}: {error.cause.advice}{told}")
