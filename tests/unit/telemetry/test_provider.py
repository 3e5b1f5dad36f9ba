"""The tracer provider of the process: ours only where the program has set none."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider, sampling

from tellmeter import counts
from tellmeter.telemetry.provider import own_provider
from tellmeter.telemetry.settings import TelemetrySettings
from tellmeter.testing import Answer
from tests.support.otlp_spans import SpanReceiver, partial_success
from tests.support.tracing import global_provider

pytestmark = pytest.mark.usefixtures("fresh")
SECONDS = 20.0


@pytest.fixture
def settable(monkeypatch):
    """The API lets a process set its provider once; here once a test."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", trace.Once())


def settings(receiver=None, **given):
    endpoint = None if receiver is None else receiver.url
    return TelemetrySettings.from_env({}, otlp_endpoint=endpoint, **given)


@pytest.mark.usefixtures("settable")
def test_it_is_made_global_where_there_is_none_and_found_again():
    own = own_provider(settings(service_name="shop"))
    assert trace.get_tracer_provider() is own.provider
    assert own.provider.resource.attributes["service.name"] == "shop"
    assert own_provider(settings()) is own


@pytest.mark.parametrize("provider", [TracerProvider(shutdown_on_exit=False), trace.NoOpTracerProvider()])
def test_one_that_the_program_has_set_stays(provider):
    with global_provider(provider):
        assert own_provider(settings()) is None
        assert trace.get_tracer_provider() is provider


@pytest.mark.usefixtures("settable")
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("always_on", sampling.ALWAYS_ON),
        ("always_off", sampling.ALWAYS_OFF),
        ("traceidratio", sampling.TraceIdRatioBased(0.25)),
        ("parentbased_always_on", sampling.ParentBased(sampling.ALWAYS_ON)),
        ("parentbased_always_off", sampling.ParentBased(sampling.ALWAYS_OFF)),
        ("parentbased_traceidratio", sampling.ParentBased(sampling.TraceIdRatioBased(0.25))),
    ],
)
def test_samplers(name, meant):
    own = own_provider(settings(sampler=name, sampler_ratio=0.25))
    assert own.provider.sampler.get_description() == meant.get_description()


@pytest.mark.usefixtures("settable")
def test_its_exporters_may_end_and_others_come():
    ended = []

    class Programs(SpanProcessor):
        def on_end(self, span):
            ended.append(span.name)

    with SpanReceiver() as first, SpanReceiver() as second:
        own = own_provider(settings(first))
        own.provider.add_span_processor(Programs())
        tracer = own.provider.get_tracer("t")
        own.add("otlp", settings(first))
        tracer.start_span("a").end()
        assert own.flush(SECONDS)
        own.close(SECONDS)
        tracer.start_span("b").end()
        own.add("otlp", settings(second))
        tracer.start_span("c").end()
        assert own.force_flush()
        own.close(SECONDS)
        assert [span.name for span in first.spans()] == ["a"]
        assert [span.name for span in second.spans()] == ["c"]
    assert ended == ["a", "b", "c"]


@pytest.mark.usefixtures("settable")
def test_the_console(capsys):
    own = own_provider(settings())
    own.add("console", settings())
    own.provider.get_tracer("t").start_span("printed").end()
    own.close(SECONDS)
    assert '"name": "printed"' in capsys.readouterr().out


@pytest.mark.usefixtures("settable")
@pytest.mark.parametrize(
    ("answer", "outcome", "lost"),
    [
        (Answer(200, body=partial_success(2)), "partial", {"refused": 2}),
        (Answer(302, headers={"Location": "/elsewhere"}), "failed", {"export_failed": 3}),
        (Answer(400), "failed", {"export_failed": 3}),
        (Answer(200), "delivered", {}),
    ],
)
def test_what_a_receiver_does_not_take_is_counted(answer, outcome, lost):
    before = counts.snapshot()
    with SpanReceiver(default=answer) as receiver:
        own = own_provider(settings(receiver))
        own.add("otlp", settings(receiver))
        for _ in range(3):
            own.provider.get_tracer("t").start_span("a").end()
        assert own.flush(SECONDS)
        own.close(SECONDS)
        assert {request.path for request in receiver.requests} == {"/v1/traces"}
    assert since(before, "span_exports") == {outcome: 1}
    assert since(before, "spans_dropped") == lost


@pytest.mark.usefixtures("settable")
def test_a_receiver_that_asks_for_patience_gets_them_later():
    with SpanReceiver() as receiver:
        receiver.script(Answer(429, headers={"Retry-After": "0"}), Answer(503, headers={"Retry-After": "0"}))
        own = own_provider(settings(receiver))
        own.add("otlp", settings(receiver))
        before = counts.snapshot()
        own.provider.get_tracer("t").start_span("a").end()
        assert own.flush(SECONDS)
        own.close(SECONDS)
        assert receiver.received == 3
    assert since(before, "span_exports") == {"delivered": 1}


def since(before, name):
    now, then = counts.snapshot().get(name, {}), before.get(name, {})
    return {key: number - then.get(key, 0) for key, number in now.items() if number > then.get(key, 0)}
