"""What one process counted, as bytes for the others.

A file is a head (magic, version, CRC-32 and length of what follows) and a `Snapshot` in MessagePack. Whatever is not
exactly that is refused as a whole: a half of a snapshot would be wrong numbers.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Any

import msgspec

from ..definition import MetricDefinition

VERSION = 1
_MAGIC = b"tmsnap\r\n"
_HEAD = struct.Struct("<8sHxxII")


class BadSnapshot(ValueError):
    """Bytes that are no snapshot."""


class OtherVersion(BadSnapshot):
    """A snapshot that an older or newer tellmeter wrote."""


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One series.

    values: of the labels, in the definition's order.
    created: Unix seconds.
    total: of a counter; a gauge's value; the sum of what a histogram observed.
    counts: a histogram's, per bucket.
    at: when a gauge was last seen to have changed, Unix seconds; 0 where nobody ever set it.
    exemplars: (bucket, labels, value, Unix seconds) each; a counter's is in bucket 0.
    rest: what belongs to the total but does not fit into one float, as `exact_sum` says.
    """

    values: tuple[str, ...]
    created: float
    total: float
    counts: tuple[int, ...] = ()
    at: float = 0.0
    exemplars: tuple[tuple[int, dict[str, str], float, float], ...] = ()
    rest: tuple[float, ...] = ()


class Part(msgspec.Struct, array_like=True, frozen=True):
    """One metric.

    definition: a `MetricDefinition` in MessagePack. As bytes, because equal ones are mostly known already.
    undefined: it was registered without labels, which its first recording is yet to tell.
    """

    definition: bytes
    undefined: bool
    rows: list[Row]


class Snapshot(msgspec.Struct, array_like=True, frozen=True):
    """What one process counted, or several dead ones together.

    began: when the process did, Unix seconds; the oldest decide what the younger do not agree on.
    parts: `Part`s, or `msgspec.Raw` of them where they are only to be written.
    folded: the dead processes whose counts are in here; their own files do not count any more.
    """

    began: float
    parts: list[Part]
    folded: list[str] = []


_decoder = msgspec.msgpack.Decoder(Snapshot)
_encoder = msgspec.msgpack.Encoder()


def encode_part(definition: MetricDefinition, rows: list[Any], *, undefined: bool = False) -> msgspec.Raw:
    """A part, ready to be a part of many snapshots. `rows`: `Row`s, or tuples of their first fields."""
    return msgspec.Raw(_encoder.encode((_encoder.encode(definition), undefined, rows)))


def encode(snapshot: Snapshot) -> bytes:
    """`snapshot` with its head."""
    body = _encoder.encode(snapshot)
    return _HEAD.pack(_MAGIC, VERSION, zlib.crc32(body), len(body)) + body


def decode(data: bytes) -> Snapshot:
    """The snapshot in `data`.

    Raises:
        BadSnapshot: it is torn or foreign.
        OtherVersion: this version cannot read it.
    """
    if len(data) < _HEAD.size:
        raise BadSnapshot("too short")
    magic, version, crc, length = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC:
        raise BadSnapshot("another format")
    if version != VERSION:
        raise OtherVersion(f"version {version}")
    if len(body) != length or zlib.crc32(body) != crc:
        raise BadSnapshot("torn")
    try:
        found = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise BadSnapshot("not as this version writes it") from None
    for part in found.parts:
        definition = definition_of(part.definition)
        labels, buckets = len(definition.labels), buckets_of(definition)
        for row in part.rows:
            if len(row.values) != labels or len(row.counts) != buckets:
                raise BadSnapshot("not as its definition says")
    return found


@lru_cache(maxsize=4096)
def definition_of(data: bytes) -> MetricDefinition:
    """The definition that `data` is.

    Raises:
        BadSnapshot: it is none.
    """
    try:
        return msgspec.msgpack.decode(data, type=MetricDefinition)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadSnapshot("no definition") from None


def buckets_of(definition: MetricDefinition) -> int:
    """The buckets of a histogram, that above all bounds included; 0 of other metrics."""
    return 0 if definition.buckets is None else len(definition.buckets) + 1
