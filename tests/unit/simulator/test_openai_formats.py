"""OpenAI's chat completions, completions and embeddings: shapes and counts; the SDKs' view is in tests/real."""

import base64
import random
from array import array

import msgspec
import pytest

from tellmeter.simulator.answer import make_answer
from tellmeter.simulator.cache import PromptCache
from tellmeter.simulator.formats import Refused
from tellmeter.simulator.openai_formats import CHAT, COMPLETIONS, EMBEDDINGS, OPENAI, error_headers, explain
from tellmeter.simulator.traffic import Traffic

HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"properties": {"q": {"type": "string"}}}}}
    for name in ("find", "buy")
]


def answered(wire, body, seed=0, **traffic):
    return make_answer(wire.read(body), Traffic(**traffic), PromptCache(1024), random.Random(seed))


def whole(wire, body, **more):
    return msgspec.json.decode(wire.whole(answered(wire, body, **more)))


def chunks(wire, body, **more):
    """The JSON of every event, `[DONE]` as text."""
    events = list(wire.events(answered(wire, body, **more)))
    for event in events:
        assert event.data.startswith(b"data: ")
        assert event.data.endswith(b"\n\n")
        assert event.data.count(b"\n") == 2
    assert [event.ends for event in events] == [False] * (len(events) - 1) + [True]
    said = [event.data.removeprefix(b"data: ").strip() for event in events]
    return events, [data.decode() if data == b"[DONE]" else msgspec.json.decode(data) for data in said]


def test_a_stream_says_what_the_whole_says():
    body = {**HELLO, "stream_options": {"include_usage": True}}
    one = whole(CHAT, body)
    events, parts = chunks(CHAT, body)
    assert parts[-1] == "[DONE]"
    said = "".join(choice["delta"].get("content") or "" for part in parts[:-1] for choice in part["choices"])
    assert said == one["choices"][0]["message"]["content"]
    assert parts[-2]["usage"] == one["usage"]
    assert parts[-2]["choices"] == []
    assert {part["usage"] is None for part in parts[:-2]} == {True}
    assert {part["id"] for part in parts[:-1]} == {one["id"]}
    assert one["model"] == parts[0]["model"] == "gpt-4o-mini-2024-07-18"
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert parts[-3]["choices"][0]["finish_reason"] == "stop"
    assert sum(event.tokens for event in events) == one["usage"]["completion_tokens"]


def test_usage_is_in_a_stream_only_when_asked_for():
    _, parts = chunks(CHAT, HELLO)
    assert not any("usage" in part for part in parts[:-1])


def test_reasoning_takes_its_time_before_the_first_word():
    body = {**HELLO, "model": "gpt-5-mini", "stream_options": {"include_usage": True}}
    events, parts = chunks(CHAT, body)
    reasoning = parts[-2]["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert reasoning > 0
    assert [event.tokens for event in events[:3]] == [0, reasoning + 1, 1]
    assert CHAT.read({**body, "reasoning_effort": "none"}).thinks is False


def test_tool_calls_are_whole_and_in_pieces():
    body = {**HELLO, "tools": TOOLS, "tool_choice": "required"}
    for seed in range(12):  # one or two calls
        one = whole(CHAT, body, seed=seed)["choices"][0]
        assert one["finish_reason"] == "tool_calls"
        assert one["message"]["content"] is None
        _, parts = chunks(CHAT, body, seed=seed)
        got = {}
        for part in parts[:-1]:
            for call in part["choices"][0]["delta"].get("tool_calls", ()):
                known = got.setdefault(call["index"], {"arguments": ""})
                known.update({k: v for k, v in call["function"].items() if k == "name"})
                known["arguments"] += call["function"]["arguments"]
        functions = [call["function"] for call in one["message"]["tool_calls"]]
        assert [got[index] for index in sorted(got)] == functions
        assert all("q" in msgspec.json.decode(function["arguments"]) for function in functions)


def test_several_answers_are_numbered():
    body = {**HELLO, "n": 3}
    assert [choice["index"] for choice in whole(CHAT, body)["choices"]] == [0, 1, 2]
    _, parts = chunks(CHAT, body)
    assert {choice["index"] for part in parts[:-1] for choice in part["choices"]} == {0, 1, 2}


def test_structured_output_fits_its_schema():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    body = {**HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    said = whole(CHAT, body)["choices"][0]["message"]["content"]
    assert isinstance(msgspec.json.decode(said)["n"], int)
    said = whole(CHAT, {**HELLO, "response_format": {"type": "json_object"}})["choices"][0]["message"]["content"]
    assert isinstance(msgspec.json.decode(said), dict)


def test_a_withheld_usage_is_not_there():
    made = answered(CHAT, {**HELLO, "stream_options": {"include_usage": True}})
    made.usage = None
    assert "usage" not in msgspec.json.decode(CHAT.whole(made))
    assert all(b'"usage"' not in event.data for event in CHAT.events(made))


def test_completions_have_text_and_a_small_limit():
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": ["one", "two"], "stream_options": {"include_usage": True}}
    one = whole(COMPLETIONS, body)
    assert [choice["finish_reason"] for choice in one["choices"]] == ["length", "length"]
    assert one["usage"]["completion_tokens"] == 32
    _, parts = chunks(COMPLETIONS, body)
    for index in (0, 1):
        said = "".join(c["text"] for part in parts[:-1] for c in part["choices"] if c["index"] == index)
        assert said == one["choices"][index]["text"]
    assert parts[-2]["usage"] == one["usage"]


def test_embeddings_are_unit_vectors_of_the_right_size():
    def vectors(**body):
        return whole(EMBEDDINGS, {"model": "text-embedding-3-small", **body})

    listed = vectors(input=["a", "b"])
    assert [len(one["embedding"]) for one in listed["data"]] == [1536, 1536]
    assert sum(value * value for value in listed["data"][0]["embedding"]) == pytest.approx(1.0, abs=1e-4)
    packed = vectors(input="a", encoding_format="base64", dimensions=8)["data"][0]["embedding"]
    assert len(array("f", base64.b64decode(packed))) == 8
    assert len(vectors(input="a", model="text-embedding-3-large")["data"][0]["embedding"]) == 3072
    assert vectors(input=[1, 2, 3])["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert len(vectors(input=[[1, 2], [3]])["data"]) == 2


@pytest.mark.parametrize(
    ("wire", "body", "status", "code"),
    [
        (CHAT, {"messages": HELLO["messages"]}, 400, None),
        (CHAT, {"model": "gpt-4o"}, 400, "missing_required_parameter"),
        (CHAT, {"model": "gpt-4o", "messages": [{"role": "robot", "content": ""}]}, 400, "invalid_value"),
        (CHAT, {**HELLO, "model": "no-such-model"}, 404, "model_not_found"),
        (CHAT, {**HELLO, "max_tokens": 0}, 400, None),
        (EMBEDDINGS, {"model": "text-embedding-3-small", "input": ""}, 400, None),
        (COMPLETIONS, {"model": "no-such-model", "prompt": "x"}, 404, "model_not_found"),
    ],
)
def test_what_the_provider_would_refuse_is_refused(wire, body, status, code):
    with pytest.raises(Refused) as refused:
        wire.read(body)
    assert (refused.value.status, refused.value.code) == (status, code)


@pytest.mark.parametrize(
    ("status", "code", "kind", "stated"),
    [
        (429, None, "requests", "rate_limit_exceeded"),
        (429, "insufficient_quota", "insufficient_quota", "insufficient_quota"),
        (400, "context_length_exceeded", "invalid_request_error", "context_length_exceeded"),
        (401, None, "invalid_request_error", "invalid_api_key"),
        (500, None, "server_error", None),
        (599, None, "server_error", None),
        (418, None, "invalid_request_error", None),
    ],
)
def test_errors_have_the_providers_types_and_codes(status, code, kind, stated):
    body = msgspec.json.decode(OPENAI.error_body(explain(status, code), "req_1"))
    assert (body["error"]["type"], body["error"]["code"]) == (kind, stated)
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert error_headers(explain(status, None), "req_1")["x-request-id"] == "req_1"
