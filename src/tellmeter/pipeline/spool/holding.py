"""What one process keeps in the spool: segment files in a folder of its own, read from the oldest on.

<spool>/<sink>/<process>/lock            locked while the process lives
<spool>/<sink>/<process>/00000001.seg    frames, oldest first; the last one is written to
<spool>/<sink>/<process>/ack             up to where everything is delivered or given up
"""

from __future__ import annotations

import re
from collections import deque

import msgspec

from ...counts import count
from ...guard import note
from ...records import AgentMetrics
from . import frames
from .acknowledged import BEGINNING, Acknowledged, Place
from .files import Files

SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENT = re.compile(r"([0-9]{8})\.seg")
_KEPT_ASIDE = 3


class Segment(msgspec.Struct, gc=False):
    """One file. `unread` records lie between `offset` and `size`, the end of what is known to be whole."""

    number: int
    size: int = 0
    unread: int = 0
    offset: int = len(frames.MAGIC)


class Holding:
    """The segments of one process; for one thread at a time.

    Args:
        path: the process's folder.
        lock: the descriptor of its lock, taken.
        aside: the folder that damaged files are moved to.
    """

    def __init__(self, path: str, lock: int, files: Files, aside: str) -> None:
        self.path = path
        self._lock: int | None = lock
        self._files = files
        self._aside = aside
        self._ack = Acknowledged(f"{path}/ack", files)
        self.segments: deque[Segment] = deque()
        self._spent: deque[Segment] = deque()  # that are read, and not yet known to be delivered
        self._read_to = self._acknowledged = BEGINNING
        self._descriptor: int | None = None
        self._open_number = 0
        self.failures = 0  # to read the next frame, in a row

    # ------------------------------------------------------------------ reading

    @property
    def unread(self) -> int:
        """How many records are still to be read."""
        return sum(segment.unread for segment in self.segments)

    @property
    def is_done(self) -> bool:
        """Whether everything is delivered or given up."""
        return self._acknowledged >= self._read_to and not self.unread

    def scan(self, *, last_try: bool = True) -> int:
        """Take stock of a holding that a process left; how many of its records are damaged beyond reading.

        Raises:
            OSError: a folder that cannot be read, or a file where this is not the `last_try`.
        """
        found = sorted(int(match[1]) for name in self._files.names(self.path) if (match := SEGMENT.fullmatch(name)))
        try:
            acknowledged = self._ack.load()
        except OSError as error:
            if not last_try:
                raise
            note("spool", error)
            acknowledged = BEGINNING
        self._acknowledged = self._read_to = acknowledged
        # What was dropped from a full spool was counted by the process that dropped it: begin with what is there.
        expected = acknowledged.sequence if acknowledged.segment in found else 0 if 1 in found else None
        lost = before = 0
        for number in found:
            if number < acknowledged.segment:
                self._remove(number)
                continue
            if number > before + 1 > 1:
                expected = None  # so was what is missing in between
            before = number
            try:
                segment, missing, expected = self._take_stock(number, expected)
            except (OSError, ValueError) as error:
                note("spool", error)
                if isinstance(error, OSError) and not last_try:  # as too many open files
                    raise
                self._set_aside(number)
                continue
            lost += missing
            if segment.unread:
                self.segments.append(segment)
            else:
                self._remove(number)
        return lost

    def next_frame(self) -> tuple[int, int] | None:
        """Segment and offset of the next frame; None where everything is read."""
        while self.segments and not self.segments[0].unread and len(self.segments) > 1:
            self._leave()
        first = self.segments[0] if self.segments else None
        return (first.number, first.offset) if first is not None and first.unread else None

    def read(self) -> tuple[list[AgentMetrics], Place]:
        """The records of the next frame, which there must be, and the place after it.

        Raises:
            ValueError, OSError: it cannot be read; `skip()` goes on behind its segment.
        """
        segment = self.segments[0]
        frame = frames.find(self._reader(segment.number), segment.offset, segment.size)
        if frame is None:
            raise ValueError("no frame")
        records = frames.decode(frame)
        place = Place(segment.number, frame.end, frame.sequence + frame.count)
        self.advance(frame.count, place)
        return records, place

    def advance(self, number: int, place: Place) -> None:
        """The next `number` records, up to `place` of the first segment, are read."""
        segment = self.segments[0]
        segment.unread -= number
        segment.offset = place.offset
        self._read_to = place

    def skip(self) -> int:
        """Give up the rest of the first segment; how many records that were."""
        segment = self.segments[0]
        lost, segment.unread, segment.offset = segment.unread, 0, segment.size
        return lost

    def drop_oldest(self) -> int | None:
        """Remove the oldest segment that can go; how many unread records it had, None where there is none.

        What is written to stays, and what is being delivered: it must be there if the process ends meanwhile.
        """
        in_use = self._read_to > self._acknowledged and self._read_to.segment == self.segments[0].number
        if len(self.segments) < 2 + in_use:
            return None
        segment = self.segments[in_use]
        del self.segments[in_use]
        self._remove(segment.number)
        return segment.unread

    def give_up(self) -> int:
        """Drop everything that is unread; how many records that were."""
        lost = self.unread
        for segment in self.segments:
            segment.unread = 0
        self._acknowledged = self._read_to
        return lost

    def acknowledge(self, place: Place) -> None:
        """Everything before `place` is delivered or given up."""
        if place <= self._acknowledged:
            return
        self._acknowledged = place
        while self._spent and (self._spent[0].number < place.segment or place >= self._read_to):
            self._remove(self._spent.popleft().number)
        self._ack.save(place)

    def close(self) -> None:
        """Let go of it; where nothing is left to deliver it is removed."""
        self._close_file()
        self._ack.close()
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            if self.is_done:
                segments = [f"{segment.number:08}.seg" for segment in (*self._spent, *self.segments)]
                # In this order: a segment that cannot be removed needs its acknowledgement.
                for name in (*segments, "ack", "lock"):
                    self._files.remove(f"{self.path}/{name}")
                self._files.remove_folder(self.path)
        except OSError as error:  # a foreign file is in it, or the disk is gone
            note("spool", error)
        finally:
            self._files.close(lock)

    def forget(self) -> None:
        """In a forked child: it is the parent's. Closing a copy of the descriptor leaves the parent's lock alone."""
        self._close_file()
        self._ack.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            self._files.close(lock)

    # ------------------------------------------------------------------ files

    def _leave(self) -> None:
        segment = self.segments.popleft()
        if self._acknowledged >= self._read_to:
            self._remove(segment.number)
        else:
            self._spent.append(segment)

    def file(self, number: int) -> str:
        """The path of a segment."""
        return f"{self.path}/{number:08}.seg"

    def _reader(self, number: int) -> frames.Read:
        if self._descriptor is None or self._open_number != number:
            self._close_file()
            self._descriptor = self._files.open(self.file(number))
            self._open_number = number
        descriptor, files = self._descriptor, self._files
        return lambda size, offset: files.read(descriptor, size, offset)

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._files.close(descriptor)

    def _take_stock(self, number: int, expected: int | None) -> tuple[Segment, int, int | None]:
        read = self._reader(number)
        assert self._descriptor is not None
        size = self._files.size(self._descriptor)
        segment = Segment(number)
        if size < len(frames.MAGIC):  # the process ended before it had written anything
            return segment, 0, expected
        if read(len(frames.MAGIC), 0) != frames.MAGIC:
            raise ValueError("foreign file")
        if number == self._acknowledged.segment:
            segment.offset = max(self._acknowledged.offset, segment.offset)
        lost, at = 0, segment.offset
        while (frame := frames.find(read, at, size)) is not None:
            if expected is not None and frame.sequence > expected:
                lost += frame.sequence - expected
            expected = frame.sequence + frame.count
            segment.unread += frame.count
            segment.size = at = frame.end
        if at < size:
            count("spool_torn_tails")  # what was being written when the process ended was never promised
        return segment, lost, expected

    def _remove(self, number: int) -> None:
        if self._open_number == number:
            self._close_file()
        try:
            self._files.remove(self.file(number))
        except OSError as error:
            note("spool", error)

    def _set_aside(self, number: int) -> None:
        """Keep a damaged file for whoever wants to know why, but only the newest few."""
        count("spool_set_aside")
        self._close_file()
        try:
            self._files.make_folder(self._aside)
            self._files.move(self.file(number), f"{self._aside}/{self.path.rpartition('/')[2]}-{number:08}.seg")
            for name in self._files.names(self._aside)[:-_KEPT_ASIDE]:
                self._files.remove(f"{self._aside}/{name}")
        except OSError as error:
            note("spool", error)


class OwnHolding(Holding):
    """The holding of this process, which is also written to."""

    def __init__(self, path: str, lock: int, files: Files, aside: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        super().__init__(path, lock, files, aside)
        self._segment_bytes = segment_bytes
        self._writer: int | None = None
        self.sequence = 0  # of the next record
        self._unsynced = False
        self._last_number = 0

    @property
    def size(self) -> int:
        """Bytes on disk, about."""
        return sum(segment.size for segment in (*self._spent, *self.segments))

    def append(self, frame: bytes, number: int) -> tuple[tuple[int, int], Place]:
        """Write a frame of so many records; where it begins (segment, offset), and the place after it.

        Raises:
            OSError: it is not written.
        """
        segment = self._segment_for(len(frame))
        begin = segment.number, segment.size
        try:
            self._write(frame)
        except OSError:
            self._undo(segment)
            raise
        segment.size += len(frame)
        segment.unread += number
        self.sequence += number
        self._unsynced = True
        return begin, Place(segment.number, segment.size, self.sequence)

    def sync(self) -> None:
        """Have what was written survive a power cut.

        Raises:
            OSError: it may not.
        """
        if self._unsynced and self._writer is not None:
            self._unsynced = False
            self._files.sync(self._writer)

    def close(self) -> None:
        """Let go of it; where nothing is left to deliver it is removed, else the next process takes it over."""
        try:
            self.sync()
        except OSError as error:
            note("spool", error)
        self._end_segment()
        super().close()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._end_segment()
        super().forget()

    def _segment_for(self, size: int) -> Segment:
        if self._writer is not None and self.segments[-1].size + size > self._segment_bytes:
            self.sync()
            self._end_segment()
        if self._writer is None:
            number = self._last_number + 1
            self._writer = self._files.create(self.file(number))
            self._last_number = number
            self.segments.append(Segment(number))
        segment = self.segments[-1]
        if segment.size == 0:
            try:
                self._write(frames.MAGIC)
            except OSError:
                self._undo(segment)
                raise
            segment.size = len(frames.MAGIC)
        return segment

    def _write(self, data: bytes) -> None:
        assert self._writer is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self._files.write(self._writer, rest) :]

    def _undo(self, segment: Segment) -> None:
        """Cut off what was written of a frame; where that fails too, nothing more is written to this file."""
        assert self._writer is not None
        try:
            self._files.cut(self._writer, segment.size)
        except OSError:
            self._end_segment()

    def _end_segment(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                self._files.close(writer)
            except OSError as error:
                note("spool", error)
