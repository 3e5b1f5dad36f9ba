"""What the formats share: frames, text of messages, and refusals of what cannot be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.simulator.formats import Refused, is_unknown, model_of, sse, text_of, whole_number

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
    assert len(text_of({"type": "image_url", "image_url": {"url": "data:..."}})) == 3200


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


def test_a_request_says_its_model():
    assert model_of({"model": "m"}) == "m"
    for wrong in ({}, {"model": None}, {"model": ""}, {"model": 3}):
        with pytest.raises(Refused, match="model"):
            model_of(wrong)


def test_only_models_that_say_so_are_unknown():
    assert is_unknown("no-such-model")
    assert not is_unknown("llama-3")
