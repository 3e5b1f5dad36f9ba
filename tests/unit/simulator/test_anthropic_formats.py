"""Anthropic's messages: the order of events, cache marks, and counts; the SDKs' view is in tests/real."""

import random

import msgspec
import pytest

from tellmeter.simulator.answer import make_answer
from tellmeter.simulator.anthropic_formats import ANTHROPIC, COUNT_TOKENS, MESSAGES
from tellmeter.simulator.cache import PromptCache
from tellmeter.simulator.formats import Refused
from tellmeter.simulator.traffic import Traffic

HELLO = {"model": "claude-haiku-4-5", "max_tokens": 5000, "messages": [{"role": "user", "content": "hello"}]}
FIND = {"name": "find", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}
MARK = {"type": "ephemeral"}


def answered(body, cache=None):
    return make_answer(MESSAGES.read(body), Traffic(), cache or PromptCache(1024), random.Random(0))


def whole(body, cache=None):
    return msgspec.json.decode(MESSAGES.whole(answered(body, cache)))


def events(body):
    made = []
    for event in MESSAGES.events(answered(body)):
        name, data = event.data.decode().rstrip("\n").split("\n")
        made.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {made[-1]['type']}"
    return made


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"max_tokens": 2},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "adaptive"}},
        {"tools": [FIND], "tool_choice": {"type": "any"}},
        {"tools": [FIND], "tool_choice": {"type": "tool", "name": "find"}, "thinking": {"type": "adaptive"}},
        {"output_config": {"format": {"type": "json_schema", "schema": FIND["input_schema"]}}},
    ],
)
def test_a_stream_builds_up_what_the_whole_says(more):
    body = {**HELLO, **more}
    one, stream = whole(body), events(body)
    kinds = [event["type"] for event in stream]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    blocks = []
    for event in stream:
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            for key, value in event["delta"].items():
                if key != "type":
                    key = "json" if key == "partial_json" else key
                    blocks[-1][key] = blocks[-1][key] + value
    for block in blocks:
        if said := block.pop("json"):
            block["input"] = msgspec.json.decode(said)
    unlike = ("id", "signature")  # drawn in another order
    assert [{k: v for k, v in b.items() if k not in unlike} for b in blocks] == [
        {k: v for k, v in b.items() if k not in unlike} for b in one["content"]
    ]
    assert stream[-2]["delta"]["stop_reason"] == one["stop_reason"]
    assert {key: one["usage"][key] for key in stream[-2]["usage"]} == stream[-2]["usage"]
    assert stream[0]["message"]["usage"]["input_tokens"] == one["usage"]["input_tokens"]


def test_stop_reasons_are_the_providers():
    assert whole(HELLO)["stop_reason"] == "end_turn"
    assert whole({**HELLO, "max_tokens": 2})["stop_reason"] == "max_tokens"
    assert whole({**HELLO, "tools": [FIND], "tool_choice": {"type": "any"}})["stop_reason"] == "tool_use"


def test_thinking_is_inside_the_output():
    usage = whole({**HELLO, "thinking": {"type": "enabled", "budget_tokens": 1024}})["usage"]
    assert 0 < usage["output_tokens_details"]["thinking_tokens"] < usage["output_tokens"]


def test_marked_beginnings_are_written_and_then_read_outside_the_input():
    cache = PromptCache(1024)
    system = [{"type": "text", "text": "rules " * 1000, "cache_control": MARK}]
    first, second = (
        whole({**HELLO, "system": system, "messages": [{"role": "user", "content": text}]}, cache)["usage"]
        for text in ("one", "two")
    )
    assert first["cache_creation_input_tokens"] == second["cache_read_input_tokens"] >= 1500
    assert first["cache_read_input_tokens"] == second["cache_creation_input_tokens"] == 0
    assert first["input_tokens"] == second["input_tokens"] < 20
    assert first["cache_creation"]["ephemeral_5m_input_tokens"] == first["cache_creation_input_tokens"]


@pytest.mark.parametrize(
    "where",
    [
        {"tools": [{**FIND, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"ttl": "1h"}}]}]},
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
)
def test_marks_are_seen_wherever_they_may_stand(where):
    usage = whole({**HELLO, "system": "rules " * 1000, **where}, PromptCache(1))["usage"]
    assert usage["cache_creation"]["ephemeral_1h_input_tokens"] == usage["cache_creation_input_tokens"] > 0


def test_without_marks_nothing_is_cached():
    cache = PromptCache(1)
    for _ in range(2):
        usage = whole({**HELLO, "system": "rules " * 1000}, cache)["usage"]
        assert usage["cache_creation_input_tokens"] == usage["cache_read_input_tokens"] == 0


def test_tokens_are_counted_without_an_answer():
    made = make_answer(COUNT_TOKENS.read(HELLO), Traffic(), PromptCache(1024), random.Random(0))
    said = msgspec.json.decode(COUNT_TOKENS.whole(made))
    assert said == {"input_tokens": whole(HELLO)["usage"]["input_tokens"]}
    assert made.usage.output == 0


def test_a_tool_result_is_answered_with_text():
    messages = [*HELLO["messages"], {"role": "user", "content": [{"type": "tool_result", "content": "3"}]}]
    assert whole({**HELLO, "messages": messages, "tools": [FIND]})["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({**HELLO, "model": "no-such-model"}, 404),
        ({**HELLO, "max_tokens": None}, 400),
        ({**HELLO, "messages": []}, 400),
        ({**HELLO, "messages": [{"role": "robot", "content": "x"}]}, 400),
        ({"messages": HELLO["messages"]}, 400),
    ],
)
def test_what_the_provider_would_refuse_is_refused(body, status):
    with pytest.raises(Refused) as refused:
        MESSAGES.read(body)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (400, "invalid_request_error", "false"),
        (429, "rate_limit_error", "true"),
        (500, "api_error", "true"),
        (503, "api_error", "true"),
        (529, "overloaded_error", "true"),
    ],
)
def test_errors_have_the_providers_types(status, kind, retry):
    body = msgspec.json.decode(ANTHROPIC.error_body(ANTHROPIC.explain(status, None), "req_1"))
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "req_1")
    assert ANTHROPIC.error_headers(ANTHROPIC.explain(status, None), "req_1")["x-should-retry"] == retry


def test_a_failure_inside_a_stream_is_an_overload():
    (event,) = MESSAGES.failure(answered(HELLO), 3)
    assert event.data.startswith(b"event: error\n")
    assert b"overloaded_error" in event.data
