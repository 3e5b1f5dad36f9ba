"""What one sink still has to get: a bounded queue in memory and, with a spool, what was written to disk from it."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..counts import count
from ..guard import note
from ..records import AgentMetrics
from .clock import Clock
from .ledger import Ledger

if TYPE_CHECKING:
    from .spool.spool import Read, Spool

BATCH_BYTES = 4 * 1024 * 1024
FRAME_RECORDS = 0xFFFF  # what a frame's head can count
WRITE_SECONDS = 0.1  # how long records may wait for others before they go to disk together
SYNC_SECONDS = 0.2
ADOPT_SECONDS = 10.0
TROUBLE_SECONDS = 30.0  # how long a disk that failed is left alone


class Batch(NamedTuple):
    """Records to send together, and the frames that they come from."""

    records: list[AgentMetrics]
    reads: list[Read]
    adopted: bool


class Backlog:
    """Takes records, gives batches of them. `lock` is the lane's; disk work is done without it.

    One thread calls `take` and `done`, one `write`; `put` never waits for either.
    """

    def __init__(
        self,
        ledger: Ledger,
        lock: threading.Condition,
        clock: Clock,
        *,
        batch_size: int,
        batch_seconds: float,
        max_records: int,
        max_bytes: int,
        when_full: str,
        spool: Spool | None = None,
    ) -> None:
        self._ledger = ledger
        self._lock = lock
        self._clock = clock
        self._batch_size = batch_size
        self._batch_seconds = batch_seconds
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._drops_oldest = when_full == "drop_oldest"
        self._spool_drops_oldest = when_full != "drop_newest"
        self.spool = spool
        self._queue: deque[tuple[AgentMetrics, int]] = deque()
        self._bytes = 0
        self._evicted = 0
        self._oldest = 0.0  # when the oldest record that waits to be sent came, about
        self._entered = 0.0  # when the oldest record in the queue came, about
        self._trouble_until = -math.inf
        self._synced = True
        self._sync_due = 0.0
        self._adopt_due = -math.inf
        self._adopted_next = False

    # ------------------------------------------------------------------ records come

    def put(self, records: list[AgentMetrics]) -> bool:
        """Take records; what does not fit is dropped and counted. Whether somebody should look. Called with the lock.

        With a spool, what does not fit in memory waits on disk: a full queue then means that the disk does not keep up.
        """
        was = len(self._queue)
        if not was:
            self._entered = self._clock.monotonic()
            if not self._waiting():
                self._oldest = self._entered
        taken = 0
        for record in records:
            size = size_of(record)
            if self._has_room(size):
                self._queue.append((record, size))
                self._bytes += size
                taken += 1
        self._ledger.enter(taken)
        if taken < len(records):
            self._ledger.refuse(len(records) - taken, "lane_full")
        if self._evicted:  # after they were entered: some may be of this very call
            self._ledger.lose(self._evicted, "lane_full")
            self._evicted = 0
        return was == 0 or was < self._batch_size <= len(self._queue)

    def _has_room(self, size: int) -> bool:
        """Whether a record fits; where the oldest give way, it is made to."""
        while len(self._queue) >= self._max_records or self._bytes + size > self._max_bytes:
            if not self._drops_oldest or not self._queue or size > self._max_bytes:
                return False
            self._bytes -= self._queue.popleft()[1]
            self._evicted += 1
        return True

    # ------------------------------------------------------------------ batches go

    def due(self, *, hurry: bool) -> float:
        """When there is a batch: a time of the clock, in the past for at once, inf for never. Called with the lock."""
        trouble = self._in_trouble()
        if self._ledger.adopted_unread and not trouble:
            return -math.inf
        waiting = self._waiting()
        if not waiting:
            return self._trouble_until if trouble and self._ledger.spooled else math.inf
        if hurry or waiting >= self._batch_size or self._bytes >= BATCH_BYTES:
            return -math.inf
        return self._oldest + self._batch_seconds

    def take(self, most: int) -> Batch | None:
        """The next batch: `most` records, or more where one frame has more; None where nothing is left to send."""
        batch = None
        if self.spool is not None and not self._in_trouble():
            # By turns, so that what an earlier process left does not hold up what happens now, nor the reverse.
            self._adopted_next = not self._adopted_next and self._ledger.adopted_unread > 0
            batch = self._read(most, adopted=self._adopted_next) or self._read(most, adopted=not self._adopted_next)
        with self._lock:
            self._oldest = self._clock.monotonic()
            if batch is None and (self.spool is None or self._in_trouble()):
                batch = self._pop(most, BATCH_BYTES)
                self._ledger.take(len(batch.records))
            return batch if batch is not None and batch.records else None

    def done(self, batch: Batch) -> None:
        """Every record of a batch is delivered or dropped."""
        if self.spool is None or not batch.reads:
            return
        self.spool.acknowledge(batch.reads[-1])
        if batch.adopted and not self._ledger.adopted_unread:
            with self._lock:
                self._adopt_due = -math.inf  # there may be more
                self._lock.notify_all()

    def _waiting(self) -> int:
        """Records of this process that can be sent now."""
        if self.spool is None or self._in_trouble():
            return len(self._queue)
        return self._ledger.spooled - self._ledger.adopted_unread

    def _in_trouble(self) -> bool:
        """Whether the disk is left alone: records then go from memory."""
        return self._clock.monotonic() < self._trouble_until

    def _pop(self, most: int, most_bytes: int) -> Batch:
        records: list[AgentMetrics] = []
        size = 0
        while self._queue and len(records) < most and (not records or size + self._queue[0][1] <= most_bytes):
            record, held = self._queue.popleft()
            size += held
            records.append(record)
        self._bytes -= size
        return Batch(records, [], adopted=False)

    def _read(self, most: int, *, adopted: bool) -> Batch | None:
        assert self.spool is not None
        read = self.spool.read_adopted if adopted else self.spool.read
        records: list[AgentMetrics] = []
        reads: list[Read] = []
        while len(records) < most:
            try:
                found, damaged = read()
            except OSError as error:
                self._is_in_trouble(error)
                break
            with self._lock:
                if damaged:
                    self._ledger.lose(damaged, "spool_damaged", spooled=True, adopted=adopted)
                if found is not None:
                    self._ledger.take(len(found.records), spooled=True, adopted=adopted)
            if found is not None:
                records += found.records
                reads.append(found)
            elif not damaged:
                break
        return Batch(records, reads, adopted) if records else None

    # ------------------------------------------------------------------ to disk

    def write_due(self, *, hurry: bool) -> float:
        """When `write` has something to do, as `due`. Called with the lock."""
        if self.spool is None:
            return math.inf
        due = self._adopt_due if self._synced else min(self._adopt_due, self._sync_due)
        return min(due, self._frame_due(hurry=hurry))

    def _frame_due(self, *, hurry: bool) -> float:
        if not self._queue:
            return math.inf
        many = hurry or len(self._queue) >= self._batch_size
        return max(self._trouble_until, -math.inf if many else self._entered + WRITE_SECONDS)

    def write(self, hurry: bool) -> None:
        """Bring what is in memory to disk, and take over what ended processes left."""
        now = self._clock.monotonic()
        if now >= self._adopt_due:
            self._adopt_due = now + ADOPT_SECONDS
            self.adopt()
        self.write_out(hurry=hurry)

    def write_out(self, *, hurry: bool) -> None:
        """Bring what is in memory to disk, as frames, and have it survive a power cut."""
        assert self.spool is not None
        while True:
            with self._lock:
                ready = self._frame_due(hurry=hurry) <= self._clock.monotonic()
            if not (ready and self._write_frame()):
                break
        if not self._synced and (hurry or self._clock.monotonic() >= self._sync_due):
            self._synced = True
            try:
                self.spool.sync()
            except OSError as error:
                self._is_in_trouble(error)

    def _write_frame(self) -> bool:
        """Write one frame; whether there may be more."""
        assert self.spool is not None
        with self._lock:
            most = min(self._batch_size, FRAME_RECORDS)
            batch = self._pop(most, self.spool.segment_bytes).records
            if len(batch) == most or not self._queue:  # else the next frame takes what came with these
                self._entered = self._clock.monotonic()
        if not batch:
            return False
        size = sum(map(size_of, batch))
        dropped = refused = 0
        try:
            dropped, refused = self.spool.append(batch, size, drop_oldest=self._spool_drops_oldest)
        except OSError as error:
            self._is_in_trouble(error)
            with self._lock:
                self._queue.extendleft(reversed([(record, size_of(record)) for record in batch]))
                self._bytes += size
                self._ledger.lose(self.spool.take_lost(), "spool_full", spooled=True)
                self._lock.notify_all()
            return False
        with self._lock:
            if self._synced:
                self._synced = False
                self._sync_due = self._clock.monotonic() + SYNC_SECONDS
            self._ledger.lose(refused, "spool_full")
            self._ledger.write(len(batch) - refused)
            self._ledger.lose(dropped, "spool_full", spooled=True)
            self._lock.notify_all()
        return True

    def adopt(self) -> None:
        """Take over what an ended process left."""
        assert self.spool is not None
        try:
            found = self.spool.adopt()
        except OSError as error:
            note("spool", error)
            return
        with self._lock:
            self._ledger.adopt(found.waiting)
            for lost, reason in ((found.damaged, "spool_damaged"), (found.over, "spool_full")):
                if lost:
                    self._ledger.refuse(lost, reason)
            if found.waiting:
                self._lock.notify_all()

    def _is_in_trouble(self, error: OSError) -> None:
        """The disk is full or gone: records wait in memory, and the disk is tried again after a while."""
        count("spool_errors", type(error).__name__)
        note("spool", error)
        self._trouble_until = self._clock.monotonic() + TROUBLE_SECONDS

    # ------------------------------------------------------------------ the end

    def close(self, *, in_flight_on_disk: bool) -> None:
        """Bring to disk what can be brought, and let go of it; what is left in memory then, the lane drops."""
        if self.spool is None:
            return
        self._trouble_until = -math.inf
        self.write_out(hurry=True)
        with self._lock:
            if in_flight_on_disk:
                self._ledger.give_back()
        self.spool.close()

    def clear(self) -> None:
        """Forget what is in memory, which the lane has counted."""
        self._queue.clear()
        self._bytes = 0

    def after_fork(self) -> None:
        """The parent owns what waited."""
        if self.spool is not None:
            self.spool.after_fork()


def size_of(record: AgentMetrics) -> int:
    """About how many bytes a record holds: its fixed part measured, its texts counted."""
    return 700 + len(record.model) + 160 * len(record.tags) + (500 if record.stream is not None else 0)
