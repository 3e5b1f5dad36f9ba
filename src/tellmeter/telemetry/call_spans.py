"""The spans of LLM calls: made of the finished record, or live around the requests. Needs OpenTelemetry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from msgspec.structs import force_setattr
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, get_current
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider, get_current_span

from ..call import Call, CallSpan
from ..guard import note
from ..records import AgentMetrics
from . import api
from .llm_attributes import begun_attributes, ended_attributes, is_of_one_call, span_name
from .request_attributes import request_attributes
from .tracing import TracingManager

# What other instrumentations put into a context in which no more spans are wanted; the second is OpenLLMetry's, where a
# framework has told of the call.
_SUPPRESSED = (_SUPPRESS_INSTRUMENTATION_KEY, "suppress_language_model_instrumentation")
_FAILED = Status(StatusCode.ERROR)


def new_spans(tracer_provider: TracerProvider | None, *, live: bool) -> Callable[[], CallSpan]:
    """What makes the span of a call that begins."""
    return functools.partial(LiveSpan if live else FinishedSpan, TracingManager(tracer_provider).get_tracer())


class FinishedSpan:
    """A span that is made on the router thread, of the record, in the context in which the call began.

    The context itself is kept until then, and not only the ids of the span in it: samplers and span processors see
    what they would have seen at the start, the flags of the parent and the baggage included.
    """

    __slots__ = ("_context", "_request", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._context: Context | None = get_current()
        self._request: Any = None

    def enter(self, call: Call) -> None:
        """Nothing yet."""

    def leave(self) -> None:
        """Nothing yet."""

    def asked(self, request: Any) -> None:
        """Keep the request until the span is made."""
        self._request = request

    def end(self, call: Call, record: AgentMetrics | None) -> None:
        """Make the span, with the times of the call."""
        context, request = self._context, self._request
        self._context = self._request = None
        if record is None or context is None:
            return
        try:
            if not is_unwanted(context):
                self._make(call, record, context, request)
        except Exception as error:
            note("llm_span", error)

    def _make(self, call: Call, record: AgentMetrics, context: Context, request: Any) -> None:
        span = self._tracer.start_span(
            span_name(record.operation, record.model),
            context,
            SpanKind.CLIENT,
            _attributes(call, record, request),
            start_time=int(record.timestamp * 1e9),
        )
        _finish(span, record)


class LiveSpan(FinishedSpan):
    """A span that begins with the first request of a call, so that what sends it is inside of it.

    Calls that no hook sees on the wire have a `FinishedSpan`.
    """

    __slots__ = ("_span", "_tokens")

    def __init__(self, tracer: Tracer) -> None:
        super().__init__(tracer)
        self._span: Span | None = None
        self._tokens: list[Any] = []

    def enter(self, call: Call) -> None:
        """Begin the span where this is the first request, and make it the current one."""
        try:
            if self._span is None:
                if self._context is None or is_unwanted(self._context):
                    return
                provider, model, _ = call.live()
                self._span = self._tracer.start_span(
                    span_name(call.operation, model),
                    self._context,
                    SpanKind.CLIENT,
                    begun_attributes(call.operation, provider, model),
                    start_time=int(call.wall * 1e9),
                )
            self._tokens.append(api.attach(api.with_span(self._span, get_current())))
        except Exception as error:
            note("llm_span", error)

    def leave(self) -> None:
        """What runs from here on is the application's."""
        try:
            if self._tokens:
                api.detach(self._tokens.pop())
        except Exception as error:
            note("llm_span", error)

    def end(self, call: Call, record: AgentMetrics | None) -> None:
        """End the span with what the record says, or as it is where there is none."""
        span, self._span = self._span, None
        if span is None:
            super().end(call, record)
            return
        try:
            if record is None:
                span.end()
                return
            if span.is_recording():
                span.update_name(span_name(record.operation, record.model))
                span.set_attributes(_attributes(call, record, self._request))
            _finish(span, record)
        except Exception as error:
            note("llm_span", error)


def is_unwanted(context: Context) -> bool:
    """Whether spans are suppressed there, or the one there is of the same call: the SDK's, or another's."""
    if any(map(context.get, _SUPPRESSED)):
        return True
    attributes: Any = getattr(get_current_span(context), "attributes", None)
    return bool(attributes) and is_of_one_call(attributes)


def _attributes(call: Call, record: AgentMetrics, request: Any) -> dict[str, Any]:
    known = ended_attributes(record, call.target.config, call.response_id)
    if request is None:
        return known
    return {**request_attributes(request), **known}


def _finish(span: Span, record: AgentMetrics) -> None:
    if record.failed:
        span.set_status(_FAILED)  # error.type tells the rest
    span.end(int(record.timestamp * 1e9) + int(record.latency_ms * 1e6))
    ids = span.get_span_context()
    if record.trace_id is None and ids.is_valid and ids.trace_flags.sampled:
        # The call began in no span: its own leads to the trace. Nobody else has the record yet.
        force_setattr(record, "trace_id", f"{ids.trace_id:032x}")
        force_setattr(record, "span_id", f"{ids.span_id:016x}")
