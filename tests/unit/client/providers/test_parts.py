"""What all mappings share; what they make of bad messages is shown in test_anthropic_messages.py."""

import base64
import json
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.client.ask import Ask
from tellmeter.client.providers import parts
from tellmeter.errors import ConfigError
from tests.support.provider_bench import HELLO

media_types = st.sampled_from(["image/png", "application/pdf", "text/plain"])
values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5)


@given(st.binary(max_size=30), media_types, st.sampled_from(["", ";charset=utf-8", ";name=a.png"]), st.booleans())
def test_data_urls_are_read_however_they_are_written(content, media_type, parameters, in_base64):
    if in_base64:
        data = base64.b64encode(content).decode()
        spelled = [data, quote(data), f"{data[:3]}\n {data[3:]}"]
        urls = [f"data:{media_type}{parameters};base64,{one}" for one in spelled]
        urls.append(f"DATA:{media_type.upper()}{parameters};BASE64,{data}")
    else:
        urls = [f"data:{media_type}{parameters},{quote(content)}"]
    for url in urls:
        assert parts.read_data_url(url, "here") == (media_type, content)


@given(st.text(max_size=30))
def test_any_url_is_read_or_refused_by_its_place(url):
    for given_url in (url, f"data:{url}", f"data:;base64,{url}"):
        try:
            found = parts.read_data_url(given_url, "here")
        except ConfigError as error:
            assert str(error).startswith("here: ")
        else:
            assert (found is None) == (given_url[:5].lower() != "data:")


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_arguments_are_the_same_as_json_and_back(arguments):
    assert parts.read_arguments(parts.write_arguments(arguments)) == arguments
    assert parts.read_arguments(arguments) == arguments


@given(st.text(max_size=20) | st.none())
def test_any_text_of_a_model_becomes_an_object_in_which_it_is_found(text):
    made = parts.read_arguments(text)
    if not text:
        assert made == {}
        return
    try:
        meant = json.loads(text)
    except ValueError:
        meant = text
    assert made == (meant if isinstance(meant, dict) else {"arguments": meant})


def test_arguments_nested_without_end_are_text():
    deep = "[" * 100_000
    assert parts.read_arguments(deep) == {"arguments": deep}
    assert parts.write_arguments(None) == "{}"


@given(st.lists(st.tuples(st.sampled_from(["user", "model"]), st.lists(st.integers(), max_size=2)), max_size=8))
def test_turns_take_turns_and_keep_all_that_is_said(said):
    turns = []
    for role, numbers in said:
        parts.add_turn(turns, role, "parts", list(numbers))
    roles = [turn["role"] for turn in turns]
    assert all(before != after for before, after in pairwise(roles))
    assert all(turn["parts"] for turn in turns)
    for one in ("user", "model"):
        kept = [number for turn in turns if turn["role"] == one for number in turn["parts"]]
        assert kept == [number for role, numbers in said if role == one for number in numbers]


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (None, []),
        ("", []),
        (" \n", []),
        ("a", ["a"]),
        ([{"type": "text", "text": " "}, {"type": "text", "text": "b"}], ["b"]),
    ],
)
def test_blank_texts_are_left_out(content, left):
    assert [part["text"] for part in parts.parts_of({"content": content}, "here")] == left


def test_what_a_provider_has_no_place_for_is_refused_where_it_is_given():
    parts.refuse(Ask(model="m", messages=HELLO), "It", "seed", "top_p")
    with pytest.raises(ConfigError, match=r"top_p: It has no place for it.*raw_params="):
        parts.refuse(Ask(model="m", messages=HELLO, top_p=0.0), "It", "seed", "top_p")
