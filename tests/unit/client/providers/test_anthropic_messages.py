import inspect
import json
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace as Made

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.client.ask import Ask
from tellmeter.client.providers.anthropic_messages import MAX_TOKENS, EventReader, arguments
from tellmeter.errors import ConfigError
from tests.support.conversations import calls_of, conversations, images, texts_of
from tests.support.provider_bench import FIND, HELLO, joined

KNOWN = (
    "model",
    "messages",
    "max_tokens",
    "system",
    "stop_sequences",
    "tools",
    "tool_choice",
    "output_config",
    "thinking",
)
KNOWN += ("extra_body", "extra_headers", "metadata")


def mapped(messages=HELLO, known=KNOWN, **given):
    return arguments(Ask(model="claude-x", messages=messages, **given), known)


def blocks(messages, kind):
    return [block for message in messages for block in message["content"] if block["type"] == kind]


@given(conversations())
def test_any_conversation_is_one_of_turns_in_which_nothing_is_lost(messages):
    made = mapped(messages)
    turns = made["messages"]
    roles = [message["role"] for message in turns]
    assert roles[0] == "user" and all(before != after for before, after in pairwise(roles))
    assert all(message["content"] for message in turns)
    assert [block["text"] for block in made.get("system", [])] == texts_of(messages, "system", "developer")
    said = []
    for message in turns:
        for block in message["content"]:
            inner = block.get("content", []) if block["type"] == "tool_result" else [block]
            said += [one["text"] for one in inner if one["type"] == "text"]
    assert said == texts_of(messages, "user", "assistant", "tool")
    assert [(block["name"], block["input"]) for block in blocks(turns, "tool_use")] == calls_of(messages)


@given(conversations())
def test_each_call_is_answered_in_the_next_turn_before_anything_else(messages):
    turns = mapped(messages)["messages"]
    uses = [block["id"] for block in blocks(turns, "tool_use")]
    assert len(set(uses)) == len(uses) and all(set(use) <= set("abcXYZ0123456789_-defABCDEF") for use in uses)
    for before, after in pairwise([*turns, {"content": []}]):
        called = [block["id"] for block in before["content"] if block["type"] == "tool_use"]
        answered = [block["tool_use_id"] for block in after["content"] if block["type"] == "tool_result"]
        assert Counter(called) == Counter(answered)
        assert [block["type"] for block in after["content"]][: len(answered)] == ["tool_result"] * len(answered)


@pytest.mark.sdk
@given(conversations())
def test_the_sdk_s_own_types_take_any_conversation(messages):
    pydantic = pytest.importorskip("pydantic")
    types = pytest.importorskip("anthropic.types")
    adapter = pydantic.TypeAdapter(list[types.MessageParam], config={"arbitrary_types_allowed": True})
    adapter.validate_python(mapped(messages)["messages"])


@given(images)
def test_an_image_is_a_source(url):
    part = {"type": "image_url", "image_url": {"url": url}}
    (block,) = mapped([{"role": "user", "content": [part]}])["messages"][0]["content"]
    source = block["source"]
    if url.startswith("data:"):
        assert source == {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    else:
        assert source == {"type": "url", "url": url}


def test_the_plain_arguments():
    made = mapped(stop=("a", "b"), max_tokens=7, temperature=0.5, top_p=0.9)
    assert made == {
        "model": "claude-x",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "max_tokens": 7,
        "stop_sequences": ["a", "b"],
        # SDKs since 1.0 have no arguments for them, and the API has them up to this version.
        "extra_body": {"temperature": 0.5, "top_p": 0.9},
        "extra_headers": {"anthropic-version": "2023-06-01"},
    }
    assert mapped()["max_tokens"] == MAX_TOKENS
    assert "extra_headers" not in mapped() and "extra_body" not in mapped()


def test_an_sdk_that_has_the_sampling_arguments_gets_them():
    made = mapped(known=(*KNOWN, "temperature"), temperature=0.5)
    assert made["temperature"] == 0.5 and "extra_body" not in made
    assert made["extra_headers"] == {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "find"}}, {"type": "tool", "name": "find"}),
    ],
)
def test_tools_and_their_choice(choice, made):
    function = FIND["function"]
    own = {"type": "web_search_20250305", "name": "web_search"}
    strict = {"type": "function", "function": {"name": "now", "strict": True}}
    given = mapped(tools=[FIND, own, strict], tool_choice=choice)
    assert given["tool_choice"] == made
    assert given["tools"] == [
        {"name": "find", "description": function["description"], "input_schema": function["parameters"]},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}, "strict": True},
        own,
    ]


def test_json_is_asked_for_in_words_and_a_schema_by_the_apis_own_means():
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    described = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    made = mapped(response_format=described, extra={"output_config": {"effort": "low"}})
    assert made["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    assert "system" not in made
    made = mapped([{"role": "system", "content": "Be brief."}, *HELLO], response_format={"type": "json_object"})
    assert made["system"][0]["text"] == "Be brief." and "JSON" in made["system"][1]["text"]
    assert "output_config" not in mapped(response_format={"type": "text"})


def test_the_providers_own_wins_and_goes_through():
    extra = {"max_tokens": 3, "thinking": {"type": "adaptive"}, "top_k": 5, "extra_headers": {"x-a": "b"}, "mcp": []}
    made = mapped(max_tokens=9, extra=extra)
    assert (made["max_tokens"], made["thinking"]) == (3, {"type": "adaptive"})
    assert made["extra_body"] == {"top_k": 5, "mcp": []}
    assert made["extra_headers"] == {"anthropic-version": "2023-06-01", "x-a": "b"}
    headers = {"anthropic-version": "2026-10-21"}
    assert mapped(extra={"top_k": 5, "extra_headers": headers})["extra_headers"] == headers


def test_what_the_api_has_no_place_for_is_refused():
    with pytest.raises(ConfigError, match=r"seed: Anthropic has no place for it.*raw_params="):
        mapped(seed=1)
    with pytest.raises(ConfigError, match="at least one besides the system prompt"):
        mapped([{"role": "system", "content": "s"}])


@pytest.mark.parametrize("broken", ['{"q": "caf', "[1]", "nonsense"])
def test_arguments_that_a_model_broke_are_shown_to_it(broken):
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": broken}}
    made = mapped([*HELLO, {"role": "assistant", "tool_calls": [call]}])["messages"]
    shown = made[1]["content"][0]["input"]["arguments"]
    assert shown == broken or shown == json.loads(broken)


def test_blocks_of_anthropics_own_and_keys_of_its_own_stay():
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    marked = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    made = mapped([{"role": "system", "content": [marked]}, *HELLO, {"role": "assistant", "content": [thought]}])
    assert made["system"] == [marked] and made["messages"][1]["content"] == [thought]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": 5},
        {"role": "user", "content": ["text"]},
        {"role": "user", "content": [{"type": "text", "text": None}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,secret!"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:secret"}}]},
        {"role": "tool", "content": "secret"},
        {"role": "assistant", "tool_calls": [{"id": "secret"}]},
        {"role": "assistant", "tool_calls": ["secret"]},
    ],
)
def test_what_is_no_message_is_told_by_its_place_and_not_quoted(message):
    with pytest.raises(ConfigError, match=r"messages\[1\]") as error:
        mapped([*HELLO, message])
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("tools", [{"type": "function", "name": "flat"}]),
        ("tools", ["find"]),
        ("tool_choice", "any"),
        ("tool_choice", {"type": "function"}),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "n"}}),
    ],
)
def test_what_is_no_tool_choice_or_format_is_refused(field, given):
    with pytest.raises(ConfigError, match=field):
        mapped(**{field: given})


# Streams


def event(kind, index=0, **inner):
    return Made(type=kind, index=index, **inner)


def read(*events):
    reader = EventReader()
    return [delta for one in events for delta in reader.read(one)]


@given(
    st.lists(st.one_of(st.text(max_size=5), st.dictionaries(st.text(max_size=3), st.integers())), max_size=6), st.data()
)
def test_whatever_way_blocks_are_cut_they_are_put_together(said, data):
    events, texts, calls = [], [], []
    for index, block in enumerate(said):
        if isinstance(block, str):
            texts.append(block)
            cut = data.draw(st.integers(0, len(block)))
            events.append(event("content_block_start", index, content_block=Made(type="text", text="")))
            for piece in (block[:cut], block[cut:]):
                events.append(event("content_block_delta", index, delta=Made(type="text_delta", text=piece)))
        else:
            whole = json.dumps(block)
            at_once = data.draw(st.booleans())
            cut = data.draw(st.integers(0, len(whole)))
            calls.append((f"t{index}", "find", block))
            tool = Made(type="tool_use", id=f"t{index}", name="find", input=block if at_once else {})
            events.append(event("content_block_start", index, content_block=tool))
            for piece in ("", "") if at_once or not block else (whole[:cut], whole[cut:]):
                events.append(
                    event("content_block_delta", index, delta=Made(type="input_json_delta", partial_json=piece))
                )
        events.append(event("content_block_stop", index))
    deltas = read(*events)
    assert "".join(delta.text for delta in deltas) == "".join(texts)
    assert [(call, name, json.loads(values)) for call, name, values in joined(deltas)] == calls
    assert all(delta.text or delta.tool for delta in deltas)


def test_thinking_is_no_text_and_the_apis_own_tools_are_no_calls():
    server_tool = Made(type="server_tool_use", id="s", name="web_search", input={})
    deltas = read(
        event("content_block_start", 0, content_block=Made(type="thinking", thinking="")),
        event("content_block_delta", 0, delta=Made(type="thinking_delta", thinking="hm")),
        event("content_block_delta", 0, delta=Made(type="signature_delta", signature="s")),
        event("content_block_stop", 0),
        event("content_block_start", 1, content_block=server_tool),
        event("content_block_delta", 1, delta=Made(type="input_json_delta", partial_json="{}")),
        event("content_block_stop", 1),
        event("content_block_start", 2, content_block=Made(type="text", text="well")),
        Made(type="message_stop"),
        Made(type="something_new"),
    )
    assert [(delta.text, delta.reasoning, delta.tool) for delta in deltas] == [("", "hm", None), ("well", "", None)]


@pytest.mark.sdk
def test_the_sdk_has_the_arguments_that_are_made():
    anthropic = pytest.importorskip("anthropic")
    known = inspect.signature(anthropic.AsyncAnthropic(api_key="k").messages.create).parameters
    assert set(KNOWN) <= set(known)
