import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats.ollama import CHAT, EMBED, EMBEDDINGS, GENERATE
from tests.support.readers import read_cut, said

TURN = {"role": "user", "content": "a"}
DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4}


def asked(form, **body):
    return form.read_request(json.dumps(body).encode())


def answer(body, status=200, form=CHAT):
    return form.read_answer(json.dumps(body).encode(), status)


def lines(*bodies):
    return b"".join(json.dumps({"model": "m", "done": False, **body}).encode() + b"\n" for body in bodies)


def message(**fields):
    return {"message": {"role": "assistant", **fields}}


def call(name, **arguments):
    return {"function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(("form", "body"), [(CHAT, {"messages": [TURN]}), (GENERATE, {"prompt": "a"})])
def test_what_is_generated_is_streamed_where_nothing_else_is_said(form, body):
    assert (asked(form, model="m", **body).model, asked(form, model="m", **body).stream) == ("m", True)
    assert asked(form, model="m", stream=None, **body).stream
    assert not asked(form, model="m", stream=False, **body).stream


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (CHAT, {"model": "m"}),  # only loads the model
        (CHAT, {"model": "m", "messages": []}),
        (CHAT, {"model": "m", "messages": ["a"]}),
        (CHAT, {"model": "m", "messages": "a"}),
        (CHAT, {"model": "m", "prompt": "a"}),
        (CHAT, {"messages": [TURN]}),
        (CHAT, {"model": 1, "messages": [TURN]}),
        (GENERATE, {"model": "m", "keep_alive": 0}),
        (GENERATE, {"model": "m", "prompt": ""}),
        (GENERATE, {"model": "m", "prompt": {"id": 1}}),
        (GENERATE, {"prompt": "a"}),
        (EMBED, {"model": "m", "prompt": "a"}),
        (EMBED, {"model": "m", "input": []}),
        (EMBEDDINGS, {"model": "m", "input": "a"}),
    ],
)
def test_what_is_no_call(form, body):
    assert asked(form, **body) is None
    assert form.read_request(b"") is form.read_request(b"[]") is form.read_request(b"{") is None


def test_embeddings_are_asked_for_in_two_ways_and_never_streamed():
    found = [asked(EMBED, model="m", input=["a", "b"]), asked(EMBED, model="m", input="a")]
    found.append(asked(EMBEDDINGS, model="m", prompt="a"))
    assert [(one.model, one.stream) for one in found] == [("m", False)] * 3
    assert EMBED.operation == EMBEDDINGS.operation == "embeddings"


def test_an_answer():
    found = answer({"model": "m", **message(content="", tool_calls=[call("f", a=1), call("g")]), **DONE})
    assert (found.response_model, found.finish_reason, found.tools) == ("m", "stop", ["f", "g"])
    assert found.usage == Usage(input_tokens=3, output_tokens=4)
    assert not found.failed


def test_a_prompt_from_the_cache_may_be_left_out_of_the_counts():
    assert answer({"eval_count": 4}).usage == Usage(output_tokens=4)
    assert answer({"embeddings": [[1.0]], "prompt_eval_count": 8}).usage == Usage(input_tokens=8)
    assert answer({"embedding": [1.0]}).usage is None


def test_errors():
    found = answer({"error": "model 'x' not found"}, 404)
    assert (found.failed, found.error_type, found.error_code, found.usage) == (True, None, None, None)
    assert answer({"error": "no"}).failed
    assert CHAT.read_answer(b"upstream error", 502).failed


def test_a_stream_of_chat():
    body = lines(
        message(content="", thinking="hm\n"),
        message(content="h\u00e9"),
        message(content=""),
        message(content="", tool_calls=[call("f", a="b")]),
        {**message(content=""), **DONE},
    )
    reader = read_cut(CHAT, body, [50])
    # 4 bytes of thinking, 7 of text (the escape), 10 of arguments
    assert said(reader)[:4] == (5, 3, 4 + 7 + 10, True)
    assert (reader.answer.tools, reader.answer.usage) == (["f"], Usage(input_tokens=3, output_tokens=4))
    assert said(read_cut(CHAT, body.rstrip(b"\n"), [1])) == said(reader)


def test_a_stream_of_generate():
    reader = read_cut(
        GENERATE, lines({"response": "a"}, {"thinking": "b", "response": ""}, {"response": "", **DONE}), [9]
    )
    assert said(reader)[:4] == (3, 2, 2, True)


def test_an_error_in_a_stream():
    reader = read_cut(CHAT, lines(message(content="a")) + b'{"error":"an error was encountered"}\n', [7])
    assert (said(reader)[:4], reader.answer.failed) == ((2, 1, 1, False), True)


def test_a_stream_that_was_read_at_once():
    body = lines(message(content="a"), DONE)
    assert CHAT.begins_stream(body) and CHAT.begins_stream(lines(message(content="a")))
    assert CHAT.read_answer(body, 200) == read_cut(CHAT, body, [5]).answer
    whole = json.dumps({"model": "m", "done": True, **message(content="a")})
    for other in (whole, whole + "\n", json.dumps(json.loads(whole), indent=2), '{"error":"no"}\n', ""):
        assert not CHAT.begins_stream(other.encode())


LINES = st.lists(
    st.one_of(
        st.text(max_size=5).map(lambda text: lines(message(content=text))),
        st.text(max_size=5).map(lambda text: lines({"response": text})),
        st.sampled_from(
            [
                lines(message(thinking="a", content="")),
                lines(message(content=None, tool_calls=[call("f", a=1)])),
                lines(message(tool_calls=[{}, None, 1])),
                lines({"message": "a"}, {"message": None}),
                lines(DONE),
                b'{"error":{"code":500}}\n',
                b"[]\nnull\n{\n\n",
            ]
        ),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(LINES, st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_cuts_change_nothing(body, sizes):
    assert said(read_cut(CHAT, body, sizes)) == said(read_cut(CHAT, body, [len(body) or 1]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([CHAT, GENERATE, EMBED, EMBEDDINGS]), st.binary(max_size=60) | LINES, st.integers(100, 599))
def test_nothing_raises(form, body, status):
    form.read_request(body)
    form.read_answer(body, status)
    form.begins_stream(body)
