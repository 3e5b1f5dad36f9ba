import base64
import json
from itertools import pairwise
from types import SimpleNamespace as Made

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.client.ask import Ask
from tellmeter.client.providers.gemini_messages import AnswerReader, config_of, contents_of, model_name
from tellmeter.errors import ConfigError
from tests.support.conversations import calls_of, conversations, images, texts_of
from tests.support.provider_bench import FIND, HELLO, joined

SKIP = b"skip_thought_signature_validator"


def contents(messages, model="gemini-2.5-flash"):
    return contents_of(Ask(model=model, messages=messages))


def config(**given):
    return config_of(Ask(model="gemini-2.5-flash", messages=HELLO, **given), None)


def parts(turns, name):
    return [part[name] for turn in turns for part in turn["parts"] if name in part]


@given(conversations())
def test_any_conversation_is_one_of_turns_in_which_nothing_is_lost(messages):
    turns, system = contents(messages)
    roles = [turn["role"] for turn in turns]
    assert roles[0] == "user" and set(roles) <= {"user", "model"}
    assert all(before != after for before, after in pairwise(roles)) and all(turn["parts"] for turn in turns)
    told = texts_of(messages, "system", "developer")
    assert system == ({"parts": [{"text": text} for text in told]} if told else None)
    assert parts(turns, "text") == texts_of(messages, "user", "assistant")
    outputs = [one["response"]["output"] for one in parts(turns, "function_response")]
    assert outputs == ["\n".join(texts_of([message], "tool")) for message in messages if message["role"] == "tool"]
    assert [(call["name"], call["args"]) for call in parts(turns, "function_call")] == calls_of(messages)


@given(conversations())
def test_each_result_has_the_id_and_the_name_of_its_call(messages):
    turns, _ = contents(messages)
    for before, after in pairwise([*turns, {"parts": []}]):
        called = {call["id"]: call["name"] for call in parts([before], "function_call")}
        answered = {result["id"]: result["name"] for result in parts([after], "function_response")}
        assert answered == called


@given(conversations(), st.sampled_from(["gemini-2.5-pro", "gemini-3-pro-preview"]))
def test_the_sdks_own_types_take_any_conversation(messages, model):
    types = pytest.importorskip("google.genai.types")
    for turn in contents(messages, model)[0]:
        types.Content.model_validate(turn)


@given(images)
def test_an_image_is_its_bytes_or_where_they_are(url):
    (part,) = contents([{"role": "user", "content": [{"type": "image_url", "image_url": url}]}])[0][0]["parts"]
    if url.startswith("data:"):
        data = base64.b64decode(url.partition(",")[2])
        assert part == {"inline_data": {"mime_type": "image/png", "data": data}}
    elif url.endswith(".png"):
        assert part == {"file_data": {"file_uri": url, "mime_type": "image/png"}}
    else:
        assert part == {"file_data": {"file_uri": url}}


def test_data_urls_without_base64_are_read():
    url = "data:IMAGE/svg+xml;charset=utf-8,%3Csvg/%3E"
    (part,) = contents([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])[0][0]["parts"]
    assert part == {"inline_data": {"mime_type": "image/svg+xml", "data": b"<svg/>"}}


def calling(*calls):
    made = [
        {"id": call, "type": "function", "function": {"name": "find", "arguments": "{}"}, **more}
        for call, more in calls
    ]
    return [*HELLO, {"role": "assistant", "content": None, "tool_calls": made}]


@pytest.mark.parametrize(
    ("model", "signatures"),
    [
        ("gemini-2.5-flash", [None, None]),
        ("gemini-3-pro-preview", [SKIP, None]),
        ("models/gemini-3.5-flash", [SKIP, None]),
        ("gemini-10-ultra", [SKIP, None]),
        ("gemini-flash-latest", [SKIP, None]),
        ("gemini-2-flash", [None, None]),
        ("learnlm-2.0", [None, None]),
    ],
)
def test_calls_without_a_signature_are_let_through_where_one_is_demanded(model, signatures):
    turns, _ = contents(calling(("a", {}), ("b", {})), model)
    assert [part.get("thought_signature") for part in turns[1]["parts"]] == signatures


def test_a_signature_that_was_kept_goes_back():
    signature = base64.b64encode(b"sig").decode()
    kept = {"extra_content": {"google": {"thought_signature": signature}}}
    turns, _ = contents(calling(("a", kept), ("b", {})), "gemini-3-pro")
    assert [part.get("thought_signature") for part in turns[1]["parts"]] == [b"sig", None]
    with pytest.raises(ConfigError, match=r"messages\[1\].*base64") as error:
        contents(calling(("a", {"extra_content": {"google": {"thought_signature": "secret!"}}})))
    assert "secret" not in str(error.value)


def test_images_of_a_tool_stand_beside_its_result():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    answer = {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "seen"}, image]}
    result, beside = contents([*calling(("a", {})), answer])[0][2]["parts"]
    assert result["function_response"]["response"] == {"output": "seen"}
    assert beside["file_data"]["file_uri"] == "https://example.org/a.png"


def test_a_result_without_its_call_needs_a_name():
    answer = {"role": "tool", "tool_call_id": "a", "content": "x"}
    with pytest.raises(ConfigError, match=r"messages\[1\].*'name'"):
        contents([*HELLO, answer])
    turns, _ = contents([*HELLO, {**answer, "name": "find"}])
    assert parts(turns, "function_response")[0]["name"] == "find"


def test_parts_of_geminis_own_stay_and_others_are_refused():
    own = {"file_data": {"file_uri": "gs://b/a.mp4", "mime_type": "video/mp4"}}
    assert contents([{"role": "user", "content": [own]}])[0][0]["parts"] == [own]
    with pytest.raises(ConfigError, match=r"messages\[0\].*text, image_url"):
        contents([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])
    with pytest.raises(ConfigError, match="at least one besides the system prompt"):
        contents([{"role": "system", "content": "s"}])


def test_the_config():
    asked = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ("a",)}
    off = {"automatic_function_calling": {"disable": True}}
    assert config() == off
    assert config(**asked, extra={"top_k": 3, "temperature": 1}) == {
        "max_output_tokens": 7,
        "temperature": 1,
        "top_p": 0.9,
        "seed": 3,
        "stop_sequences": ["a"],
        "top_k": 3,
        **off,
    }
    assert config(response_format={"type": "json_object"}) == {"response_mime_type": "application/json", **off}
    schema = {"type": "object", "properties": {}}
    described = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    made = config(response_format=described)
    assert (made["response_mime_type"], made["response_json_schema"]) == ("application/json", schema)


@pytest.mark.parametrize(
    ("choice", "made"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "find"}}, {"mode": "ANY", "allowed_function_names": ["find"]}),
    ],
)
def test_tools_and_their_choice(choice, made):
    function = FIND["function"]
    own = {"google_search": {}}
    given = config(tools=[own, FIND, {"type": "function", "function": {"name": "now"}}], tool_choice=choice)
    assert given.get("tool_config") == (made and {"function_calling_config": made})
    find = {"name": "find", "parameters_json_schema": function["parameters"], "description": function["description"]}
    now = {"name": "now", "parameters_json_schema": {"type": "object", "properties": {}}}
    assert given["tools"] == [{"function_declarations": [find, now]}, own]


@pytest.mark.parametrize(("choice", "mode"), [(None, "VALIDATED"), ("auto", "VALIDATED"), ("required", "ANY")])
def test_strict_functions_have_their_calls_checked(choice, mode):
    strict = {"type": "function", "function": {"name": "now", "strict": True}}
    assert config(tools=[strict], tool_choice=choice)["tool_config"] == {"function_calling_config": {"mode": mode}}


# Answers


def part(text=None, thought=None, call=None):
    return Made(text=text, thought=thought, function_call=call)


def answer(*said, index=None):
    return Made(candidates=[Made(index=index, content=Made(parts=list(said)))])


@given(
    st.lists(
        st.one_of(st.text(max_size=5), st.tuples(st.none() | st.text("ab", min_size=1), st.text("f", min_size=1))),
        max_size=6,
    ),
    st.data(),
)
def test_whatever_way_parts_come_they_say_the_same(said, data):
    given_parts = [
        part(text=one) if isinstance(one, str) else part(call=Made(id=one[0], name=one[1], args={"a": 1}))
        for one in said
    ]
    reader, deltas, rest = AnswerReader(), [], given_parts
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        deltas += reader.read(answer(*rest[:cut]))
        rest = rest[cut:]
    assert "".join(delta.text for delta in deltas) == "".join(one for one in said if isinstance(one, str))
    wanted = [one for one in said if not isinstance(one, str)]
    assert [(call, name, json.loads(values)) for call, name, values in joined(deltas)] == [
        (call or f"call_{number}", name, {"a": 1}) for number, (call, name) in enumerate(wanted)
    ]


def test_thoughts_are_no_text_and_only_the_first_candidate_counts():
    reader = AnswerReader()
    said = [
        answer(part(text="hm", thought=True), part(text="well"), part()),
        answer(part(text="another"), index=1),
        Made(candidates=None),
        Made(candidates=[Made(index=0, content=None)]),
        Made(candidates=[Made(index=0, content=Made(parts=None))]),
        answer(part(call=Made(id=None, name="find", args=None))),
    ]
    deltas = [delta for one in said for delta in reader.read(one)]
    assert [(delta.text, delta.reasoning) for delta in deltas] == [("", "hm"), ("well", ""), ("", "")]
    assert joined(deltas) == [("call_0", "find", "{}")]


def test_models_have_the_names_one_asks_by():
    assert model_name("models/gemini-2.5-flash") == "gemini-2.5-flash"
    assert model_name("publishers/google/models/gemini-2.5-flash") == "gemini-2.5-flash"
    assert model_name("tunedModels/mine-1") == "tunedModels/mine-1"
