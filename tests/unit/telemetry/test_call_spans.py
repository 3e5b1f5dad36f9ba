"""Spans of calls through the real openai SDK."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import openai
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from tellmeter import tags, track_llm_usage
from tellmeter.counts import snapshot
from tellmeter.telemetry.llm_spans import trace_llm_calls
from tests.support.sdk import http
from tests.support.traced import (
    NAME,
    AsyncTransport,
    ask,
    attributes_of,
    client,
    failing,
    parent_of,
    plain,
    streaming,
    traced,
)
from tests.support.tracing import global_provider

pytestmark = pytest.mark.sdk

BOTH = pytest.mark.parametrize("mode", ["finished", "live"])


@BOTH
def test_a_call_is_one_client_span_under_the_span_that_it_began_in(mode: str) -> None:
    with traced(mode) as seen:
        with trace.get_tracer("app").start_as_current_span("request") as parent, tags(feature="cart"):
            ask(client())
        span, record = seen.span(NAME), seen.record()
    assert span.kind is SpanKind.CLIENT and span.status.status_code is StatusCode.UNSET
    assert parent_of(span) == parent.get_span_context().span_id
    assert span.context.trace_id == parent.get_span_context().trace_id
    assert span.instrumentation_scope.name == "tellmeter"
    assert span.start_time == int(record.timestamp * 1e9)
    assert span.end_time - span.start_time == int(record.latency_ms * 1e6)
    found = attributes_of(span)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 42,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "server.address": "api.openai.com",
        "server.port": 443,
        "tellmeter.tags.feature": "cart",
        "tellmeter.cost_usd": record.cost_usd,
        "tellmeter.record_id": record.id,
    }
    assert expected.items() <= found.items()
    assert "canary" not in str(found) + span.name + str(span.events)
    # What the record said before there were spans: the span that the call began in.
    assert record.span_id == f"{parent.get_span_context().span_id:016x}"


@BOTH
def test_a_call_that_began_in_no_span_has_the_ids_of_its_own(mode: str) -> None:
    with traced(mode) as seen:
        ask(client())
        span, record = seen.span(NAME), seen.record()
        page = seen.registry.text(openmetrics=True).decode()
    assert span.parent is None
    assert record.trace_id == f"{span.context.trace_id:032x}"
    assert record.span_id == f"{span.context.span_id:016x}"
    assert f'trace_id="{record.trace_id}"' in page  # an exemplar leads to it


@BOTH
def test_a_stream_tells_its_first_chunk(mode: str) -> None:
    with traced(mode) as seen:
        for _ in ask(client(streaming), stream=True, stream_options={"include_usage": True}):
            pass
        found, record = attributes_of(seen.span(NAME)), seen.record()
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] == record.stream.time_to_first_chunk_ms / 1000
    assert found["gen_ai.usage.output_tokens"] == 200
    assert found["tellmeter.stream.chunks_received"] == record.stream.chunks_received


@BOTH
def test_a_stream_that_outlives_its_parent_is_still_its_child(mode: str) -> None:
    with traced(mode) as seen:
        with trace.get_tracer("app").start_as_current_span("request") as parent:
            answered = ask(client(streaming), stream=True)
        assert [span.name for span in seen.spans()] == ["request"]
        items = iter(answered)
        for _ in range(5):
            next(items)
        answered.close()
        span = seen.span(NAME)
    assert parent_of(span) == parent.get_span_context().span_id
    assert span.end_time > parent.end_time
    assert span.status.status_code is StatusCode.UNSET  # the application broke off
    found = attributes_of(span)
    assert found["tellmeter.status"] == "closed_early" and "error.type" not in found
    assert found["tellmeter.estimated.output_tokens"] >= 1 and "gen_ai.usage.output_tokens" not in found


@BOTH
def test_retries_are_one_span_that_says_how_many(mode: str) -> None:
    with traced(mode) as seen:
        ask(client(failing(2), retries=3))
        found = attributes_of(seen.span(NAME))
    assert found["tellmeter.retries"] == 2 and found["tellmeter.retry_delay_ms"] > 0
    assert found["tellmeter.status"] == "success"


@BOTH
def test_an_error_is_told_by_its_class(mode: str) -> None:
    def unreachable(request: Any) -> Any:
        raise http.ConnectError("canary")

    with traced(mode) as seen:
        for handle in (failing(9, 429), unreachable):
            with pytest.raises(openai.OpenAIError):
                ask(client(handle))
        refused, unreached = seen.spans()
    assert [span.status.status_code for span in (refused, unreached)] == [StatusCode.ERROR] * 2
    assert attributes_of(refused)["error.type"] == "RateLimitError"
    assert attributes_of(refused)["http.response.status_code"] == 429
    assert attributes_of(unreached)["error.type"] == "APIConnectionError"
    assert not any("canary" in span.to_json() for span in (refused, unreached))


@BOTH
def test_parents_are_right_across_threads_and_tasks(mode: str) -> None:
    async def one(number: int) -> None:
        sdk = openai.AsyncOpenAI(api_key="k", http_client=http.AsyncClient(transport=AsyncTransport()))
        with trace.get_tracer("app").start_as_current_span(f"task {number}"):
            await asyncio.sleep(0)
            await ask(sdk)
            assert trace.get_current_span().name == f"task {number}"  # type: ignore[attr-defined]

    async def several() -> None:
        await asyncio.gather(*(one(number) for number in range(8)))

    def in_thread(number: int) -> None:
        with trace.get_tracer("app").start_as_current_span(f"thread {number}"):
            ask(client())

    with traced(mode) as seen:
        threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        asyncio.run(several())
        for thread in threads:
            thread.join()
        spans = seen.spans()
    parents = {span.context.span_id: span for span in spans if span.name != NAME}
    calls = [span for span in spans if span.name == NAME]
    assert len(parents) == len(calls) == 16
    assert {parent_of(span) for span in calls} == set(parents)
    assert all(span.context.trace_id == parents[parent_of(span)].context.trace_id for span in calls)


class Asked(Sampler):
    """Keeps what has no parent, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def should_sample(self, *arguments: Any, **more: Any) -> SamplingResult:
        self.told.append(more)
        return ALWAYS_ON.should_sample(*arguments, **more)

    def get_description(self) -> str:
        return "asked"


@BOTH
def test_the_sampler_decides_and_the_parents_flag_is_honoured(mode: str) -> None:
    sampler, exporter = Asked(), InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(sampler), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with traced() as seen:
        trace_llm_calls(provider, mode)
        for flags in (TraceFlags.DEFAULT, TraceFlags.SAMPLED):
            remote = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(flags))
            token = attach(trace.set_span_in_context(NonRecordingSpan(remote)))
            ask(client())
            detach(token)
        ask(client())
        assert seen.spans() == []  # the global provider's
    sampled, root = exporter.get_finished_spans()
    assert sampled.parent and sampled.parent.is_remote and sampled.context.trace_id == 7
    assert root.parent is None
    (told,) = sampler.told
    assert (told["name"], told["kind"]) == (NAME, SpanKind.CLIENT)
    assert told["attributes"]["gen_ai.request.model"] == "gpt-4o-mini"
    assert told["attributes"]["gen_ai.provider.name"] == "openai"


def test_span_processors_see_the_context_in_which_the_call_began() -> None:
    class Baggage(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            span.set_attributes(baggage.get_all(parent_context))

    with traced() as seen:
        trace.get_tracer_provider().add_span_processor(Baggage())  # type: ignore[attr-defined]
        token = attach(baggage.set_baggage("tenant", "t1"))
        ask(client())
        detach(token)
        assert attributes_of(seen.span(NAME))["tenant"] == "t1"


def test_sampling_and_filters_of_records_leave_no_holes_in_traces() -> None:
    with traced(request_sampling_rate=0.0, filters=[lambda record: False]) as seen:
        ask(client())
        assert len(seen.spans()) == 1
        assert seen.collector.stats().dropped


def test_a_live_span_is_around_the_request_and_not_around_what_comes_of_it() -> None:
    inside: list[Any] = []

    def handle(request: Any) -> Any:
        inside.append(trace.get_current_span().get_span_context())
        return streaming(request) if len(inside) > 1 else failing(1)(request)

    with traced("live") as seen:
        for _ in ask(client(handle, retries=1), stream=True):
            assert not trace.get_current_span().get_span_context().is_valid
        span = seen.span(NAME)
    assert [ids.span_id for ids in inside] == [span.context.span_id] * 2


def test_a_finished_span_is_not_around_the_request() -> None:
    inside: list[Any] = []

    def handle(request: Any) -> Any:
        inside.append(trace.get_current_span().get_span_context())
        return plain(request)

    with traced() as seen:
        ask(client(handle))
        assert len(seen.spans()) == 1
    assert not inside[0].is_valid


@BOTH
def test_calls_that_no_hook_sees_have_spans_too(mode: str) -> None:
    with traced(mode) as seen:
        with seen.collector.track_request("ollama", "llama3", operation="text_completion") as call:
            call.output_tokens = 3
        span = seen.span("text_completion llama3")
    assert attributes_of(span)["gen_ai.usage.output_tokens"] == 3


@BOTH
def test_a_function_around_a_call_of_the_wire_is_no_second_span(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @track_llm_usage(provider="openai", model="gpt-4o-mini")
    def own() -> Any:
        return ask(client())

    with traced(mode) as seen:
        monkeypatch.setattr("tellmeter.instruments.llm.get_metrics_collector", lambda: seen.collector)
        own()
        assert [span.name for span in seen.spans()] == [NAME]


@BOTH
def test_a_tracer_that_raises_costs_the_span_alone(mode: str) -> None:
    class Broken:
        def get_tracer(self, *arguments: Any, **more: Any) -> Any:
            return self

        def start_span(self, *arguments: Any, **more: Any) -> Any:
            raise RuntimeError("canary")

    before = snapshot().get("guarded_errors", {}).get("llm_span", 0)
    with traced() as seen:
        trace_llm_calls(Broken(), mode)
        assert ask(client()).id == "chatcmpl-1"
        assert seen.record().status == "success"
    assert snapshot()["guarded_errors"]["llm_span"] > before


@BOTH
def test_without_a_tracer_provider_nothing_is_made_up(mode: str) -> None:
    with traced() as seen, global_provider(None):
        trace_llm_calls(mode=mode)
        ask(client())
        assert seen.record().trace_id is None


@BOTH
def test_a_call_that_a_full_queue_refuses_leaves_no_span_open(mode: str) -> None:
    with traced(mode, max_queue=1) as seen:
        started = len(seen.spans())
        with seen.collector._router._lock:  # nothing is passed on meanwhile
            for _ in range(5):
                ask(client())
        assert len(seen.spans()) - started == (5 if mode == "live" else 1)
        assert seen.collector.stats().dropped["queue_full"] == 4
