"""Spans of other instrumentations, by hand, whose processor makes records of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from tellmeter import InMemoryMetricsSink, MetricsCollector, MetricsConfig, MetricsRegistry, instrument, uninstrument
from tellmeter.telemetry.span_processor import TellmeterSpanProcessor

from .tracing import global_provider

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini"}
ANSWER = {
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": 42,
    "gen_ai.usage.output_tokens": 200,
    "gen_ai.usage.cache_read.input_tokens": 16,
}
EMBEDDINGS = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "text-embedding-3-small"}


class Told:
    """A provider whose LLM spans become records."""

    def __init__(self, **config: Any) -> None:
        self.collector = MetricsCollector(
            MetricsConfig(**config), sinks=[InMemoryMetricsSink()], registry=MetricsRegistry()
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.processor = TellmeterSpanProcessor(self.collector)
        self.provider.add_span_processor(self.processor)

    def tracer(self, scope: str = "them") -> trace.Tracer:
        return self.provider.get_tracer(scope)

    def start(self, scope: str = "them", **more: Any) -> Any:
        """A span that is not current."""
        return self.tracer(scope).start_span(
            "chat", kind=SpanKind.CLIENT, attributes=more.pop("attributes", CHAT), **more
        )

    def span(self, scope: str = "them", attributes: dict[str, Any] = CHAT) -> Any:
        """A span around a block."""
        return self.tracer(scope).start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=attributes)

    def records(self) -> list[Any]:
        assert self.collector.flush_sync().complete
        return list(reversed(asyncio.run(self.collector.sinks[0].get_metrics(limit=1000))))

    def record(self) -> Any:
        (found,) = self.records()
        return found


@contextmanager
def told(*, wire: bool = False, leaks: bool = False, **config: Any) -> Iterator[Told]:
    seen = Told(**config)
    with global_provider(seen.provider):
        if wire:
            instrument(collector=seen.collector)
        try:
            yield seen
            seen.records()
            assert seen.collector.open_calls == {}
            assert leaks or seen.processor._open == {}
        finally:
            uninstrument()
            seen.provider.shutdown()


def ends(span: Any, attributes: dict[str, Any] = ANSWER) -> None:
    span.set_attributes(attributes)
    span.end()
