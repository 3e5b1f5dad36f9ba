"""Sinks and stores by their URL: `sqlite:///calls.db`, `https://host/path`, `jsonl:///calls.jsonl`, `console:`."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from ..errors import ConfigError
from .address import parse, redact
from .base import MetricsStore

# Scheme -> module:class, whose `from_url(url)` makes the sink. Imported when it is first named.
SCHEMES = {
    "clickhouse": "clickhouse:ClickHouseMetricsSink",
    "clickhouses": "clickhouse:ClickHouseMetricsSink",
    "cloudwatch": "cloudwatch:CloudWatchMetricsSink",
    "console": "console:ConsoleMetricsSink",
    "datadog": "datadog:DatadogMetricsSink",
    "dogstatsd": "datadog:DogStatsDMetricsSink",
    "emf": "cloudwatch:EMFMetricsSink",
    "emf+tcp": "cloudwatch:EMFMetricsSink",
    "emf+udp": "cloudwatch:EMFMetricsSink",
    "http": "http:HTTPMetricsSink",
    "https": "http:HTTPMetricsSink",
    "influxdb": "influxdb:InfluxDBMetricsSink",
    "influxdbs": "influxdb:InfluxDBMetricsSink",
    "jsonl": "jsonl:JSONLMetricsSink",
    "kafka": "kafka:KafkaMetricsSink",
    "memory": "in_memory:InMemoryMetricsSink",
    "otlp": "otel:OTelMetricsSink",
    "otlps": "otel:OTelMetricsSink",
    "parquet": "parquet:ParquetMetricsSink",
    "postgres": "postgresql:PostgreSQLMetricsSink",
    "postgresql": "postgresql:PostgreSQLMetricsSink",
    "sqlite": "sqlite:SQLiteMetricsSink",
}
# Those that a command can ask: their `from_url` takes `must_exist` too. What is in memory, no other process can see.
STORES = ("clickhouse", "clickhouses", "postgres", "postgresql", "sqlite")

_SQLITE_ENDINGS = (".db", ".sqlite", ".sqlite3")


def sink_from_url(url: str) -> Any:
    """The sink that a URL names; a bare path that ends in .db, .sqlite or .sqlite3 is a SQLite file.

    Raises:
        ConfigError: an unknown scheme or option, or a bad value; passwords are not in the message.
        MissingExtra: a sink whose package is not installed.
    """
    scheme, url = known_url(url, tuple(SCHEMES))
    return _load(scheme).from_url(url)


def store_from_url(url: str, must_exist: bool = False) -> MetricsStore:
    """The store that a URL names, to be asked by a command; with `must_exist` it is not made where it is missing.

    Raises:
        ConfigError: as `sink_from_url`; a scheme that cannot be asked.
        StoreError: with `must_exist`, a store that is missing or cannot be read.
    """
    scheme, url = known_url(url, STORES)
    return cast(MetricsStore, _load(scheme).from_url(url, must_exist=must_exist))


def known_url(url: object, allowed: tuple[str, ...]) -> tuple[str, str]:
    """The scheme of a URL or path, and the URL with it; ConfigError where it is none of `allowed`."""
    if not isinstance(url, str) or not url.strip():
        raise ConfigError(f"a URL is needed, as sqlite:///calls.db; there are {_list(allowed)}")
    url = url.strip()
    if "://" not in url and url.lower().endswith(_SQLITE_ENDINGS) and not url.lower().startswith("sqlite:"):
        return "sqlite", f"sqlite:///{url}"
    scheme = parse(url).scheme
    if scheme in allowed:
        return scheme, url
    if scheme in SCHEMES:
        raise ConfigError(f"{redact(url)}: {scheme}: cannot be asked; a store is {_list(allowed)}")
    raise ConfigError(f"{redact(url)}: {scheme}: is unknown; there are {_list(allowed)}, or a path that ends in .db")


def _list(schemes: tuple[str, ...]) -> str:
    return ", ".join(f"{scheme}:" for scheme in sorted(schemes))


def _load(scheme: str) -> Any:
    module, _, name = SCHEMES[scheme].partition(":")
    return getattr(import_module(f".{module}", __package__), name)
