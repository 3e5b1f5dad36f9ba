import asyncio
import contextlib
import logging

import pytest
from opentelemetry import baggage, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode

from tellmeter.counts import snapshot
from tellmeter.telemetry import tracing
from tellmeter.telemetry.noop import NoopSpan
from tellmeter.telemetry.tracing import TracingManager, get_tracing_manager, start_span
from tests.support.decorated import Boom
from tests.support.tracing import PARENT_ID, SENT, TRACE_ID, global_provider, recorded, without_opentelemetry


@pytest.fixture
def spans():
    with recorded() as found:
        yield found


def faults(name):
    counts = snapshot()
    return counts.get("tracing_faults", {}).get(name, 0) + counts.get("guarded_errors", {}).get(name, 0)


def parent_of(span):
    return span.parent.span_id if span.parent else None


def test_a_span_is_around_its_block_and_inside_the_span_around_it(spans):
    with start_span("outer", attributes={"a": 1}) as outer:
        assert tracing.get_current_span() is outer
        with start_span("inner") as inner:
            assert tracing.get_current_span() is inner
        assert tracing.get_current_span() is outer
    assert not tracing.get_current_span().get_span_context().is_valid
    assert parent_of(spans["inner"]) == outer.get_span_context().span_id
    assert parent_of(spans["outer"]) is None
    assert dict(spans["outer"].attributes) == {"a": 1}
    assert spans["outer"].status.status_code is StatusCode.UNSET


def test_tasks_have_their_own_spans(spans):
    async def work(name, gate):
        async with tracing.start_async_span(name):
            await gate.wait()
            async with start_span(f"{name}-inner"):
                await asyncio.sleep(0)

    async def main():
        gate = asyncio.Barrier(3)
        async with start_span("main"):
            await asyncio.gather(*(work(name, gate) for name in "abc"))

    asyncio.run(main())
    for name in "abc":
        assert parent_of(spans[name]) == spans["main"].context.span_id
        assert parent_of(spans[f"{name}-inner"]) == spans[name].context.span_id


def test_the_manager_has_the_origins_names(spans):
    manager = get_tracing_manager()
    with manager.span("a"):
        pass

    async def main():
        async with manager.async_span("b"):
            pass

    asyncio.run(main())
    assert {span.name for span in spans.all} == {"a", "b"}


def test_a_scope_can_be_entered_again_and_in_itself(spans):
    again = start_span("again")
    with again as outer, again as inner:
        assert inner is not outer
    with again:
        pass
    assert len(spans.all) == 3
    assert parent_of(spans.all[0]) == outer.get_span_context().span_id


def test_a_scope_can_be_entered_in_many_tasks_at_once(spans):
    shared = start_span("shared")

    async def work(number, gate):
        async with shared as span:
            await gate.wait()
            tracing.set_span_attribute("number", number)
            if number == 0:
                await asyncio.sleep(0)  # the first to enter is not the first to leave
                raise KeyError
            return span.get_span_context().span_id

    async def main():
        gate = asyncio.Barrier(3)
        return await asyncio.gather(*(work(number, gate) for number in range(3)), return_exceptions=True)

    asyncio.run(main())
    failed = {span.attributes["number"]: not span.status.is_unset for span in spans.all}
    assert failed == {0: True, 1: False, 2: False}


def test_an_exception_is_recorded_by_its_class_and_goes_on(spans):
    error = ValueError("the prompt")
    with pytest.raises(ValueError, match="the prompt") as raised, start_span("failing"):
        raise error
    assert raised.value is error
    failed = spans["failing"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "ValueError"
    assert [(event.name, dict(event.attributes)) for event in failed.events] == [
        ("exception", {"exception.type": "ValueError"})
    ]
    assert failed.attributes["error.type"] == "ValueError"
    assert "the prompt" not in failed.to_json()


def test_what_the_program_recorded_and_set_itself_stays(spans):
    with contextlib.suppress(KeyError), start_span("own"):
        try:
            {}["the prompt"]
        except KeyError as error:
            tracing.record_span_exception(error)
            tracing.add_span_event("cleaned up")
            tracing.set_span_status("error", "no such user")
            raise
    with contextlib.suppress(Boom), start_span("fine"):
        tracing.set_span_status(StatusCode.OK, "ignored")
        raise Boom
    assert [event.name for event in spans["own"].events] == ["exception", "cleaned up"]
    assert spans["own"].status.description == "no such user"
    assert spans["fine"].status.status_code is StatusCode.OK
    assert spans["fine"].events[0].attributes["exception.type"] == "tests.support.decorated.Boom"


def test_an_exception_that_was_handled_is_no_error(spans):
    with start_span("handled"):
        tracing.record_span_exception(KeyError("the prompt"), escaped=False)
    assert spans["handled"].status.status_code is StatusCode.UNSET
    assert "the prompt" not in spans["handled"].to_json()
    assert spans["handled"].events[0].attributes["exception.type"] == "KeyError"


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_a_cancellation_is_no_error(spans, kind):
    with pytest.raises(kind), start_span("cancelled"):
        raise kind
    assert spans["cancelled"].status.status_code is StatusCode.UNSET
    assert not spans["cancelled"].events


def test_events_and_attributes_go_to_the_current_span(spans):
    with start_span("outer"), start_span("inner"):
        tracing.set_span_attribute("one", 1)
        tracing.set_span_attributes({"two": [1, 2], "three": object()})
        tracing.add_span_event("event", {"size": 100})
    assert dict(spans["inner"].attributes) == {"one": 1, "two": (1, 2), "three": "object"}
    assert [(event.name, dict(event.attributes)) for event in spans["inner"].events] == [("event", {"size": 100})]
    assert not spans["outer"].attributes


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("ok", Status(StatusCode.OK)),
        ("ERROR", Status(StatusCode.ERROR, "why")),
        (StatusCode.ERROR, Status(StatusCode.ERROR, "why")),
        (Status(StatusCode.ERROR, "mine"), Status(StatusCode.ERROR, "mine")),
        ("nonsense", Status(StatusCode.UNSET)),
        (None, Status(StatusCode.UNSET)),
    ],
)
def test_statuses(spans, given, status):
    with start_span("it"):
        tracing.set_span_status(given, "why")
    assert spans["it"].status.status_code is status.status_code
    assert spans["it"].status.description == status.description


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, SpanKind.INTERNAL),
        ("client", SpanKind.CLIENT),
        ("SERVER", SpanKind.SERVER),
        ("Producer", SpanKind.PRODUCER),
        ("consumer", SpanKind.CONSUMER),
        ("internal", SpanKind.INTERNAL),
        (SpanKind.CLIENT, SpanKind.CLIENT),
        ("nonsense", SpanKind.INTERNAL),
        (3, SpanKind.INTERNAL),
    ],
)
def test_a_span_has_a_kind_that_exporters_know(spans, given, kind):
    with start_span("it", kind=given):
        pass
    assert spans["it"].kind is kind
    assert encode_spans(spans.all).resource_spans


def test_links(spans):
    manager = get_tracing_manager()
    remote = manager.extract_context({"traceparent": SENT})
    with start_span("other") as other:
        pass
    before = faults("link")
    links = [
        remote,
        (other, {"why": "batch"}),
        other.get_span_context(),
        trace.Link(other.get_span_context()),
        "x",
        trace.INVALID_SPAN,
    ]
    with start_span("it", links=links):
        pass
    found = spans["it"].links
    assert [link.context.span_id for link in found] == [int(PARENT_ID, 16)] + [other.get_span_context().span_id] * 3
    assert dict(found[1].attributes) == {"why": "batch"}
    assert faults("link") == before + 2


def test_an_extracted_context_is_the_parent_and_nothing_is_attached(spans):
    manager = get_tracing_manager()
    with start_span("around"):
        context = manager.extract_context({"TraceParent": SENT, "tracestate": "foo=1,bar=2", "baggage": "a=1"})
        assert manager.get_baggage("a") is None
        with start_span("child", context=context):
            assert manager.get_baggage("a") == "1"
            sent = manager.inject_context({"TRACEPARENT": "old", "other": "x"})
    child = spans["child"]
    assert f"{child.context.trace_id:032x}" == TRACE_ID
    assert child.parent.is_remote and parent_of(child) == int(PARENT_ID, 16)
    assert sent == {
        "other": "x",
        "traceparent": f"00-{TRACE_ID}-{child.context.span_id:016x}-01",
        "tracestate": "foo=1,bar=2",
        "baggage": "a=1",
    }


def test_a_context_that_is_none_or_no_context_leaves_the_current_span_the_parent(spans):
    before = faults("context")
    with start_span("outer") as outer:
        for context in (None, "traceparent", {"traceparent": SENT}):
            with start_span("inner", context=context):
                pass
    assert {parent_of(span) for span in spans.all if span.name == "inner"} == {outer.get_span_context().span_id}
    assert faults("context") == before + 2


def test_baggage_holds_for_its_block_and_is_opentelemetrys(spans):
    manager = get_tracing_manager()
    with manager.set_baggage("user", "ü 1"):
        with manager.set_baggage("user", 2):
            assert manager.get_baggage("user") == "2"
        assert manager.get_baggage("user") == baggage.get_baggage("user") == "ü 1"
        assert manager.inject_context({}) == {"baggage": "user=%C3%BC%201"}

        async def inside():
            async with manager.set_baggage("more", True):
                return manager.get_baggage("user"), manager.get_baggage("more")

        assert asyncio.run(inside()) == ("ü 1", "True")
    assert manager.get_baggage("user") is None
    assert manager.inject_context({}) == {}
    with manager.set_baggage("not a token", "x"):
        assert manager.inject_context({}) == {}


@contextlib.contextmanager
def no_provider():
    with global_provider(None):
        yield


@pytest.mark.parametrize("missing", [no_provider, without_opentelemetry])
def test_without_a_provider_the_trace_is_passed_on_and_no_ids_are_made_up(missing):
    headers = {"traceparent": SENT, "tracestate": "foo=1,bar=2", "baggage": "a=b%20c;ttl=30"}
    manager = get_tracing_manager()
    with missing():
        with start_span("alone") as span:
            assert not span.is_recording()
            assert manager.inject_context({}) == {}
        with start_span("child", context=manager.extract_context(headers), kind="client") as span:
            span.set_attribute("a", 1)
            span.set_attributes({"a": 1})
            span.add_event("e", {"a": 1})
            span.record_exception(ValueError())
            span.set_status("error")
            span.update_name("b")
            tracing.record_span_exception(ValueError())
            tracing.set_span_status("ok")
            with start_span("grandchild"), manager.set_baggage("user", "u"):
                assert manager.get_baggage("a") == "b c"
                assert manager.inject_context({}) == {**headers, "baggage": f"{headers['baggage']},user=u"}
            assert span.get_span_context().is_valid
        assert manager.inject_context({}) == {}
        assert manager.get_tracer().start_span("x") is not None


@pytest.mark.parametrize("missing", [recorded, without_opentelemetry])
def test_a_generator_that_is_closed_in_another_context_is_no_fault(missing, caplog):
    def steps():
        with start_span("steps"), get_tracing_manager().set_baggage("a", 1):
            yield

    async def asteps():
        async with start_span("asteps"):
            yield

    async def main():
        generator = asteps()
        await asyncio.create_task(anext(generator))
        await asyncio.create_task(generator.aclose())

    with missing() as spans, caplog.at_level(logging.WARNING):
        generator = steps()
        asyncio.run(asyncio.to_thread(next, generator))
        generator.close()
        asyncio.run(main())
        assert spans is None or {span.name for span in spans.all} == {"steps", "asteps"}
    assert not caplog.records


class Broken(TracerProvider):
    def get_tracer(self, *arguments, **more):
        raise RuntimeError("the prompt")


class BrokenEnd(TracerProvider):
    def __init__(self):
        super().__init__(shutdown_on_exit=False)
        self.add_span_processor(self)

    def on_start(self, span, parent_context=None):
        return

    def on_end(self, span):
        raise RuntimeError("the prompt")

    def _on_ending(self, span):
        return


@pytest.mark.parametrize("provider", [Broken, BrokenEnd])
def test_a_provider_that_raises_is_counted_and_the_block_runs(provider):
    before = faults("tracing")
    manager = TracingManager(provider())
    with pytest.raises(KeyError), manager.start_span("it") as span:
        span.set_attribute("a", 1)
        raise KeyError
    assert faults("tracing") == before + 1
    assert isinstance(span, NoopSpan) or provider is BrokenEnd


def test_a_manager_has_a_provider_of_its_own_and_follows_the_global_one(spans):
    with recorded() as others:
        with start_span("there"):
            pass
        own = TracingManager(trace.get_tracer_provider())
    with own.start_span("own"), start_span("here"):
        pass
    assert [span.name for span in spans.all] == ["here"]
    assert [span.name for span in others.all] == ["there"]
    assert own.get_tracer() is own.get_tracer()
    assert own.get_tracer("another").start_span("x").instrumentation_scope.name == "another"


@pytest.mark.parametrize("name", [None, 7, ["prompt"], "\ud800", "x" * 10_000, ""])
def test_any_name_makes_a_span(spans, name):
    with start_span(name, attributes="none", links=7):
        pass
    with start_span(name):
        tracing.add_span_event(name)
        tracing.set_span_attribute(name, name)
    assert "prompt" not in str([span.name for span in spans.all])
    assert encode_spans(spans.all).SerializeToString()
