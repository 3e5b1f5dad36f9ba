"""tellmeter: the meter for LLM applications. One line meters every LLM call that a Python program makes.

import tellmeter; tellmeter.configure(sinks=["sqlite:///calls.db"]); tellmeter.instrument()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call
    from .collector import MetricsCollector
    from .config import MetricsConfig, MetricsFilter
    from .context import tags
    from .errors import ConfigError, MetricError, MissingExtra, SchemaTooNew, StoreError, TellmeterError
    from .instruments.calls import meter_call
    from .instruments.http import MetricsMiddleware
    from .instruments.logs import JSONFormatter, TextFormatter, configure_logging, get_logger
    from .instruments.system import SystemMetrics, track_system
    from .pipeline.ledger import CollectorStats, FlushReport, SinkStats
    from .pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
    from .process import configure, get_metrics_collector
    from .records import AgentMetrics, MetricsSummary, StreamMetrics
    from .registry.definition import MetricDefinition, MetricType
    from .registry.registry import MetricsRegistry, get_metrics_registry
    from .serve.asgi import get_metrics_app
    from .serve.page import get_metrics_text
    from .serve.server import MetricsServer, start_metrics_server
    from .serve.wsgi import get_metrics_wsgi_app
    from .sinks.base import BatchingMetricsSink, MetricsSink, MetricsStore
    from .sinks.console import ConsoleMetricsSink
    from .sinks.in_memory import InMemoryMetricsSink
    from .sinks.jsonl import JSONLMetricsSink
    from .sinks.sqlite import SQLiteMetricsSink
    from .wire.hooks import instrument, uninstrument

__version__ = "0.1.0"

# Public name -> the module that has it: loaded when it is first used, so that `import tellmeter` stays cheap.
_WHERE = {
    "AgentMetrics": "records",
    "BatchingMetricsSink": "sinks.base",
    "Call": "call",
    "CollectorStats": "pipeline.ledger",
    "ConfigError": "errors",
    "ConsoleMetricsSink": "sinks.console",
    "Delivered": "pipeline.outcome",
    "FlushReport": "pipeline.ledger",
    "InMemoryMetricsSink": "sinks.in_memory",
    "JSONFormatter": "instruments.logs",
    "JSONLMetricsSink": "sinks.jsonl",
    "MetricDefinition": "registry.definition",
    "MetricError": "errors",
    "MetricType": "registry.definition",
    "MetricsCollector": "collector",
    "MetricsConfig": "config",
    "MetricsFilter": "config",
    "MetricsMiddleware": "instruments.http",
    "MetricsRegistry": "registry.registry",
    "MetricsServer": "serve.server",
    "MetricsSink": "sinks.base",
    "MetricsStore": "sinks.base",
    "MetricsSummary": "records",
    "MissingExtra": "errors",
    "Partial": "pipeline.outcome",
    "Rejected": "pipeline.outcome",
    "RetryLater": "pipeline.outcome",
    "SQLiteMetricsSink": "sinks.sqlite",
    "SchemaTooNew": "errors",
    "SinkStats": "pipeline.ledger",
    "StoreError": "errors",
    "StreamMetrics": "records",
    "SystemMetrics": "instruments.system",
    "TellmeterError": "errors",
    "TextFormatter": "instruments.logs",
    "TooLarge": "pipeline.outcome",
    "configure": "process",
    "configure_logging": "instruments.logs",
    "get_logger": "instruments.logs",
    "get_metrics_app": "serve.asgi",
    "get_metrics_collector": "process",
    "get_metrics_registry": "registry.registry",
    "get_metrics_text": "serve.page",
    "get_metrics_wsgi_app": "serve.wsgi",
    "instrument": "wire.hooks",
    "meter_call": "instruments.calls",
    "start_metrics_server": "serve.server",
    "tags": "context",
    "track_system": "instruments.system",
    "uninstrument": "wire.hooks",
}
__all__ = [
    "AgentMetrics",
    "BatchingMetricsSink",
    "Call",
    "CollectorStats",
    "ConfigError",
    "ConsoleMetricsSink",
    "Delivered",
    "FlushReport",
    "InMemoryMetricsSink",
    "JSONFormatter",
    "JSONLMetricsSink",
    "MetricDefinition",
    "MetricError",
    "MetricType",
    "MetricsCollector",
    "MetricsConfig",
    "MetricsFilter",
    "MetricsMiddleware",
    "MetricsRegistry",
    "MetricsServer",
    "MetricsSink",
    "MetricsStore",
    "MetricsSummary",
    "MissingExtra",
    "Partial",
    "Rejected",
    "RetryLater",
    "SQLiteMetricsSink",
    "SchemaTooNew",
    "SinkStats",
    "StoreError",
    "StreamMetrics",
    "SystemMetrics",
    "TellmeterError",
    "TextFormatter",
    "TooLarge",
    "configure",
    "configure_logging",
    "get_logger",
    "get_metrics_app",
    "get_metrics_collector",
    "get_metrics_registry",
    "get_metrics_text",
    "get_metrics_wsgi_app",
    "instrument",
    "meter_call",
    "start_metrics_server",
    "tags",
    "track_system",
    "uninstrument",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
