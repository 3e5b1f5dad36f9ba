import inspect

import pytest
from opentelemetry import trace

from tellmeter.context import NO_TRACE, current_trace
from tellmeter.telemetry import noop
from tellmeter.telemetry.noop import NoopSpan, NoopTracer, Span, SpanContext
from tellmeter.telemetry.w3c import TraceParent
from tests.support.tracing import PARENT_ID, SENT, TRACE_ID

PARENT = TraceParent(TRACE_ID, PARENT_ID, 1)


def public(kind):
    return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_its_spans_and_tracers_have_what_opentelemetrys_have():
    assert public(trace.Span) <= public(NoopSpan)
    assert public(trace.Span) <= public(Span)
    assert public(trace.Tracer) <= public(NoopTracer)
    ids = trace.INVALID_SPAN_CONTEXT
    for name in ("trace_id", "span_id", "is_remote", "trace_flags", "trace_state", "is_valid"):
        assert getattr(SpanContext(), name) == getattr(ids, name) or not getattr(ids, name)


@pytest.mark.parametrize("start", ["start_span", "start_as_current_span"])
def test_a_tracers_span_is_the_one_that_runs(start):
    context = noop.with_parent(PARENT, {}, noop.empty())
    tracer = noop.get_tracer(None, "any")
    assert not getattr(tracer, start)("name").get_span_context().is_valid
    token = noop.attach(context)
    try:
        with getattr(tracer, start)("name", kind=3, attributes={"a": 1}) as span:
            assert span is context.span
            assert not span.is_recording()
    finally:
        noop.detach(token)
    assert getattr(tracer, start)("name", context) is context.span


def test_records_and_logs_have_the_ids_that_were_sent_along(monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "opentelemetry.trace")
    assert current_trace() is NO_TRACE
    token = noop.attach(noop.with_parent(PARENT, {}, noop.empty()))
    try:
        assert current_trace() == (TRACE_ID, PARENT_ID, None)
    finally:
        noop.detach(token)
    token = noop.attach(noop.with_baggage({}, noop.empty()))
    assert current_trace() is NO_TRACE
    noop.detach(token)


def test_a_context_is_not_changed_by_what_is_made_from_it():
    states = {"foo": "1"}
    context = noop.with_parent(PARENT, states, noop.empty())
    states.clear()
    assert context.span.get_span_context().trace_state == {"foo": "1"}
    assert noop.empty() == noop.Context()
    assert SENT == f"00-{context.trace.trace_id}-{context.trace.span_id}-01"
