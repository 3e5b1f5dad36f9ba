"""The real google-genai SDK against the simulator; what is metered is what was served."""

import asyncio
import json
import sys
import time

import pytest

import tellmeter
from tellmeter.simulator import SimulatorServer, Traffic
from tests.support.metered import own_collector, records

genai = pytest.importorskip("google.genai")
pytestmark = pytest.mark.sdk

FLASH = "gemini-2.5-flash"
FIND = {"type": "OBJECT", "properties": {"q": {"type": "STRING"}, "many": {"type": "INTEGER"}}, "required": ["q"]}
TOOLS = {"tools": [{"function_declarations": [{"name": "find", "parameters": FIND}]}]}
CALLED = {**TOOLS, "tool_config": {"function_calling_config": {"mode": "ANY"}}}
THOUGHTS = {"thinking_config": {"include_thoughts": True}}
ITEM = {"response_mime_type": "application/json", "response_schema": FIND}


@pytest.fixture(scope="module")
def server():
    with SimulatorServer(Traffic(seed=5, speed=0, cache_minimum=16)) as running:
        yield running


def client_of(server, key="any"):
    return genai.Client(api_key=key, http_options={"base_url": server.url})


@pytest.fixture(scope="module")
def client(server):
    return client_of(server)


def simulate(fault, **config):
    return {**config, "http_options": {"headers": {"x-simulate": fault}}}


def tokens_of(record):
    return (record.input_tokens, record.cached_tokens, record.output_tokens, record.reasoning_tokens)


def tokens_served(served):
    return (served.input_tokens, served.cached_tokens, served.output_tokens, served.reasoning_tokens)


# Formats


def test_an_answer_whole_and_streamed(server, client):
    whole = client.models.generate_content(model=FLASH, contents="hello", config={"system_instruction": "be brief"})
    usage, served = whole.usage_metadata, server.served[-1]
    assert whole.text
    assert whole.candidates[0].finish_reason == "STOP"
    assert (whole.model_version, whole.response_id) == (FLASH, served.request_id)
    assert usage.thoughts_token_count == served.reasoning_tokens > 0
    assert usage.candidates_token_count + usage.thoughts_token_count == served.output_tokens
    assert usage.total_token_count == served.input_tokens + served.output_tokens

    events = list(client.models.generate_content_stream(model=FLASH, contents="hello", config=THOUGHTS))
    served = server.served[-1]
    assert len(events) == served.events
    parts = [part for event in events for part in event.candidates[0].content.parts]
    assert "".join(part.text for part in parts if part.thought)
    assert "".join(part.text for part in parts if not part.thought)
    assert events[-1].candidates[0].finish_reason == "STOP"
    assert events[-1].usage_metadata.total_token_count == served.input_tokens + served.output_tokens


def test_functions_are_called(client):
    whole = client.models.generate_content(model=FLASH, contents="hello", config=CALLED)
    (call,) = whole.function_calls
    assert (call.name, type(call.args["q"]), type(call.args["many"])) == ("find", str, int)
    parts = client.models.generate_content_stream(model=FLASH, contents="hello", config=CALLED)
    (call,) = [call for part in parts for call in part.function_calls or ()]
    assert (call.name, type(call.args["q"])) == ("find", str)


def test_structured_output_fits(client):
    whole = client.models.generate_content(model=FLASH, contents="hello", config=ITEM)
    assert isinstance(json.loads(whole.text)["many"], int)


def test_embeddings_tokens_and_models(server, client):
    for model in ("gemini-embedding-001", "gemini-embedding-2"):
        found = client.models.embed_content(model=model, contents="hello", config={"output_dimensionality": 16})
        assert [len(one.values) for one in found.embeddings] == [16]
        assert server.served[-1].input_tokens == 2
    many = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])
    assert [len(one.values) for one in many.embeddings] == [3072, 3072]
    assert client.models.count_tokens(model=FLASH, contents="hello").total_tokens > 0
    assert f"models/{FLASH}" in {model.name for model in client.models.list()}


def test_the_second_prompt_with_the_same_beginning_reads_the_cache(client):
    def cached(text):
        contents = "be brief. " * 40 + text
        usage = client.models.generate_content(model=FLASH, contents=contents).usage_metadata
        return usage.cached_content_token_count

    assert (cached("one"), cached("two")) == (None, 96)


# Metering


def every_way(models):
    yield lambda: models.generate_content(model=FLASH, contents="hello")
    yield lambda: models.generate_content(model=FLASH, contents="be brief " * 40)
    yield lambda: models.generate_content(model=FLASH, contents="be brief " * 40, config=CALLED)
    yield lambda: models.generate_content_stream(model=FLASH, contents="be brief " * 40)
    yield lambda: models.generate_content_stream(model=FLASH, contents="hello", config=THOUGHTS)
    yield lambda: models.generate_content_stream(model=FLASH, contents="hello", config=CALLED)
    yield lambda: models.embed_content(model="gemini-embedding-2", contents="hello")


def same_as_served(collector, served):
    collector.flush_sync()
    found = records(collector)
    assert [tokens_of(record) for record in found] == [tokens_served(one) for one in served]
    assert [record.model for record in found] == [one.model for one in served]
    assert {record.provider for record in found} == {"gcp.gemini"}
    assert {record.status for record in found} == {"success"}
    assert all(record.cost_usd for record in found)
    assert [record.request_id for record in found[:-1]] == [one.request_id for one in served[:-1]]
    assert any(one.cached_tokens for one in served)


def test_what_is_metered_is_what_was_served(server, monkeypatch):
    client = client_of(server)
    with own_collector(monkeypatch) as collector:
        tellmeter.instrument(client, collector=collector)
        before = len(server.served)
        for ask in every_way(client.models):
            made = ask()
            if not hasattr(made, "sdk_http_response"):
                assert list(made)
        same_as_served(collector, list(server.served)[before:])


def test_what_is_metered_of_the_async_client_is_what_was_served(server, monkeypatch):
    async def run():
        client = client_of(server)
        for ask in every_way(client.aio.models):
            made = await ask()
            if not hasattr(made, "sdk_http_response"):
                assert [event async for event in made]
        await client.aio.aclose()

    before = len(server.served)
    with own_collector(monkeypatch) as collector:
        tellmeter.instrument(collector=collector)
        try:
            asyncio.run(run())
        finally:
            tellmeter.uninstrument()
        same_as_served(collector, list(server.served)[before:])


# Faults


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("400", "INVALID_ARGUMENT"),
        ("403", "PERMISSION_DENIED"),
        ("404", "NOT_FOUND"),
        ("429;retry-after=2", "RESOURCE_EXHAUSTED"),
        ("500", "INTERNAL"),
        ("503", "UNAVAILABLE"),
    ],
)
def test_errors_are_the_sdks_own(fault, status, stream, client):
    ask = client.models.generate_content_stream if stream else client.models.generate_content
    with pytest.raises(genai.errors.APIError) as error:
        list(ask(model=FLASH, contents="hello", config=simulate(fault)))
    assert (str(error.value.code), error.value.status) == (fault[:3], status)
    assert isinstance(error.value, genai.errors.ServerError if fault[0] == "5" else genai.errors.ClientError)
    details = error.value.details["error"].get("details", [])
    assert [detail["retryDelay"] for detail in details] == (["2s"] if "after" in fault else [])


def test_unknown_models_and_keys_are_refused(server, client):
    with pytest.raises(genai.errors.ClientError) as error:
        client.models.generate_content(model="no-such-model", contents="hello")
    assert (error.value.code, error.value.status) == (404, "NOT_FOUND")
    wrong = client_of(server, "invalid")
    for ask in (
        lambda: wrong.models.generate_content(model=FLASH, contents="hello"),
        lambda: list(wrong.models.list()),
    ):
        with pytest.raises(genai.errors.ClientError) as error:
            ask()
        assert error.value.code == 400
        assert error.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"


def broken():
    """What a broken connection is: the SDK lets the HTTP library's errors through."""
    return tuple(sys.modules[name].TransportError for name in ("httpx", "httpx2") if name in sys.modules)


@pytest.mark.parametrize("fault", ["reset", "close"])
@pytest.mark.parametrize("after", [0, 2])
def test_a_broken_stream_is_an_error_after_its_events(fault, after, server, client):
    config = simulate(f"{fault};after={after}")
    with pytest.raises(broken()):
        list(client.models.generate_content_stream(model=FLASH, contents="hello", config=config))
    assert (server.served[-1].events, server.served[-1].whole) == (after, False)
    with pytest.raises(broken()):
        client.models.generate_content(model=FLASH, contents="hello", config=config)


def test_a_connection_that_hangs_is_closed_in_the_end(client):
    with pytest.raises(broken()):
        client.models.generate_content(model=FLASH, contents="hello", config=simulate("hang;seconds=0"))


@pytest.mark.parametrize("fault", ["stall;after=1;seconds=0.2", "slow;seconds=0.2"])
def test_a_first_token_can_be_slow(fault, client):
    config = simulate(fault, max_output_tokens=20, thinking_config={"thinking_budget": 0})
    started = time.perf_counter()
    for event in client.models.generate_content_stream(model=FLASH, contents="hello", config=config):
        if event.text:
            break
    assert time.perf_counter() - started > 0.2


def test_an_error_inside_a_stream_is_the_sdks_error(client):
    got = []
    with pytest.raises(genai.errors.ServerError) as error:
        for event in client.models.generate_content_stream(
            model=FLASH, contents="hello", config=simulate("error-event;after=2")
        ):
            got.append(event)  # noqa: PERF402 - those before the error are what counts
    assert (error.value.code, error.value.status, len(got)) == (503, "UNAVAILABLE", 2)


def test_garbage_is_no_json(client):
    for ask in (client.models.generate_content, client.models.generate_content_stream):
        with pytest.raises(ValueError, match="JSON|Expecting value"):
            list(ask(model=FLASH, contents="hello", config=simulate("garbage")))


def test_usage_or_the_end_can_be_missing(server, client):
    assert client.models.generate_content(model=FLASH, contents="x", config=simulate("no-usage")).usage_metadata is None
    for fault in ("no-usage", "no-terminator"):
        events = list(client.models.generate_content_stream(model=FLASH, contents="x", config=simulate(fault)))
        assert all((event.usage_metadata is None) == (fault == "no-usage") for event in events)
        assert (events[-1].candidates[0].finish_reason is None) == (fault == "no-terminator")
        assert server.served[-1].whole == (fault == "no-usage")
