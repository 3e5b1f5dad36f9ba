"""Spans of other instrumentations as calls: with the wire beside them and without, inside each other, and hostile."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from tellmeter import call as calls
from tellmeter import process, track_llm_usage
from tellmeter.counts import snapshot
from tellmeter.telemetry import genai_attributes as genai
from tellmeter.telemetry import span_processor
from tellmeter.telemetry.llm_spans import trace_llm_calls
from tests.support.told import ANSWER, CHAT, EMBEDDINGS, ends, told
from tests.support.traced import ask, client, failing, streaming

pytestmark = pytest.mark.sdk

# ---------------------------------------------------------------------- one call, one record


@pytest.mark.parametrize("handle", [None, streaming, failing(1, 429)])
def test_what_the_wire_saw_inside_a_span_is_the_record(handle: Any) -> None:
    with told(wire=True) as seen:
        sdk = client(handle) if handle else client()
        try:
            with seen.span() as span, seen.tracer("httpx").start_as_current_span("POST"):
                answer = ask(sdk, stream=handle is streaming)
                for _ in answer if handle is streaming else ():
                    pass
                span.set_attributes(ANSWER)
        except Exception as error:
            assert type(error).__name__ == "RateLimitError"
        record = seen.record()
    assert record.status_code == (429 if handle not in (None, streaming) else 200)  # no span said so
    assert snapshot()["spans_of_metered_calls"]["them"] >= 1


def test_a_stream_that_outlives_its_span_is_one_record() -> None:
    with told(wire=True) as seen:
        with seen.span():
            stream = ask(client(streaming), stream=True)
        assert seen.records() == []
        for _ in stream:
            pass
        assert seen.record().output_tokens == 200


def test_a_span_that_is_made_after_its_call_or_was_not_current_is_no_second_record() -> None:
    with told(wire=True) as seen:
        for attributes in ({}, CHAT):
            span = seen.start(attributes=attributes)
            ask(client())
            ends(span, {**CHAT, **ANSWER})
        for _ in range(2):
            with pytest.raises(Exception, match="canary"):
                ask(client(failing(1, 429)))
            late = seen.start(start_time=int(seen.records()[-1].timestamp * 1e9))
            late.set_status(StatusCode.ERROR)
            late.end()
        assert [one.status_code for one in seen.records()] == [200, 200, 429, 429]


def test_calls_that_the_wire_did_not_see_count_beside_those_that_it_saw() -> None:
    with told(wire=True) as seen:
        with seen.span() as span:
            ask(client())
            unseen = seen.start()
            ends(unseen)
            span.set_attributes(ANSWER)
        assert [one.status_code for one in seen.records()] == [200, None]


def test_a_questions_embedding_is_not_the_answer() -> None:
    with told() as seen, seen.span() as span:
        ends(seen.start("inner", attributes=EMBEDDINGS), {"gen_ai.usage.input_tokens": 3})
        span.set_attributes(ANSWER)
    assert [one.operation for one in seen.records()] == ["chat", "embeddings"]


def test_of_spans_inside_each_other_the_innermost_counts() -> None:
    with told() as seen:
        with (
            seen.span("langchain") as outer,
            seen.tracer("app").start_as_current_span("step"),
            seen.span("sdk") as inner,
        ):
            inner.set_attributes({**ANSWER, "gen_ai.response.id": "inner"})
        assert outer is not inner
        assert seen.record().request_id == "inner"


def test_one_inside_that_ends_later_or_never_loses_nothing() -> None:
    with told() as seen:
        with seen.span("langchain") as outer:
            late, lost = seen.start("sdk"), seen.start("sdk")
            outer.set_attributes(ANSWER)
        ends(late)
        assert seen.record().output_tokens == 200
        seen.processor._open.pop(lost.get_span_context().span_id)


def test_spans_beside_each_other_of_one_call_are_one() -> None:
    with told() as seen:
        spans = [seen.start(scope) for scope in ("openinference", "openllmetry", "sdk")]
        for span in spans:
            ends(span)
        assert len(seen.records()) == 1
        ends(seen.start("openinference"))
        assert len(seen.records()) == 2


def test_of_many_at_once_each_is_one() -> None:
    def one() -> None:
        span = seen.start("framework")
        ask(sdk)
        ends(span)

    with told(wire=True) as seen:
        sdk = client()
        threads = [threading.Thread(target=one) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen.records()) == 20


def test_ones_own_function_steps_back_behind_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    with told() as seen:
        monkeypatch.setattr(process, "_process_collector", seen.collector)

        @track_llm_usage("openai", "gpt-4o-mini")
        def own() -> str:
            with seen.span() as span:
                span.set_attributes(ANSWER)
            return "text"

        own()
        assert seen.record().output_tokens == 200


def test_our_own_spans_are_no_calls() -> None:
    with told(wire=True) as seen:
        for mode in ("finished", "live"):
            trace_llm_calls(mode=mode)
            ask(client())
            seen.records()
        trace_llm_calls(mode="off")
        assert len(seen.records()) == 2


def test_two_processors_have_their_own_records() -> None:
    with told() as first, told() as second:
        first.provider.add_span_processor(second.processor)
        ends(first.start())
        assert first.record().output_tokens == second.record().output_tokens == 200


# ---------------------------------------------------------------------- what may go wrong


def test_spans_that_never_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_processor, "MOST_OPEN", 10)
    with told() as seen:
        spans = [seen.start("leaky") for _ in range(30)]
        assert len(seen.processor._open) == 10
        assert snapshot()["spans_never_ended"]["leaky"] >= 20
        for span in spans:
            ends(span)
        assert len(seen.records()) == 30


def test_after_its_shutdown_it_sees_nothing() -> None:
    with told() as seen:
        span = seen.start()
        seen.processor._open.clear()
        seen.provider.shutdown()
        assert calls.see_call is None
        ends(span)
        assert seen.records() == []


def test_what_the_sampler_leaves_out_is_no_call() -> None:
    with told() as seen:
        unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        unsampled.add_span_processor(seen.processor)
        unsampled.get_tracer("them").start_span("chat", attributes={**CHAT, **ANSWER}).end()
        assert seen.records() == []


def test_a_collector_that_is_switched_off_records_nothing() -> None:
    with told(enabled=False) as seen:
        ends(seen.start())
        assert seen.collector.stats().recorded == 0


class Hostile:
    """A span that raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("canary")


def test_nothing_is_raised_into_the_application(caplog: pytest.LogCaptureFixture) -> None:
    with told() as seen:
        before = snapshot().get("guarded_errors", {}).get("span_processor", 0)
        seen.processor.on_start(Hostile())
        seen.processor.on_end(Hostile())
        seen.processor._collector = Hostile()
        assert seen.processor.force_flush() is False
        seen.processor._collector = seen.collector
        assert snapshot()["guarded_errors"]["span_processor"] == before + 3
    assert "canary" not in caplog.text


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
)


@given(st.lists(st.dictionaries(st.sampled_from(sorted(genai.NAMES)), VALUES, max_size=12), max_size=4))
def test_whatever_spans_hold_each_is_one_record_or_none(spans: list[dict[str, Any]]) -> None:
    with told() as seen:
        for attributes in spans:
            with seen.span(attributes=attributes):
                pass
        found = seen.records()
        stats = seen.collector.stats()
    assert len(found) <= len(spans) and stats.dropped.get("error", 0) == 0
    assert "span_processor" not in snapshot().get("guarded_errors", {}) or stats.recorded <= len(spans)


def test_nothing_is_kept_of_a_call_that_ended() -> None:
    with told() as seen:
        with seen.span("outer") as outer, seen.span("inner") as inner:
            inner.set_attributes(ANSWER)
        seen.records()
        del outer, inner
        gc.collect()
        assert not [one for one in gc.get_objects() if type(one).__name__ == "SpanCall"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_span_that_a_fork_copied_is_the_parents() -> None:
    program = """if True:
        import os
        from tests.support.told import Told, ends
        seen = Told()
        span = seen.start()
        child = os.fork()
        ends(span)
        if child == 0:
            fresh = seen.start()
            ends(fresh)
        found = len(seen.records())
        if child == 0:
            os._exit(found)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1, "the child's own"
        assert found == 1, found
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_without_opentelemetry_it_is_there_and_does_nothing() -> None:
    program = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from tellmeter import MetricsCollector
        from tellmeter.telemetry.span_processor import TellmeterSpanProcessor
        one = TellmeterSpanProcessor(MetricsCollector())
        assert one.force_flush()
        one.shutdown()
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
