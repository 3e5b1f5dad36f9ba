import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.client.chunks import StreamChunk, parse_chunk
from tellmeter.errors import StreamEngineError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "error", "type", "content"]), inner)
    ),
    max_leaves=10,
)


def test_json_is_read_by_its_shape():
    chunk = parse_chunk('{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hé"}}]}')
    assert isinstance(chunk, StreamChunk)
    assert (chunk.content, chunk.id, chunk.model) == ("Hé", "c", "m")
    assert chunk.raw["choices"][0]["delta"] == {"content": "Hé"}


def test_plain_text_is_text():
    assert parse_chunk("hello ").content == "hello "
    assert parse_chunk('"hello "').content == "hello "
    assert [parse_chunk(word).content for word in ("42", " 1.0", "true")] == ["42", " 1.0", "true"]


@pytest.mark.parametrize(
    "data", ["", "[DONE]", '{"type":"ping"}', '{"choices":[{"delta":{"role":"assistant"}}]}', "null", "[]"]
)
def test_what_carries_nothing_is_none(data):
    assert parse_chunk(data) is None


@pytest.mark.security(1)
@pytest.mark.parametrize(
    "data",
    [
        '{"error":{"message":"about secret-prompt"}}',
        '{"type":"error","message":"secret-prompt"}',
        '{"a": secret-prompt',
    ],
)
def test_errors_are_raised_without_the_providers_text(data):
    with pytest.raises(StreamEngineError) as told:
        parse_chunk(data)
    assert "secret-prompt" not in str(told.value) + repr(told.value)


def test_what_the_provider_said_is_at_hand():
    with pytest.raises(StreamEngineError) as told:
        parse_chunk('{"error":{"code":"busy"}}')
    assert json.loads(told.value.body) == {"error": {"code": "busy"}}


@given(st.text(max_size=30) | JSON.map(json.dumps))
def test_nothing_else_is_ever_raised(data):
    try:
        chunk = parse_chunk(data)
    except StreamEngineError:
        return
    assert chunk is None or isinstance(chunk.content, str)
