"""Amazon's messages as written here, read by the reader of the meter and by botocore's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.simulator.aws_frames import cut_off, event, exception, frame, is_frame
from tellmeter.wire.event_stream import Frames

names = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=40)


@given(st.lists(st.tuples(st.sampled_from([event, exception]), names, st.binary(max_size=300)), max_size=5))
def test_what_is_written_is_read(messages):
    frames = Frames()
    found = frames.feed(b"".join(write(name, payload) for write, name, payload in messages))
    assert not frames.broken
    assert [message.payload for message in found] == [payload for _, _, payload in messages]
    for message, (write, name, _) in zip(found, messages, strict=True):
        assert (message.event_type, message.error) == ((name, None) if write is event else ("", name))
        assert message.headers[":content-type"] == "application/json"


def test_botocore_reads_it():
    eventstream = pytest.importorskip("botocore.eventstream")
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(event("metadata", b"{}") + exception("throttlingException", b"no"))
    one, two = buffer
    assert (one.headers[":event-type"], one.payload) == ("metadata", b"{}")
    assert (two.headers[":exception-type"], two.payload) == ("throttlingException", b"no")


@given(names, st.binary(max_size=300))
def test_a_payload_is_broken_off_in_a_message_that_is_right(name, payload):
    (message,) = Frames().feed(cut_off(event(name, payload)))
    assert message.event_type == name
    assert message.payload == payload[: len(payload) * 2 // 3]


def test_frames_are_told_from_text():
    assert is_frame(frame(b""))
    assert not is_frame(b"data: {}\n\n")
    assert not is_frame(b"")
