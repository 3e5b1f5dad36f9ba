"""OpenTelemetry: LLM metrics on a MeterProvider, the application's or one of our own that exports over OTLP."""

from .sink import OTelMetricsSink

__all__ = ["OTelMetricsSink"]
