import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.registry.definition import GAUGE_MODES, MetricDefinition, MetricType
from tellmeter.registry.shared.snapshot import (
    BadSnapshot,
    OtherVersion,
    Part,
    Row,
    Snapshot,
    decode,
    definition_of,
    encode,
    encode_part,
)

COUNTER = MetricDefinition("requests", MetricType.COUNTER, "Requests.", labels=("path",))
HISTOGRAM = MetricDefinition("seconds", MetricType.HISTOGRAM, buckets=(1.0, 2.0))
ROWS = [
    Row(("/a",), 1.5, 3.0),
    Row(("/b",), 1.5, 4.0, (), 0.0, ((0, {"trace_id": "x"}, 1.0, 9.0),), (1e-30,)),
]


def made():
    parts = [encode_part(COUNTER, ROWS), encode_part(HISTOGRAM, [Row((), 2.0, 3.5, (1, 2, 0))], undefined=False)]
    return encode(Snapshot(7.0, parts, ["1-aaaaaaaaaaaaaaaa"]))


def test_what_is_written_is_read():
    found = decode(made())
    assert (found.began, found.folded) == (7.0, ["1-aaaaaaaaaaaaaaaa"])
    assert [definition_of(part.definition) for part in found.parts] == [COUNTER, HISTOGRAM]
    assert [part.rows for part in found.parts] == [ROWS, [Row((), 2.0, 3.5, (1, 2, 0))]]
    assert decode(encode(found)) == found


def test_short_tuples_are_rows():
    found = decode(encode(Snapshot(0.0, [encode_part(COUNTER, [(("/a",), 1.5, 3.0)])])))
    assert found.parts[0].rows == [Row(("/a",), 1.5, 3.0)]


LABELS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), max_size=3)


@given(
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.sampled_from(MetricType),
    LABELS,
    st.text(st.characters(codec="utf-8")),
    st.sampled_from(["", "s", "By", "1", "seconds", "{call}"]),
    st.one_of(st.none(), st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5, unique=True).map(sorted)),
    st.sampled_from(GAUGE_MODES),
)
def test_a_definition_is_the_same_at_the_other_end(name, kind, labels, description, unit, buckets, mode):
    try:
        definition = MetricDefinition(name, kind, description, unit, labels, buckets, gauge_mode=mode)
    except ValueError:
        return
    assert definition_of(msgspec.msgpack.encode(definition)) == definition


@given(st.integers(0, 400), st.binary(max_size=3))
def test_a_part_of_a_file_is_refused(length, more):
    data = made()
    with pytest.raises(BadSnapshot):
        decode(data[: min(length, len(data) - 1)])
    if more:
        with pytest.raises(BadSnapshot):
            decode(data + more)


@given(st.data())
def test_a_flipped_bit_is_noticed(data):
    whole = bytearray(made())
    at = data.draw(st.sampled_from([index for index in range(len(whole)) if index not in (10, 11)]))  # unused bytes
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadSnapshot):
        decode(bytes(whole))


@given(st.binary(max_size=300))
def test_anything_else_is_refused(data):
    with pytest.raises(BadSnapshot):
        decode(data)
    head = struct.pack("<8sHxxII", b"tmsnap\r\n", 1, zlib.crc32(data), len(data))
    try:
        decode(head + data)
    except BadSnapshot:
        pass  # and nothing else


def with_body(value):
    body = msgspec.msgpack.encode(value)
    return struct.pack("<8sHxxII", b"tmsnap\r\n", 1, zlib.crc32(body), len(body)) + body


COUNTED = msgspec.msgpack.encode(COUNTER)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        [1.0, [[COUNTED, False, [[["/a", "too many"], 1.0, 2.0]]]]],
        [1.0, [[COUNTED, False, [[["/a"], 1.0, 2.0, [1]]]]]],
        [1.0, [[COUNTED, False, [[["/a"], 1.0, "two"]]]]],
        [1.0, [[b"\xc1", False, []]]],
        [1.0, [[msgspec.msgpack.encode({"name": "", "type": "counter"}), False, []]]],
        [1.0, [[msgspec.msgpack.encode({"name": "x", "type": "spectrum"}), False, []]]],
    ],
)
def test_a_whole_file_that_is_not_as_we_write_it_is_refused(body):
    with pytest.raises(BadSnapshot):
        decode(with_body(body))


def test_another_version_is_told_apart():
    data = bytearray(made())
    data[8] = 2
    with pytest.raises(OtherVersion):
        decode(bytes(data))


def test_a_part_is_decoded_as_it_was_made():
    part = msgspec.msgpack.decode(encode_part(COUNTER, [], undefined=True), type=Part)
    assert part.undefined and definition_of(part.definition) == COUNTER
