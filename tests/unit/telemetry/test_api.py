import logging

from opentelemetry import baggage
from opentelemetry import context as contexts

from tellmeter.telemetry import api
from tellmeter.telemetry.w3c import Member, TraceParent
from tests.support.tracing import PARENT_ID, TRACE_ID


def test_properties_stay_with_the_value_that_they_came_with():
    context = api.with_baggage({"a": Member("1", "ttl=3"), "b": Member("2", "p")}, api.empty())
    assert baggage.get_all(context) == {"a": "1", "b": "2"}
    changed = baggage.set_baggage("a", "changed", context)
    changed = baggage.set_baggage("n", 7, changed)
    assert api.baggage_in(changed) == {"a": Member("changed"), "b": Member("2", "p"), "n": Member("7")}
    again = api.with_baggage({"b": Member("2", "q")}, changed)
    assert api.baggage_in(again)["b"] == Member("2", "q")


def test_a_remote_parent_is_remote_and_keeps_its_states():
    context = api.with_parent(TraceParent(TRACE_ID, PARENT_ID, 3), {"foo": "1", "t@v": "2"}, api.empty())
    ids = api.span_in(context).get_span_context()
    assert ids.is_remote and ids.is_valid
    assert ids.trace_flags == 3
    assert list(ids.trace_state.items()) == [("foo", "1"), ("t@v", "2")]


def test_a_runtime_context_of_another_kind_detaches_its_own_tokens(monkeypatch):
    seen = []
    monkeypatch.setattr(contexts, "detach", seen.append)
    api.detach("its token")
    assert seen == ["its token"]


def test_detaching_twice_or_elsewhere_is_silent(caplog):
    import contextvars

    with caplog.at_level(logging.DEBUG):
        token = contextvars.copy_context().run(api.attach, contexts.Context({"a": 1}))
        api.detach(token)
    assert not caplog.records
