"""tellmeter: the meter for LLM applications. One line meters every LLM call that a Python program makes.

import tellmeter; tellmeter.configure(sinks=["sqlite:///calls.db"]); tellmeter.instrument()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call
    from .client.chunks import parse_chunk
    from .client.engine import StreamEngine
    from .client.llm_client import LLMClient
    from .client.options import CallOptions
    from .client.reliability.breaker import CircuitBreakerConfig
    from .client.reliability.budgets import Budget, BudgetStatus
    from .client.reliability.retries import RetryPolicy
    from .client.reliability.timeouts import Timeouts
    from .client.response import EmbeddingResponse, GenerationResponse, TokenUsage, ToolCall
    from .client.streaming import StreamingResponse
    from .collector import MetricsCollector
    from .config import MetricsConfig, MetricsFilter
    from .context import tags
    from .errors import (
        BudgetExceededError,
        CircuitOpenError,
        ConfigError,
        LLMError,
        LLMTimeoutError,
        MetricError,
        MissingExtra,
        ProviderError,
        SchemaTooNew,
        StoreError,
        StreamEngineError,
        TellmeterError,
        UnknownModelError,
    )
    from .instruments.activity import monitor_resource, track_active
    from .instruments.caches import cache_metrics
    from .instruments.calls import meter_call
    from .instruments.counting import count_calls
    from .instruments.durations import measure_latency, time_operation, track_duration
    from .instruments.error_counts import track_errors
    from .instruments.functions import (
        increment_counter,
        log_counter,
        log_gauge,
        log_histogram,
        observe_histogram,
        set_gauge,
        timeit,
    )
    from .instruments.http import MetricsMiddleware
    from .instruments.llm import track_llm_usage
    from .instruments.logs import JSONFormatter, TextFormatter, configure_logging, get_logger
    from .instruments.streams import meter_stream
    from .instruments.system import SystemMetrics, track_system
    from .instruments.tracking import track_metrics
    from .pipeline.ledger import CollectorStats, FlushReport, SinkStats
    from .pipeline.outcome import Delivered, Partial, Rejected, RetryLater, TooLarge
    from .process import configure, get_metrics_collector
    from .records import AgentMetrics, MetricsSummary, StreamMetrics
    from .registry.definition import MetricDefinition, MetricType
    from .registry.registry import MetricsRegistry, get_metrics_registry
    from .secret import Secret
    from .serve.asgi import get_metrics_app
    from .serve.page import get_metrics_text
    from .serve.server import MetricsServer, start_metrics_server
    from .serve.wsgi import get_metrics_wsgi_app
    from .signal_flush import install_signal_flush
    from .sinks.base import BatchingMetricsSink, MetricsSink, MetricsStore
    from .sinks.clickhouse import ClickHouseMetricsSink
    from .sinks.cloudwatch import CloudWatchMetricsSink, EMFMetricsSink
    from .sinks.console import ConsoleMetricsSink
    from .sinks.datadog import DatadogMetricsSink, DogStatsDMetricsSink
    from .sinks.http import HTTPMetricsSink
    from .sinks.in_memory import InMemoryMetricsSink
    from .sinks.influxdb import InfluxDBMetricsSink
    from .sinks.jsonl import JSONLMetricsSink
    from .sinks.kafka import KafkaMetricsSink
    from .sinks.otel import OTelMetricsSink
    from .sinks.parquet import ParquetMetricsSink
    from .sinks.postgresql import PostgreSQLMetricsSink
    from .sinks.sqlite import SQLiteMetricsSink
    from .streams.events import on
    from .streams.options import StreamOptions, stream_options
    from .streams.report import StreamReport
    from .telemetry import OTEL_AVAILABLE
    from .telemetry.agents import agent_run, tool_call
    from .telemetry.decorators import trace_method, trace_operation
    from .telemetry.llm_spans import trace_llm_calls
    from .telemetry.manager import (
        TelemetryManager,
        get_telemetry_manager,
        initialize_telemetry,
        shutdown_telemetry,
    )
    from .telemetry.settings import TelemetrySettings
    from .telemetry.span_processor import TellmeterSpanProcessor
    from .telemetry.tracing import (
        TracingManager,
        add_span_event,
        get_current_span,
        get_tracing_manager,
        record_span_exception,
        set_span_attribute,
        set_span_attributes,
        set_span_status,
        start_async_span,
        start_span,
    )
    from .wire.hooks import instrument, uninstrument
    from .wire.pieces import StreamChunk

__version__ = "0.1.0"

# Public name -> the module that has it: loaded when it is first used, so that `import tellmeter` stays cheap.
_WHERE = {
    "AgentMetrics": "records",
    "BatchingMetricsSink": "sinks.base",
    "Budget": "client.reliability.budgets",
    "BudgetExceededError": "errors",
    "BudgetStatus": "client.reliability.budgets",
    "Call": "call",
    "CallOptions": "client.options",
    "CircuitBreakerConfig": "client.reliability.breaker",
    "CircuitOpenError": "errors",
    "ClickHouseMetricsSink": "sinks.clickhouse",
    "CloudWatchMetricsSink": "sinks.cloudwatch",
    "CollectorStats": "pipeline.ledger",
    "ConfigError": "errors",
    "ConsoleMetricsSink": "sinks.console",
    "DatadogMetricsSink": "sinks.datadog",
    "Delivered": "pipeline.outcome",
    "DogStatsDMetricsSink": "sinks.datadog",
    "EMFMetricsSink": "sinks.cloudwatch",
    "EmbeddingResponse": "client.response",
    "FlushReport": "pipeline.ledger",
    "GenerationResponse": "client.response",
    "HTTPMetricsSink": "sinks.http",
    "InMemoryMetricsSink": "sinks.in_memory",
    "InfluxDBMetricsSink": "sinks.influxdb",
    "JSONFormatter": "instruments.logs",
    "JSONLMetricsSink": "sinks.jsonl",
    "KafkaMetricsSink": "sinks.kafka",
    "LLMClient": "client.llm_client",
    "LLMError": "errors",
    "LLMTimeoutError": "errors",
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
    "OTEL_AVAILABLE": "telemetry",
    "OTelMetricsSink": "sinks.otel",
    "ParquetMetricsSink": "sinks.parquet",
    "Partial": "pipeline.outcome",
    "PostgreSQLMetricsSink": "sinks.postgresql",
    "ProviderError": "errors",
    "Rejected": "pipeline.outcome",
    "RetryLater": "pipeline.outcome",
    "RetryPolicy": "client.reliability.retries",
    "SQLiteMetricsSink": "sinks.sqlite",
    "SchemaTooNew": "errors",
    "Secret": "secret",
    "SinkStats": "pipeline.ledger",
    "StoreError": "errors",
    "StreamChunk": "wire.pieces",
    "StreamEngine": "client.engine",
    "StreamEngineError": "errors",
    "StreamMetrics": "records",
    "StreamOptions": "streams.options",
    "StreamReport": "streams.report",
    "StreamingResponse": "client.streaming",
    "SystemMetrics": "instruments.system",
    "TelemetryManager": "telemetry.manager",
    "TelemetrySettings": "telemetry.settings",
    "TellmeterError": "errors",
    "TellmeterSpanProcessor": "telemetry.span_processor",
    "TextFormatter": "instruments.logs",
    "Timeouts": "client.reliability.timeouts",
    "TokenUsage": "client.response",
    "TooLarge": "pipeline.outcome",
    "ToolCall": "client.response",
    "TracingManager": "telemetry.tracing",
    "UnknownModelError": "errors",
    "add_span_event": "telemetry.tracing",
    "agent_run": "telemetry.agents",
    "cache_metrics": "instruments.caches",
    "configure": "process",
    "configure_logging": "instruments.logs",
    "count_calls": "instruments.counting",
    "get_current_span": "telemetry.tracing",
    "get_logger": "instruments.logs",
    "get_metrics_app": "serve.asgi",
    "get_metrics_collector": "process",
    "get_metrics_registry": "registry.registry",
    "get_metrics_text": "serve.page",
    "get_metrics_wsgi_app": "serve.wsgi",
    "get_telemetry_manager": "telemetry.manager",
    "get_tracing_manager": "telemetry.tracing",
    "increment_counter": "instruments.functions",
    "initialize_telemetry": "telemetry.manager",
    "install_signal_flush": "signal_flush",
    "instrument": "wire.hooks",
    "log_counter": "instruments.functions",
    "log_gauge": "instruments.functions",
    "log_histogram": "instruments.functions",
    "measure_latency": "instruments.durations",
    "meter_call": "instruments.calls",
    "meter_stream": "instruments.streams",
    "monitor_resource": "instruments.activity",
    "observe_histogram": "instruments.functions",
    "on": "streams.events",
    "parse_chunk": "client.chunks",
    "record_span_exception": "telemetry.tracing",
    "set_gauge": "instruments.functions",
    "set_span_attribute": "telemetry.tracing",
    "set_span_attributes": "telemetry.tracing",
    "set_span_status": "telemetry.tracing",
    "shutdown_telemetry": "telemetry.manager",
    "start_async_span": "telemetry.tracing",
    "start_metrics_server": "serve.server",
    "start_span": "telemetry.tracing",
    "stream_options": "streams.options",
    "tags": "context",
    "time_operation": "instruments.durations",
    "timeit": "instruments.functions",
    "tool_call": "telemetry.agents",
    "trace_llm_calls": "telemetry.llm_spans",
    "trace_method": "telemetry.decorators",
    "trace_operation": "telemetry.decorators",
    "track_active": "instruments.activity",
    "track_duration": "instruments.durations",
    "track_errors": "instruments.error_counts",
    "track_llm_usage": "instruments.llm",
    "track_metrics": "instruments.tracking",
    "track_system": "instruments.system",
    "uninstrument": "wire.hooks",
}
__all__ = [
    "OTEL_AVAILABLE",
    "AgentMetrics",
    "BatchingMetricsSink",
    "Budget",
    "BudgetExceededError",
    "BudgetStatus",
    "Call",
    "CallOptions",
    "CircuitBreakerConfig",
    "CircuitOpenError",
    "ClickHouseMetricsSink",
    "CloudWatchMetricsSink",
    "CollectorStats",
    "ConfigError",
    "ConsoleMetricsSink",
    "DatadogMetricsSink",
    "Delivered",
    "DogStatsDMetricsSink",
    "EMFMetricsSink",
    "EmbeddingResponse",
    "FlushReport",
    "GenerationResponse",
    "HTTPMetricsSink",
    "InMemoryMetricsSink",
    "InfluxDBMetricsSink",
    "JSONFormatter",
    "JSONLMetricsSink",
    "KafkaMetricsSink",
    "LLMClient",
    "LLMError",
    "LLMTimeoutError",
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
    "OTelMetricsSink",
    "ParquetMetricsSink",
    "Partial",
    "PostgreSQLMetricsSink",
    "ProviderError",
    "Rejected",
    "RetryLater",
    "RetryPolicy",
    "SQLiteMetricsSink",
    "SchemaTooNew",
    "Secret",
    "SinkStats",
    "StoreError",
    "StreamChunk",
    "StreamEngine",
    "StreamEngineError",
    "StreamMetrics",
    "StreamOptions",
    "StreamReport",
    "StreamingResponse",
    "SystemMetrics",
    "TelemetryManager",
    "TelemetrySettings",
    "TellmeterError",
    "TellmeterSpanProcessor",
    "TextFormatter",
    "Timeouts",
    "TokenUsage",
    "TooLarge",
    "ToolCall",
    "TracingManager",
    "UnknownModelError",
    "add_span_event",
    "agent_run",
    "cache_metrics",
    "configure",
    "configure_logging",
    "count_calls",
    "get_current_span",
    "get_logger",
    "get_metrics_app",
    "get_metrics_collector",
    "get_metrics_registry",
    "get_metrics_text",
    "get_metrics_wsgi_app",
    "get_telemetry_manager",
    "get_tracing_manager",
    "increment_counter",
    "initialize_telemetry",
    "install_signal_flush",
    "instrument",
    "log_counter",
    "log_gauge",
    "log_histogram",
    "measure_latency",
    "meter_call",
    "meter_stream",
    "monitor_resource",
    "observe_histogram",
    "on",
    "parse_chunk",
    "record_span_exception",
    "set_gauge",
    "set_span_attribute",
    "set_span_attributes",
    "set_span_status",
    "shutdown_telemetry",
    "start_async_span",
    "start_metrics_server",
    "start_span",
    "stream_options",
    "tags",
    "time_operation",
    "timeit",
    "tool_call",
    "trace_llm_calls",
    "trace_method",
    "trace_operation",
    "track_active",
    "track_duration",
    "track_errors",
    "track_llm_usage",
    "track_metrics",
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
