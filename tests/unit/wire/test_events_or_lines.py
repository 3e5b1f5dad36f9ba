import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.wire.events_or_lines import EventsOrLinesReader
from tellmeter.wire.sse import IGNORED, OTHER, PLAIN, text_template
from tests.support.readers import said


class Texts(EventsOrLinesReader):
    """Events are objects, whose `t` is text."""

    __slots__ = ()

    format_name = "test"

    def read(self, name, data, whole):
        try:
            event = json.loads(data)
        except ValueError:
            return OTHER if whole else IGNORED
        text = event.get("t") if isinstance(event, dict) else None
        if not isinstance(text, str) or not text:
            return OTHER
        self.text_size += len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) - 2
        return PLAIN

    def template(self, event):
        return text_template(event, (b'"t":"',))


def read(body, sizes=(10**6,)):
    reader = Texts()
    at = number = 0
    while at < len(body):
        size = sizes[number % len(sizes)]
        reader.feed(body[at : at + size])
        at += size
        number += 1
    reader.finish()
    return reader


def as_lines(events, line_end=b"\n"):
    return b"".join(event + line_end for event in events)


def as_events(events):
    return b"".join(b"event: x\ndata: " + event + b"\n\n" for event in events)


EVENTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=5).map(lambda text: {"t": text}),
        st.sampled_from([{"t": "a\nb"}, {"t": '"\\'}, {"t": "data: {}"}, {}, {"end": True}]),
    ).map(lambda event: json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()),
    min_size=1,
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.lists(st.integers(1, 60), min_size=1, max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r\n\n"]))
def test_lines_say_the_same_as_events_however_they_are_cut(events, sizes, line_end):
    whole = said(read(as_events(events)))
    lines = as_lines(events, line_end)
    assert said(read(lines, sizes)) == said(read(b"\xef\xbb\xbf\n" + lines, sizes)) == whole
    assert said(read(lines.rstrip())) == whole  # the last line without its end
    assert said(read(as_events(events), sizes)) == whole


@pytest.mark.parametrize("body", [b'{"t":"a"}\n{"t":"b', b'data: {"t":"a"}\n\ndata: {"t":"b'])
def test_what_breaks_off_is_no_event(body):
    assert said(read(body))[:3] == (1, 1, 1)


def test_a_line_may_hold_carriage_returns_between_its_values():
    assert said(read(b'{"t":"a",\r"u":1}\r\n', (1,)))[:3] == (1, 1, 1)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"{", b"data: ", b"\n", b"\r", b'{"t":"a"}\n']), max_size=20))
def test_no_bytes_make_it_raise(pieces):
    cut = Texts()
    for piece in pieces:
        cut.feed(piece)
    cut.finish()
    assert said(cut) == said(read(b"".join(pieces)))
