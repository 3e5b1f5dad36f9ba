from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import AgentMetrics, StreamMetrics
from tellmeter.pipeline.spool import frames

RECORDS = st.builds(
    AgentMetrics,
    model=st.text(max_size=20),
    latency_ms=st.floats(allow_nan=True),
    input_tokens=st.integers(-5, 2**70),
    tags=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    stream=st.none() | st.builds(StreamMetrics, chunks_received=st.integers(0, 9), status=st.just("completed")),
    error_class=st.none() | st.text(max_size=10),
    tools_used=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)
BATCHES = st.lists(st.lists(RECORDS, min_size=1, max_size=4), min_size=1, max_size=5)
FIXED = [[AgentMetrics(model="m", id=f"r{frame}-{index}") for index in range(frame + 1)] for frame in range(4)]


def segment(batches: list[list[AgentMetrics]]) -> bytes:
    sequence, parts = 0, [frames.MAGIC]
    for batch in batches:
        parts.append(frames.encode(batch, sequence))
        sequence += len(batch)
    return b"".join(parts)


def found_in(data: bytes) -> list[frames.Frame]:
    found, at = [], len(frames.MAGIC)
    while (frame := frames.find(lambda number, offset: data[offset : offset + number], at, len(data))) is not None:
        found.append(frame)
        at = frame.end
    return found


@given(BATCHES)
def test_what_is_written_is_read(batches: list[list[AgentMetrics]]) -> None:
    found = found_in(segment(batches))
    assert [frames.decode(frame) for frame in found] == batches
    assert [frame.sequence for frame in found] == [sum(map(len, batches[:index])) for index in range(len(batches))]


@given(st.integers(0, len(segment(FIXED)) - 1), st.integers(1, 255))
@pytest.mark.fault(11)
def test_a_flipped_byte_costs_the_frame_that_it_is_in_or_what_follows(at: int, change: int) -> None:
    whole = segment(FIXED)
    data = bytearray(whole)
    data[at] ^= change
    true = {frame.sequence: frame for frame in found_in(whole)}
    found = found_in(bytes(data))
    assert all(frame == true[frame.sequence] for frame in found)
    hit = [frame for frame in true.values() if frame.start <= at < frame.end]
    before = [frame for frame in true.values() if frame.end <= at]
    assert found[: len(before)] == before
    if hit and at >= hit[0].start + 4:  # not in the length: the next ones are found
        assert found == [frame for frame in true.values() if frame is not hit[0]]


@given(st.integers(0, len(segment(FIXED))))
@pytest.mark.fault(11)
def test_a_cut_costs_the_frame_that_it_is_in(at: int) -> None:
    whole = segment(FIXED)
    assert found_in(whole[:at]) == [frame for frame in found_in(whole) if frame.end <= at]


@given(st.binary(max_size=300))
@pytest.mark.fault(11)
def test_noise_is_no_frame(noise: bytes) -> None:
    assert found_in(frames.MAGIC + noise) == []


@given(st.integers(0, 2**32 - 1))
@pytest.mark.fault(11)
def test_no_length_leads_beyond_the_end_or_asks_for_much(length: int) -> None:
    asked = [0]

    def read(number: int, offset: int) -> bytes:
        asked.append(number)
        return struct.pack(">I", length).ljust(number, b"\0")

    assert frames.find(read, 8, 2**40 if length > frames.MAX_PAYLOAD else 8 + 20 + length - 1) is None
    assert max(asked) <= frames.HEAD_BYTES


def test_a_disk_that_gives_less_than_it_has_gives_no_frame() -> None:
    data = segment(FIXED)
    assert frames.find(lambda number, offset: b"", 8, len(data)) is None
    assert frames.find(lambda number, offset: data[offset : offset + min(number, 20)], 8, len(data)) is None


def frame(payload: bytes, count: int = 1, codec: int = frames.CODEC) -> frames.Frame:
    return frames.Frame(8, 28 + len(payload), count, 0, payload, codec)


@pytest.mark.parametrize(
    ("payload", "count", "codec"),
    [
        (msgspec.msgpack.encode([{"model": "m"}]), 1, 2),
        (msgspec.msgpack.encode([{"model": "m"}]), 2, frames.CODEC),
        (msgspec.msgpack.encode({"model": "m"}), 1, frames.CODEC),
        (msgspec.msgpack.encode([{"latency_ms": 1.0}]), 1, frames.CODEC),
        (b"\xc1", 1, frames.CODEC),
        (b"", 0, frames.CODEC),
    ],
)
def test_what_is_no_batch_of_ours_is_a_value_error(payload: bytes, count: int, codec: int) -> None:
    with pytest.raises(ValueError):
        frames.decode(frame(payload, count, codec))


def test_a_field_of_a_newer_release_is_left_out_and_one_it_lacks_has_its_default() -> None:
    (record,) = frames.decode(frame(msgspec.msgpack.encode([{"model": "m", "id": "1", "timestamp": 1.0, "new": [1]}])))
    assert record == AgentMetrics(model="m", id="1", timestamp=1.0)


def test_defaults_are_not_written() -> None:
    assert len(frames.encode([AgentMetrics(model="gpt-4o")], 0)) < 120
