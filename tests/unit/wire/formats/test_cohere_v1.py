import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.usage import Usage
from tellmeter.wire.formats.cohere_v1 import FORMAT, Reader
from tests.support.readers import read_cut, said

META = {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 3, "output_tokens": 4}}
CALLS = [{"name": "f", "parameters": {"a": 1}}, {"name": "f", "parameters": {}}]


class Parsing(Reader):
    """The same reader without templates."""

    __slots__ = ()

    def template(self, event):
        return None


def event(kind, **fields):
    return {"is_finished": kind == "stream-end", "event_type": kind, **fields}


def text(piece):
    return event("text-generation", text=piece)


def end(reason="COMPLETE", **fields):
    response = {"response_id": "r", "generation_id": "g", "text": "all of it", "meta": META, **fields}
    return event("stream-end", finish_reason=reason, response=response)


def lines(*events):
    return b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in events)


def stream(*events):
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events)


START = event("stream-start", generation_id="g")
PLAN = event("tool-calls-chunk", text="I will")
PIECE = event("tool-calls-chunk", tool_call_delta={"index": 0, "parameters": '{"a"'})
NAME = event("tool-calls-chunk", tool_call_delta={"index": 0, "name": "f"})
WHOLE = event("tool-calls-generation", tool_calls=CALLS, text="I will")


def test_requests():
    asked = FORMAT.read_request(b'{"model":"command","message":"hi","stream":true}')
    assert (asked.model, asked.stream) == ("command", True)
    assert FORMAT.read_request(b'{"model":"command","message":"","tool_results":[]}') is not None
    for body in (b'{"message":"a"}', b'{"model":"a","messages":[]}', b'{"model":"a","message":{}}', b"", b"[]"):
        assert FORMAT.read_request(body) is None


def test_an_answer():
    body = {"response_id": "r", "generation_id": "g", "finish_reason": "COMPLETE", "tool_calls": CALLS, "meta": META}
    found = FORMAT.read_answer(json.dumps(body).encode(), 200)
    assert (found.response_id, found.finish_reason, found.tools) == ("g", "COMPLETE", ["f", "f"])
    assert found.usage == Usage(input_tokens=3, output_tokens=4)
    assert FORMAT.read_answer(b'{"response_id":"r"}', 200).response_id == "r"


def test_an_error():
    found = FORMAT.read_answer(b'{"id":"e","message":"model was removed"}', 404)
    assert (found.failed, found.error_type, found.usage) == (True, None, None)


@pytest.mark.parametrize("framed", [lines, stream])
@pytest.mark.parametrize("size", [1, 30, 10**6])
def test_a_stream_of_lines_or_of_events(framed, size):
    body = framed(START, event("search-results", documents=[{"text": "d"}]), text("a"), text("bc"), text(""), end())
    reader = read_cut(FORMAT, body, [size])
    assert said(reader)[:4] == (6, 2, 3, True)
    found = reader.answer
    assert (found.response_id, found.finish_reason) == ("g", "COMPLETE")
    assert found.usage == Usage(input_tokens=3, output_tokens=4)
    assert FORMAT.begins_stream(body) and FORMAT.read_answer(body, 200) == found


def test_calls_that_come_in_pieces_are_content_once():
    reader = read_cut(FORMAT, lines(START, PLAN, NAME, PIECE, WHOLE, end(tool_calls=CALLS)), [40])
    assert said(reader)[:3] == (6, 2, 6 + 6)
    assert reader.answer.tools == ["f", "f"]


def test_calls_that_come_whole_are_content():
    assert said(read_cut(FORMAT, lines(START, WHOLE, end()), [40]))[:3] == (3, 1, len('{"a":1}'))


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (end("ERROR"), None),
        (end("ERROR_TOXIC"), "error_toxic"),
        ({"message": "internal server error"}, None),
    ],
)
def test_errors_in_a_stream(last, name):
    answer = read_cut(FORMAT, lines(START, text("a"), last), [40]).answer
    assert (answer.failed, answer.error_type) == (True, name)


def test_bodies_that_begin_no_stream():
    for body in (b'{"response_id":"r"}\n', b'{"response_id":"r","text":"event_type"}', b"{\n}", b""):
        assert not FORMAT.begins_stream(body)


def test_the_last_event_is_read_however_large_its_documents_are():
    body = lines(START, end(documents=[{"text": "d" * (2 << 20)}]))
    assert read_cut(FORMAT, body, [1 << 16]).answer.usage == Usage(input_tokens=3, output_tokens=4)


PIECES = st.lists(
    st.one_of(
        st.text(max_size=6).map(text),
        st.sampled_from(["a", "b", '"', "\\", "\n"]).map(text),
        st.text(max_size=4).map(lambda piece: event("tool-calls-chunk", tool_call_delta={"parameters": piece})),
        st.sampled_from([START, PLAN, NAME, PIECE, WHOLE, end(), end(tool_calls=CALLS), {}, {"event_type": 1}]),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(PIECES, st.sampled_from([stream, lines]), st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_neither_cuts_nor_templates_change_anything(events, framed, sizes):
    slowly = Parsing()
    slowly.feed(framed(*events))
    slowly.finish()
    assert said(read_cut(FORMAT, framed(*events), sizes)) == said(slowly)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | PIECES.map(lambda events: lines(*events)), st.integers(100, 599))
def test_nothing_raises(body, status):
    FORMAT.read_request(body)
    FORMAT.read_answer(body, status)
    FORMAT.begins_stream(body)
