"""Calls that are metered and traced: into a collector of the test's own, and a tracer provider that keeps every span."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
from opentelemetry.sdk.trace import ReadableSpan

from tellmeter import InMemoryMetricsSink, MetricsCollector, MetricsConfig, MetricsRegistry, instrument, uninstrument
from tellmeter.telemetry.llm_spans import trace_llm_calls

from .sdk import http
from .sse import JSON, SSE, answer, bodies, stream
from .tracing import Spans, recorded

NAME = "chat gpt-4o-mini"
Body, AsyncBody = bodies(http)


class Traced:
    """What came of the calls."""

    def __init__(self, spans: Spans, **config: Any) -> None:
        self._spans = spans
        self.registry = MetricsRegistry()
        self.collector = MetricsCollector(
            MetricsConfig(**config), sinks=[InMemoryMetricsSink()], registry=self.registry
        )

    def spans(self) -> list[ReadableSpan]:
        """All that ended, those of the calls that ended too."""
        assert self.collector.flush_sync().complete
        return self._spans.all

    def span(self, name: str) -> Any:
        """The one of that name."""
        (found,) = [span for span in self.spans() if span.name == name]
        return found

    def record(self) -> Any:
        """The one record."""
        self.spans()
        (found,) = asyncio.run(self.collector.sinks[0].get_metrics())
        return found


@contextmanager
def traced(mode: str = "finished", **config: Any) -> Iterator[Traced]:
    """Trace the calls of this process for a while; at the end no call is open."""
    with recorded() as spans:
        found = Traced(spans, **config)
        trace_llm_calls(mode=mode)
        instrument(collector=found.collector)
        try:
            yield found
            found.spans()
            assert found.collector.open_calls == {}
        finally:
            uninstrument()
            trace_llm_calls(mode="off")


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """As a plain dict."""
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int | None:
    """The id of its parent."""
    return span.parent.span_id if span.parent else None


class Transport(http.BaseTransport):  # type: ignore[name-defined, misc]
    """Answers as `handle(request)` says."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def handle_request(self, request: Any) -> Any:
        return self.handle(request)


class AsyncTransport(http.AsyncBaseTransport):  # type: ignore[name-defined, misc]
    """Answers as `plain`."""

    async def handle_async_request(self, request: Any) -> Any:
        return http.Response(200, headers=JSON, stream=AsyncBody([answer()]))


def plain(request: Any) -> Any:
    """A whole answer."""
    return http.Response(200, headers=JSON, stream=Body([answer()]))


def streaming(request: Any) -> Any:
    """A stream of 200 tokens."""
    return http.Response(200, headers=SSE, stream=Body(stream()))


def failing(times: int, status: int = 500) -> Any:
    """So many errors, then a whole answer."""
    left = [times]

    def handle(request: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            return plain(request)
        body = b'{"error":{"message":"canary","type":"x","code":"y"}}'
        return http.Response(status, headers={**JSON, "retry-after-ms": "1"}, stream=Body([body]))

    return handle


def client(handle: Any = plain, retries: int = 0) -> openai.OpenAI:
    """A client whose provider is `handle`."""
    return openai.OpenAI(api_key="k", max_retries=retries, http_client=http.Client(transport=Transport(handle)))


def ask(sdk: Any, **more: Any) -> Any:
    """One chat completion, whose span is `NAME`."""
    return sdk.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "canary"}], temperature=0.5, **more
    )
