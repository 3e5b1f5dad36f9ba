import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.wire.pieces import StreamChunk, chunk_of, error_of, shape_of
from tellmeter.wire.shapes import BY_KEY, BY_TYPE


@pytest.mark.parametrize(
    ("event", "content"),
    [
        ({"text": "a"}, "a"),
        ({"content": "a"}, "a"),
        ({"response": "a"}, "a"),
        ({"token": "a"}, "a"),
        ({"value": "a"}, "a"),
        ({"answer": "a"}, "a"),
        ({"text": "", "content": "a"}, "a"),
        ({"content": [{"type": "text", "text": "a"}]}, "a"),
        ({"message": {"content": "a"}}, "a"),
        ({"type": "message.output.delta", "content": "a"}, "a"),
        ({"token": {"id": 5, "text": "a", "special": False}, "generated_text": None}, "a"),
        ("a", "a"),
    ],
)
def test_text_under_a_usual_name_is_found(event, content):
    assert chunk_of(event).content == content


@pytest.mark.parametrize(
    "event",
    [None, 3, [], [{"text": "a"}], {}, {"foo": "bar"}, {"text": 5}, "", {"token": {"text": "</s>", "special": True}}],
)
def test_nothing_is_made_of_nothing(event):
    assert chunk_of(event) is None


def test_a_chunk_says_model_id_and_the_whole_event():
    event = {"id": "c", "model": "m", "choices": [{"index": 2, "delta": {"content": "a"}}]}
    assert chunk_of(event) == StreamChunk(content="a", model="m", id="c", index=2, raw=event)
    event = {"modelVersion": "g", "responseId": "r", "candidates": [{"content": {"parts": [{"text": "a"}]}}]}
    assert (chunk_of(event).model, chunk_of(event).id) == ("g", "r")
    final = {"type": "response.completed", "response": {"model": "m", "id": "r", "status": "completed"}}
    assert (chunk_of(final).model, chunk_of(final).id) == ("m", "r")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"error": {"code": 500}}, {"code": 500}),
        ({"error": "busy"}, "busy"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, {"type": "overloaded_error"}),
        ({"type": "error", "code": "x"}, {"type": "error", "code": "x"}),
        ({"choices": [{"delta": {}, "error": {"code": 502}}]}, {"code": 502}),
        ({"error": None, "text": "a"}, None),
        ({"choices": [{"delta": {"content": "error"}, "error": None}]}, None),
        ("error", None),
        ([], None),
    ],
)
def test_errors(event, error):
    assert error_of(event) == error


def test_a_failed_response_is_an_error():
    assert error_of({"type": "response.failed", "response": {"error": {"code": "server_error"}}}) is not None
    assert error_of({"type": "response.failed"}) is not None
    assert error_of({"type": "response.completed", "response": {"error": None}}) is None


KEYS = [
    *BY_KEY,
    *("type", "event_type", "delta", "message", "content", "text", "usage", "finish_reason", "index", "model", "id"),
    *("tool_calls", "function", "arguments", "parts", "content_block", "item", "response", "error", "bytes", "start"),
]
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from([*BY_TYPE, "response.x.delta"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=3)), inner, max_size=5),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_nothing_that_is_json_raises(event):
    chunk = chunk_of(event)
    error_of(event)
    if isinstance(event, dict):
        shape_of(event)
    if chunk is not None:
        assert isinstance(chunk.content, str) and isinstance(chunk.reasoning, str)
        assert all(isinstance(call, dict) for call in chunk.tool_calls)
        json.dumps(chunk.tool_calls)
