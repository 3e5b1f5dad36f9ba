import contextvars

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tellmeter.telemetry import scopes
from tellmeter.telemetry.noop import NoopSpan
from tellmeter.telemetry.scopes import BaggageScope, OpenSpan, SpanScope
from tellmeter.telemetry.tracing import get_current_span, get_tracing_manager
from tellmeter.telemetry.w3c import Member
from tests.support.tracing import recorded, without_opentelemetry


@pytest.fixture(params=[recorded, without_opentelemetry])
def either(request):
    with request.param() as spans:
        yield spans


def test_an_open_span_gives_back_what_its_code_had_attached(either):
    manager = get_tracing_manager()
    opened = manager.begin("steps")
    opened.enter()
    inside = manager.set_baggage("a", 1)
    inside.__enter__()
    opened.leave()
    assert manager.get_baggage("a") is None
    opened.enter()
    assert manager.get_baggage("a") == "1"
    inside.__exit__(None, None, None)
    opened.close(None)
    opened.leave()
    assert manager.get_baggage("a") is None


def test_leaving_what_was_not_entered_is_nothing(either):
    SpanScope(lambda: OpenSpan(NoopSpan(), None)).__exit__(None, None, None)
    BaggageScope({}).__exit__(None, None, None)


def test_a_backend_that_fails_is_not_felt(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("the prompt")

    monkeypatch.setattr(scopes, "backend", Broken)
    with SpanScope(lambda: OpenSpan(NoopSpan(), None)), BaggageScope({"a": Member("1")}):
        pass
    with pytest.raises(KeyError), SpanScope(lambda: OpenSpan(NoopSpan(), None)):
        raise KeyError


def test_a_baggage_that_cannot_be_made_leaves_the_running_context(either, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("the prompt")

    monkeypatch.setattr(scopes.backend(), "with_baggage", broken)
    before = scopes.backend().current()
    with BaggageScope({"a": Member("1")}):
        assert scopes.backend().current() is before


class Blocks(RuleBasedStateMachine):
    """Blocks begin and end in any order and in any context; the user's code never feels it, and every span ends once."""

    def __init__(self):
        super().__init__()
        self.recording = recorded()
        self.spans = self.recording.__enter__()
        self.contexts = [contextvars.copy_context() for _ in range(3)]
        self.open = []
        self.begun = 0

    @rule(place=st.integers(0, 2), baggage=st.booleans())
    def begin(self, place, baggage):
        manager = get_tracing_manager()
        scope = manager.set_baggage("a", place) if baggage else manager.start_span("it")
        self.begun += not baggage
        self.contexts[place].run(scope.__enter__)
        self.open.append(scope)

    @precondition(lambda self: self.open)
    @rule(
        place=st.integers(0, 2), which=st.integers(0), error=st.sampled_from([None, ValueError("x"), GeneratorExit()])
    )
    def end(self, place, which, error):
        scope = self.open.pop(which % len(self.open))
        self.contexts[place].run(scope.__exit__, error and type(error), error, None)

    @rule(place=st.integers(0, 2))
    def ask(self, place):
        self.contexts[place].run(get_current_span).get_span_context()

    def teardown(self):
        for scope in self.open:
            scope.__exit__(None, None, None)
        ended = [span.context.span_id for span in self.spans.all]
        assert len(ended) == len(set(ended)) == self.begun
        self.recording.__exit__(None, None, None)


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
