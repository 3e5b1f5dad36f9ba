"""BlockCall: a block that is said to be a call, and a call that is seen inside it, are one."""

import asyncio

import httpx2
import pytest

import tellmeter
from tellmeter import InMemoryMetricsSink, MetricsCollector, MetricsConfig, instrument, uninstrument
from tellmeter.registry.registry import MetricsRegistry

URL = "https://api.openai.com/v1/chat/completions"
CHAT = (
    b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"finish_reason":"stop","message":{"content":"x"}}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":5}}'
)


@pytest.fixture
def collector():
    made = MetricsCollector(MetricsConfig(), sinks=[InMemoryMetricsSink()], registry=MetricsRegistry())
    instrument(collector=made)
    yield made
    uninstrument()
    made.shutdown_sync()


def send(url=URL, body=CHAT, status=200, model="gpt-4o"):
    answer = httpx2.MockTransport(lambda request: httpx2.Response(status, content=body))
    with httpx2.Client(transport=answer) as client:
        client.post(url, content=b'{"model":"%s","input":"x","messages":[]}' % model.encode())


def records(collector):
    collector.flush_sync()
    return asyncio.run(collector.sinks[0].get_metrics())


def test_a_call_that_is_seen_inside_counts_in_its_place(collector):
    with collector.track_request("mine", "my-model") as call:
        send()
        call.input_tokens = 1
    (record,) = records(collector)
    assert (record.provider, record.model, record.input_tokens) == ("openai", "gpt-4o", 9)
    assert collector.stats().recorded == 1


def test_all_that_are_seen_inside_count(collector):
    async def agent():
        async with collector.track_request("mine", "my-model"):
            send()
            await asyncio.to_thread(send)

    asyncio.run(agent())
    assert [record.model for record in records(collector)] == ["gpt-4o", "gpt-4o"]


def test_without_one_the_block_counts(collector):
    with collector.track_request("mine", "my-model") as call:
        call.input_tokens = 1
    send()  # after it
    assert {record.model for record in records(collector)} == {"gpt-4o", "my-model"}


def test_what_is_done_beside_it_is_another_call(collector):
    with collector.track_request("mine", "my-model"):
        send(
            "https://api.openai.com/v1/embeddings",
            b'{"data":[],"usage":{"prompt_tokens":3}}',
            model="text-embedding-3-small",
        )
    assert {record.model for record in records(collector)} == {"text-embedding-3-small", "my-model"}
    with collector.track_request("mine", "my-model", operation="embeddings"):
        send(
            "https://api.openai.com/v1/embeddings",
            b'{"data":[],"usage":{"prompt_tokens":3}}',
            model="text-embedding-3-small",
        )
    assert len(records(collector)) == 3


def test_what_goes_to_another_collector_is_another_call(collector):
    other = MetricsCollector(MetricsConfig(), sinks=[InMemoryMetricsSink()], registry=MetricsRegistry())
    with other.track_request("mine", "my-model"):
        send()
    assert len(records(collector)) == len(records(other)) == 1
    other.shutdown_sync()


def test_an_error_inside_is_the_inner_call_s(collector):
    with pytest.raises(ValueError), collector.track_request("mine", "my-model"):
        send(status=500, body=b"{}")
        raise ValueError("the application's own")
    (record,) = records(collector)
    assert (record.status, record.status_code) == ("error", 500)


def test_a_block_inside_a_block_is_another_call(collector):
    with collector.track_request("mine", "outer"), collector.track_request("mine", "inner"):
        pass
    assert {record.model for record in records(collector)} == {"outer", "inner"}


def test_only_one_of_them_is_in_progress(collector):
    seen = []

    def answer(request):
        seen.append(len(collector.open_calls))
        return httpx2.Response(200, content=CHAT)

    with collector.track_request("mine", "my-model"), httpx2.Client(transport=httpx2.MockTransport(answer)) as client:
        seen.append(len(collector.open_calls))
        client.post(URL, content=b'{"model":"gpt-4o","messages":[]}')
    assert seen == [1, 1] and not collector.open_calls


def test_the_process_s_own(monkeypatch, collector):
    monkeypatch.setattr("tellmeter.instruments.calls.get_metrics_collector", lambda: collector)
    with tellmeter.meter_call(model="mine"):
        send()
    assert len(records(collector)) == 1
