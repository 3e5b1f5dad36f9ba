"""What the LLMClient gives back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import AgentMetrics, MetricsCollector, MetricsConfig
from tellmeter.client.calls import ClientCall
from tellmeter.client.response import (
    EmbeddingResponse,
    GenerationResponse,
    TokenUsage,
    ToolCall,
    json_in,
    response_of,
)

PIECES = st.builds(ToolCall, st.sampled_from(["", "id"]), st.sampled_from(["", "find"]), st.text(max_size=5))

JSON = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(st.characters(codec="utf-8"))
VALUES = st.dictionaries(st.text(st.characters(codec="utf-8")), st.recursive(JSON, st.lists))


def response(text="canary", *tool_calls, **more):
    told = {"model": "m", "provider": "p", "cost_usd": None, "cost_breakdown": None, "finish_reason": None, **more}
    return GenerationResponse(text=text, usage=TokenUsage(), tool_calls=tool_calls, raw="canary", **told)


# ---------------------------------------------------------------------- tokens


def test_tokens_are_a_dict_and_attributes():
    record = AgentMetrics(
        provider="p",
        model="m",
        method="generate",
        input_tokens=30,
        output_tokens=12,
        cached_tokens=10,
        cache_write_tokens=5,
        reasoning_tokens=4,
    )
    usage = TokenUsage(record)
    assert json.loads(json.dumps(usage)) == {
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "total_tokens": 42,
        "cached_tokens": 10,
        "cache_write_tokens": 5,
        "reasoning_tokens": 4,
    }
    for name in ("input", "output", "total", "cached", "cache_write", "reasoning"):
        assert getattr(usage, f"{name}_tokens") == getattr(record, f"{name}_tokens")


def test_without_a_record_there_are_no_tokens():
    usage = TokenUsage()
    assert usage == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (0, 0, 0)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (0, 0, 0)


# ---------------------------------------------------------------------- tool calls


def test_the_arguments_of_a_tool_call_as_values():
    assert ToolCall("1", "find", '{"q": "x", "n": [1, 2.5, null]}').parsed() == {"q": "x", "n": [1, 2.5, None]}
    assert ToolCall("1", "find").parsed() == ToolCall("1", "find", "").parsed() == {}


@given(VALUES)
def test_what_was_written_is_read(value):
    assert ToolCall("1", "find", json.dumps(value)).parsed() == value


@pytest.mark.parametrize("text", ['{"q": "x', "{'q': 1}", "None", "{} {}", "canary"])
def test_broken_arguments_are_a_value_error(text):
    with pytest.raises(ValueError) as caught:
        ToolCall("1", "find", text).parsed()
    assert "canary" not in str(caught.value)


@given(st.lists(PIECES, min_size=1))
def test_pieces_make_one_call(pieces):
    made = ToolCall.joined(pieces)
    assert made.arguments == ("".join(piece.arguments for piece in pieces) or "{}")
    assert made.id == ("id" if any(piece.id for piece in pieces) else "")
    assert made.name == ("find" if any(piece.name for piece in pieces) else "")
    assert made.signature is None


def test_a_signature_goes_back_in_the_message():
    made = ToolCall.joined([ToolCall("1", "find", '{"a":', "c2ln"), ToolCall("", "", "1}")])
    assert made == ToolCall("1", "find", '{"a":1}', "c2ln")
    assert made.as_message() == {
        "id": "1",
        "type": "function",
        "function": {"name": "find", "arguments": '{"a":1}'},
        "extra_content": {"google": {"thought_signature": "c2ln"}},
    }
    assert "extra_content" not in ToolCall("1", "find").as_message()


# ---------------------------------------------------------------------- answers


def test_an_answer_goes_on_in_the_next_calls_messages():
    assert response("Hi").as_message() == {"role": "assistant", "content": "Hi"}
    call = ToolCall("1", "find", "{}")
    assert response("", call).as_message() == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}],
    }


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}```', '\n```JSON\r\n{"a": 1}\r\n```\n'],
)
def test_json_with_or_without_a_fence(text):
    assert json_in(text) == response(text).get_json() == {"a": 1}


@given(st.text() | st.text().map("```{}```".format) | st.sampled_from(["```", "``````", "````", "```json```"]))
def test_a_text_is_json_or_a_value_error(text):
    try:
        json_in(text)
    except ValueError:
        pass


def test_what_a_call_has_become_is_in_its_response():
    collector = MetricsCollector(MetricsConfig(enabled=False))
    named = {"provider": "openai", "model": "gpt-4o", "operation": "chat", "method": "generate"}
    call = ClientCall(collector, **named, request_id="mine", tags={})
    call.end()
    tool = ToolCall("1", "find")
    made = response_of(call, "Hi", (tool,), "raw")
    assert (made.text, made.tool_calls, made.raw, made.request_id) == ("Hi", (tool,), "raw", "mine")
    assert (made.model, made.provider, made.metrics) == ("gpt-4o", "openai", call.record)


@pytest.mark.security(3)
def test_no_repr_tells_what_was_said():
    calls = ToolCall("1", "find", '{"canary": 1}', "canary")
    vectors = EmbeddingResponse(
        embeddings=([0.25],), model="m", provider="p", usage=TokenUsage(), cost_usd=None, raw="canary"
    )
    for one in (response("canary", calls), calls, vectors):
        assert "canary" not in repr(one) and "0.25" not in repr(one)
    assert "model='m'" in repr(vectors) and "name='find'" in repr(calls)
