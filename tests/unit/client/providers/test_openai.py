"""The real SDK against a real server that does as told."""

import asyncio
import json
import sys

import openai
import pytest

from tellmeter.client.ask import Ask
from tellmeter.client.providers.openai import OpenAIProvider
from tellmeter.errors import MissingExtra
from tellmeter.testing.faults import Answer, Hang, Reset
from tests.support.provider_bench import FIND, HELLO, bench
from tests.support.replay_server import Streamed, sse
from tests.unit.client.asked import JSON, sent, whole

pytestmark = pytest.mark.sdk
ASK = Ask(model="m", messages=HELLO)
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
PROVIDERS = ["openai", "azure.ai.openai", "groq", "mistral_ai", "cohere", "deepseek", "x_ai", "vllm", "house"]


@pytest.fixture(params=["openai", "groq"])
def made(request):
    with bench(OpenAIProvider, request.param) as running:
        yield running


@pytest.fixture
def of_openai():
    with bench(OpenAIProvider, "openai") as running:
        yield running


def body_of(name, ask, *, stream=False):
    """The body that a provider of that name is sent."""
    with bench(OpenAIProvider, name) as running:
        running.server.default = Streamed(sse("[DONE]")) if stream else whole()
        heard = running.run(lambda provider: running.hear(provider, ask, stream=stream))
        assert heard.error is None
        (body,) = sent(running.server)
    return body


def told(running, fault, *, stream=False, ask=ASK):
    """What is heard of that."""
    running.server.script(fault)
    return running.run(lambda provider: running.hear(provider, ask, stream=stream))


def delta(index=0, finish=None, **said):
    return json.dumps({"id": "c", "choices": [{"index": index, "delta": said, "finish_reason": finish}]})


def choices(*messages, **more):
    """A completion with those messages, and with other things in each choice."""
    made = [
        {"index": number, "message": message, "finish_reason": "stop", **more}
        for number, message in enumerate(messages)
    ]
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": made}
    return Answer(200, json.dumps(body).encode(), JSON)


# ---------------------------------------------------------------------- what is sent


def test_what_is_not_given_is_not_sent():
    assert body_of("openai", ASK) == {"model": "m", "messages": list(HELLO)}


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_argument_has_its_place(name):
    ask = Ask(
        model="m",
        messages=HELLO,
        max_tokens=7,
        temperature=0.0,
        top_p=0.5,
        seed=0,
        stop=("a", "b"),
        tools=[FIND],
        tool_choice="auto",
        response_format=FORMAT,
    )
    limit = "max_completion_tokens" if name in ("openai", "azure.ai.openai") else "max_tokens"
    assert body_of(name, ask) == {
        "model": "m",
        "messages": list(HELLO),
        limit: 7,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["a", "b"],
        "tools": [FIND],
        "tool_choice": "auto",
        "response_format": FORMAT,
    }


@pytest.mark.parametrize("name", PROVIDERS)
def test_who_does_not_count_unasked_is_asked_to(name):
    body = body_of(name, ASK, stream=True)
    assert body["stream"] is True
    asked = {} if name in ("mistral_ai", "cohere") else {"stream_options": {"include_usage": True}}
    assert {field: value for field, value in body.items() if field == "stream_options"} == asked


def test_the_callers_own_stream_options_win():
    ask = Ask(model="m", messages=HELLO, extra={"stream_options": {"include_usage": False}})
    assert body_of("openai", ask, stream=True)["stream_options"] == {"include_usage": False}


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_sdk_does_not_know_goes_into_the_body_as_it_is(stream):
    extra = {"top_k": 5, "reasoning_effort": "low", "temperature": 1.0, "extra_body": {"top_k": 6, "min_p": 0.1}}
    body = body_of("groq", Ask(model="m", messages=HELLO, temperature=0.5, extra=extra), stream=stream)
    assert (body["top_k"], body["min_p"], body["reasoning_effort"], body["temperature"]) == (6, 0.1, "low", 1.0)
    assert "extra_body" not in body


def test_the_key_and_the_headers_are_shown(of_openai):
    of_openai.server.default = whole()
    of_openai.run(lambda provider: provider.generate(ASK), headers={"x-mine": "yes"})
    (request,) = of_openai.server.requests
    assert (request.headers["authorization"], request.headers["x-mine"]) == ("Bearer k", "yes")


def test_servers_of_ones_own_need_no_key_and_openai_does(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with bench(OpenAIProvider, "vllm") as running:
        running.server.default = whole()
        assert running.run(lambda provider: provider.generate(ASK), api_key=None).text == "Hello"
    with bench(OpenAIProvider, "openai") as running, pytest.raises(openai.OpenAIError):
        running.run(lambda provider: provider.generate(ASK), api_key=None)


def test_openais_key_comes_from_the_sdks_own_environment(of_openai, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    of_openai.server.default = whole()
    of_openai.run(lambda provider: provider.generate(ASK), api_key=None)
    assert of_openai.server.requests[0].headers["authorization"] == "Bearer from-the-environment"


def test_what_is_openais_is_shown_to_nobody_else(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "canary")
    with bench(OpenAIProvider, "vllm") as running:
        running.server.default = whole()
        running.run(lambda provider: provider.generate(ASK), api_key=None)
        assert "canary" not in str(running.server.requests[0].headers)


# ---------------------------------------------------------------------- answers


def test_an_answer(made):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
    heard = told(made, whole("well", tool_calls=[call]))
    assert (heard.text, heard.calls) == ("well", [("1", "find", '{"q": 1}')])
    assert heard.raw.usage.prompt_tokens == 9
    (record,) = asyncio.run(made.records())
    assert (record.provider, record.model, record.status) == (made.name, "m", "success")
    assert (record.input_tokens, record.output_tokens) == (9, 5)


@pytest.mark.parametrize(
    ("message", "text", "calls"),
    [
        ({"content": None}, "", []),
        ({"content": None, "refusal": "I may not."}, "I may not.", []),
        (
            {
                "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
                + [{"type": "text", "text": text} for text in ("one ", "two")]
            },
            "one two",
            [],
        ),
        ({"content": [{"type": "text", "text": None}, "junk"]}, "", []),
        (
            {"content": None, "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "run", "input": "ls"}}]},
            "",
            [("1", "run", "ls")],
        ),
        (
            {"tool_calls": [{"id": None, "type": "function", "function": {"name": "find", "arguments": ""}}]},
            "",
            [("", "find", "{}")],
        ),
        (None, "", []),
    ],
)
def test_messages_of_every_kind(made, message, text, calls):
    heard = told(made, choices(message and {"role": "assistant", **message}))
    assert heard.error is None and (heard.text, heard.calls) == (text, calls)


def test_of_several_answers_the_first_counts(made):
    first, second = ({"role": "assistant", "content": text} for text in ("first", "second"))
    assert told(made, choices(first, second)).text == "first"
    assert told(made, choices()).text == ""
    streamed = Streamed(sse(delta(1, content="no"), delta(content="yes"), delta(1, content="no"), "[DONE]"))
    assert told(made, streamed, stream=True).text == "yes"


def test_a_signature_of_geminis_stays_with_its_call(made):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    call["extra_content"] = {"google": {"thought_signature": "c2ln"}}
    made.server.script(whole(tool_calls=[call]), Streamed(sse(delta(tool_calls=[{"index": 0, **call}]), "[DONE]")))

    async def both(provider):
        reply = await provider.generate(ASK)
        return [*reply.tool_calls, *[one.tool async for one in provider.stream(ASK)]]

    assert [call.signature for call in made.run(both)] == ["c2ln", "c2ln"]


# ---------------------------------------------------------------------- streams


def test_a_stream_is_read_to_its_end(made):
    pieces = [
        delta(role="assistant", content=""),
        delta(reasoning_content="hm "),
        delta(reasoning="hm"),
        delta(content="one "),
        delta(content=[{"type": "text", "text": "two"}]),
        delta(refusal=" no"),
        json.dumps({"id": "c", "choices": [{"index": 0, "delta": None, "finish_reason": None}]}),
        delta(finish="stop"),
        json.dumps({"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
        "[DONE]",
    ]
    heard = told(made, Streamed(sse(*pieces)), stream=True)
    assert heard.error is None
    assert (heard.text, heard.reasoning, len(heard.deltas)) == ("one two no", "hm hm", 5)
    (record,) = asyncio.run(made.records())
    assert (record.status, record.output_tokens, record.stream.status) == ("success", 4, "completed")


def test_tool_calls_come_in_pieces(made):
    def piece(index, arguments, **more):
        return {"index": index, "function": {"arguments": arguments, **more.pop("function", {})}, **more}

    pieces = [
        delta(tool_calls=[piece(0, "", id="1", function={"name": "find"})]),
        delta(tool_calls=[piece(0, '{"q"'), piece(1, "", id="2", function={"name": "look"})]),
        delta(tool_calls=[piece(1, "{}"), piece(0, ": 1}")]),
        "[DONE]",
    ]
    heard = told(made, Streamed(sse(*pieces)), stream=True)
    assert heard.calls == [("1", "find", '{"q": 1}'), ("2", "look", "{}")]


def test_calls_without_an_index_are_counted(made):
    calls = [{"id": str(n), "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in range(2)]
    heard = told(made, Streamed(sse(delta(tool_calls=calls), "[DONE]")), stream=True)
    assert heard.calls == [("0", "f", "{}"), ("1", "f", "{}")]


def test_a_stream_that_is_left_is_closed_when_the_generator_is(made):
    streamed = Streamed(sse(delta(content="one"), delta(content="two"), "[DONE]"), after=1)
    made.server.script(streamed)
    first, (record,) = made.run(made.leave(ASK))
    streamed.go.set()
    assert first.text == "one"
    assert (record.status, record.stream.status) == ("closed_early", "closed_early")


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"), [(400, openai.BadRequestError), (429, openai.RateLimitError), (503, openai.InternalServerError)]
)
def test_refusals_are_the_sdks_and_nothing_is_sent_again(made, status, kind, stream):
    made.server.default = Answer(status, b'{"error": {"message": "no"}}', JSON)
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=stream))
    assert isinstance(heard.error, kind) and len(made.server.requests) == 1


def test_a_connection_that_breaks_is_not_tried_again(made):
    made.server.default = Reset()
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=False))
    assert isinstance(heard.error, openai.APIConnectionError) and len(made.server.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_silence_is_a_timeout(made, stream):
    made.server.default = Hang()
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=stream), read_seconds=0.1)
    assert isinstance(heard.error, openai.APITimeoutError)


def test_without_the_sdk_the_extra_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tellmeter\[openai\]'"):
        made.provider()


# ---------------------------------------------------------------------- embeddings, models


def test_embeddings_come_in_the_order_of_the_texts(made):
    data = [{"object": "embedding", "index": number, "embedding": [float(number)]} for number in (2, 0, 1)]
    made.server.default = Answer(200, json.dumps({"object": "list", "model": "m", "data": data}).encode(), JSON)
    extra = {"dimensions": 1, "input_type": "query"}
    vectors, raw = made.run(lambda provider: provider.embed("m", ("a", "b", "c"), extra))
    assert vectors == [[0.0], [1.0], [2.0]] and raw.model == "m"
    assert sent(made.server) == [
        {"model": "m", "input": ["a", "b", "c"], "encoding_format": "float", "dimensions": 1, "input_type": "query"}
    ]


def test_the_models_of_a_provider(made, monkeypatch):
    data = [{"id": f"m-{number}", "object": "model", "created": 1, "owned_by": "x"} for number in range(5)]
    made.server.default = Answer(200, json.dumps({"object": "list", "data": data}).encode(), JSON)
    assert made.run(lambda provider: provider.models()) == [f"m-{number}" for number in range(5)]
    monkeypatch.setattr("tellmeter.client.providers.openai._MOST_MODELS", 2)
    assert made.run(lambda provider: provider.models()) == ["m-0", "m-1"]
