"""One lane a sink: a bounded queue and, for I/O, a thread, so that one sink's trouble is nobody else's."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Protocol

from ..context import suppressed
from ..guard import guarded, note
from ..records import AgentMetrics
from .ledger import SinkStats
from .outcome import Delivered, Outcome, Partial, Rejected, RetryLater, TooLarge

ATTEMPT_SECONDS = 10.0
BACKOFF_FIRST = 0.5
BACKOFF_LONGEST = 30.0
RETRY_AFTER_LONGEST = 300.0
FORK_SECONDS = 0.5  # how long a fork waits for a sink at work; one that hangs must not hold up the program


class BatchSink(Protocol):
    """What a lane with a thread drives; `open`, `flush`, `close` and `after_fork` may be missing."""

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Deliver a batch before `deadline` (of `time.monotonic`)."""


class Lane(Protocol):
    """What the collector drives, whatever the sink."""

    name: str
    sink: Any

    def put(self, records: list[AgentMetrics]) -> None:
        """Take records; never blocks."""

    def flush(self, deadline: float) -> bool:
        """Wait until what was put before is settled; False at the deadline."""

    def close(self, deadline: float) -> None:
        """Flush and end; what is left at the deadline is dropped and counted."""

    def stats(self) -> SinkStats:
        """The account."""

    def before_fork(self) -> None:
        """Wait, briefly, until the sink is not at work."""

    def after_fork_in_parent(self) -> None:
        """Let the sink work again."""

    def after_fork(self) -> None:
        """Start empty in the child."""


class MemoryLane:
    """For a sink that only remembers: written on the router thread, no queue."""

    def __init__(self, name: str, sink: Any) -> None:
        self.name = name
        self.sink = sink
        self._delivered = 0
        self._failed = 0

    def put(self, records: list[AgentMetrics]) -> None:
        """Write the records, each guarded."""
        write = self.sink.write
        for record in records:
            try:
                write(record)
                self._delivered += 1
            except BaseException as error:
                note(self.name, error)
                self._failed += 1

    def flush(self, deadline: float) -> bool:
        """Nothing ever waits here."""
        return True

    def close(self, deadline: float) -> None:
        """Nothing to end."""

    def stats(self) -> SinkStats:
        """The account."""
        failed = {"sink_error": self._failed} if self._failed else {}
        return SinkStats(accepted=self._delivered + self._failed, delivered=self._delivered, dropped=failed)

    def before_fork(self) -> None:
        """Nothing is ever at work here."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork(self) -> None:
        """The child counts its own."""
        self._delivered = self._failed = 0
        if hasattr(self.sink, "after_fork"):
            guarded(self.name, self.sink.after_fork, default=None)


class ThreadLane:
    """For a sink that does I/O: batches by number and age, sends on its own thread, retries what may succeed later."""

    def __init__(
        self,
        name: str,
        sink: BatchSink,
        *,
        batch_size: int,
        batch_seconds: float,
        max_records: int,
        max_bytes: int,
    ) -> None:
        self.name = name
        self.sink: Any = sink
        self._batch_size = batch_size
        self._batch_seconds = batch_seconds
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[tuple[AgentMetrics, int]] = deque()
        self._bytes = 0
        self._oldest = 0.0
        self._accepted = 0
        self._delivered = 0
        self._dropped: Counter[str] = Counter()
        self._in_flight = 0
        self._flush_goal = 0  # settled records that a flush waits for
        self._flushed_at = 0  # settled records when the sink was last flushed
        self._thread: threading.Thread | None = None
        self._closing = False
        self._given_up = False
        self._deadline = math.inf  # of a lane that is being closed
        self._at_work = threading.RLock()  # held while the sink's code runs
        self._forking = False

    def put(self, records: list[AgentMetrics]) -> None:
        """Take records; what a full lane cannot take is dropped and counted."""
        with self._changed:
            self._accepted += len(records)
            if self._closing:
                self._dropped["closed"] += len(records)
                return
            if not self._queue:
                self._oldest = time.monotonic()
            for record in records:
                size = size_of(record)
                if len(self._queue) >= self._max_records or self._bytes + size > self._max_bytes:
                    self._dropped["lane_full"] += 1
                    continue
                self._queue.append((record, size))
                self._bytes += size
            if self._thread is None:
                self._start()
            elif len(self._queue) >= self._batch_size or len(self._queue) <= len(records):
                self._changed.notify_all()

    def flush(self, deadline: float) -> bool:
        """Wait until what was put before is settled and the sink flushed; False at the deadline."""
        with self._changed:
            goal = self._accepted
            if self._settled() >= goal and self._flushed_at >= goal:
                return True
            self._flush_goal = max(self._flush_goal, goal)
            if self._thread is None:
                self._start()
            self._changed.notify_all()
            while self._flushed_at < goal and self._thread is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 1.0))
            return self._flushed_at >= goal

    def close(self, deadline: float) -> None:
        """Flush and end the thread; what is left at the deadline is dropped and counted as `shutdown`."""
        self.flush(deadline)
        with self._changed:
            self._closing = True
            self._deadline = deadline
            thread = self._thread
            self._changed.notify_all()
        if thread is None and self._queue:
            self._run()  # the interpreter is ending and starts no more threads (Python 3.12 and later)
        elif thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            if thread is not None and thread.is_alive():
                self._given_up = True  # whatever its send still does is no longer counted
            left = len(self._queue) + self._in_flight
            if left:
                self._dropped["shutdown"] += left
                self._queue.clear()
                self._bytes = self._in_flight = 0

    def stats(self) -> SinkStats:
        """The account."""
        with self._changed:
            return SinkStats(
                accepted=self._accepted,
                delivered=self._delivered,
                dropped=dict(self._dropped),
                queued=len(self._queue),
                in_flight=self._in_flight,
            )

    def before_fork(self) -> None:
        """Wait, briefly, until the sink is not at work: a C library's lock (SQLite's) would stay taken in the child."""
        self._forking = self._at_work.acquire(timeout=FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Let the sink work again."""
        if self._forking:
            self._forking = False
            self._at_work.release()

    def after_fork(self) -> None:
        """The parent owns what waited: start empty, without a thread, with a new lock."""
        self._reset()
        if hasattr(self.sink, "after_fork"):
            guarded(self.name, self.sink.after_fork, default=None)

    # ------------------------------------------------------------------ the lane's own thread

    def _settled(self) -> int:
        return self._delivered + sum(self._dropped.values())

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"tellmeter-{self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending: close() delivers on its own thread
            return
        self._thread = thread

    def _run(self) -> None:
        generation = self._changed
        with suppressed():
            opened = False
            while (batch := self._next_batch()) is not None:
                if not opened:
                    opened = True
                    self._call("open")
                if batch:
                    self._deliver(batch)
                self._flush_sink()
            if opened:
                self._call("close")
        with generation:
            if generation is self._changed:
                self._thread = None
                generation.notify_all()

    def _next_batch(self) -> list[AgentMetrics] | None:
        """Wait for a batch that is full, old enough or wanted by a flush; [] for a flush alone, None at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                wanted = self._flush_goal > self._flushed_at
                if self._queue:
                    due = self._oldest + self._batch_seconds
                    if wanted or self._closing or len(self._queue) >= self._batch_size or now >= due:
                        return self._take()
                    self._changed.wait(due - now)
                elif wanted:
                    return []
                elif self._closing:
                    return None
                else:
                    self._changed.wait()

    def _take(self) -> list[AgentMetrics]:
        batch: list[AgentMetrics] = []
        while self._queue and len(batch) < self._batch_size:
            record, size = self._queue.popleft()
            self._bytes -= size
            batch.append(record)
        self._in_flight += len(batch)
        self._oldest = time.monotonic()
        return batch

    def _deliver(self, batch: list[AgentMetrics]) -> None:
        """Send until every record of the batch is delivered or dropped, or the lane is closed."""
        waiting = [batch]
        failures = 0
        while waiting and not self._given_up:
            part = waiting.pop()
            outcome = self._attempt(part)
            match outcome:
                case Delivered():
                    self._account(delivered=len(part))
                    failures = 0
                case Rejected(reason=reason):
                    self._account(dropped=len(part), reason=reason)
                case Partial(retry=retry, rejected=rejected, reason=reason):
                    again = [part[index] for index in sorted(set(retry)) if 0 <= index < len(part)]
                    lost = len({index for index in rejected if 0 <= index < len(part)} - set(retry))
                    self._account(delivered=len(part) - len(again) - lost, dropped=lost, reason=reason)
                    if again:
                        waiting.append(again)
                        failures = self._back_off(failures, None)
                case TooLarge() if len(part) > 1:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
                case TooLarge():
                    self._account(dropped=1, reason="too_large")
                case RetryLater(after=after):
                    waiting.append(part)
                    failures = self._back_off(failures, after)

    def _attempt(self, batch: list[AgentMetrics]) -> Outcome:
        try:
            with self._at_work:
                outcome = self.sink.send(batch, min(time.monotonic() + ATTEMPT_SECONDS, self._deadline))
        except BaseException as error:
            note(self.name, error)
            return RetryLater(reason="exception")
        if isinstance(outcome, Delivered | Rejected | Partial | TooLarge | RetryLater):
            return outcome
        note(self.name, TypeError())  # a send() without an outcome: the records are not known to be delivered
        return Rejected("no_outcome")

    def _back_off(self, failures: int, after: float | None) -> int:
        """Wait before the next attempt, with full jitter, and as the backend wishes up to 5 minutes; failures + 1."""
        import random  # slow to import, and seldom needed

        longest = min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0 ** min(failures, 16))
        # Not by the module's functions: a program that seeded them must get the numbers that it would get without us.
        jitter = random.SystemRandom().uniform(0, longest)
        wished = after if after is not None and math.isfinite(after) and after > 0 else 0.0
        until = time.monotonic() + max(jitter, min(wished, RETRY_AFTER_LONGEST))
        with self._changed:
            while not self._given_up and (left := min(until, self._deadline) - time.monotonic()) > 0:
                self._changed.wait(left)
            self._given_up = self._given_up or time.monotonic() >= self._deadline
        return failures + 1

    def _account(self, *, delivered: int = 0, dropped: int = 0, reason: str = "rejected") -> None:
        with self._changed:
            if self._given_up:
                return
            self._delivered += delivered
            if dropped:
                self._dropped[reason] += dropped
            self._in_flight -= delivered + dropped
            self._changed.notify_all()

    def _flush_sink(self) -> None:
        with self._changed:
            settled = self._settled()
            if self._queue or self._flush_goal <= self._flushed_at:
                return
        self._call("flush")
        with self._changed:
            self._flushed_at = max(self._flushed_at, settled)
            self._changed.notify_all()

    def _call(self, name: str) -> None:
        method = getattr(self.sink, name, None)
        if method is not None:
            with self._at_work:
                guarded(self.name, method, default=None)


def size_of(record: AgentMetrics) -> int:
    """About how many bytes a record holds: its fixed part measured, its texts counted."""
    return 700 + len(record.model) + 160 * len(record.tags) + (500 if record.stream is not None else 0)
