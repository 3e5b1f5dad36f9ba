"""One backend a file. A sink takes records; a store is a sink that can also be asked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater, TooLarge
    from .base import BatchingMetricsSink, MetricsSink, MetricsStore, SupportsSettle
    from .clickhouse import ClickHouseMetricsSink
    from .cloudwatch import CloudWatchMetricsSink, EMFMetricsSink
    from .console import ConsoleMetricsSink
    from .datadog import DatadogMetricsSink, DogStatsDMetricsSink
    from .http import HTTPMetricsSink
    from .in_memory import InMemoryMetricsSink
    from .influxdb import InfluxDBMetricsSink
    from .jsonl import JSONLMetricsSink
    from .kafka import KafkaMetricsSink
    from .otel import OTelMetricsSink
    from .parquet import ParquetMetricsSink
    from .postgresql import PostgreSQLMetricsSink
    from .query import SeriesPoint
    from .sqlite import SQLiteMetricsSink
    from .urls import sink_from_url, store_from_url

# Public name -> the module that has it: loaded when it is first used, so that no sink costs who does not use it.
_WHERE = {
    "BatchingMetricsSink": ".base",
    "ClickHouseMetricsSink": ".clickhouse",
    "CloudWatchMetricsSink": ".cloudwatch",
    "ConsoleMetricsSink": ".console",
    "DatadogMetricsSink": ".datadog",
    "Delivered": "..pipeline.outcome",
    "DogStatsDMetricsSink": ".datadog",
    "EMFMetricsSink": ".cloudwatch",
    "HTTPMetricsSink": ".http",
    "InMemoryMetricsSink": ".in_memory",
    "InfluxDBMetricsSink": ".influxdb",
    "JSONLMetricsSink": ".jsonl",
    "KafkaMetricsSink": ".kafka",
    "MetricsSink": ".base",
    "MetricsStore": ".base",
    "OTelMetricsSink": ".otel",
    "Outcome": "..pipeline.outcome",
    "ParquetMetricsSink": ".parquet",
    "Partial": "..pipeline.outcome",
    "PostgreSQLMetricsSink": ".postgresql",
    "Rejected": "..pipeline.outcome",
    "RetryLater": "..pipeline.outcome",
    "SQLiteMetricsSink": ".sqlite",
    "SeriesPoint": ".query",
    "SupportsSettle": ".base",
    "TooLarge": "..pipeline.outcome",
    "sink_from_url": ".urls",
    "store_from_url": ".urls",
}
__all__ = [
    "BatchingMetricsSink",
    "ClickHouseMetricsSink",
    "CloudWatchMetricsSink",
    "ConsoleMetricsSink",
    "DatadogMetricsSink",
    "Delivered",
    "DogStatsDMetricsSink",
    "EMFMetricsSink",
    "HTTPMetricsSink",
    "InMemoryMetricsSink",
    "InfluxDBMetricsSink",
    "JSONLMetricsSink",
    "KafkaMetricsSink",
    "MetricsSink",
    "MetricsStore",
    "OTelMetricsSink",
    "Outcome",
    "ParquetMetricsSink",
    "Partial",
    "PostgreSQLMetricsSink",
    "Rejected",
    "RetryLater",
    "SQLiteMetricsSink",
    "SeriesPoint",
    "SupportsSettle",
    "TooLarge",
    "sink_from_url",
    "store_from_url",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
