"""Where a PostgreSQL store is: its DSN taken apart, checked, and how it may be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from ...errors import ConfigError, MissingExtra
from ..address import Parser, parse, redact

_URL = re.compile(r"\s*postgres(ql)?:", re.IGNORECASE)
_PORTS = re.compile(r"[0-9,]*", re.ASCII)
# Unquoted, PostgreSQL cuts longer names off.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def split(dsn: object, parsers: Mapping[str, Parser]) -> tuple[str, dict[str, Any]]:
    """The DSN as libpq takes it, and those options of a URL that are ours: the ones that have a parser.

    Raises:
        ConfigError: no text, a URL of another shape, or a bad value. What the DSN holds is not in the message.
    """
    if not isinstance(dsn, str) or "\0" in dsn:
        raise ConfigError("dsn: it must be a text, as postgresql://user@host/database or host=... dbname=...")
    if not _URL.match(dsn):
        return dsn, {}
    address = parse(dsn.strip())
    location = address.location or "//"
    if not location.startswith("//"):
        raise ConfigError("dsn: write postgresql://user@host/database with two slashes")
    _, _, query = dsn.strip().partition("?")
    pairs = [(unquote_plus(pair.partition("=")[0]), pair) for pair in query.split("&") if pair]
    theirs = "&".join(pair for name, pair in pairs if name not in parsers)
    ours = {name: value for name, value in address.options.items() if name in parsers}
    values = msgspec.structs.replace(address, options=ours).read(**parsers)
    return f"{address.scheme}:{location}{'?' if theirs else ''}{theirs}", values


def read(conninfo: str) -> dict[str, Any]:
    """The parameters of a DSN by libpq's names.

    Raises:
        ConfigError: what libpq does not understand.
        MissingExtra: psycopg is not installed.
    """
    try:
        import psycopg.conninfo
    except ImportError:
        raise MissingExtra("psycopg", "postgresql") from None
    try:
        parameters: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(conninfo)
        if not _PORTS.fullmatch(str(parameters.get("port", ""))):  # libpq looks at it only when it connects
            raise psycopg.ProgrammingError
        return parameters
    except (psycopg.Error, UnicodeError):
        # What libpq says may quote the password.
        shown = redact(conninfo) if _URL.match(conninfo) else "the DSN"
        raise ConfigError(
            f"{shown}: PostgreSQL cannot read it; write postgresql://user@host:5432/database?sslmode=require "
            "(% and @ in a password as %25 and %40), or host=... dbname=..."
        ) from None


def destination(parameters: Mapping[str, Any], schema: str | None, table: str) -> str:
    """Where records go, without user and password: `postgresql://host:port/database/schema.table`."""

    def one(name: str, variable: str, default: str) -> str:
        return str(parameters.get(name) or os.environ.get(variable) or default)

    user = one("user", "PGUSER", "")
    where = one("host", "PGHOST", "") or one("hostaddr", "PGHOSTADDR", "localhost")
    port, database = one("port", "PGPORT", "5432"), one("dbname", "PGDATABASE", user)
    service = one("service", "PGSERVICE", "")
    return redact(
        f"postgresql://{where}:{port}/{database}{f'?service={service}' if service else ''}"
        f"/{f'{schema}.' if schema else ''}{table}"
    )


def check_name(what: str, name: object) -> str:
    """A name that is safe in SQL.

    Raises:
        ConfigError: any other.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{what} = {name!r}: it must be letters, digits and _, 63 at most, no digit first")
    return name


def quoted(schema: str | None, table: str) -> str:
    """Checked names as SQL."""
    return f'"{schema}"."{table}"' if schema else f'"{table}"'
