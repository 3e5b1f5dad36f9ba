"""A batch of records as one frame of a segment file.

    segment   "tmspool1", then frames
    frame     length u32, crc32 u32, codec u8, flags u8, count u16, sequence u64, then `length` bytes of payload

All numbers are big-endian. The CRC is over everything after it. `sequence` is the number of the frame's first record
among all that the process wrote, so that a gap tells how many records are missing. Codec 1 is a MessagePack array of
records, each a map of its fields without those that have their default: newer and older releases read each other's.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import msgspec

from ...records import AgentMetrics

MAGIC = b"tmspool1"
CODEC = 1
MAX_PAYLOAD = 64 * 1024 * 1024
_HEAD = struct.Struct(">IIBBHQ")
_CHECKED = 8  # the CRC covers what comes after length and CRC
HEAD_BYTES = _HEAD.size

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[AgentMetrics]).decode

# read(number of bytes, offset): what is there, less at the end of the file
Read = Callable[[int, int], bytes]


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame that was found whole: from where to where, and what is in it."""

    start: int
    end: int
    count: int
    sequence: int
    payload: bytes
    codec: int


def encode(records: Sequence[AgentMetrics], sequence: int) -> bytes:
    """The frame of up to 65,535 records."""
    payload = _encode(records)
    rest = _HEAD.pack(len(payload), 0, CODEC, 0, len(records), sequence)[_CHECKED:]
    crc = zlib.crc32(payload, zlib.crc32(rest))
    return b"".join((struct.pack(">II", len(payload), crc), rest, payload))


def decode(frame: Frame) -> list[AgentMetrics]:
    """The records of a frame.

    Raises:
        ValueError: a codec that this release does not know, or a payload that is no list of records.
    """
    if frame.codec != CODEC:
        raise ValueError("unknown codec")
    records = _decode(frame.payload)  # msgspec's errors are ValueErrors
    if len(records) != frame.count:
        raise ValueError("wrong count")
    return records


def find(read: Read, offset: int, size: int) -> Frame | None:
    """The first whole frame at `offset`, or after damaged ones; None where there is none before `size`.

    A damaged frame is skipped by the length in its head. Where that leads astray nothing more is found: every frame is
    held against its CRC.
    """
    while offset + HEAD_BYTES <= size:
        head = read(HEAD_BYTES, offset)
        if len(head) < HEAD_BYTES:
            return None
        length, crc, codec, _, count, sequence = _HEAD.unpack(head)
        end = offset + HEAD_BYTES + length
        if length > MAX_PAYLOAD or end > size:
            return None
        payload = read(length, offset + HEAD_BYTES)
        if len(payload) == length and zlib.crc32(payload, zlib.crc32(head[_CHECKED:])) == crc:
            return Frame(offset, end, count, sequence, payload, codec)
        offset = end
    return None
