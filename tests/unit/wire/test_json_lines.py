import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.wire import json_lines
from tellmeter.wire.json_lines import JsonLinesReader, first_line
from tellmeter.wire.sse import CONTENT, IGNORED, OTHER


class Values(JsonLinesReader):
    """Keeps every value; filled ones are content, `{"ping": ...}` is none of the answer's events."""

    __slots__ = ("seen",)

    format_name = "test"

    def __init__(self):
        super().__init__()
        self.seen = []

    def read(self, data, whole):
        try:
            value = json.loads(data)
        except ValueError:
            return OTHER if whole else IGNORED
        if value == "raise":
            raise RuntimeError
        if isinstance(value, dict) and "ping" in value:
            return IGNORED
        self.seen.append(value)
        return CONTENT if value else OTHER


def read(*pieces):
    reader = Values()
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader


def told(reader):
    return reader.seen, reader.events, reader.content_events


def test_one_value_a_line():
    reader = read(b'{"a":1}\r\n\n  \n[1]\n"x"\n0\n')
    assert told(reader) == ([{"a": 1}, [1], "x", 0], 4, 3)


def test_what_is_no_event_is_not_counted():
    assert told(read(b'{"ping":1}\n1\n')) == ([1], 1, 1)


def test_a_byte_order_mark_may_begin_the_stream():
    assert told(read(b"\xef", b"\xbb\xbf1\n2\n")) == ([1, 2], 2, 2)


def test_the_last_line_may_have_no_end():
    assert told(read(b"1\n", b"[2,", b"3]")) == ([1, [2, 3]], 2, 2)


def test_a_last_line_that_breaks_off_is_no_event_and_a_broken_line_before_it_is_one():
    assert told(read(b'{"a"\n{"a"')) == ([], 1, 0)


def test_a_format_that_raises_is_counted_and_reading_goes_on():
    before = counts.total("unreadable_event")
    assert told(read(b'"raise"\n1\n')) == ([1], 2, 1)
    assert counts.total("unreadable_event") == before + 1


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_a_line_that_is_too_large_is_counted_and_skipped(monkeypatch, size):
    monkeypatch.setattr(json_lines, "MAX_LINE", 20)
    body = b'"%s"\n' % (b"a" * 18) + b'"%s"\n1\n"%s"' % (b"b" * 19, b"c" * 50)
    before = counts.total("oversize_event")
    reader = read(*(body[at : at + size] for at in range(0, len(body), size)))
    assert told(reader) == (["a" * 18, 1], 4, 2)
    assert counts.total("oversize_event") == before + 2


def test_no_more_than_one_line_is_kept(monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE", 1000)
    reader = Values()
    for _ in range(100):
        reader.feed(b"x" * 300)
        assert len(reader._rest) <= 1000


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))),
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
    st.booleans(),
    st.booleans(),
)
def test_cuts_change_nothing(values, line_end, sizes, bom, ended):
    values = [value for value in values if value != "raise"]
    body = line_end.join(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") for value in values)
    body = b"\xef\xbb\xbf" * bom + body + line_end * ended
    pieces = []
    while body:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(body[:size])
        body = body[size:]
    assert read(*pieces).seen == values


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"\n", b"\r", b"{", b'"a"', b"\xef\xbb\xbf"]), max_size=20))
def test_no_bytes_make_it_raise(pieces):
    assert told(read(*pieces)) == told(read(b"".join(pieces)))


def test_the_first_line_of_a_body():
    assert first_line(b'\xef\xbb\xbf\n {"a":1}\n{"a"') == b'{"a":1}'
    assert first_line(b'{"a":1}') == first_line(b"") == first_line(b"\n\n") == b""
