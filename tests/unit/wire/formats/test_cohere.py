import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats.cohere import FORMAT, Reader
from tests.support.readers import read_cut, said

USAGE = {"billed_units": {"input_tokens": 3, "output_tokens": 4}, "tokens": {"input_tokens": 50, "output_tokens": 6}}


class Parsing(Reader):
    """The same reader without templates."""

    __slots__ = ()

    def template(self, event):
        return None


def event(kind, message=None, **delta):
    if message is not None:
        delta["message"] = message
    return {"type": kind, "index": 0, "delta": delta}


def text(piece, key="text"):
    return event("content-delta", {"content": {key: piece}})


def stream(*events, spaced=False):
    separators = None if spaced else (",", ":")
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (one.get("type", "").encode(), json.dumps(one, separators=separators).encode())
        for one in events
    )


def lines(*events):
    return b"".join(json.dumps(one).encode() + b"\n" for one in events)


START = {
    "id": "c1",
    "type": "message-start",
    "delta": {"message": {"role": "assistant", "content": [], "tool_calls": []}},
}
END = event("message-end", finish_reason="COMPLETE", usage=USAGE)
ANSWER = [
    START,
    event("tool-plan-delta", {"tool_plan": "I will"}),
    event("tool-call-start", {"tool_calls": {"id": "t", "function": {"name": "f", "arguments": ""}}}),
    event("tool-call-delta", {"tool_calls": {"function": {"arguments": '{"a"'}}}),
    {"type": "tool-call-end", "index": 0},
    event("content-start", {"content": {"type": "thinking", "thinking": ""}}),
    text("hm", "thinking"),
    text("a"),
    text(""),
    text("b"),
    event("citation-start", {"citations": {"start": 0, "end": 1, "text": "a"}}),
    {"type": "content-end", "index": 0},
    END,
]


def test_requests():
    asked = FORMAT.read_request(b'{"model":"command-a","messages":[{"role":"user","content":"a"}],"stream":true}')
    assert (asked.model, asked.stream) == ("command-a", True)
    for body in (b'{"model":"a","messages":[]}', b'{"messages":[1]}', b'{"model":"a","message":"b"}', b"", b"[]"):
        assert FORMAT.read_request(body) is None


def test_an_answer():
    body = {
        "id": "c1",
        "message": {
            "tool_plan": "a",
            "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g"}}],
            "content": [{"type": "text", "text": "a"}],
        },
        "finish_reason": "TOOL_CALL",
        "usage": USAGE,
    }
    found = FORMAT.read_answer(json.dumps(body).encode(), 200)
    assert (found.response_id, found.finish_reason, found.tools) == ("c1", "TOOL_CALL", ["f", "g"])
    assert found.usage == Usage(input_tokens=3, output_tokens=4)
    assert not found.failed


def test_an_error():
    found = FORMAT.read_answer(b'{"id":"e","message":"invalid api token"}', 401)
    assert (found.failed, found.error_type, found.error_code) == (True, None, None)


@pytest.mark.parametrize("body", [stream(*ANSWER), stream(*ANSWER, spaced=True), lines(*ANSWER)])
@pytest.mark.parametrize("size", [1, 13, 10**6])
def test_a_stream_of_events_or_of_lines(body, size):
    reader = read_cut(FORMAT, body, [size])
    # 6 of the plan, 6 of arguments with their escapes, 2 of thinking, 2 of text
    assert said(reader)[:4] == (len(ANSWER), 5, 16, True)
    found = reader.answer
    assert (found.response_id, found.finish_reason, found.tools) == ("c1", "COMPLETE", ["f"])
    assert found.usage == Usage(input_tokens=3, output_tokens=4)
    assert FORMAT.read_answer(body, 200) == found


def test_the_last_line_of_server_sent_events_is_no_event():
    assert said(read_cut(FORMAT, stream(START, END) + b"data: [DONE]\n\n", [9]))[:4] == (2, 0, 0, True)


@pytest.mark.parametrize(
    "last",
    [
        event("message-end", finish_reason="ERROR"),
        event("message-end", error="an error occurred"),
        {"id": "e", "message": "internal server error"},
    ],
)
def test_errors_in_a_stream(last):
    reader = read_cut(FORMAT, stream(START, text("a"), last), [20])
    assert reader.answer.failed and reader.answer.error_type is None


def test_bodies_that_begin_a_stream():
    for body in (stream(START), lines(START), lines(START, END)):
        assert FORMAT.begins_stream(body)
    for body in (b'{"id":"c","message":{}}\n', b'{"id":"c","message":{}}', b'{\n  "id": "c"\n}', b""):
        assert not FORMAT.begins_stream(body)


PIECES = st.lists(
    st.one_of(
        st.text(max_size=6).map(text),
        st.sampled_from(["a", "b", '"', "\\", "\\\\", "\n"]).map(text),
        st.text(max_size=4).map(lambda plan: event("tool-plan-delta", {"tool_plan": plan})),
        st.sampled_from([*ANSWER, {"type": "debug"}, {"type": "content-delta", "delta": 1}, {}]),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(PIECES, st.sampled_from([stream, lines]), st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_neither_cuts_nor_templates_change_anything(events, framed, sizes):
    slowly = Parsing()
    slowly.feed(stream(*events))
    slowly.finish()
    assert said(read_cut(FORMAT, framed(*events), sizes)) == said(slowly)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | PIECES.map(lambda events: lines(*events)), st.integers(100, 599))
def test_nothing_raises(body, status):
    FORMAT.read_request(body)
    FORMAT.read_answer(body, status)
    FORMAT.begins_stream(body)
