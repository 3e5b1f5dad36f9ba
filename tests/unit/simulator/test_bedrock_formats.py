"""Bedrock's Converse: the order of events, cache points, and counts; boto3's view is in tests/real."""

import random

import msgspec
import pytest

from tellmeter.simulator.answer import make_answer
from tellmeter.simulator.bedrock_formats import BEDROCK, CONVERSE
from tellmeter.simulator.cache import PromptCache
from tellmeter.simulator.formats import Refused
from tellmeter.simulator.traffic import Traffic
from tellmeter.wire.event_stream import Frames

HAIKU = "/model/us.anthropic.claude-haiku-4-5-20251001-v1:0/converse"
HELLO = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
FIND = {"toolSpec": {"name": "find", "inputSchema": {"json": SCHEMA}}}
THINKING = {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}
JSON = {"textFormat": {"structure": {"jsonSchema": {"schema": msgspec.json.encode(SCHEMA).decode()}}}}


def choosing(**choice):
    return {"toolConfig": {"tools": [FIND], "toolChoice": choice}}


def answered(body, path=HAIKU, cache=None, rate=0.7):
    ask = CONVERSE.read({**body, **CONVERSE.in_path(path)})
    return make_answer(ask, Traffic(tool_call_rate=rate), cache or PromptCache(1024), random.Random(0))


def whole(body, cache=None, **more):
    return msgspec.json.decode(CONVERSE.whole(answered(body, cache=cache, **more)))


def events(body):
    made = list(CONVERSE.events(answered(body)))
    assert [event.ends for event in made] == [False] * (len(made) - 2) + [True, True]
    messages = Frames().feed(b"".join(event.data for event in made))
    return [(message.event_type, msgspec.json.decode(message.payload)) for message in messages]


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        (HAIKU, "us.anthropic.claude-haiku-4-5-20251001-v1:0", False),
        (
            "/model/arn:aws:bedrock:us-east-1:0:inference-profile/x/converse-stream",
            "arn:aws:bedrock:us-east-1:0:inference-profile/x",
            True,
        ),
    ],
)
def test_the_model_and_the_way_to_answer_are_in_the_path(path, model, stream):
    assert CONVERSE.in_path(path) == {"model": model, "stream": stream}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"inferenceConfig": {"maxTokens": 2}},
        THINKING,
        choosing(any={}),
        {**choosing(tool={"name": "find"}), **THINKING},
        {"outputConfig": JSON},
    ],
)
def test_a_stream_builds_up_what_the_whole_says(more):
    body = {**HELLO, **more}
    one, stream = whole(body), events(body)
    assert stream[0] == ("messageStart", {"role": "assistant", "p": stream[0][1]["p"]})
    assert [name for name, _ in stream[-2:]] == ["messageStop", "metadata"]
    blocks = {}
    for name, said in stream[1:-2]:
        block = blocks.setdefault(said["contentBlockIndex"], {"text": "", "thought": "", "name": "", "input": ""})
        delta = said.get("delta", {})
        block["text"] += delta.get("text", "")
        block["thought"] += delta.get("reasoningContent", {}).get("text", "")
        block["input"] += delta.get("toolUse", {}).get("input", "")
        block["name"] += said.get("start", {}).get("toolUse", {}).get("name", "")
        assert name.startswith("contentBlock")
    assert list(blocks) == list(range(len(one["output"]["message"]["content"])))
    for block, content in zip(blocks.values(), one["output"]["message"]["content"], strict=True):
        assert block["text"] == content.get("text", "")
        assert block["thought"] == content.get("reasoningContent", {}).get("reasoningText", {}).get("text", "")
        assert block["name"] == content.get("toolUse", {}).get("name", "")
        assert not block["input"] or msgspec.json.decode(block["input"]) == content["toolUse"]["input"]
    assert stream[-2][1]["stopReason"] == one["stopReason"]
    assert stream[-1][1]["usage"] == one["usage"]
    assert stream[-1][1]["metrics"] == one["metrics"]


def test_stop_reasons_are_amazons():
    assert whole(HELLO)["stopReason"] == "end_turn"
    assert whole({**HELLO, "inferenceConfig": {"maxTokens": 2}})["stopReason"] == "max_tokens"
    assert whole({**HELLO, **choosing(any={})})["stopReason"] == "tool_use"
    result = {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "3"}]}}]}
    after = {"messages": [*HELLO["messages"], result], **choosing(auto={})}
    assert whole(after, rate=1.0)["stopReason"] == "end_turn"


def test_cache_points_are_written_and_then_read_outside_the_input():
    cache = PromptCache(1024)
    system = [{"text": "rules " * 1000}, {"cachePoint": {"type": "default"}}]
    first, second = (
        whole({"messages": [{"role": "user", "content": [{"text": text}]}], "system": system}, cache)["usage"]
        for text in ("one", "two")
    )
    assert first["cacheWriteInputTokens"] == second["cacheReadInputTokens"] >= 1500
    assert first["cacheReadInputTokens"] == second["cacheWriteInputTokens"] == 0
    assert first["inputTokens"] == second["inputTokens"] < 20
    assert first["cacheDetails"] == [{"inputTokens": first["cacheWriteInputTokens"], "ttl": "5m"}]
    for usage in (first, second):
        parts = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
        assert usage["totalTokens"] == sum(usage[name] for name in parts)


@pytest.mark.parametrize(
    "where",
    [
        {"toolConfig": {"tools": [FIND, {"cachePoint": {"type": "default", "ttl": "1h"}}]}},
        {"messages": [{"role": "user", "content": [{"text": "x"}, {"cachePoint": {"ttl": "1h"}}]}]},
    ],
)
def test_cache_points_are_seen_wherever_they_may_stand(where):
    usage = whole({**HELLO, "system": [{"text": "rules " * 1000}], **where}, PromptCache(1))["usage"]
    assert usage["cacheDetails"] == [{"inputTokens": usage["cacheWriteInputTokens"], "ttl": "1h"}]


def test_a_cache_point_before_everything_caches_nothing():
    usage = whole({**HELLO, "system": [{"cachePoint": {"type": "default"}}]}, PromptCache(1))["usage"]
    assert usage["cacheWriteInputTokens"] == 0


def test_without_usage_the_end_still_comes():
    answer = answered(HELLO)
    answer.usage = None
    assert "usage" not in msgspec.json.decode(CONVERSE.whole(answer))
    *_, last = CONVERSE.events(answer)
    (message,) = Frames().feed(last.data)
    assert message.event_type == "metadata"
    assert b"usage" not in message.payload


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/model/no-such-model/converse", HELLO),
        (HAIKU, {}),
        (HAIKU, {"messages": []}),
        (HAIKU, {"messages": [{"role": "robot", "content": [{"text": "x"}]}]}),
        (HAIKU, {"messages": [{"role": "user", "content": "x"}]}),
        (HAIKU, {**HELLO, "inferenceConfig": {"maxTokens": 0}}),
    ],
)
def test_what_amazon_would_refuse_is_refused(path, body):
    with pytest.raises(Refused) as refused:
        answered(body, path)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [
        (400, None, "ValidationException"),
        (400, "context_length_exceeded", "ValidationException"),
        (401, None, "UnrecognizedClientException"),
        (403, None, "AccessDeniedException"),
        (404, None, "ResourceNotFoundException"),
        (408, None, "ModelTimeoutException"),
        (424, None, "ModelErrorException"),
        (429, None, "ThrottlingException"),
        (429, "ModelNotReadyException", "ModelNotReadyException"),
        (500, None, "InternalServerException"),
        (503, None, "ServiceUnavailableException"),
        (599, None, "InternalServerException"),
    ],
)
def test_errors_are_named_in_a_header(status, code, name):
    refused = BEDROCK.explain(status, code)
    headers = BEDROCK.error_headers(refused, "id")
    assert headers["x-amzn-errortype"].partition(":")[0] == name
    assert headers["x-amzn-requestid"] == "id"
    assert msgspec.json.decode(BEDROCK.error_body(refused, "id")) == {"message": refused.message}


def test_a_failure_inside_a_stream_is_an_exception():
    (event,) = CONVERSE.failure(answered(HELLO), 3)
    (message,) = Frames().feed(event.data)
    assert message.error == "throttlingException"
    assert msgspec.json.decode(message.payload)["message"]
