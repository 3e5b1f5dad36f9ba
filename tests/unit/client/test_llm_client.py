"""LLMClient: what it takes, gives and refuses."""

import asyncio
import gc
import json
import warnings

import pytest

from tellmeter import (
    ConfigError,
    InMemoryMetricsSink,
    LLMClient,
    MetricsCollector,
    MetricsConfig,
    RetryPolicy,
    UnknownModelError,
    get_metrics_collector,
    tags,
)
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing.faults import Answer
from tests.unit.client.asked import JSON, answering, records, sent, streamed, whole

pytestmark = pytest.mark.sdk


def test_an_answer_has_text_tokens_dollars_and_its_record():
    with answering(whole("Hi there")) as (client, memory, server):
        answer = client.generate_sync("Hello!", model="gpt-4o", system="Be kind.", temperature=0.5, max_tokens=50)
        (record,) = records(client, memory)
    assert answer.text == "Hi there"
    assert (answer.model, answer.provider, answer.finish_reason) == ("gpt-4o", "openai", "stop")
    assert answer.usage == {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "cached_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
    }
    assert answer.cost_usd == pytest.approx(9 * 2.5e-6 + 5 * 10e-6)
    assert answer.cost_breakdown["input_cost"] == pytest.approx(9 * 2.5e-6)
    assert answer.provider_request_id == "req_1" and answer.request_id == record.request_id
    assert answer.metrics == record and record.status == "success" and record.cost_usd == answer.cost_usd
    assert sent(server) == [
        {
            "model": "gpt-4o",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello!"}],
            "max_completion_tokens": 50,
            "temperature": 0.5,
        }
    ]
    assert "Hi there" not in repr(answer)


def test_what_is_not_ours_goes_to_the_provider():
    with answering(whole(), whole()) as (client, _, server):
        client.generate_sync("Hi", model="gpt-4o", reasoning_effort="low", raw_params={"anything": 1, "user": "u"})
        client.generate_sync("Hi", model="gpt-4o", stop="END", seed=7, response_format="json", tools=[])
        first, second = sent(server)
    assert (first["reasoning_effort"], first["anything"], first["user"]) == ("low", 1, "u")
    assert (second["stop"], second["seed"], second["response_format"]) == (["END"], 7, {"type": "json_object"})
    assert "tools" not in second


def test_a_stream_gives_its_text_as_it_comes():
    with answering(streamed("Hel", "lo")) as (client, memory, server):
        assert list(client.stream_sync("Hi", model="gpt-4o")) == ["Hel", "lo"]
        (record,) = records(client, memory)
    assert (record.method, record.status, record.output_tokens) == ("stream", "success", 5)
    assert record.stream.status == "completed" and record.ttft_ms is not None
    assert sent(server)[0]["stream_options"] == {"include_usage": True}


def test_tags_of_the_code_of_the_call_and_of_the_collector_meet():
    config = MetricsConfig(tags={"env": "test", "tenant": "config"})
    with answering(whole(), metrics_config=config) as (client, memory, _), tags(feature="chat", tenant="code"):
        client.generate_sync("Hi", model="gpt-4o", tags={"tenant": "call"})
        (record,) = records(client, memory)
    assert record.tags == {"env": "test", "feature": "chat", "tenant": "call"}


def test_a_request_id_is_in_the_records_and_in_the_answer():
    with answering(whole()) as (client, memory, _):
        assert client.generate_sync("Hi", model="gpt-4o", request_id="mine").request_id == "mine"
        (record,) = records(client, memory)
    assert record.request_id == "mine"


def test_embeddings():
    body = {
        "object": "list",
        "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": number, "embedding": [float(number), 0.5]} for number in (1, 0)],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    with answering(Answer(200, json.dumps(body).encode(), JSON)) as (client, memory, server):
        found = client.embed_sync(["a", "b"], model="text-embedding-3-small", dimensions=2)
        (record,) = records(client, memory)
    assert found.embeddings == ([0.0, 0.5], [1.0, 0.5])
    assert (record.operation, record.method, record.input_tokens) == ("embeddings", "embed", 4)
    assert found.cost_usd == record.cost_usd == pytest.approx(4 * 0.02e-6)
    assert sent(server)[0]["dimensions"] == 2


def test_the_models_of_a_provider_make_no_record():
    body = {"object": "list", "data": [{"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in "ba"]}
    with answering(Answer(200, json.dumps(body).encode(), JSON), Answer(500)) as (client, memory, _):
        assert client.get_available_models_sync("openai") == {"openai": ["a", "b"]}
        assert client.get_available_models_sync("openai") == {"openai": []}
        assert records(client, memory) == []
        with pytest.raises(ConfigError, match="no provider 'nobody'"):
            client.get_available_models_sync("nobody")


def test_an_unknown_model_is_recorded_and_nothing_is_sent():
    with answering() as (client, memory, server):
        with pytest.raises(UnknownModelError, match="near names are .*sonar") as caught:
            client.generate_sync("Hi", model="sonnar-pro")
        (record,) = records(client, memory)
        assert server.received == 0
    assert caught.value.near and caught.value.request_id == record.request_id
    assert (record.model, record.provider, record.status) == ("sonnar-pro", "unknown", "error")
    assert (record.error_class, record.error_category, record.cost_usd) == ("UnknownModelError", "not_found", 0.0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"fallback_models": "gpt-4o"}, "fallback_models"),
        ({"base_urls": {"openai": "ftp://x"}}, "base_urls"),
        ({"base_urls": {"open/ai": "http://x"}}, "without a slash"),
        ({"api_keys": {"openai": ""}}, "api_keys"),
        ({"models": {"mine": "nobody"}}, "nobody"),
        ({"metrics_collector": MetricsCollector(), "metrics_sinks": []}, "metrics_collector"),
        ({"max_concurrency": 0}, "limit"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(arguments, told):
    with pytest.raises(ConfigError, match=told):
        LLMClient(**arguments)


@pytest.mark.parametrize(
    ("messages", "options", "told"),
    [
        ("Hi", {}, "model: name one"),
        ([], {"model": "gpt-4o"}, "messages"),
        ([{"role": "robot", "content": "x"}], {"model": "gpt-4o"}, r"messages\[0\]"),
        ("Hi", {"model": "gpt-4o", "stream": True}, "client.stream"),
        ("Hi", {"model": "gpt-4o", "temperature": float("nan")}, "temperature"),
        ("Hi", {"model": "gpt-4o", "max_tokens": 0}, "max_tokens"),
        ("Hi", {"model": "gpt-4o", "response_format": 5}, "response_format"),
        ("Hi", {"model": "gpt-4o", "fallback_models": "gpt-4"}, "fallback_models"),
        ("Hi", {"model": "azure/gpt-4o"}, "base_urls"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_nothing_is_sent(messages, options, told):
    with answering() as (client, _, server):
        with pytest.raises(ConfigError, match=told):
            client.generate_sync(messages, **options)
        assert server.received == 0
        assert not client.metrics_collector.open_calls


def test_a_closed_client_says_so():
    with answering() as (client, _, _):
        client.close()
        with pytest.raises(ConfigError, match="closed"):
            client.generate_sync("Hi", model="gpt-4o")
        client.close()


def test_without_anything_of_its_own_it_shares_the_process_s_collector(monkeypatch):
    monkeypatch.delenv("TELLMETER_SINKS", raising=False)
    assert LLMClient().metrics_collector is get_metrics_collector()
    own = LLMClient(metrics_config=MetricsConfig(), registry=MetricsRegistry()).metrics_collector
    assert own is not get_metrics_collector()
    assert [type(sink) for sink in own.sinks] == [InMemoryMetricsSink]
    assert LLMClient(metrics_sinks=[]).metrics_collector.sinks == []
    shared = MetricsCollector()
    assert LLMClient(metrics_collector=shared).metrics_collector is shared


def test_one_client_serves_one_event_loop_after_another():
    async def ask(client):
        answer = await client.generate("Hi", model="gpt-4o")
        return answer.text

    with answering(whole("a"), whole("b"), whole("c")) as (client, memory, _):
        assert [asyncio.run(ask(client)) for _ in range(2)] == ["a", "b"]
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # the loop took its connection along
            assert client.generate_sync("Hi", model="gpt-4o").text == "c"
            gc.collect()
        assert len(records(client, memory)) == 3


def test_a_fallback_is_another_call_with_the_same_request_id():
    faults = [Answer(500), whole("from the other")]
    with answering(*faults, retry_policy=RetryPolicy(max_attempts=1)) as (client, memory, _):
        answer = client.generate_sync("Hi", model="gpt-4o", fallback_models=["gpt-4o-mini"])
        first, second = records(client, memory)
        registry = client.metrics_collector.registry
        (sample,) = [line for line in registry.text().decode().splitlines() if line.startswith("llm_fallbacks_total{")]
    assert (answer.text, answer.model) == ("from the other", "gpt-4o-mini")
    assert (first.model, first.status, first.error_class) == ("gpt-4o", "error", "InternalServerError")
    assert (second.model, second.status, second.tags) == ("gpt-4o-mini", "success", {"fallback_for": "gpt-4o"})
    assert first.request_id == second.request_id == answer.request_id
    assert sample == 'llm_fallbacks_total{provider="openai",model="gpt-4o",fallback_model="gpt-4o-mini"} 1.0'
