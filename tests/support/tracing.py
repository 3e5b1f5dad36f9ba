"""What the tests of tracing share: a global tracer provider for a while, and what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tellmeter.telemetry import noop, propagation, scopes, tracing

TRACE_ID = "12345678901234567890123456789012"
PARENT_ID = "1234567890123456"
SENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


class Spans:
    """The spans that ended, by name."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self.exporter = exporter

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def __getitem__(self, name: str) -> Any:
        (found,) = [span for span in self.all if span.name == name]
        return found


@contextmanager
def global_provider(provider: Any) -> Iterator[None]:
    """The API's global provider for a while; None is what a program has that set none."""
    with mock.patch.object(trace, "_TRACER_PROVIDER", provider):
        yield


@contextmanager
def recorded() -> Iterator[Spans]:
    """A provider that keeps every span."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with global_provider(provider):
        yield Spans(exporter)
    provider.shutdown()


@contextmanager
def without_opentelemetry() -> Iterator[None]:
    """What runs where it is not installed."""
    with (
        mock.patch.object(tracing, "backend", return_value=noop),
        mock.patch.object(scopes, "backend", return_value=noop),
        mock.patch.object(propagation, "backend", return_value=noop),
    ):
        yield
