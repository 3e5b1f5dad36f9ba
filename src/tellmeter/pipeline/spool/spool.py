"""One sink's spool in this process: what it writes itself, and what earlier processes left for the same sink."""

from __future__ import annotations

import errno
import hashlib
import re
import threading
from collections import deque
from typing import NamedTuple

from ...errors import ConfigError
from ...guard import note
from ...records import AgentMetrics
from ...registry.shared.folder import new_name
from . import frames
from .acknowledged import Place
from .files import CAN_LOCK, Files
from .holding import SEGMENT_BYTES, Holding, OwnHolding

READ_TRIES = 3
TAKE_OVER_TRIES = 60  # ten minutes: a disk may come back, and a program may have too many files open for a while
LOCK_TRIES = 10
QUARANTINE = "quarantine"
DESTINATION = "destination"
PROCESS_NAME = re.compile(r"[0-9]{1,10}-[0-9a-f]{16}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class Read(NamedTuple):
    """Records of one frame, whose they are, and where to acknowledge them."""

    records: list[AgentMetrics]
    holding: Holding
    place: Place


class Adopted(NamedTuple):
    """Records that were taken over: those to deliver, those beyond reading, and those that were too many."""

    waiting: int
    damaged: int
    over: int


class _Copy(NamedTuple):
    """A frame that is still in memory, so that it need not be read back."""

    begin: tuple[int, int]
    records: list[AgentMetrics]
    size: int
    place: Place


def folder_name(sink: str, destination: str) -> str:
    """The folder of one sink: what an earlier process left is only ever delivered to the same place."""
    digest = hashlib.sha256(destination.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{_UNSAFE.sub('_', sink)[:100] or '_'}{'-' + digest if destination else ''}"


class Spool:
    """Appends, reads from the oldest on, and removes what is acknowledged. Usable from two threads.

    Args:
        root: the folder of all spools.
        sink, destination: whose records these are.
        max_bytes: the bound of what this process has on disk.
        copies, copies_bytes: records that may also stay in memory until they are read.

    Raises:
        ConfigError: a system without file locks (Windows).
    """

    def __init__(
        self,
        root: str,
        sink: str,
        destination: str = "",
        *,
        max_bytes: int,
        copies: int = 10_000,
        copies_bytes: int = 32 * 1024 * 1024,
        segment_bytes: int = SEGMENT_BYTES,
        files: Files | None = None,
    ) -> None:
        if not CAN_LOCK:
            raise ConfigError("spool: this system has no file locks, by which processes know what is theirs")
        self.path = f"{root}/{folder_name(sink, destination)}"
        self._destination = destination
        self._max_bytes = max_bytes
        # At least two segments, so that there is always one that can be dropped.
        self.segment_bytes = min(segment_bytes, max_bytes // 4)
        self._max_copies = copies
        self._max_copies_bytes = copies_bytes
        self._files = Files() if files is None else files
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._own: OwnHolding | None = None
        self._adopted: Holding | None = None
        self._copies: deque[_Copy] = deque()
        self._copied = self._copied_bytes = 0
        self._lost = 0
        self._tries: dict[str, int] = {}  # to take over what a process left

    # ------------------------------------------------------------------ writing

    def append(self, records: list[AgentMetrics], size: int, *, drop_oldest: bool = True) -> tuple[int, int]:
        """Write records as one frame; how many of older ones were dropped to make room, and of these were refused.

        `size` is what they hold in memory, about. What is being delivered is not dropped.

        Raises:
            OSError: nothing is written; what was dropped meanwhile, `take_lost()` tells.
        """
        with self._lock:
            own = self._own_holding()
            frame = frames.encode(records, own.sequence)
            room = self._max_bytes - len(frame) - len(frames.MAGIC)
            while own.size > room:
                dropped = own.drop_oldest() if drop_oldest and room >= 0 else None
                if dropped is None:
                    return self.take_lost(), len(records)
                self._lost += dropped
            begin, place = own.append(frame, len(records))
            if self._copied + len(records) <= self._max_copies and self._copied_bytes + size <= self._max_copies_bytes:
                self._copies.append(_Copy(begin, records, size, place))
                self._copied += len(records)
                self._copied_bytes += size
            return self.take_lost(), 0

    def take_lost(self) -> int:
        """How many records were dropped to make room since the last answer."""
        with self._lock:
            lost, self._lost = self._lost, 0
            return lost

    def sync(self) -> None:
        """Have everything survive a power cut.

        Raises:
            OSError: it may not.
        """
        with self._lock:
            if self._own is not None:
                self._own.sync()

    # ------------------------------------------------------------------ reading

    def read(self) -> tuple[Read | None, int]:
        """The oldest frame of this process that was not read yet, or how many records are given up as unreadable.

        None and 0 at the end.

        Raises:
            OSError: the disk is in trouble; after some tries a segment is given up.
        """
        with self._lock:
            begin = None if self._own is None else self._own.next_frame()
            if self._own is None or begin is None:
                return None, 0
            while self._copies and self._copies[0].begin < begin:  # of a segment that was dropped
                self._forget_copy()
            if not self._copies or self._copies[0].begin != begin:
                return _read_next(self._own)
            copy = self._forget_copy()
            self._own.advance(len(copy.records), copy.place)
            return Read(copy.records, self._own, copy.place), 0

    def read_adopted(self) -> tuple[Read | None, int]:
        """The oldest frame of the holding that was taken over, as `read`."""
        with self._lock:
            if self._adopted is None or self._adopted.next_frame() is None:
                return None, 0
            return _read_next(self._adopted)

    def acknowledge(self, read: Read) -> None:
        """Everything of its holding up to a frame is delivered or given up; removes what is done with."""
        with self._lock:
            if read.holding not in (self._own, self._adopted):  # closed meanwhile
                return
            read.holding.acknowledge(read.place)
            self._leave_adopted()

    def _leave_adopted(self) -> None:
        if self._adopted is not None and self._adopted.is_done:
            self._adopted.close()
            self._adopted = None

    def _forget_copy(self) -> _Copy:
        copy = self._copies.popleft()
        self._copied -= len(copy.records)
        self._copied_bytes -= copy.size
        return copy

    # ------------------------------------------------------------------ what others left

    def adopt(self) -> Adopted:
        """Take over what a process that ended has left, one holding at a time, the oldest first.

        What is more than `max_bytes` in all is dropped, so that a program that crashes again and again does not fill
        the disk.
        """
        with self._lock:
            self._leave_adopted()  # its last records may have been beyond reading
            if self._adopted is not None:
                return Adopted(0, 0, 0)
            damaged = over = 0
            sizes = self._sizes([name for name in self.left() if not self._files.is_locked(f"{self.path}/{name}/lock")])
            for name in sorted(sizes, key=lambda name: sizes[name]):
                holding, lost = self._take_over(name)
                damaged += lost
                if holding is None:
                    continue
                if holding.unread and sum(size for _, size in sizes.values()) > self._max_bytes:
                    over += holding.give_up()
                del sizes[name]
                if holding.is_done:
                    holding.close()
                    continue
                self._adopted = holding
                return Adopted(holding.unread, damaged, over)
            return Adopted(0, damaged, over)

    def drop_left(self) -> int:
        """Remove what ended processes left; how many records that were."""
        dropped = 0
        with self._lock:
            for name in self.left():
                holding, damaged = self._take_over(name)
                if holding is not None:
                    dropped += holding.give_up() + damaged
                    holding.close()
        return dropped

    def _take_over(self, name: str) -> tuple[Holding | None, int]:
        path = f"{self.path}/{name}"
        holding = None
        try:
            lock = self._files.lock(f"{path}/lock", create=True)
            if lock is None:  # its process lives, or another one was faster
                return None, 0
            holding = Holding(path, lock, self._files, f"{self.path}/{QUARANTINE}")
            tries = self._tries[name] = self._tries.pop(name, 0) + 1
            damaged = holding.scan(last_try=tries >= TAKE_OVER_TRIES)
            del self._tries[name]
            return holding, damaged
        except OSError as error:
            note("spool", error)
            if holding is not None:
                holding.forget()
            return None, 0

    def _sizes(self, names: list[str]) -> dict[str, tuple[float, int]]:
        """When the lock of each was made, and the bytes of its files."""
        found = {}
        for name in names:
            try:
                found[name] = self._files.weigh(f"{self.path}/{name}")
            except OSError as error:
                note("spool", error)
        return found

    def left(self) -> list[str]:
        """The names of other processes' holdings, alive or not."""
        own = None if self._own is None else self._own.path.rpartition("/")[2]
        adopted = None if self._adopted is None else self._adopted.path.rpartition("/")[2]
        try:
            names = self._files.names(self.path) if self._files.is_ours(self.path) else []
        except OSError as error:
            note("spool", error)
            return []
        return [name for name in names if PROCESS_NAME.fullmatch(name) and name not in (own, adopted)]

    # ------------------------------------------------------------------ life

    def close(self) -> None:
        """Let go of everything; what is not acknowledged stays for the next process."""
        with self._lock:
            for holding in (self._own, self._adopted):
                if holding is not None:
                    holding.close()
            self._own = self._adopted = None
            self._copies.clear()
            self._copied = self._copied_bytes = 0

    def after_fork(self) -> None:
        """The holdings are the parent's."""
        for holding in (self._own, self._adopted):
            if holding is not None:
                holding.forget()
        self._reset()

    def _own_holding(self) -> OwnHolding:
        if self._own is None:
            self._files.make_folder(self.path)
            self._files.replace(self.path, DESTINATION, self._destination.encode("utf-8", "backslashreplace"))
            for _ in range(LOCK_TRIES):
                path = f"{self.path}/{new_name()}"
                self._files.make_folder(path)
                try:
                    lock = self._files.lock(f"{path}/lock", create=True)
                except OSError:
                    self._files.remove(f"{path}/lock")
                    self._files.remove_folder(path)
                    raise
                if lock is not None:  # else somebody took the empty folder for one that was left
                    aside = f"{self.path}/{QUARANTINE}"
                    self._own = OwnHolding(path, lock, self._files, aside, segment_bytes=self.segment_bytes)
                    return self._own
            raise OSError(errno.ENOLCK, "no lock")
        return self._own


def _read_next(holding: Holding) -> tuple[Read | None, int]:
    """The next frame, or how many records are given up because they cannot be read.

    Raises:
        OSError: the disk is in trouble; another try may do.
    """
    try:
        records, place = holding.read()
    except (ValueError, OSError) as error:
        note("spool", error)
        if isinstance(error, OSError) and holding.failures < READ_TRIES:
            holding.failures += 1
            raise
        holding.failures = 0
        return None, holding.skip()
    holding.failures = 0
    return Read(records, holding, place), 0
