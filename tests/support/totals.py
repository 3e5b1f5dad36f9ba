"""Every backend that there is a real server for, each with our sink for it and what it itself says that it has, in sum."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from tellmeter import sinks
from tellmeter.records import FAILURES
from tellmeter.testing import FaultServer

from . import clickhouse, cloudwatch, datadog, influxdb, kafka, otlp, postgresql

Totals = Mapping[str, float]  # calls, tokens, dollars, errors


class Way(NamedTuple):
    sink: Any
    ask: Callable[[], Totals]


# One question for all that speak SQL.
_SQL = """
SELECT count(*), sum(input_tokens + output_tokens), sum(coalesce(cost_usd, 0)),
    sum(CASE WHEN status IN ('error', 'timeout', 'rejected') THEN 1 ELSE 0 END)
FROM {}
"""


def of_row(row: tuple[Any, ...]) -> Totals:
    """The columns of that question."""
    calls, tokens, dollars, errors = (value or 0 for value in row)
    return {"calls": int(calls), "tokens": int(tokens), "dollars": float(dollars), "errors": int(errors)}


def _sqlite(folder: Path, stack: ExitStack) -> Way:
    file = folder / "calls.db"

    def ask() -> Totals:
        with closing(sqlite3.connect(file)) as database:
            return of_row(database.execute(_SQL.format("llm_metrics")).fetchone())

    return Way(sinks.SQLiteMetricsSink(file), ask)


def _duckdb(source: str) -> Totals:
    import duckdb

    with duckdb.connect() as connection:
        return of_row(connection.execute(_SQL.format(source)).fetchall()[0])


def _jsonl(folder: Path, stack: ExitStack) -> Way:
    file = folder / "calls.jsonl"
    return Way(sinks.JSONLMetricsSink(file), lambda: _duckdb(f"read_json('{file}', sample_size = -1)"))


def _parquet(folder: Path, stack: ExitStack) -> Way:
    files = folder / "parquet"
    return Way(sinks.ParquetMetricsSink(files), lambda: _duckdb(f"read_parquet('{files}/**/*.parquet')"))


def _http(folder: Path, stack: ExitStack) -> Way:
    server = stack.enter_context(FaultServer())

    def ask() -> Totals:
        rows = {row["id"]: row for request in server.requests for row in request.json()["metrics"]}.values()
        return {
            "calls": len(rows),
            "tokens": sum(row["input_tokens"] + row["output_tokens"] for row in rows),
            "dollars": sum(row.get("cost_usd", 0.0) for row in rows),
            "errors": sum(row["status"] in FAILURES for row in rows),
        }

    return Way(sinks.HTTPMetricsSink(f"{server.url}/v1/ingest"), ask)


def _postgresql(folder: Path, stack: ExitStack) -> Way:
    server, table = postgresql.shared(), postgresql.table()
    sink = sinks.PostgreSQLMetricsSink(server.url(), table=table)
    return Way(sink, lambda: of_row(server.run(_SQL.format(table))[0]))


def _clickhouse(folder: Path, stack: ExitStack) -> Way:
    server, table = clickhouse.shared(), clickhouse.table()
    return Way(sinks.ClickHouseMetricsSink(server.url, table=table), lambda: clickhouse.totals(server, table))


def _influxdb(folder: Path, stack: ExitStack) -> Way:
    server = influxdb.InfluxDB()
    stack.callback(server.close)
    server.start()
    server.query("CREATE DATABASE calls")
    return Way(sinks.InfluxDBMetricsSink(server.url, database="calls"), lambda: influxdb.totals(server))


def _kafka(folder: Path, stack: ExitStack) -> Way:
    server = kafka.Kafka()
    stack.callback(server.close)
    topic = server.topic()
    return Way(sinks.KafkaMetricsSink(server.servers, topic), lambda: kafka.totals(server, topic))


def _cloudwatch(folder: Path, stack: ExitStack) -> Way:
    server, space = cloudwatch.shared(), cloudwatch.namespace()
    sink = sinks.CloudWatchMetricsSink(space, endpoint_url=server.url, session=cloudwatch.session())
    return Way(sink, lambda: cloudwatch.totals(server, space))


def _datadog(folder: Path, stack: ExitStack) -> Way:
    server = stack.enter_context(datadog.Intake())
    return Way(sinks.DatadogMetricsSink(datadog.KEY, url=server.url), lambda: datadog.totals(server))


def _datadog_v1(folder: Path, stack: ExitStack) -> Way:
    server = stack.enter_context(datadog.VictoriaMetrics())
    sink = sinks.DatadogMetricsSink(
        datadog.KEY, url=server.url, counts="series-v1", interval_seconds=datadog.VictoriaMetrics.INTERVAL
    )
    return Way(sink, lambda: datadog.totals(server))


def _dogstatsd(folder: Path, stack: ExitStack) -> Way:
    server = stack.enter_context(datadog.Agent())
    return Way(sinks.DogStatsDMetricsSink("127.0.0.1", server.port), lambda: datadog.totals(server))


def _rotel(folder: Path, stack: ExitStack) -> Way:
    server = otlp.Rotel()
    stack.callback(server.close)
    return Way(sinks.OTelMetricsSink(endpoint=server.url), lambda: otlp.totals(server))


def _test_agent(folder: Path, stack: ExitStack) -> Way:
    server = otlp.DatadogAgent()
    stack.callback(server.close)
    return Way(sinks.OTelMetricsSink(endpoint=server.url), lambda: otlp.totals(server))


# What is said of it in the table -> what starts it.
WAYS: dict[str, Callable[[Path, ExitStack], Way]] = {
    "SQLite": _sqlite,
    "JSON lines, by DuckDB": _jsonl,
    "Parquet, by DuckDB": _parquet,
    "HTTP": _http,
    "PostgreSQL": _postgresql,
    "ClickHouse (chDB)": _clickhouse,
    "InfluxDB 1.6": _influxdb,
    "Kafka (librdkafka's)": _kafka,
    "CloudWatch (moto)": _cloudwatch,
    "Datadog (its documents)": _datadog,
    "Datadog v1 (VictoriaMetrics)": _datadog_v1,
    "DogStatsD (its documents)": _dogstatsd,
    "OTLP (rotel)": _rotel,
    "OTLP (ddapm-test-agent)": _test_agent,
}
