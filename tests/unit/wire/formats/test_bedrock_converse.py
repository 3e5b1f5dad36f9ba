import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats.bedrock_converse import FORMAT, STREAM, Reader
from tests.support.event_stream import event, exception


def answer(body, status=200):
    return FORMAT.read_answer(json.dumps(body).encode(), status)


def stream(*events):
    reader = Reader()
    for name, body in events:
        reader.feed(event(name, body))
    reader.finish()
    return reader


def delta(**fields):
    return "contentBlockDelta", {"contentBlockIndex": 0, "delta": fields, "p": "abcdef"}


def tool(name, **more):
    return {"toolUse": {"toolUseId": "t", "name": name, **more}}


USAGE = {
    "inputTokens": 10,
    "outputTokens": 20,
    "totalTokens": 180,
    "cacheReadInputTokens": 100,
    "cacheReadInputTokenCount": 100,
    "cacheWriteInputTokens": 50,
    "cacheWriteInputTokenCount": 50,
    "cacheDetails": [{"inputTokens": 30, "ttl": "5m"}, {"inputTokens": 20, "ttl": "1h"}],
    "serverToolUsage": {},
}
BILLED = Usage(input_tokens=160, output_tokens=20, cached_tokens=100, cache_write_tokens=50, cache_write_1h_tokens=20)


def test_an_answer():
    content = [
        {"reasoningContent": {"reasoningText": {"text": "a", "signature": "b"}}},
        {"text": "c"},
        tool("weather", input={}, type="tool_use"),
        tool("nova_grounding", input={}, type="server_tool_use"),
        tool("time", input={}),
    ]
    found = answer(
        {
            "metrics": {"latencyMs": 5},
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": "tool_use",
            "usage": USAGE,
            "serviceTier": {"type": "flex"},
        }
    )
    assert (found.finish_reason, found.tools, found.service_tier) == ("tool_use", ["weather", "time"], "flex")
    assert (found.response_model, found.response_id, found.failed) == (None, None, False)
    assert found.usage == BILLED


def test_a_router_names_the_model_that_answered():
    trace = {"promptRouter": {"invokedModelId": "arn:aws:bedrock:us-east-1:1:inference-profile/us.m"}}
    assert answer({"trace": trace}).response_model == "arn:aws:bedrock:us-east-1:1:inference-profile/us.m"
    assert answer({"trace": {"guardrail": {"inputAssessment": {}}}}).response_model is None


def test_what_is_not_stated():
    for body in ({}, {"usage": {}}, {"usage": None, "output": None}, {"output": {"message": {"content": None}}}):
        found = answer(body)
        assert (found.usage, found.finish_reason, found.tools, found.failed) == (None, None, [], False)
    assert FORMAT.read_answer(b"<html>", 200).usage is None


def test_odd_values_cost_nothing_but_themselves():
    found = answer({"stopReason": 5, "usage": {"inputTokens": "12", "outputTokens": [], "cacheReadInputTokens": 1.0}})
    assert (found.finish_reason, found.usage) == (None, Usage(input_tokens=13, cached_tokens=1))


def test_a_stream():
    reader = stream(
        ("messageStart", {"role": "assistant"}),
        delta(text='"a"'),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("contentBlockStart", {"start": tool("weather"), "contentBlockIndex": 1}),
        delta(toolUse={"input": "{}"}),
        ("contentBlockStop", {"contentBlockIndex": 1}),
        ("contentBlockStart", {"start": tool("nova_grounding", type="server_tool_use"), "contentBlockIndex": 2}),
        ("messageStop", {"stopReason": "tool_use"}),
    )
    assert (reader.events, reader.content_events, reader.text_size) == (8, 2, len('\\"a\\"') + len("{}"))
    assert (reader.answer.finish_reason, reader.answer.tools) == ("tool_use", ["weather"])
    assert (reader.answer.usage, reader.done) == (None, False)  # the usage comes last
    reader.feed(event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 5}, "serviceTier": {"type": "priority"}}))
    assert (reader.answer.usage, reader.answer.service_tier, reader.done) == (BILLED, "priority", True)


@pytest.mark.parametrize(
    ("one", "content", "size"),
    [
        (delta(text="abc"), True, 3),
        (delta(text=""), True, 0),
        (delta(text=None), False, 0),
        (delta(toolUse={"input": "{"}), True, 1),
        (delta(toolUse={"input": ""}), True, 0),
        (delta(reasoningContent={"text": "ab"}), True, 2),
        (delta(reasoningContent={"signature": "x"}), False, 0),
        (delta(reasoningContent={"redactedContent": "eA=="}), False, 0),
        (delta(citation={"title": "x", "sourceContent": [{"text": "x"}]}), False, 0),
        (delta(toolResult=[{"text": "x"}]), False, 0),
        (delta(image={"source": {"bytes": "eA=="}}), True, 0),
        (("contentBlockDelta", {}), False, 0),
        (("contentBlockStart", {"start": {"toolResult": {}}}), False, 0),
        (("contentBlockStop", {"contentBlockIndex": 0}), False, 0),
        (("messageStart", {"role": "assistant"}), False, 0),
        (("messageStop", {"stopReason": "end_turn"}), False, 0),
        (("metadata", {"usage": USAGE}), False, 0),
        (("newKind", {"delta": {"text": "x"}}), False, 0),
    ],
)
def test_what_is_content(one, content, size):
    reader = stream(one, one)
    assert (reader.events, reader.content_events, reader.text_size) == (2, 2 * content, 2 * size)


def test_a_stream_that_fails_keeps_what_it_had():
    reader = stream(("messageStart", {"role": "assistant"}), delta(text="a"))
    reader.feed(exception("modelStreamErrorException", {"message": "secret", "originalStatusCode": 529}))
    found = reader.answer
    assert (found.failed, found.error_type, found.error_code) == (True, "modelStreamErrorException", "529")
    assert (reader.events, reader.content_events, reader.done) == (3, 1, False)


def test_an_event_that_is_no_json_is_an_event():
    reader = stream(("contentBlockDelta", []), delta(text="a"))
    assert (reader.events, reader.content_events) == (2, 1)


EVENTS = st.one_of(
    st.builds(lambda text: delta(text=text), st.text(max_size=8)),
    st.builds(lambda text: delta(reasoningContent={"text": text}), st.text(max_size=8)),
    st.sampled_from(
        [
            ("messageStart", {"role": "assistant"}),
            ("contentBlockStart", {"start": tool("f")}),
            delta(toolUse={"input": "{"}),
            ("messageStop", {"stopReason": "end_turn"}),
            ("metadata", {"usage": USAGE}),
        ]
    ),
)


@given(st.lists(EVENTS, max_size=12), st.integers(1, 300))
def test_cuts_change_nothing(events, size):
    body = b"".join(event(*one) for one in events)
    cut = Reader()
    for at in range(0, len(body), size):
        cut.feed(body[at : at + size])
    cut.finish()
    whole = stream(*events)
    for name in ("events", "content_events", "text_size", "done", "answer"):
        assert getattr(cut, name) == getattr(whole, name)
    assert STREAM.read_answer(body, 200) == whole.answer
    texts = [one[1]["delta"] for one in events if one[0] == "contentBlockDelta"]
    assert cut.content_events == len(texts)
