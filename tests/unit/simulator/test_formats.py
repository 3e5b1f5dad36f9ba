"""What the formats share: frames, text of messages, and refusals of what cannot be read."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.simulator.formats import (
    MarkedPrompt,
    Refused,
    is_unknown,
    model_of,
    retry_headers,
    sse,
    text_of,
    unit_vector,
    whole_number,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_an_event_is_framed_with_or_without_a_name():
    assert sse({"a": 1}) == b'data: {"a":1}\n\n'
    assert sse({"a": "é"}, "ping") == 'event: ping\ndata: {"a":"é"}\n\n'.encode()
    assert sse(b"raw") == b"data: raw\n\n"


def test_all_text_of_a_message_is_read_and_pictures_count_by_their_size():
    assert text_of({"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}) == "hello"
    assert text_of([{"text": "a"}, "b", None, 3]) == "a\nb\n\n3"
    for picture in (
        {"type": "image_url", "image_url": {"url": "data:..."}},
        {"inlineData": {"mimeType": "image/png", "data": "..."}},
        {"image": {"format": "png", "source": {"bytes": "..."}}},
    ):
        assert len(text_of(picture)) == 3200
    assert text_of({"image": "a word"}) == "a word"


@given(json_values)
def test_any_json_has_some_text(value):
    assert isinstance(text_of(value), str)


@given(json_values)
def test_a_number_is_read_or_refused(value):
    if value is None or (isinstance(value, int) and value >= 1):
        assert whole_number({"n": value}, "missing", "n") == value
    else:
        with pytest.raises(Refused) as refused:
            whole_number({"n": value}, "missing", "n")
        assert (refused.value.status, refused.value.param) == (400, "n")


def test_marks_stand_behind_what_was_added():
    prompt = MarkedPrompt()
    prompt.mark({"ttl": "5m"})
    prompt.add("one")
    prompt.mark(None)
    prompt.add("two")
    prompt.mark({"ttl": "1h"})
    assert [prompt.text()[:mark] for mark in prompt.marks] == ["", "one\ntwo"]
    assert prompt.for_an_hour


@pytest.mark.parametrize(("seconds", "headers"), [(None, {}), (0.25, {"retry-after": "1", "retry-after-ms": "250"})])
def test_when_to_try_again_is_said_in_whole_seconds_and_exactly(seconds, headers):
    refused = Refused(429, "later")
    refused.retry_after = seconds
    assert retry_headers(refused) == headers


def test_embeddings_have_length_one():
    vector = unit_vector(random.Random(1), 100)
    assert len(vector) == 100
    assert sum(value * value for value in vector) == pytest.approx(1)


def test_a_request_says_its_model():
    assert model_of({"model": "m"}) == "m"
    for wrong in ({}, {"model": None}, {"model": ""}, {"model": 3}):
        with pytest.raises(Refused, match="model"):
            model_of(wrong)


def test_only_models_that_say_so_are_unknown():
    assert is_unknown("no-such-model")
    assert not is_unknown("llama-3")
