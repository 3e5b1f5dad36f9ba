"""Where a ClickHouse store is: its server, user and names, taken apart and checked."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from ...errors import ConfigError
from ...secret import Secret
from ..address import LANE_PARSERS, Parser, flag, parse, positive
from ..sending.sender import HTTP_PARSERS
from ..sending.url import http_url

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CLUSTER = re.compile(r"[A-Za-z0-9_.{}-]{1,128}")
_WITHOUT_PORT = re.compile(r"\[[^\]]*\]|[^:]*")
_OPTIONS: dict[str, Parser] = {
    "table": str,
    "cluster": str,
    "retention_days": positive,
    "async_insert": flag,
    "secure": flag,
    "password_env": str,
    **HTTP_PARSERS,
    **LANE_PARSERS,
}


class Server(NamedTuple):
    """`url` has neither user nor query; `place` is how it is named in `destination`."""

    url: str
    path: str
    place: str
    headers: dict[str, Secret]


def server(url: str, user: str | None, password: str | Secret | None, *, allow_link_local: bool = False) -> Server:
    """A server by its http or https URL; who asks is in headers, which no log of URLs shows.

    The user comes from `user`, else from the URL, else from CLICKHOUSE_USER; the password likewise, else from
    CLICKHOUSE_PASSWORD. Without any of them ClickHouse takes its user `default`.

    Raises:
        ConfigError: no such URL, or a user in two places; no secrets in the message.
        MissingExtra: httpx2 is not installed.
    """
    found = http_url(url, allow_link_local=allow_link_local, extra="clickhouse")
    path, mark, _ = found.target.partition("?")
    if mark:
        raise ConfigError(
            f"{found.shown}: settings do not belong into this URL; database, table and so on are arguments"
        )
    secret = Secret.of("password", password)
    if found.user is not None:
        if user is not None or secret is not None:
            raise ConfigError(f"{found.shown}: it holds a user, and there is user= or password= beside it")
        user, _, given = found.user.reveal().partition(":")
        secret = Secret(given) if given else None
    user = user or os.environ.get("CLICKHOUSE_USER") or None
    if secret is None and os.environ.get("CLICKHOUSE_PASSWORD"):
        secret = Secret.from_env("CLICKHOUSE_PASSWORD")
    headers = {}
    if user is not None or secret is not None:
        headers["X-ClickHouse-User"] = Secret(user or "default")
    if secret is not None:
        headers["X-ClickHouse-Key"] = secret
    host = f"[{found.host}]" if ":" in found.host else found.host
    place = f"{host}:{found.port}{path.rstrip('/')}"
    return Server(f"{found.scheme}://{host}:{found.port}{path}", path, place, headers)


def arguments_of(url: str) -> dict[str, Any]:
    """The sink's arguments in `clickhouse://user@host:8123/database?table=...&secure=true&password_env=...`.

    Raises:
        ConfigError: no such URL, an unknown option, a value that cannot work; no secrets in the message.
    """
    address = parse(url)
    if address.location and not address.location.startswith("//"):
        raise ConfigError(f"{address.shown}: write clickhouse://host:8123/database")
    options = address.read(**_OPTIONS)
    variable = options.pop("password_env", None)
    if variable is not None:
        try:
            options["password"] = Secret.from_env(variable)
        except ConfigError as error:
            raise ConfigError(f"password_env in {address.shown}: {error}") from None
    secure = options.pop("secure", address.scheme == "clickhouses")
    who, _, where = address.location[2:].rpartition("@")
    host, _, database = where.partition("/")
    name, _, password = who.partition(":")
    if name:
        options["user"] = unquote(name)
    if password:
        if "password" in options:
            raise ConfigError(f"{address.shown}: it holds a password, and there is password_env beside it")
        options["password"] = Secret(unquote(password))
    if _WITHOUT_PORT.fullmatch(host := host or "localhost"):
        host += ":8443" if secure else ":8123"
    options["url"] = f"http{'s' * secure}://{host}"
    if database:
        options["database"] = unquote(database)
    return options


def check_name(what: str, name: object) -> str:
    """The name of a database or table, which is nothing else in SQL either.

    Raises:
        ConfigError: another text.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{what} = {str(name)[:40]!r}: it must be letters, digits and _, and begin with no digit")
    return name


def check_cluster(name: object) -> str:
    """The name of a cluster, or a macro as `{cluster}`.

    Raises:
        ConfigError: another text.
    """
    if not isinstance(name, str) or not _CLUSTER.fullmatch(name):
        raise ConfigError(f"cluster = {str(name)[:40]!r}: it must be a cluster's name, or a macro as {{cluster}}")
    return name
