import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats import generic
from tests.support.event_stream import encode, event
from tests.support.readers import read_cut, said

EVENTS = [
    {"id": "a", "model": "m", "text": "Hé"},
    {"text": '"x"\n'},
    {"finish_reason": "stop", "usage": {"input_tokens": 3}},
]


def framed(kind, events=EVENTS):
    written = [json.dumps(one, ensure_ascii=False).encode() for one in events]
    return {
        "events": b"".join(b"data: " + one + b"\r\n\r\n" for one in written) + b"data: [DONE]\n\n",
        "lines": b"".join(b'"' + str(at).encode() + b'"\n' for at in range(3)),
        "objects": b"[" + b",\r\n".join(written) + b"]",
        "json lines": b"\n".join(written),
        "amazon": b"".join(event("chunk", one) for one in events),
    }[kind]


@pytest.mark.parametrize("kind", ["events", "objects", "json lines", "amazon"])
def test_every_framing_says_the_same(kind):
    reader = read_cut(generic.FORMAT, framed(kind), [1 << 20])
    assert (reader.events, reader.content_events, reader.text_size) == (3, 2, len("Hé".encode()) + len('\\"x\\"\\n'))
    assert reader.done == (kind == "events")
    answer = reader.answer
    assert (answer.response_model, answer.response_id, answer.finish_reason) == ("m", "a", "stop")
    assert answer.usage == Usage(input_tokens=3)
    assert not answer.failed


@given(
    st.sampled_from(["events", "lines", "objects", "json lines", "amazon"]), st.lists(st.integers(1, 60), min_size=1)
)
def test_what_is_said_does_not_depend_on_the_cuts(kind, sizes):
    body = framed(kind)
    assert said(read_cut(generic.FORMAT, body, sizes)) == said(read_cut(generic.FORMAT, body, [len(body)]))


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1))
def test_no_bytes_raise(body, sizes):
    read_cut(generic.FORMAT, body, sizes)
    generic.FORMAT.read_answer(body, 500)
    generic.FORMAT.read_request(body)


@pytest.mark.parametrize(
    ("head", "framing"),
    [
        (b"data: x", "events"),
        (b"\xef\xbb\xbf\r\n\r\nevent: x", "events"),
        (b": comment", "events"),
        (b'  {"a"', "objects"),
        (b"[", "objects"),
        (b"\x00\x00\x01", "amazon"),
        (b"hello", "lines"),
        (b"dates", "lines"),
        (b"", None),
        (b" \n", None),
        (b"\xef\xbb", None),
        (b"da", None),
        (b"data", None),
    ],
)
def test_the_first_bytes_tell_the_framing(head, framing):
    assert generic.framing_of(head) == framing


@pytest.mark.parametrize(
    ("stated", "usage"),
    [
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input_tokens=9, output_tokens=5, cached_tokens=2, reasoning_tokens=3),
        ),
        (
            {"input_tokens": 9, "output_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1},
            Usage(input_tokens=12, output_tokens=5, cached_tokens=2, cache_write_tokens=1),
        ),
        (
            {"inputTokens": 9, "outputTokens": 5, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 1},
            Usage(input_tokens=12, output_tokens=5, cached_tokens=2, cache_write_tokens=1),
        ),
        ({"billed_units": {"input_tokens": 4, "output_tokens": 1}}, Usage(input_tokens=4, output_tokens=1)),
        ({"prompt_tokens": 9.0, "completion_tokens": None}, Usage(input_tokens=9)),
    ],
)
def test_usage_in_the_shapes_that_are_known(stated, usage):
    reader = read_cut(generic.FORMAT, framed("events", [{"text": "a", "usage": stated}]), [1 << 20])
    assert reader.answer.usage == usage


def test_usage_of_gemini_and_ollama():
    counts = {
        "promptTokenCount": 9,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 7,
        "toolUsePromptTokenCount": 1,
        "cachedContentTokenCount": 4,
    }
    reader = read_cut(generic.FORMAT, framed("objects", [{"candidates": [], "usageMetadata": counts}]), [1 << 20])
    assert reader.answer.usage == Usage(input_tokens=10, output_tokens=12, cached_tokens=4, reasoning_tokens=7)
    reader = read_cut(generic.FORMAT, b'{"response":"a","done":true,"prompt_eval_count":3,"eval_count":4}\n', [7])
    assert reader.answer.usage == Usage(input_tokens=3, output_tokens=4)


def test_usage_that_comes_in_parts_is_put_together():
    events = [
        {
            "type": "message_start",
            "message": {"model": "m", "id": "i", "usage": {"input_tokens": 3, "output_tokens": 1}},
        },
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    ]
    answer = read_cut(generic.FORMAT, framed("events", events), [1 << 20]).answer
    assert answer.usage == Usage(input_tokens=3, output_tokens=9)
    assert (answer.response_model, answer.response_id, answer.finish_reason) == ("m", "i", "end_turn")


def test_events_of_which_nothing_is_known_are_content():
    reader = read_cut(generic.FORMAT, framed("events", [{"foo": 1}, {"foo": 2}, {"type": "ping"}]), [1 << 20])
    assert (reader.events, reader.content_events) == (2, 2)
    # A shape that is known and says nothing is none.
    reader = read_cut(generic.FORMAT, framed("events", [{"choices": [{"delta": {"role": "assistant"}}]}]), [1 << 20])
    assert (reader.events, reader.content_events) == (1, 0)


def test_tools_are_named_once():
    pieces = [
        {"index": 0, "id": "t", "function": {"name": "find"}},
        {"index": 0, "id": "t", "function": {"name": "find"}},
    ]
    events = [{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in pieces]
    reader = read_cut(generic.FORMAT, framed("events", events), [1 << 20])
    assert reader.answer.tools == ["find"]
    assert reader.content_events == 2


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"error":{"type":"overloaded","message":"secret prompt"}}\n\n',
        b'event: error\ndata: {"type":"overloaded"}\n\n',
        b'{"error":{"type":"overloaded"}}\n',
        encode({":message-type": "exception", ":exception-type": "overloaded"}, b"{}"),
    ],
)
def test_an_error_inside_a_stream(body):
    answer = read_cut(generic.FORMAT, body, [1 << 20]).answer
    assert (answer.failed, answer.error_type) == (True, "overloaded")


def test_what_breaks_off_is_no_event():
    reader = read_cut(generic.FORMAT, b'data: {"text":"a"}\n\ndata: {"text":"b', [1 << 20])
    assert (reader.events, reader.content_events) == (1, 1)


def test_any_request_is_a_call():
    assert generic.FORMAT.read_request(b'{"model":"m","stream":true}') == generic.Asked(model="m", stream=True)
    assert generic.FORMAT.read_request(b'{"prompt":"x"}') == generic.Asked(model="", stream=False)
    assert generic.FORMAT.read_request(b"no JSON") == generic.Asked(model="", stream=False)


def test_a_whole_answer_is_a_stream_of_one_event():
    answer = generic.FORMAT.read_answer(b'{"model":"m","content":"a","usage":{"input_tokens":1}}', 200)
    assert (answer.response_model, answer.usage, answer.failed) == ("m", Usage(input_tokens=1), False)
    answer = generic.FORMAT.read_answer(b'{"detail":"no such model"}', 404)
    assert answer.failed
