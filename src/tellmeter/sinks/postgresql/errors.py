"""What went wrong at a PostgreSQL server, by SQLSTATE: a short name, what to do, and whether waiting may cure it."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...errors import SchemaTooNew, StoreError
from ...pipeline.outcome import Outcome, Rejected, RetryLater

_PAUSE = 60.0  # where somebody has to do something first


class Cause(NamedTuple):
    """`name` is for outcomes, `advice` for the user. `retry`: the same batch may be taken later, in `after` seconds."""

    name: str
    advice: str
    retry: bool = False
    after: float | None = None


def _later(name: str, advice: str) -> Cause:
    return Cause(name, advice, retry=True)


def _operator(name: str, advice: str) -> Cause:
    return Cause(name, advice, retry=True, after=_PAUSE)


# SQLSTATE or its class (the first two characters); PostgreSQL's documentation, appendix A.
CAUSES = {
    "08": _later("unreachable", "the connection failed; check host, port and network"),
    "25006": _later("read_only", "the server is read-only (a standby?); name the primary, or a target_session_attrs"),
    "28": _operator("unauthorized", "the server refuses the user; check user, password and pg_hba.conf"),
    "3D000": _operator("no_such_database", "there is no such database; create it"),
    "3F000": _operator("no_such_schema", "there is no such schema; create it"),
    "40001": _later("conflict", "other transactions were in the way; try again"),
    "40P01": _later("deadlock", "other transactions were in the way; try again"),
    "42501": _operator("forbidden", "the user lacks a privilege; see the grants in docs/postgresql.md"),
    "42P01": _later("no_such_table", "the table is gone; it is made anew with the next batch"),
    "53": _later("no_resources", "the server is out of connections, memory or disk"),
    "53100": _later("disk_full", "the server's disk is full"),
    "53300": _later("too_many_connections", "the server has no connection left"),
    "55P03": _later("locked", "the table is locked by another transaction; try again"),
    "57014": _later("timeout", "it took too long; ask for less"),
    "57": _later("shutting_down", "the server is starting or going down; try again"),
    "58": _later("server_error", "the server reports an error of its system; its log tells more"),
    "XX": _later("server_error", "the server reports an error of its own; its log tells more"),
}
UNREACHABLE = CAUSES["08"]
TIMEOUT = CAUSES["57014"]
_UNKNOWN = Cause("rejected", "the server refused")
# Errors of one record's values: data exceptions, broken constraints, what is too long for somebody's index, and what a
# trigger raises.
_OF_ROWS = ("22", "23", "54", "P0001")

# libpq gives no SQLSTATE for a connection that was refused, only the server's words. Where they are in another
# language the cause is `unreachable`, which is tried again just as well.
_SAID = (
    (re.compile(r"password authentication failed|no password supplied|no pg_hba|role \S+ does not exist"), "28"),
    (re.compile(r"database \S+ does not exist"), "3D000"),
    (re.compile(r"too many (clients|connections)|connection slots"), "53300"),
    (re.compile(r"database system is"), "57"),
)


def cause_of(error: BaseException) -> Cause:
    """Why something failed, of an error of psycopg or of ours."""
    if isinstance(error, SchemaTooNew):
        return _operator("schema_too_new", "")
    if isinstance(error, StoreError):
        return _operator("foreign_table", "")
    state = getattr(error, "sqlstate", None)
    if state is None:
        if isinstance(error, TimeoutError):
            return TIMEOUT
        said = str(error)
        state = next((code for pattern, code in _SAID if pattern.search(said)), None)
    if state is not None:
        return CAUSES.get(state) or CAUSES.get(state[:2]) or _UNKNOWN
    return UNREACHABLE if isinstance(error, OSError) or _is_operational(error) else _UNKNOWN


def _is_operational(error: BaseException) -> bool:
    return any(kind.__name__ in ("OperationalError", "InterfaceError") for kind in type(error).__mro__)


def outcome_of(cause: Cause) -> Outcome:
    """What a batch comes to."""
    return RetryLater(after=cause.after, reason=cause.name) if cause.retry else Rejected(cause.name)


def is_of_rows(error: BaseException) -> bool:
    """Whether other records of the batch may be taken."""
    state = getattr(error, "sqlstate", None)
    return (state or "").startswith(_OF_ROWS) or isinstance(error, UnicodeError)


def is_lost(error: BaseException) -> bool:
    """Whether the connection was lost, so that another one may do."""
    state = getattr(error, "sqlstate", None)
    return (state is None and _is_operational(error)) or (state or "").startswith(("08", "57P"))


def store_error(where: str, error: BaseException) -> StoreError:
    """An error as one line that says what to do; never the server's own words, for they quote values."""
    kind = getattr(error, "sqlstate", None) or type(error).__name__
    return StoreError(f"{where}: {cause_of(error).advice} ({kind})")
