import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats.bedrock_invoke import FORMAT, STREAM, Reader
from tests.support.event_stream import chunk, event


def answer(body, status=200):
    return FORMAT.read_answer(json.dumps(body).encode(), status)


def stream(*bodies):
    reader = Reader()
    for body in bodies:
        reader.feed(chunk(body))
    reader.finish()
    return reader


METRICS = {
    "amazon-bedrock-invocationMetrics": {
        "inputTokenCount": 7,
        "outputTokenCount": 9,
        "invocationLatency": 266,
        "firstByteLatency": 266,
    }
}
MEASURED = Usage(input_tokens=7, output_tokens=9)
CLAUDE_USAGE = {
    "input_tokens": 10,
    "output_tokens": 20,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 50,
    "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 20},
    "output_tokens_details": {"thinking_tokens": 7},
    "service_tier": "standard",
}
CLAUDE_BILLED = Usage(
    input_tokens=160,
    output_tokens=20,
    cached_tokens=100,
    cache_write_tokens=50,
    cache_write_1h_tokens=20,
    reasoning_tokens=7,
)
FUNCTION = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}

WHOLE = {
    "claude": (
        {
            "id": "msg_1",
            "type": "message",
            "model": "claude",
            "content": [{"type": "text", "text": "a"}, {"type": "tool_use", "name": "f"}, {"type": "server_tool_use"}],
            "stop_reason": "tool_use",
            "usage": CLAUDE_USAGE,
        },
        ("claude", "msg_1", "tool_use", ["f"], CLAUDE_BILLED),
    ),
    "old claude": ({"completion": "a", "stop_reason": "stop_sequence"}, (None, None, "stop_sequence", [], None)),
    "nova": (
        {
            "output": {"message": {"content": [{"text": "a"}, {"toolUse": {"name": "f", "input": {}}}]}},
            "stopReason": "end_turn",
            "usage": {
                "inputTokens": 10,
                "outputTokens": 20,
                "cacheReadInputTokenCount": 100,
                "cacheWriteInputTokenCount": 5,
            },
        },
        (
            None,
            None,
            "end_turn",
            ["f"],
            Usage(input_tokens=115, output_tokens=20, cached_tokens=100, cache_write_tokens=5),
        ),
    ),
    "titan": (
        {
            "inputTextTokenCount": 28.0,
            "results": [
                {"tokenCount": 197.0, "outputText": "a", "completionReason": "FINISH"},
                {"tokenCount": 3, "completionReason": "LENGTH", "index": 1},
            ],
        },
        (None, None, "FINISH", [], Usage(input_tokens=28, output_tokens=200)),
    ),
    "titan embeddings": (
        {"embedding": [0.5, 1], "inputTextTokenCount": 4},
        (None, None, None, [], Usage(input_tokens=4)),
    ),
    "llama": (
        {"generation": "a", "prompt_token_count": 5, "generation_token_count": 6, "stop_reason": "stop"},
        (None, None, "stop", [], Usage(input_tokens=5, output_tokens=6)),
    ),
    "old mistral": ({"outputs": [{"text": "a", "stop_reason": "stop"}]}, (None, None, "stop", [], None)),
    "mistral": (
        {"choices": [{"index": 0, "message": {"content": "", "tool_calls": [FUNCTION]}, "stop_reason": "tool_calls"}]},
        (None, None, "tool_calls", ["f"], None),
    ),
    "deepseek": ({"choices": [{"text": "a", "stop_reason": "length"}]}, (None, None, "length", [], None)),
    "openai": (
        {
            "id": "chatcmpl-1",
            "model": "openai.gpt-oss-120b",
            "choices": [{"message": {"content": "a", "tool_calls": [FUNCTION, FUNCTION]}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 50,
                "completion_tokens": 20,
                "total_tokens": 70,
                "prompt_tokens_details": {"cached_tokens": 40},
            },
            "service_tier": "default",
        },
        (
            "openai.gpt-oss-120b",
            "chatcmpl-1",
            "stop",
            ["f", "f"],
            Usage(input_tokens=50, output_tokens=20, cached_tokens=40),
        ),
    ),
    "cohere command": (
        {"id": "c", "generations": [{"id": "g", "text": "a", "finish_reason": "COMPLETE"}], "prompt": "a"},
        (None, "c", "COMPLETE", [], None),
    ),
    "cohere command r": (
        {
            "response_id": "r",
            "generation_id": "g",
            "text": "a",
            "finish_reason": "COMPLETE",
            "tool_calls": [{"name": "f", "parameters": {}}],
            "meta": {"billed_units": {"input_tokens": 3.0, "output_tokens": 4.0}},
        },
        (None, "r", "COMPLETE", ["f"], Usage(input_tokens=3, output_tokens=4)),
    ),
    "cohere embeddings": ({"id": "c", "embeddings": [[0.5]], "texts": ["a"]}, (None, "c", None, [], None)),
    "cohere rerank": ({"results": [{"index": 2, "relevance_score": 0.9}]}, (None, None, None, [], None)),
    "jurassic": (
        {
            "id": 1234,
            "prompt": {"text": "a", "tokens": []},
            "completions": [{"data": {"text": "a"}, "finishReason": {"reason": "endoftext"}}],
        },
        (None, None, "endoftext", [], None),
    ),
    "jamba": (
        {
            "id": "cmpl-1",
            "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        },
        (None, "cmpl-1", "stop", [], Usage(input_tokens=1, output_tokens=2)),
    ),
    "nothing": ({}, (None, None, None, [], None)),
}


@pytest.mark.parametrize("family", WHOLE)
def test_whole_answers(family):
    body, wanted = WHOLE[family]
    found = answer(body)
    assert not found.failed
    assert (found.response_model, found.response_id, found.finish_reason, found.tools, found.usage) == wanted


def claude(kind, **fields):
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}}


def choice(**delta):
    return {"choices": [{"index": 0, "delta": delta}]}


CONTENT = [
    (claude("text_delta", text="abc"), 3),
    (claude("text_delta", text=""), 0),
    (claude("thinking_delta", thinking="ab"), 2),
    (claude("input_json_delta", partial_json="{"), 1),
    ({"completion": " a", "stop_reason": None}, 2),
    ({"contentBlockDelta": {"delta": {"text": "a"}, "contentBlockIndex": 0}}, 1),
    ({"contentBlockDelta": {"delta": {"text": ""}, "contentBlockIndex": 0}}, 0),
    ({"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}}}, 2),
    ({"outputText": "abc", "index": 0}, 3),
    ({"generation": "a", "generation_token_count": 1}, 1),
    ({"outputs": [{"text": "ab", "stop_reason": None}]}, 2),
    ({"choices": [{"text": "ab"}]}, 2),
    ({"choices": [{"index": 0, "message": {"role": "assistant", "content": "ab"}}]}, 2),
    (choice(content="ab"), 2),
    (choice(reasoning_content="a"), 1),
    (choice(reasoning="a"), 1),
    (choice(tool_calls=[{"index": 0, "function": {"arguments": ""}}]), 0),
    (choice(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]), 2),
    ({"text": "a", "is_finished": False}, 1),
    ({"event_type": "text-generation", "text": "a", "is_finished": False}, 1),
    ({"event_type": "tool-calls-generation", "tool_calls": [{"name": "f", "parameters": {}}]}, 0),
]
NO_CONTENT = [
    {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop", **METRICS},
    claude("signature_delta", signature="x"),
    claude("citations_delta", citation={}),
    {"completion": "", "stop_reason": "stop_sequence", **METRICS},
    {"messageStart": {"role": "assistant"}},
    {"contentBlockStart": {"start": {"toolUse": {"name": "f"}}}},
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 1}}},
    {"generation": "", "generation_token_count": 9, "stop_reason": "stop"},
    {"outputs": [{"text": "", "stop_reason": "stop"}]},
    choice(role="assistant"),
    choice(role="assistant", content=""),
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    {"finish_reason": "COMPLETE", "is_finished": True, **METRICS},
    {"event_type": "stream-start", "is_finished": False, "generation_id": "g"},
    {"event_type": "stream-end", "is_finished": True, "response": {"response_id": "r", "text": "abc"}},
    {},
]


@pytest.mark.parametrize(("body", "size"), CONTENT)
def test_what_is_content(body, size):
    reader = stream(body, body)
    assert (reader.events, reader.content_events, reader.text_size) == (2, 2, 2 * size)


@pytest.mark.parametrize("body", NO_CONTENT)
def test_what_is_no_content(body):
    reader = stream(body, body)
    assert (reader.events, reader.content_events, reader.text_size) == (2, 0, 0)


def test_a_ping_is_no_event():
    assert stream({"type": "ping"}).events == 0


def test_a_stream_of_claude():
    start = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5, "service_tier": "standard"}
    reader = stream(
        {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "content": [], "usage": start}},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f", "input": {}}},
        {"type": "content_block_start", "content_block": {"type": "server_tool_use", "name": "web_search"}},
        claude("input_json_delta", partial_json="{}"),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 133}},
    )
    assert not reader.done
    reader.feed(chunk({"type": "message_stop", **METRICS}))
    found = reader.answer
    assert (found.response_model, found.response_id, found.service_tier) == ("claude", "msg_1", "standard")
    assert (found.finish_reason, found.tools, reader.done) == ("tool_use", ["f"], True)
    assert found.usage == Usage(input_tokens=15, output_tokens=133, cached_tokens=5)  # the message's own, not 7 and 9


def test_a_stream_of_nova():
    usage = {"inputTokens": 12, "outputTokens": 13, "cacheReadInputTokenCount": 4, "cacheWriteInputTokenCount": 0}
    reader = stream(
        {"messageStart": {"role": "assistant"}},
        {"contentBlockStart": {"start": {"toolUse": {"name": "f"}}, "contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": usage, "metrics": {}}, **METRICS},
    )
    assert (reader.answer.finish_reason, reader.answer.tools, reader.done) == ("tool_use", ["f"], True)
    assert reader.answer.usage == Usage(input_tokens=16, output_tokens=13, cached_tokens=4)


def test_counts_that_come_one_by_one():
    reader = stream(
        {"outputText": "a", "inputTextTokenCount": 28.0},
        {"outputText": "b", "totalOutputTextTokenCount": 188.0, "completionReason": "FINISH", **METRICS},
    )
    assert (reader.answer.usage, reader.answer.finish_reason) == (Usage(input_tokens=28, output_tokens=188), "FINISH")
    reader = stream(
        {"generation": "a", "prompt_token_count": 10, "generation_token_count": 1, "stop_reason": None},
        {"generation": "b", "prompt_token_count": None, "generation_token_count": 2, "stop_reason": None},
    )
    assert (reader.answer.usage, reader.done) == (Usage(input_tokens=10, output_tokens=2), False)


@pytest.mark.parametrize(
    "last",
    [
        {"completion": "", "stop_reason": "stop_sequence"},
        {"outputs": [{"text": "", "stop_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"finish_reason": "COMPLETE", "is_finished": True},
    ],
)
def test_bedrock_counts_where_the_family_does_not(last):
    reader = stream({**last, **METRICS})
    assert (reader.answer.usage, reader.done) == (MEASURED, True)
    assert reader.answer.finish_reason is not None


def test_what_ends_a_stream():
    assert stream({"type": "message_stop"}).done
    last = stream({**claude("text_delta", text="a"), **METRICS})
    assert (last.done, last.answer.usage, last.content_events) == (True, MEASURED, 1)
    assert not stream({"messageStop": {"stopReason": "end_turn"}}).done


def test_cohere_states_what_is_billed_at_the_end():
    response = {"response_id": "r", "meta": {"billed_units": {"input_tokens": 3, "output_tokens": 4}}}
    reader = stream(
        {"event_type": "tool-calls-generation", "tool_calls": [{"name": "f", "parameters": {}}]},
        {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": response, **METRICS},
    )
    assert (reader.answer.response_id, reader.answer.tools) == ("r", ["f"])
    assert reader.answer.usage == Usage(input_tokens=3, output_tokens=4)


def test_each_tool_call_is_named_once():
    calls = [{"index": number, "function": {"name": "f", "arguments": "{"}} for number in (0, 1)]
    assert stream(choice(tool_calls=calls), choice(tool_calls=calls)).answer.tools == ["f", "f"]


def test_other_choices_do_not_say_why_it_ended():
    reader = stream({"choices": [{"index": 1, "finish_reason": "length"}]})
    assert reader.answer.finish_reason is None


def test_an_error_of_the_family_inside_a_stream():
    reader = stream({"type": "error", "error": {"type": "overloaded_error", "message": "secret"}})
    assert (reader.answer.failed, reader.answer.error_type) == (True, "overloaded_error")
    assert "secret" not in repr(reader.answer)


@pytest.mark.parametrize(
    "payload",
    [{}, {"bytes": None}, {"bytes": ""}, {"bytes": "***"}, {"bytes": base64.b64encode(b"no json").decode()}, []],
)
def test_a_chunk_that_cannot_be_read_is_an_event(payload):
    reader = Reader()
    reader.feed(event("chunk", payload))
    assert (reader.events, reader.content_events, reader.answer.usage) == (1, 0, None)


@given(st.lists(st.sampled_from([body for body, _ in CONTENT] + NO_CONTENT), max_size=10), st.integers(1, 300))
def test_cuts_change_nothing(bodies, size):
    data = b"".join(map(chunk, bodies))
    cut = Reader()
    for at in range(0, len(data), size):
        cut.feed(data[at : at + size])
    cut.finish()
    whole = stream(*bodies)
    for name in ("events", "content_events", "text_size", "done", "answer"):
        assert getattr(cut, name) == getattr(whole, name)
    assert cut.content_events == sum(body not in NO_CONTENT for body in bodies)
    assert STREAM.read_answer(data, 200) == whole.answer


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["usage", "delta", "message", "content", "choices", "input_tokens", "index", "function"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)
KEYS = sorted({key for body, _ in WHOLE.values() for key in body} | {key for body in NO_CONTENT for key in body})


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_no_shape_makes_it_raise(body):
    answer(body)
    stream(body, body)
