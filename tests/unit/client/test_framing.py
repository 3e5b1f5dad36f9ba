import base64
import json
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.client import framing
from tellmeter.client.framing import EventDecoder
from tellmeter.errors import StreamEngineError
from tests.support.event_stream import encode, event


def decoded(body, sizes=(1 << 30,), content_type=""):
    decoder = EventDecoder(content_type)
    found, at = [], 0
    for size in cycle(sizes):
        if at >= len(body):
            break
        found += decoder.feed(body[at : at + size])
        at += size
    return [*found, *decoder.finish()]


def data(body, **options):
    return [one.data for one in decoded(body, **options)]


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=8)
LINE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n\0\ufeff"), max_size=8)
END = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def server_sent(draw):
    """An event stream, and the (name, data) of its events as the standard has them."""
    end = draw(END)
    text, expected = draw(st.sampled_from(["", "\ufeff"])), []
    for _ in range(draw(st.integers(0, 5))):
        name, lines = "", []
        for field in draw(st.lists(st.sampled_from(["data", "event", "id", "retry", "", "other"]), max_size=4)):
            value = draw(LINE)
            space = draw(st.sampled_from(["", " "])) if not value.startswith(" ") else " "
            text += f"{field}:{space}{value}{end}"
            if field == "data":
                lines.append(value)
            elif field == "event":
                name = value
        text += end
        joined = "\n".join(lines)
        if joined and not joined.startswith("[DONE]"):
            expected.append((name, joined))
    return text.encode(), expected


@given(server_sent(), SIZES)
@settings(max_examples=300)
def test_server_sent_events_as_the_standard_has_them_however_they_are_cut(stream, sizes):
    body, expected = stream
    found = decoded(body, sizes, "text/event-stream")
    assert [(one.name, one.data) for one in found] == expected


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers() | st.none(), max_size=3), max_size=5
    ),
    SIZES,
    st.sampled_from(["array", "lines", "pretty"]),
)
def test_objects_in_a_row_however_they_are_cut(values, sizes, form):
    written = [json.dumps(value, indent=2 if form == "pretty" else None) for value in values]
    body = "[" + ", ".join(written) + "]" if form == "array" else "\r\n".join(written)
    assert [json.loads(one) for one in data(body.encode(), sizes=sizes)] == values


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=3), max_size=5), SIZES)
def test_lines_of_arrays_where_the_content_type_says_so(values, sizes):
    body = "\n".join(map(json.dumps, values)).encode()
    assert [json.loads(one) for one in data(body, sizes=sizes, content_type="application/x-ndjson")] == values


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers(), max_size=3), max_size=5), SIZES)
def test_amazons_messages_however_they_are_cut(values, sizes):
    body = b"".join(event("delta", value) for value in values)
    found = decoded(body, sizes)
    assert [json.loads(one.data) for one in found] == values
    assert {one.name for one in found} <= {"delta"}


@given(st.binary(max_size=120), SIZES)
def test_nothing_but_our_error_is_raised(body, sizes):
    try:
        whole = decoded(body)
    except StreamEngineError:
        with pytest.raises(StreamEngineError):
            decoded(body, sizes)
    else:
        assert decoded(body, sizes) == whole


def test_plain_text_comes_by_lines():
    assert data(b"hello\r\n\nworld") == ["hello", "world"]


def test_what_invoke_model_wraps_comes_without_base64():
    wrapped = base64.b64encode(b'{"completion":"Hi"}').decode()
    assert data(event("chunk", {"bytes": wrapped, "p": "abc"})) == ['{"completion":"Hi"}']
    assert data(event("chunk", {"other": 1})) == ['{"other":1}']


def test_the_last_event_needs_no_blank_line_but_whole_json():
    assert data(b'data: {"a":1}') == ['{"a":1}']
    assert data(b"data: plain") == ["plain"]
    before = counts.total("torn_event")
    assert data(b'data: 1\n\ndata: {"a":') == ["1"]
    assert counts.total("torn_event") == before + 1
    assert data(b'{"a":1}\n{"b":', content_type="application/x-ndjson") == ['{"a":1}']
    assert data(b'[{"a":1},{"b":') == ['{"a":1}']


@pytest.mark.parametrize(
    "body", [b"data: a\n\ndata: [DONE]\n\n", b"data: a\n\ndata:[DONE]", b"data: a\r\rdata: [DONE]\r\r"]
)
def test_the_terminator_is_no_event(body):
    decoder = EventDecoder("text/event-stream")
    found = [*decoder.feed(body[:-1]), *decoder.feed(body[-1:]), *decoder.finish()]
    assert [one.data for one in found] == ["a"]
    assert decoder.done


def test_a_stream_that_goes_on_is_not_done():
    decoder = EventDecoder()
    assert not decoder.done
    assert [one.data for one in decoder.feed(b"data: a\n\n")] == ["a"]
    assert not decoder.done


def test_errors_are_marked():
    assert [one.failed for one in decoded(b"event: error\ndata: no JSON\n\nevent: message\ndata: a\n\n")] == [
        True,
        False,
    ]
    (failed,) = decoded(encode({":message-type": "exception", ":exception-type": "throttlingException"}, b"{}"))
    assert (failed.failed, failed.name) == (True, "throttlingException")


def test_what_has_no_name_or_no_first_bytes_is_nothing():
    assert decoded(b"") == decoded(b"\n\r\n") == decoded(b"\xef\xbb") == []
    # A field that nobody knows, in front: only the content type tells.
    assert data(b"foo: 1\ndata: a\n\n", content_type="text/event-stream; charset=utf-8") == ["a"]


@pytest.mark.parametrize(
    ("begin", "more", "content_type"),
    [
        (b"data: ", b"x" * 1000, ""),
        (b'{"a":"', b"x" * 1000, "application/x-ndjson"),
        (b'[{"a":"', b"x" * 1000, ""),
    ],
)
def test_an_event_that_is_too_large_is_one_clear_error(monkeypatch, begin, more, content_type):
    monkeypatch.setattr(framing, "MAX_EVENT", 10_000)
    decoder = EventDecoder(content_type)
    list(decoder.feed(begin))
    with pytest.raises(StreamEngineError, match="larger than"):
        for _ in range(20):
            list(decoder.feed(more))


def test_a_message_of_amazons_that_is_too_large(monkeypatch):
    monkeypatch.setattr(framing, "MAX_EVENT", 10_000)
    with pytest.raises(StreamEngineError, match="larger than"):
        decoded(event("delta", {"text": "x" * 20_000}))


def test_a_broken_checksum_is_one_clear_error():
    body = bytearray(event("delta", {"text": "x"}))
    body[-1] ^= 1
    with pytest.raises(StreamEngineError, match="broken"):
        decoded(bytes(body))


def test_a_large_event_in_small_pieces_costs_its_size_once():
    size = 4 << 20
    body = b"data: " + b"x" * size + b"\n\n"
    (found,) = decoded(body, (1000,))
    assert len(found.data) == size
