import struct
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.wire.event_stream import MAX_HEADERS, MAX_MESSAGE, EventStreamReader, Frames, begins_frames
from tellmeter.wire.sse import CONTENT, IGNORED, OTHER
from tests.support.event_stream import encode, event, exception, frame, header

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=40), st.text(st.characters(codec="utf-8"))
)
MESSAGES = st.tuples(st.dictionaries(NAMES, VALUES, max_size=4), st.binary(max_size=60))
CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=20)


def plain(messages):
    return [(dict(message.headers), message.payload) for message in messages]


def cut(body, sizes):
    at = number = 0
    while at < len(body):
        size = sizes[number % len(sizes)]
        yield body[at : at + size]
        at += size
        number += 1


def fed(body, sizes=(1 << 20,), **options):
    frames = Frames("test", **options)
    found = [message for part in cut(body, sizes) for message in frames.feed(part)]
    return frames, plain(found)


@given(st.lists(MESSAGES, max_size=6), CUTS)
def test_messages_come_whole_however_they_are_cut(messages, sizes):
    frames, found = fed(b"".join(encode(*message) for message in messages), sizes)
    assert found == messages
    assert not frames.broken


@given(st.lists(MESSAGES, max_size=6), CUTS)
def test_botocore_reads_the_same(messages, sizes):
    buffer = pytest.importorskip("botocore.eventstream").EventStreamBuffer()
    body = b"".join(encode(*message) for message in messages)
    buffer.add_data(body)
    assert fed(body, sizes)[1] == [(message.headers, message.payload) for message in buffer]


def test_the_ten_types_of_headers():
    typed = {
        "true": (0, True),
        "false": (1, False),
        "byte": (2, -5),
        "short": (3, -300),
        "integer": (4, -70_000),
        "long": (5, -(2**40)),
        "bytes": (6, b"\x00\xff"),
        "string": (7, "é"),
        "timestamp": (8, 1_700_000_000_000),
        "uuid": (9, b"0123456789abcdef"),
    }
    body = frame(b"".join(header(name, value, kind) for name, (kind, value) in typed.items()), b"payload")
    assert fed(body)[1] == [({name: value for name, (_, value) in typed.items()}, b"payload")]


def prelude(total, headers):
    data = struct.pack(">II", total, headers)
    return data + struct.pack(">I", crc32(data))


GOOD = encode({"a": "b"}, b"good")
BROKEN = {
    "prelude": GOOD[:8] + b"\x00\x00\x00\x00" + GOOD[12:],
    "checksum": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "payload": GOOD[:-5] + b"D" + GOOD[-4:],
    "too short": prelude(15, 0) + b"\x00" * 40,
    "headers longer than the message": prelude(40, 25) + b"\x00" * 40,
    "headers longer than any": prelude(MAX_HEADERS + 100, MAX_HEADERS + 1) + b"\x00" * 40,
    "headers that break off": frame(header("a", "bcdef")[:-1]),
    "number that breaks off": frame(header("a", 7, 5)[:-1]),
    "name that breaks off": frame(b"\x09abc"),
    "no type": frame(b"\x01a"),
    "unknown type": frame(b"\x01a\x0a"),
    "no UTF-8": frame(b"\x01a\x07\x00\x01\xff"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_what_is_broken_ends_the_reading_and_is_counted_once(name, size):
    before = counts.total("unreadable_stream")
    frames, found = fed(GOOD + BROKEN[name] + GOOD + GOOD, (size,))
    assert found == [({"a": "b"}, b"good")]
    assert frames.broken
    assert counts.total("unreadable_stream") == before + 1


@given(st.lists(MESSAGES, min_size=1, max_size=4), CUTS, st.data())
def test_a_wrong_byte_never_makes_up_a_message(messages, sizes, data):
    body = bytearray(b"".join(encode(*message) for message in messages))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    frames, found = fed(bytes(body), sizes)
    assert found == messages[: len(found)]
    assert frames.broken  # at once, also where the length is wrong: none waits for bytes that never come


@given(st.lists(st.tuples(MESSAGES, st.booleans()), max_size=5), CUTS)
def test_messages_that_are_too_large_are_skipped(messages, sizes):
    limit = 1000
    body = b"".join(encode(headers, payload + b"x" * limit * large) for (headers, payload), large in messages)
    before = counts.total("oversize_event")
    frames, found = fed(body, sizes, limit=limit)
    assert found == [message for message, large in messages if not large]
    assert frames.skipped == sum(large for _, large in messages) == counts.total("oversize_event") - before
    assert not frames.broken


def test_no_more_is_kept_than_one_message():
    frames = Frames("test", limit=5000)
    for _ in range(3):
        for part in cut(encode({}, b"x" * 1_000_000), (70_000,)):
            frames.feed(part)
            assert len(frames._rest) <= 5000
    assert frames.skipped == 3
    assert plain(frames.feed(GOOD)) == [({"a": "b"}, b"good")]


def test_the_largest_message_of_the_protocol_is_read():
    assert MAX_MESSAGE == 24 * 1024**2 + 128 * 1024 + 16
    payload = b"x" * (24 << 20)
    assert fed(encode({}, payload), (1 << 20,))[1] == [({}, payload)]


@given(st.binary(max_size=200), CUTS)
def test_no_bytes_make_it_raise(data, sizes):
    assert fed(data, sizes)[1] == fed(data)[1]


def test_headers_cannot_be_changed():
    (message,) = Frames().feed(GOOD)
    with pytest.raises(TypeError):
        message.headers["a"] = "c"


def test_events_and_errors():
    stream = (
        event("messageStart", {})
        + exception("throttlingException", {"message": "secret"})
        + encode({":message-type": "error", ":error-code": "InternalError", ":error-message": "secret"})
        + encode({":message-type": "exception"})
        + GOOD
    )
    found = [(message.event_type, message.error) for message in Frames().feed(stream)]
    assert found == [("messageStart", None), ("", "throttlingException"), ("", "InternalError"), ("", ""), ("", None)]


def test_how_a_body_begins():
    assert begins_frames(GOOD)
    assert begins_frames(GOOD[:1])
    assert begins_frames(encode({}, b"x" * (20 << 20)))
    for body in (b"", b"{}", b" {", b"data: {}", b"\xef\xbb\xbf{}", b"<html>"):
        assert not begins_frames(body)


class Reader(EventStreamReader):
    __slots__ = ()

    format_name = "test_reader"

    def read(self, name, data):
        if name == b"raises":
            raise KeyError(name)
        return {b"ping": IGNORED, b"content": CONTENT}.get(name, OTHER)


KINDS = st.sampled_from(["ping", "content", "other", "raises"])


@settings(max_examples=60)
@given(st.lists(KINDS, max_size=12), CUTS)
def test_a_reader_counts(kinds, sizes):
    before = counts.total("unreadable_event")
    reader = Reader()
    for part in cut(b"".join(event(kind, {}) for kind in kinds), sizes):
        reader.feed(part)
    reader.finish()
    assert reader.events == len(kinds) - kinds.count("ping")
    assert reader.content_events == kinds.count("content")
    assert counts.total("unreadable_event") - before == kinds.count("raises")


def test_a_reader_notes_exceptions():
    reader = Reader()
    reader.feed(event("content", {}) + exception("throttlingException", {}) + event("content", {})[:-1])
    reader.finish()
    assert (reader.events, reader.content_events, reader.answer.failed, reader.done) == (2, 1, True, False)


def test_a_reader_counts_what_is_skipped_and_survives_what_is_no_stream():
    reader = Reader()
    reader.feed(prelude(MAX_MESSAGE + 1, 0))
    assert (reader.events, reader.content_events) == (1, 0)
    before = counts.total("unreadable_stream")
    reader = Reader()
    reader.feed(b"<html>no stream at all</html>")
    reader.feed(event("content", {}))
    reader.finish()
    assert reader.events == 0
    assert counts.total("unreadable_stream") == before + 1
