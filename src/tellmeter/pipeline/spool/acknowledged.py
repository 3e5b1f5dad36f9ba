"""Up to where a holding is delivered or given up: a small file with two slots, written in place by turns.

In place, because a rename over a file has ext4 bring its data to disk first (auto_da_alloc): 1 ms, where this is 1 us.
By turns, so that a write that is torn leaves the slot before.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from ...guard import note
from .files import Files

_PACKED = struct.Struct(">IQQ")  # a Place; then its CRC
_SLOT = _PACKED.size + 4


class Place(NamedTuple):
    """A point in a holding: where a frame begins, and the number of the first record after it."""

    segment: int
    offset: int
    sequence: int


BEGINNING = Place(0, 0, 0)


class Acknowledged:
    """The file of one holding, open from the first `save` on."""

    def __init__(self, path: str, files: Files) -> None:
        self._path = path
        self._files = files
        self._descriptor: int | None = None
        self._turn = 0

    def load(self) -> Place:
        """What was saved last; the beginning where nothing was, or both slots are damaged.

        Raises:
            OSError: it cannot be read.
        """
        data = self._files.load(self._path, 2 * _SLOT) or b""
        slots = [_place(data[at : at + _SLOT]) for at in (0, _SLOT)]
        self._turn = slots.index(min(slots))
        return max(slots)

    def save(self, place: Place) -> None:
        """Remember `place`. Where that fails, what was delivered is delivered once more by the next process."""
        packed = _PACKED.pack(*place)
        try:
            if self._descriptor is None:
                self._descriptor = self._files.open_slots(self._path)
            self._files.put(self._descriptor, packed + zlib.crc32(packed).to_bytes(4, "big"), self._turn * _SLOT)
            self._turn = 1 - self._turn
        except OSError as error:
            note("spool", error)

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._files.close(descriptor)


def _place(slot: bytes) -> Place:
    packed = slot[: _PACKED.size]
    if len(slot) != _SLOT or zlib.crc32(packed).to_bytes(4, "big") != slot[_PACKED.size :]:
        return BEGINNING
    return Place(*_PACKED.unpack(packed))
