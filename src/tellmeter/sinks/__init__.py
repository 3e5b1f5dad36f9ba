"""One backend a file. A sink takes records; a store is a sink that can also be asked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater, TooLarge
    from .base import BatchingMetricsSink, MetricsSink, MetricsStore, SupportsSettle
    from .console import ConsoleMetricsSink
    from .http import HTTPMetricsSink
    from .in_memory import InMemoryMetricsSink
    from .jsonl import JSONLMetricsSink
    from .parquet import ParquetMetricsSink
    from .postgresql import PostgreSQLMetricsSink
    from .query import SeriesPoint
    from .sqlite import SQLiteMetricsSink
    from .urls import sink_from_url, store_from_url

# Public name -> the module that has it: loaded when it is first used, so that no sink costs who does not use it.
_WHERE = {
    "BatchingMetricsSink": ".base",
    "ConsoleMetricsSink": ".console",
    "Delivered": "..pipeline.outcome",
    "HTTPMetricsSink": ".http",
    "InMemoryMetricsSink": ".in_memory",
    "JSONLMetricsSink": ".jsonl",
    "MetricsSink": ".base",
    "MetricsStore": ".base",
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
    "ConsoleMetricsSink",
    "Delivered",
    "HTTPMetricsSink",
    "InMemoryMetricsSink",
    "JSONLMetricsSink",
    "MetricsSink",
    "MetricsStore",
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
