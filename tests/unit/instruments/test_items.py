from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConfigError
from tellmeter.instruments.items import ItemMeter, text_finder, utf8_length
from tests.unit.instruments.test_usage import space

MS = 1_000_000
# Of every provider, as its SDK and its JSON have it: an event, and the text in it.
EVENTS: list[tuple[Any, str]] = [
    ({"choices": [{"delta": {"content": "héllo"}}]}, "héllo"),
    ({"choices": [{"delta": {"content": [{"type": "text", "text": "part"}]}}]}, "part"),
    ({"choices": [{"delta": {"reasoning_content": "hm", "content": None}}]}, "hm"),
    ({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a'}}]}}]}, '{"a'),
    ({"choices": [{"text": "old"}]}, "old"),
    ({"type": "response.output_text.delta", "delta": "text"}, "text"),
    ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "text"}}, "text"),
    ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}, "hm"),
    ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}, "{}"),
    ({"candidates": [{"content": {"parts": [{"text": "a"}, {"text": "b"}]}}], "text": "ab"}, "ab"),
    ({"contentBlockDelta": {"delta": {"text": "text"}}}, "text"),
    ({"contentBlockDelta": {"delta": {"toolUse": {"input": "{}"}}}}, "{}"),
    ({"type": "content-delta", "delta": {"message": {"content": {"text": "text"}}}}, "text"),
    ({"message": {"role": "assistant", "content": "text"}}, "text"),
    ({"response": "text", "done": False}, "text"),
    ({"content": "text", "tool_call_chunks": []}, "text"),
    ({"content": [{"text": "a"}, "b"]}, "ab"),
    ({"token": {"id": 1, "text": "text"}}, "text"),
    ({"text": "text"}, "text"),
    ({"value": "text"}, "text"),
    ({"choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}]}}]}, "hm"),
    ("tëxt", "tëxt"),
    (b"text", "text"),
    (bytearray(b"text"), "text"),
    (memoryview(b"text"), "text"),
]
SILENT: list[Any] = [
    "",
    b"",
    None,
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [], "usage": {"prompt_tokens": 1}},
    {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 1}}},
    {"type": "response.completed", "response": {"output": [{"content": [{"text": "all of it again"}]}]}},
    {"type": "text", "text": "lo", "snapshot": "hello"},
    {"type": "ping"},
    {"type": "message-start", "delta": {"message": {"role": "assistant"}}},
    {"type": "chunk", "snapshot": {"choices": [{"message": {"content": "hello"}}]}},
]


def read(items: list[Any], **said: Any) -> ItemMeter:
    meter = ItemMeter(0, 1000.0, **said)
    now = 0
    for item in items:
        chunk = item if type(item) in meter.plain else meter.look_at(item)
        meter.take(chunk, now, now + 10 * MS)
        now += 10 * MS
    meter.finish(now)
    return meter


def size(text: str) -> int:
    return len(text.encode())


@pytest.mark.parametrize("way", [lambda item: item, space])
@pytest.mark.parametrize(("item", "text"), EVENTS)
def test_the_text_of_an_event_is_its_size_and_its_content(item: Any, text: str, way: Any) -> None:
    meter = read([way(item)])
    assert (meter.bytes, meter.items.text_size) == (size(text), size(text))
    assert (meter.items.events, meter.items.content_events) == (1, 1)
    assert meter.first_token == 10 * MS


@pytest.mark.parametrize("way", [lambda item: item, space])
@pytest.mark.parametrize("item", SILENT)
def test_what_brings_nothing_is_an_event_all_the_same(item: Any, way: Any) -> None:
    meter = read([way(item)])
    assert (meter.bytes, meter.items.events, meter.items.content_events) == (0, 1, 0)
    assert meter.first_token == 0 and meter.estimated_tokens == 0


def test_an_object_that_nobody_knows_is_content_of_no_size() -> None:
    meter = read([object(), SimpleNamespace(a=1)])
    assert (meter.bytes, meter.items.content_events, meter.estimated_tokens) == (0, 2, 2)


@pytest.mark.parametrize(
    ("item", "tools"),
    [
        ({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}]}}]}, "fg"),
        ({"choices": [{"delta": {"tool_calls": [{"type": "function", "function": {"name": "f"}}]}}]}, "f"),
        ({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}}, "f"),
        ({"type": "content_block_start", "content_block": {"type": "text", "name": "f"}}, ""),
        ({"type": "content_block_start", "content_block": {"type": "server_tool_use", "name": "f"}}, ""),
        ({"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}}, "f"),
        ({"type": "response.output_item.added", "item": {"type": "message", "name": "f"}}, ""),
        ({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]}, "f"),
        ({"contentBlockStart": {"start": {"toolUse": {"name": "f"}}}}, "f"),
        ({"delta": {"message": {"tool_calls": {"function": {"name": "f"}}}}, "type": "tool-call-start"}, "f"),
        ({"message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}}, "f"),
        ({"content": "", "tool_call_chunks": [{"name": "f", "args": "", "type": "tool_call_chunk"}]}, "f"),
    ],
)
def test_tools_are_named_once(item: Any, tools: str) -> None:
    assert read([item, space(item)]).items.answer.tools == list(tools)


def test_names_of_tools_are_bounded() -> None:
    items = [{"contentBlockStart": {"start": {"toolUse": {"name": f"f{number}"}}}} for number in range(1000)]
    assert len(read(items).items.answer.tools) == 64


@pytest.mark.parametrize("text", ["parts.1.said", lambda item: item["parts"][1]["said"]])
def test_the_user_says_where_the_text_is(text: Any) -> None:
    items = [{"parts": [{"said": "no"}, {"said": "yés"}]}, {"parts": [{"said": "no"}, {"said": ""}]}, {"parts": []}]
    meter = read(items, text=text_finder(text))
    assert (meter.bytes, meter.items.text_size) == (4, 4)
    assert (meter.items.events, meter.items.content_events) == (3, 1)


def test_texts_have_their_own_size_beside_that_of_what_they_say() -> None:
    meter = read(
        ['{"say": "a"}', b'{"say": ""}'], text=text_finder(lambda item: item[9:10] if type(item) is str else b"")
    )
    assert (meter.bytes, meter.items.text_size, meter.items.content_events) == (23, 1, 1)


def test_what_fails_to_find_a_text_finds_none() -> None:
    def fail(item: Any) -> Any:
        raise LookupError

    meter = read(["a", {"text": "a"}], text=text_finder(fail))
    assert (meter.items.events, meter.items.content_events) == (2, 0)
    assert read([{"text": "a"}], text=text_finder(lambda item: 7)).items.content_events == 0


@pytest.mark.parametrize("wrong", [1, "", "a..b", ".a", ["a"]])
def test_what_is_no_path_is_told(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"choices\.0\.delta\.content"):
        text_finder(wrong)


@given(st.lists(st.text() | st.binary() | st.builds(lambda text: {"text": text}, st.text()), max_size=100))
def test_many_at_once_are_as_many_one_by_one(items: list[Any]) -> None:
    meter = read(items)
    texts = [item["text"] if isinstance(item, dict) else item for item in items]
    sizes = [utf8_length(text) if isinstance(text, str) else len(text) for text in texts]
    assert meter.items.events == len(items)
    assert meter.items.content_events == sum(
        size > 0 or isinstance(item, dict) for size, item in zip(sizes, items, strict=True)
    )
    assert meter.bytes == meter.items.text_size == sum(sizes)


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_the_length_of_a_text_is_that_of_its_utf8(text: str) -> None:
    assert utf8_length(text) == len(text.encode("utf-8", "surrogatepass"))
