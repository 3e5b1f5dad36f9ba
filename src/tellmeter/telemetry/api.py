"""OpenTelemetry's API as tracing uses it, whichever provider the program has. Loaded when a span or context is wanted.

`noop` has the same names, for where it is not installed.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.propagators.textmap import Getter, TextMapPropagator
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider

from ..context import reset
from ..counts import count
from ..guard import note
from .fitting import fit_attributes, fit_text
from .w3c import FIELDS, Member, TraceParent

try:
    _propagate: Any = import_module("opentelemetry.propagate")
except Exception as error:  # OTEL_PROPAGATORS names what is not installed
    note("propagators", error)
    _propagate = None

_PROPERTIES = create_key("tellmeter-baggage-properties")  # name -> Member; OpenTelemetry keeps values only

empty = Context
current = contexts.get_current
attach = contexts.attach
with_span = trace.set_span_in_context


def provider() -> TracerProvider:
    """The global one; the program may set it later."""
    return trace.get_tracer_provider()


def get_tracer(provider: TracerProvider, name: str) -> Tracer:
    """A tracer of the provider."""
    return provider.get_tracer(name)


def start(
    tracer: Tracer, name: str, context: Context, kind: object, attributes: Mapping[str, Any], links: Iterable[Any]
) -> trace.Span:
    """A new span in `context`, which runs nowhere yet."""
    return tracer.start_span(
        name,
        context,
        kind=_kind(kind),
        attributes=attributes,
        links=[link for link in map(_link, links) if link is not None],
        record_exception=False,
        set_status_on_exception=False,
    )


def record(span: trace.Span, error: BaseException) -> str:
    """Add an event with an exception's class, where there is none yet; returns its name."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    for event in getattr(span, "events", None) or ():
        if event.name == "exception" and (event.attributes or {}).get("exception.type") == name:
            return name
    span.add_event("exception", {"exception.type": name})
    return name


def fail(span: trace.Span, error: BaseException) -> None:
    """Record an exception and set the status, once: what the program recorded and set itself stays."""
    if not span.is_recording():
        return
    name = record(span, error)
    span.set_attribute("error.type", name)
    if getattr(getattr(span, "status", None), "is_unset", True):
        span.set_status(Status(StatusCode.ERROR, name))


def status_of(status: object, description: str | None) -> Status | None:
    """A Status, a StatusCode, or its name in any case; None for what is neither, which is counted."""
    if isinstance(status, Status):
        return status
    code = status if isinstance(status, StatusCode) else StatusCode.__members__.get(str(status).upper())
    if code is None:
        count("tracing_faults", "status")
        return None
    return Status(code, fit_text(description) if description and code is StatusCode.ERROR else None)


def _kind(given: object) -> SpanKind:
    """INTERNAL for None and for what is no kind: exporters fail on anything else."""
    if isinstance(given, SpanKind):
        return given
    kind = SpanKind.__members__.get(given.upper()) if isinstance(given, str) else None
    if kind is None and given is not None:
        count("tracing_faults", "kind")
    return kind or SpanKind.INTERNAL


def _link(given: Any) -> Link | None:
    """A link to a span, a span context or an extracted context, or to one of those with attributes."""
    if isinstance(given, Link):
        return given
    attributes = None
    if type(given) is tuple and len(given) == 2:
        given, attributes = given
    if isinstance(given, Context):
        given = trace.get_current_span(given)
    ids = given.get_span_context() if isinstance(given, trace.Span) else given
    if not isinstance(ids, SpanContext) or not ids.is_valid:
        count("tracing_faults", "link")
        return None
    return Link(ids, fit_attributes(attributes))


# ---------------------------------------------------------------------- context


def detach(token: Any) -> None:
    """Undo an `attach`; in another context there is nothing to undo, which OpenTelemetry would log as an error."""
    if isinstance(token, contextvars.Token):
        reset(token.var, token)
    else:
        contexts.detach(token)


def span_in(context: Context) -> trace.Span:
    """Its span; an invalid one where there is none."""
    return trace.get_current_span(context)


def baggage_in(context: Context) -> dict[str, Member]:
    """Its baggage, whoever set it. Properties stay with the value that they came with."""
    sent: Any = get_value(_PROPERTIES, context) or {}
    found = {}
    for name, value in baggage.get_all(context).items():
        text = value if isinstance(value, str) else str(value)
        member = sent.get(name)
        found[name] = member if member is not None and member.value == text else Member(text)
    return found


def with_baggage(members: Mapping[str, Member], context: Context) -> Context:
    """`context` with those members beside those that it has."""
    sent = {name: member for name, member in members.items() if member.properties}
    if sent:
        had: Any = get_value(_PROPERTIES, context) or {}
        context = set_value(_PROPERTIES, {**had, **sent}, context)
    for name, member in members.items():
        context = baggage.set_baggage(name, member.value, context)
    return context


# ---------------------------------------------------------------------- propagation


def with_parent(parent: TraceParent, states: Mapping[str, str], context: Context) -> Context:
    """`context` inside a span of another process."""
    ids = SpanContext(
        int(parent.trace_id, 16),
        int(parent.parent_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(parent.flags),
        trace_state=trace.TraceState(list(states.items())),
    )
    return with_span(trace.NonRecordingSpan(ids), context)


def fields() -> frozenset[str]:
    """The headers that the program's propagators (OTEL_PROPAGATORS) pass on."""
    return FIELDS if _propagate is None else _fields_of(_propagate.get_global_textmap())


def extract_others(headers: Mapping[str, list[str]], context: Context) -> Context:
    """`context` with what the program's propagators of other formats than W3C's find."""
    if fields() <= FIELDS:
        return context
    found: Context = _propagate.extract(headers, context, getter=_GETTER)
    return found


def inject_others(headers: Any, context: Context) -> None:
    """Write what those pass on."""
    if not fields() <= FIELDS:
        _propagate.inject(headers, context)


@lru_cache(maxsize=8)
def _fields_of(propagator: TextMapPropagator) -> frozenset[str]:
    return frozenset(propagator.fields)


class _Getter(Getter[Mapping[str, list[str]]]):
    """Headers in lower case, for propagators that ask in their own."""

    def get(self, carrier: Mapping[str, list[str]], key: str) -> list[str] | None:
        return carrier.get(key.lower())

    def keys(self, carrier: Mapping[str, list[str]]) -> list[str]:
        return list(carrier)


_GETTER = _Getter()
