from __future__ import annotations

import base64
import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConfigError
from tellmeter.client.ask import Ask
from tellmeter.client.providers.base import Delta
from tellmeter.client.providers.bedrock_messages import EventReader, reply_of, request_of
from tellmeter.client.response import ToolCall

PNG = base64.b64encode(b"\x89PNG").decode()
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
USE = {"toolUse": {"toolUseId": "c1", "name": "look", "input": {"at": 1}}}
SPEC = {"toolSpec": {"name": "look", "description": "Looks.", "inputSchema": {"json": {"type": "object"}}}}
SHAPE = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def made(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The request, which boto3 takes."""
    request = request_of(Ask(model="m.one", messages=messages or [user("hi")], **more))
    report = ParamValidator().validate(request, SHAPE)
    assert not report.has_errors(), report.generate_report()
    return request


def contents(*messages: dict[str, Any], **more: Any) -> list[tuple[str, list[Any]]]:
    return [(one["role"], one["content"]) for one in made(*messages, **more)["messages"]]


# ---------------------------------------------------------------------- messages


def test_the_least() -> None:
    assert made() == {"modelId": "m.one", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}


def test_what_the_system_says_stands_apart() -> None:
    said = made({"role": "system", "content": "a"}, user("b"), {"role": "developer", "content": [{"text": "c"}]})
    assert said["system"] == [{"text": "a"}, {"text": "c"}]
    assert said["messages"] == [user([{"text": "b"}])]


def test_parts() -> None:
    parts = [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}"}},
        {"cachePoint": {"type": "default"}},
    ]
    cache = {"cachePoint": {"type": "default"}}
    image = {"image": {"format": "jpeg", "source": {"bytes": b"\x89PNG"}}}
    assert contents(user(parts)) == [("user", [{"text": "a"}, cache, image, cache])]


def test_a_refusal_was_said() -> None:
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert contents(user("a"), refusal)[1] == ("assistant", [{"text": "no"}])


def test_calls_and_their_results_take_turns() -> None:
    other = {**CALL, "id": "c/2", "function": {"name": "look", "arguments": ""}}
    found = contents(
        user("a"),
        {"role": "assistant", "content": None, "tool_calls": [CALL, other]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c/2", "content": [{"type": "text", "text": "two"}]},
        user("b"),
        tools=[TOOL],
    )
    results = [
        {"toolResult": {"toolUseId": "c1", "content": [{"text": "one"}]}},
        {"toolResult": {"toolUseId": "c_2f_2", "content": [{"text": "two"}]}},
    ]
    second = {"toolUse": {"toolUseId": "c_2f_2", "name": "look", "input": {}}}
    assert found == [
        ("user", [{"text": "a"}]),
        ("assistant", [USE, second]),
        ("user", [*results, {"text": "b"}]),
    ]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"role": "assistant", "content": "a"}], "the user to speak first"),
        ([user("")], "the user to speak first"),
        ([{"role": "system", "content": "a"}], "the user to speak first"),
        ([user([{"type": "image_url", "image_url": {"url": "https://x/secret.png"}}])], "takes no URLs of images"),
        ([user([{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA=="}}])], "not as image/tiff"),
        ([user([{"type": "input_audio"}])], "'input_audio'"),
        (
            [{"role": "system", "content": [{"type": "image_url", "image_url": f"data:image/png;base64,{PNG}"}]}],
            "no images from the system",
        ),
    ],
)
def test_what_converse_has_no_place_for(messages: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        request_of(Ask(model="m", messages=messages))
    assert "secret" not in str(caught.value)


TEXTS = st.text(alphabet="abc \n", min_size=1, max_size=5).map(lambda text: text + "!")
IDS = st.text(alphabet="ab/:é", min_size=1, max_size=6)


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What a conversation may look like, whoever led it."""
    messages = [user(draw(TEXTS))]
    for kind in draw(st.lists(st.sampled_from(["system", "user", "assistant", "calls", "parts", "empty"]), max_size=8)):
        if kind == "calls":
            ids = draw(st.lists(IDS, min_size=1, max_size=3))
            calls = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
            messages.append({"role": "assistant", "content": draw(st.none() | TEXTS), "tool_calls": calls})
            messages += ({"role": "tool", "tool_call_id": one, "content": draw(TEXTS)} for one in ids)
        elif kind == "parts":
            messages.append(user([{"type": "text", "text": draw(TEXTS)} for _ in range(draw(st.integers(0, 3)))]))
        elif kind == "empty":
            messages.append({"role": "assistant", "content": ""})
        else:
            messages.append({"role": kind, "content": draw(TEXTS)})
    return messages


def texts_in(value: Any) -> list[str]:
    """All texts, in their order, of both shapes."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict):
        inner = value.get("toolResult") or value
        return texts_in(inner.get("content", inner.get("text", [])))
    return [text for one in value or () for text in texts_in(one)]


@given(turns())
def test_roles_take_turns_and_no_text_is_lost(messages: list[dict[str, Any]]) -> None:
    request = made(*messages, tools=[TOOL])
    roles = [one["role"] for one in request["messages"]]
    assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
    assert all(one["content"] for one in request["messages"])
    assert texts_in(request["messages"]) == texts_in([one for one in messages if one["role"] != "system"])
    assert texts_in(request.get("system")) == texts_in([one for one in messages if one["role"] == "system"])
    calls = sum(len(one.get("tool_calls", ())) for one in messages)
    blocks = [block for one in request["messages"] for block in one["content"]]
    assert sum("toolUse" in block for block in blocks) == sum("toolResult" in block for block in blocks) == calls


# ---------------------------------------------------------------------- everything else


def test_limits_and_stops() -> None:
    found = made(max_tokens=5, temperature=0.0, top_p=0.5, stop=("a", "b"))
    assert found["inferenceConfig"] == {"maxTokens": 5, "temperature": 0.0, "topP": 0.5, "stopSequences": ["a", "b"]}


def test_a_seed_has_no_place() -> None:
    with pytest.raises(ConfigError, match=r"seed.*raw_params"):
        request_of(Ask(model="m", messages=[user("a")], seed=1))


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, None),
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "look"}}, {"tool": {"name": "look"}}),
    ],
)
def test_tools(choice: Any, wanted: Any) -> None:
    config = made(tools=[TOOL, {"cachePoint": {"type": "default"}}], tool_choice=choice)["toolConfig"]
    assert config["tools"] == [SPEC, {"cachePoint": {"type": "default"}}] and config.get("toolChoice") == wanted


def test_a_tool_without_parameters() -> None:
    bare = {"type": "function", "function": {"name": "look", "strict": True}}
    (tool,) = made(tools=[bare])["toolConfig"]["tools"]
    schema = {"json": {"type": "object", "properties": {}}}
    assert tool == {"toolSpec": {"name": "look", "inputSchema": schema, "strict": True}}


def test_no_tools_are_wanted() -> None:
    assert "toolConfig" not in made(tools=[TOOL], tool_choice="none")


@pytest.mark.parametrize("more", [{}, {"tools": [TOOL], "tool_choice": "none"}])
def test_converse_wants_the_tools_of_the_calls_before(more: dict[str, Any]) -> None:
    said = [user("a"), {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    with pytest.raises(ConfigError, match="tools: Converse wants them"):
        request_of(Ask(model="m", messages=said, **more))
    assert made(*said, **more, extra={"toolConfig": {"tools": [SPEC]}})["toolConfig"] == {"tools": [SPEC]}


def test_json_by_a_schema_is_converses_own() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    form = made(response_format=given)["outputConfig"]["textFormat"]
    assert form["type"] == "json_schema"
    stated = form["structure"]["jsonSchema"]
    assert stated["name"] == "n" and json.loads(stated["schema"]) == schema


def test_json_without_a_schema_is_asked_for() -> None:
    found = made(user("a"), response_format={"type": "json_object"})
    assert "outputConfig" not in found and "JSON" in found["system"][0]["text"]
    assert made(response_format={"type": "text"}) == made()


def test_extra_goes_over_it() -> None:
    extra = {
        "inferenceConfig": {"temperature": 0.5},
        "additionalModelRequestFields": {"top_k": 3},
        "system": [{"text": "b"}],
    }
    found = made({"role": "system", "content": "a"}, user("c"), max_tokens=7, temperature=0.1, extra=extra)
    assert found["inferenceConfig"] == {"maxTokens": 7, "temperature": 0.5}
    assert found["additionalModelRequestFields"] == {"top_k": 3} and found["system"] == [{"text": "b"}]


def test_what_is_given_stays_as_it_is() -> None:
    messages = [user([{"type": "text", "text": "a"}]), {"role": "assistant", "content": "b", "tool_calls": [CALL]}]
    before = json.dumps([messages, TOOL])
    made(*messages, user("c"), user("d"), tools=[TOOL], extra={"inferenceConfig": {"topP": 0.1}})
    assert json.dumps([messages, TOOL]) == before


# ---------------------------------------------------------------------- answers


def answer(*content: Any) -> dict[str, Any]:
    return {"output": {"message": {"role": "assistant", "content": list(content)}}}


def test_an_answer() -> None:
    theirs = {"toolUse": {"toolUseId": "t", "name": "search", "input": {}, "type": "server_tool_use"}}
    reasoning = {"reasoningContent": {"reasoningText": {"text": "hm"}}}
    cited = {"citationsContent": {"content": [{"text": "c"}], "citations": []}}
    given = answer(reasoning, {"text": "a"}, theirs, cited, USE)
    reply = reply_of(given)
    assert (reply.text, reply.raw) == ("ac", given)
    assert reply.tool_calls == (ToolCall("c1", "look", '{"at": 1}'),)


@pytest.mark.parametrize("given", [{}, {"output": {}}, {"output": {"message": {}}}, answer()])
def test_an_answer_without_words(given: Any) -> None:
    reply = reply_of(given)
    assert (reply.text, reply.tool_calls) == ("", ())


def start(index: int, **use: Any) -> dict[str, Any]:
    return {"contentBlockStart": {"contentBlockIndex": index, "start": {"toolUse": use} if use else {}}}


def delta(index: int, **what: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": what}}


def stop(index: int) -> dict[str, Any]:
    return {"contentBlockStop": {"contentBlockIndex": index}}


def test_a_stream() -> None:
    events = [
        {"messageStart": {"role": "assistant"}},
        delta(0, reasoningContent={"text": "hm"}),
        delta(0, reasoningContent={"signature": "x"}),
        stop(0),
        delta(1, text="a"),
        delta(1, text=""),
        stop(1),
        start(2, toolUseId="t", name="search", type="server_tool_use"),
        delta(2, toolUse={"input": "{}"}),
        stop(2),
        start(3, toolUseId="c1", name="look", type="tool_use"),
        delta(3, toolUse={"input": '{"at"'}),
        delta(3, toolUse={"input": ": 1}"}),
        stop(3),
        start(4, toolUseId="c2", name="go"),
        stop(4),
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": {}}},
    ]
    reader = EventReader()
    assert [found for event in events if (found := reader.read(event)) is not None] == [
        Delta(reasoning="hm"),
        Delta(text="a"),
        Delta(tool_index=0, tool=ToolCall("c1", "look", "")),
        Delta(tool_index=0, tool=ToolCall("", "", '{"at"')),
        Delta(tool_index=0, tool=ToolCall("", "", ": 1}")),
        Delta(tool_index=1, tool=ToolCall("c2", "go", "")),
        Delta(tool_index=1, tool=ToolCall("", "", "{}")),
    ]
