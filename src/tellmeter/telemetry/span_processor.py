"""TellmeterSpanProcessor: LLM calls that other instrumentations see are metered, where tellmeter does not see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import call as calls
from ..call import Call, CallSighting
from ..collector import MetricsCollector
from ..counts import count
from ..guard import note
from ..process import get_metrics_collector
from . import OTEL_AVAILABLE
from . import genai_attributes as genai
from .sightings import Sightings
from .span_call import SpanCall
from .tracing import SCOPE

if TYPE_CHECKING or OTEL_AVAILABLE:
    from opentelemetry.sdk.trace import SpanProcessor
else:
    SpanProcessor = object

MOST_OPEN = 10_000  # spans of LLM calls in progress, and spans inside of them; some instrumentations never end theirs

_NOTHING: Mapping[str, Any] = {}
_log = Sightings()
_running: tuple[TellmeterSpanProcessor, ...] = ()


class TellmeterSpanProcessor(SpanProcessor):
    """Makes a record of every span of an LLM call that another instrumentation ends, and counts it as any call.

    For any tracer provider of OpenTelemetry's SDK: `provider.add_span_processor(TellmeterSpanProcessor())`. It reads
    the names of OpenTelemetry's GenAI conventions, old and new, of OpenLLMetry and of OpenInference; spans of agents,
    tools, chains and retrieval are not calls. Never content: of errors the class, of all else names and numbers.

    One call is one record. Where `instrument()` sees it on the wire, that record stands, which knows more; of several
    spans of one call the innermost counts. The records know what the spans say: time to first token where that is in
    them, no retries, no reports of running streams; spans that the sampler leaves out are not seen. A cost that a span
    states counts (its `price_version` is "span"), else the price book's.

    Args:
        collector: where the calls go; the process's collector without one.
    """

    def __init__(self, collector: MetricsCollector | None = None) -> None:
        global _running
        self._collector = collector
        self._open: dict[int, SpanCall] = {}  # span id -> the call of that span, or of the next one around it
        _running = (*_running, self)
        calls.see_call = _see

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Note what is inside of what; never raises."""
        if self not in _running:
            return
        try:
            parent = span.parent
            outer = None if parent is None else self._open.get(parent.span_id)
            operation = _operation_of(span, _picked(span))
            if operation is not None:
                self._keep(span, SpanCall(_log, span, operation, outer))
            elif outer is not None:
                self._keep(span, outer)
        except Exception as error:
            note("span_processor", error)

    def _keep(self, span: Any, call: SpanCall) -> None:
        while len(self._open) >= MOST_OPEN:
            self._open.pop(next(iter(self._open)), None)
            count("spans_never_ended", call.seen.who)
        self._open[span.context.span_id] = call

    def on_end(self, span: Any) -> None:
        """Hand over the call of a span that is one; never raises."""
        if self not in _running:
            return
        try:
            call = self._open.pop(span.context.span_id, None)
            attributes = _picked(span)
            if call is None or call.span_id != span.context.span_id:  # nothing told so at its start
                operation = _operation_of(span, attributes)
                if operation is None:
                    return
                call = SpanCall(_log, span, operation, call)
            if call.finish_with(span, attributes):
                call.target = self._collector or get_metrics_collector()
                call.target.submit(call)
        except Exception as error:
            note("span_processor", error)

    def shutdown(self) -> None:
        """Note no more calls. The collector goes on."""
        global _running
        _running = tuple(one for one in _running if one is not self)
        if not _running:
            calls.see_call = None

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Bring the records to their sinks within that time; whether all are there."""
        try:
            return (self._collector or get_metrics_collector()).flush_sync(timeout_millis / 1000).complete
        except Exception as error:
            note("span_processor", error)
            return False


def _picked(span: Any) -> dict[str, Any]:
    if span.instrumentation_scope.name == SCOPE:  # our own spans are of calls that have their records
        return {}
    return genai.picked(span.attributes or _NOTHING)


def _operation_of(span: Any, attributes: Mapping[str, Any]) -> str | None:
    return genai.operation_of(attributes, span.name, client=span.kind.name == "CLIENT")


def _see(call: Call) -> CallSighting:
    sighting = _log.begin(call)
    try:
        span_id = call._trace.span_id
        if span_id is not None:
            number = int(span_id, 16)
            for one in _running:
                outer = one._open.get(number)
                if outer is not None:
                    outer.contain(sighting)
    except Exception as error:
        note("span_processor", error)
    return sighting
