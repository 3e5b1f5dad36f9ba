from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tellmeter import InMemoryMetricsSink, MetricsCollector, MetricsConfig, tags
from tellmeter.call import class_names, status_of


@pytest.fixture
def sink() -> InMemoryMetricsSink:
    return InMemoryMetricsSink()


@pytest.fixture
def collector(sink: InMemoryMetricsSink) -> MetricsCollector:
    return MetricsCollector(sinks=[sink])


def only(sink: InMemoryMetricsSink) -> Any:
    found = asyncio.run(sink.get_metrics())
    assert len(found) == 1
    return found[0]


def test_what_is_set_on_the_call_is_in_its_record(collector: MetricsCollector, sink: InMemoryMetricsSink) -> None:
    with tags(feature="search"), collector.track_request(provider="openai", model="gpt-4o", request_id="r1") as call:
        call.input_tokens, call.output_tokens, call.cached_tokens = 1000, 500, 200
        call.finish_reason = "stop"
        call.tools_used = ["find", "buy"]
        call.tags = {"step": "2"}
    record = only(sink)
    assert (record.model, record.provider, record.request_id, record.method) == ("gpt-4o", "openai", "r1", "generate")
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (1000, 500, 200)
    assert (record.status, record.finish_reason, record.tools_used) == ("success", "stop", ("find", "buy"))
    assert record.tags == {"feature": "search", "step": "2"}
    assert record.latency_ms > 0
    assert record.cost_usd and record.cost_usd > 0 and record.price_version


@pytest.mark.parametrize(
    ("error", "status", "category"),
    [
        (ValueError("prompt"), "error", "unknown"),
        (TimeoutError(), "timeout", "timeout"),
        (asyncio.CancelledError(), "cancelled", "cancelled"),
        (KeyboardInterrupt(), "cancelled", "cancelled"),
        (ConnectionResetError(), "error", "network"),
    ],
)
def test_an_exception_goes_on_and_is_recorded_by_its_class(
    collector: MetricsCollector, sink: InMemoryMetricsSink, error: BaseException, status: str, category: str
) -> None:
    with pytest.raises(type(error)) as caught, collector.track_request("openai", "gpt-4o") as call:
        call.output_tokens = 5
        raise error
    assert caught.value is error
    record = only(sink)
    assert (record.status, record.error_class, record.error_category) == (status, type(error).__name__, category)
    assert record.output_tokens == 5 and record.latency_ms > 0


def test_it_works_with_async_with(collector: MetricsCollector, sink: InMemoryMetricsSink) -> None:
    async def main() -> None:
        async with collector.track_request("ollama", "llama3") as call:
            call.input_tokens = 3

    asyncio.run(main())
    assert only(sink).input_tokens == 3


def test_a_call_ends_once(collector: MetricsCollector, sink: InMemoryMetricsSink) -> None:
    with collector.track_request("openai", "gpt-4o") as call:
        call.end("closed_early")
        call.end("error")
    assert call.ended
    assert only(sink).status == "closed_early"
    assert collector.open_calls == {}


def test_a_stream_that_no_hook_sees_has_its_first_token(collector: MetricsCollector, sink: InMemoryMetricsSink) -> None:
    with collector.track_request("ollama", "llama3", method="stream") as call:
        call.first_token()
        first = call._first_token_at
        call.first_token()
        assert call._first_token_at == first
        call.output_tokens = 9
    record = only(sink)
    assert record.stream.status == "completed" and record.stream.output_tokens == 9
    assert 0 < record.ttft_ms <= record.latency_ms


def test_nonsense_set_on_a_call_reaches_nobody(collector: MetricsCollector, sink: InMemoryMetricsSink) -> None:
    with collector.track_request("openai", "gpt-4o") as call:
        call.input_tokens = "many"  # type: ignore[assignment]
        call.tools_used = 7  # type: ignore[assignment]
        call.tags = None  # type: ignore[assignment]
    collector.flush_sync()
    stats = collector.stats()
    assert stats.recorded == 1 and stats.balanced


def test_without_cost_tracking_there_is_no_cost(sink: InMemoryMetricsSink) -> None:
    collector = MetricsCollector(MetricsConfig(enable_cost_tracking=False), sinks=[sink])
    with collector.track_request("openai", "gpt-4o") as call:
        call.input_tokens = 1000
    record = only(sink)
    assert record.cost_usd is None and record.price_version is None


def test_a_stated_cost_is_the_cost(collector: MetricsCollector, sink: InMemoryMetricsSink) -> None:
    with collector.track_request("openrouter", "some/model") as call:
        call.cost_usd = 0.25
    assert only(sink).cost_usd == 0.25


def test_statuses_come_from_class_names_so_that_no_library_is_imported() -> None:
    class APITimeoutError(Exception):
        pass

    class Cancelled(BaseException):  # trio's
        pass

    assert status_of(APITimeoutError()) == "timeout"
    assert status_of(Cancelled()) == "cancelled"
    assert class_names(ConnectionResetError())[:3] == ("ConnectionResetError", "ConnectionError", "OSError")
