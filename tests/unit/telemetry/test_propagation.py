import httpx
import pytest
import starlette.datastructures
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tellmeter.counts import snapshot
from tellmeter.telemetry.propagation import extract, inject
from tellmeter.telemetry.tracing import get_tracing_manager, start_span
from tests.support.hostile import BROKEN, Liar, Raising
from tests.support.tracing import SENT, recorded, without_opentelemetry

HEADERS = {"traceparent": SENT, "tracestate": "foo=1,bar=2", "baggage": "a=b%20c;ttl=30,k=v"}


@pytest.fixture(params=["with", "without"])
def either(request):
    """With OpenTelemetry, and without."""
    with recorded() if request.param == "with" else without_opentelemetry():
        yield request.param


def passed_on(headers):
    return get_tracing_manager().inject_context({}, context=extract(headers))


def test_what_comes_in_goes_out(either):
    assert passed_on(HEADERS) == HEADERS
    assert passed_on({name.upper(): value for name, value in HEADERS.items()}) == HEADERS
    assert passed_on([(name.encode(), value.encode()) for name, value in HEADERS.items()]) == HEADERS


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"tracestate": "foo=1"}, {}),
        ({"baggage": "a=1"}, {"baggage": "a=1"}),
        ({"traceparent": "nonsense", "tracestate": "foo=1", "baggage": "a=1"}, {"baggage": "a=1"}),
        ([("traceparent", SENT), ("Traceparent", SENT.replace("1234", "4321"))], {}),
        (httpx.Headers([("traceparent", SENT), ("traceparent", SENT)]), {}),
        ({"traceparent": SENT, "tracestate": "foo=1,foo=2"}, {"traceparent": SENT}),
        ({"traceparent": SENT, "trace-state": "foo=1"}, {"traceparent": SENT}),
        (
            [("traceparent", SENT), ("tracestate", "a=1"), ("tracestate", "b=2")],
            {"traceparent": SENT, "tracestate": "a=1,b=2"},
        ),
        ([("baggage", "a=1"), ("baggage", "b=2")], {"baggage": "a=1,b=2"}),
    ],
)
def test_what_is_not_valid_stays_behind(either, headers, kept):
    assert passed_on(headers) == kept


@pytest.mark.parametrize(
    "headers", [{}, [], {"traceparent": ""}, {"host": "x"}, {"traceparent": "00"}, {"baggage": "bad"}]
)
def test_nothing_found_is_none(either, headers):
    assert extract(headers) is None


@pytest.mark.parametrize("kind", [dict, httpx.Headers, starlette.datastructures.MutableHeaders])
def test_what_a_request_had_under_the_names_is_replaced(either, kind):
    request = kind({"Traceparent": "old", "TRACESTATE": "old=1", "BagGage": "old=1", "Accept": "x"})
    inject(request, extract({"traceparent": SENT, "baggage": "new=1"}))
    lower = {name.lower(): value for name, value in request.items()}
    assert lower == {"accept": "x", "traceparent": SENT, "baggage": "new=1"}


def test_headers_stay_where_there_is_nothing_to_send(either):
    assert get_tracing_manager().inject_context({"Traceparent": "theirs"}) == {"Traceparent": "theirs"}


@pytest.mark.parametrize("headers", [None, 7, "text", b"bytes", [1, 2], [("one",)], object(), Raising()])
def test_what_are_no_headers_is_no_fault_of_the_program(either, headers):
    assert extract(headers) is None
    manager = get_tracing_manager()
    assert manager.inject_context(headers, context=extract(HEADERS)) is headers


@pytest.mark.parametrize("broken", BROKEN)
def test_headers_that_raise_are_no_fault_of_the_program(either, broken):
    assert extract(Liar(broken)) is None
    inject(Liar(broken), extract(HEADERS))


def test_headers_that_cannot_be_written_are_counted(either):
    before = snapshot().get("guarded_errors", {}).get("inject_context", 0)
    inject((), extract(HEADERS))
    inject({}, "no context")
    assert snapshot()["guarded_errors"]["inject_context"] == before + 2


NAMES = st.sampled_from(["traceparent", "TraceState", "BAGGAGE", "other"])
TEXTS = st.one_of(st.text(), st.sampled_from([SENT, "foo=1", "a=1;b,c=%zz"]), st.binary(), st.none(), st.integers())
ANY_HEADERS = st.one_of(
    st.dictionaries(NAMES, TEXTS | st.lists(TEXTS)), st.lists(st.tuples(NAMES | st.binary(), TEXTS))
)


@settings(deadline=None)
@given(ANY_HEADERS)
def test_hostile_headers_never_raise_and_what_is_passed_on_is_read_again(headers):
    for missing in (recorded, without_opentelemetry):
        with missing():
            sent = passed_on(headers)
            assert passed_on(sent) == sent
            with start_span("it", context=extract(headers)):
                assert passed_on(get_tracing_manager().inject_context({})).keys() <= HEADERS.keys()


class Single(TextMapPropagator):
    """One header, as B3's, in a case of its own."""

    fields = frozenset({"B3"})

    def extract(self, carrier, context=None, getter=None):
        found = getter.get(carrier, "B3")
        assert getter.keys(carrier)
        if not found:
            return context
        trace_id, span_id = found[0].split("-")
        ids = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True)
        return trace.set_span_in_context(trace.NonRecordingSpan(ids), context)

    def inject(self, carrier, context=None, setter=None):
        ids = trace.get_current_span(context).get_span_context()
        carrier["B3"] = f"{ids.trace_id:032x}-{ids.span_id:016x}"


def test_other_propagators_of_the_program_are_heard(monkeypatch):
    monkeypatch.setattr(
        propagate, "_HTTP_TEXT_FORMAT", CompositePropagator([Single(), TraceContextTextMapPropagator()])
    )
    sent = f"{'a' * 32}-{'b' * 16}"
    both = {"B3": sent, "traceparent": f"00-{'a' * 32}-{'b' * 16}-00"}
    assert passed_on({"b3": sent, "baggage": "a=1"}) == both  # no baggage: it is not among them
    assert passed_on({"b3": sent, "traceparent": SENT})["traceparent"] == SENT


def test_a_program_without_propagators_passes_nothing_on(monkeypatch):
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", CompositePropagator([]))
    assert extract(HEADERS) is None
    with recorded(), start_span("it"):
        assert get_tracing_manager().inject_context({}) == {}
