"""Trace and baggage out of the headers of a request, and into those of the next."""

from __future__ import annotations

from typing import Any

from ..guard import note
from .backend import backend
from .w3c import (
    BAGGAGE,
    TRACEPARENT,
    TRACESTATE,
    TraceParent,
    format_baggage,
    format_traceparent,
    format_tracestate,
    headers_of,
    parse_baggage,
    parse_traceparent,
    parse_tracestate,
)


def extract(headers: Any) -> Any:
    """As `TracingManager.extract_context`."""
    try:
        api = backend()
        found = headers_of(headers)
        fields = api.fields()
        context = api.extract_others(found, api.empty())
        parents = found.get(TRACEPARENT, ()) if TRACEPARENT in fields else ()
        parent = parse_traceparent(parents[0]) if len(parents) == 1 else None  # of two, none is to be believed
        if parent is not None:
            context = api.with_parent(parent, parse_tracestate(found.get(TRACESTATE, ())), context)
        if BAGGAGE in fields and (members := parse_baggage(found.get(BAGGAGE, ()))):
            context = api.with_baggage(members, context)
    except Exception as error:
        note("extract_context", error)
        return None
    return None if context == api.empty() else context


def inject(headers: Any, context: Any) -> None:
    """As `TracingManager.inject_context`."""
    try:
        api = backend()
        around = api.current() if context is None else context
        fields = api.fields()
        api.inject_others(headers, around)
        ids = api.span_in(around).get_span_context()
        if TRACEPARENT in fields and ids.is_valid:
            parent = TraceParent(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", ids.trace_flags)
            _put(headers, TRACEPARENT, format_traceparent(parent))
            _put(headers, TRACESTATE, format_tracestate(ids.trace_state))
        if BAGGAGE in fields and (text := format_baggage(api.baggage_in(around))):
            _put(headers, BAGGAGE, text)
    except Exception as error:
        note("inject_context", error)


def _put(headers: Any, name: str, text: str) -> None:
    for key in [key for key in headers if key.lower() == name]:
        del headers[key]
    if text:
        headers[name] = text
