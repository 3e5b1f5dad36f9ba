"""Where points go: the three APIs, what each needs, and where it is taken from when it is not given."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode

from ...errors import ConfigError
from ...secret import Secret
from ..address import Parser
from ..sending.url import split_options, without_user

VERSIONS = ("1", "2", "3")
# The variables that the vendor's clients read (influxdb-client, influxdb3-python); the bucket's is Telegraf's.
_VARIABLES = {
    "2": {
        "url": "INFLUXDB_V2_URL",
        "token": "INFLUXDB_V2_TOKEN",
        "org": "INFLUXDB_V2_ORG",
        "bucket": "INFLUXDB_V2_BUCKET",
    },
    "3": {"url": "INFLUX_HOST", "token": "INFLUX_TOKEN", "database": "INFLUX_DATABASE"},
}
_NEEDED = {"1": ("url", "database"), "2": ("url", "token", "org", "bucket"), "3": ("url", "database")}
_TAKEN = {
    "1": {"url", "database", "username", "password", "retention_policy"},
    "2": {"url", "token", "org", "bucket"},
    "3": {"url", "token", "database"},
}
_SCHEMES = {"influxdb": "http", "influxdbs": "https"}
_HOST = re.compile(r"//(?P<host>[^/]*)(?P<path>.*)", re.DOTALL)


class Place(NamedTuple):
    """`url` is that of the server; `write` and `make` are paths with their queries behind it."""

    version: str
    url: str
    write: str
    authorization: Secret | None
    name: str


def place(version: str | None, given: Mapping[str, str | Secret | None]) -> Place:
    """Where the arguments lead to; what is not given comes from the environment.

    Raises:
        ConfigError: something is missing, or does not go with the rest.
    """
    told = {name: value for name, value in given.items() if value is not None}
    for name, value in told.items():
        if name not in ("token", "password") and not (isinstance(value, str) and value.strip()):
            raise ConfigError(f"{name}: it must be a text that is not empty")
    version = _guess(told) if version is None else version
    if version not in VERSIONS:
        raise ConfigError(f"version = {version!r}: it must be '1', '2' or '3'")
    for name, variable in _VARIABLES.get(version, {}).items():
        if name not in told and os.environ.get(variable, "").strip():
            told[name] = Secret.from_env(variable) if name == "token" else os.environ[variable].strip()
    for name in sorted(told.keys() - _TAKEN[version]):
        raise ConfigError(f"{name} is nothing of InfluxDB {version}; it takes {', '.join(sorted(_TAKEN[version]))}")
    for name in _NEEDED[version]:
        if name not in told:
            settable = _VARIABLES.get(version, {}).get(name)
            where = f", or set {settable}" if settable else ""
            raise ConfigError(f"{name}: InfluxDB {version} needs it{where} (version= tells the versions apart)")
    return _made(version, told)


def _guess(told: Mapping[str, Any]) -> str:
    if "org" in told or "bucket" in told:
        return "2"
    if "database" in told:
        return "3" if "token" in told else "1"
    return "3" if "INFLUX_HOST" in os.environ and "INFLUXDB_V2_URL" not in os.environ else "2"


def _made(version: str, told: Mapping[str, Any]) -> Place:
    url = str(told["url"]).strip().rstrip("/")
    if "?" in url or "#" in url:
        raise ConfigError(f"{without_user(url)}: the server's URL ends before the ?")
    token, username = Secret.of("token", told.get("token")), told.get("username")
    password = Secret.of("password", told.get("password"))
    if (username is None) != (password is None):
        raise ConfigError("username and password: give both, or neither")
    authorization = None
    if version == "1":
        names = {"db": told["database"], "rp": told.get("retention_policy")}
        path, more = "/write", {"precision": "ns"}
        if password is not None:
            pair = base64.b64encode(f"{username}:{password.reveal()}".encode()).decode()
            authorization = Secret(f"Basic {pair}")
    elif version == "2":
        names = {"org": told["org"], "bucket": told["bucket"]}
        path, more = "/api/v2/write", {"precision": "ns"}
        authorization = None if token is None else Secret(f"Token {token.reveal()}")
    else:
        names = {"db": told["database"]}
        path, more = "/api/v3/write_lp", {"precision": "nanosecond", "accept_partial": "true"}
        authorization = None if token is None else Secret(f"Bearer {token.reveal()}")
    names = {name: value for name, value in names.items() if value is not None}
    name = "/".join(quote(str(value), safe="") for value in names.values())
    return Place(version, url, f"{path}?{urlencode({**names, **more}, quote_via=quote)}", authorization, name)


def from_url(url: str, parsers: Mapping[str, Parser]) -> dict[str, Any]:
    """The arguments that `influxdb://host:8086/bucket?org=...` stands for.

    Raises:
        ConfigError: another form, an option that is not known, or a bad value.
    """
    known = dict.fromkeys(("org", "retention_policy", "version", "token_env", "password_env"), str)
    base, options = split_options(url, {**known, **parsers})
    shown = without_user(url)
    scheme, _, location = base.partition(":")
    found = _HOST.fullmatch(location)
    if "?" in base:
        unknown = base.partition("?")[2].partition("=")[0]
        raise ConfigError(f"{unknown[:40]!r} is no option of influxdb: URLs")
    if found is None or not found["host"]:
        raise ConfigError(f"{shown}: write influxdb://host:8086/bucket?org=..., or influxdb://host:8086/database")
    prefix, _, last = found["path"].rstrip("/").rpartition("/")
    user, at, host = found["host"].rpartition("@")
    username, _, password = user.partition(":")
    for name in ("token", "password"):
        variable = options.pop(f"{name}_env", None)
        if variable is not None:
            try:
                options[name] = Secret.from_env(variable)
            except ConfigError as error:
                raise ConfigError(f"{name}_env in {shown}: {error}") from None
    if at:
        options["username"] = unquote(username)
        if password:
            options["password"] = Secret(unquote(password))
    options["version"] = options.get("version") or _guess_url(options)
    if last:
        options["bucket" if options["version"] == "2" else "database"] = unquote(last)
    options["url"] = f"{_SCHEMES[scheme.lower()]}://{host}{prefix}"
    return options


def _guess_url(options: Mapping[str, Any]) -> str:
    if "org" in options:
        return "2"
    if "username" in options:
        return "1"
    if "token" in options:
        return "2" if "INFLUXDB_V2_ORG" in os.environ else "3"
    return "2" if "INFLUXDB_V2_TOKEN" in os.environ else "3" if "INFLUX_TOKEN" in os.environ else "1"
