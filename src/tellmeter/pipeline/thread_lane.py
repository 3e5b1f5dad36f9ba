"""The lane of a sink that does I/O: its own thread, and one more where there is a spool."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..config import MetricsConfig
from ..context import suppressed
from ..guard import guarded
from ..records import AgentMetrics
from .backlog import Backlog
from .clock import SYSTEM_CLOCK, Clock
from .dead_letters import DeadLetters
from .ledger import Ledger, SinkStats
from .outcome import Outcome
from .sender import Sender

if TYPE_CHECKING:
    from .spool.spool import Spool

FORK_SECONDS = 0.5  # how long a fork waits for a sink at work; one that hangs must not hold up the program
DISK_SECONDS = 1.0  # what bringing the rest to disk may take after the deadline of a close
IDLE_SECONDS = 1.0
SHORT_SECONDS = 0.05


class BatchSink(Protocol):
    """What such a lane drives; `open`, `flush`, `close` and `after_fork` may be missing."""

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Deliver a batch before `deadline` (of `time.monotonic`)."""


class ThreadLane:
    """Batches by number, bytes and age, sends on its own thread, retries what may succeed later, spools.

    Deadlines are of `time.monotonic`; `clock` says when batches are old enough and when a sink is tried again.
    """

    def __init__(
        self, name: str, sink: BatchSink, config: MetricsConfig, *, destination: str = "", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.name = name
        self.sink: Any = sink
        self._config = config
        self._clock = clock
        self._kind = type(getattr(sink, "wrapped", sink)).__name__ if destination else name
        self._spool: Spool | None = None
        if config.spool is not None and getattr(sink, "spools", True):
            from .spool.spool import Spool

            self._spool = Spool(
                _absolute(config.spool),
                self._kind,
                destination,
                max_bytes=config.spool_max_bytes,
                copies=config.max_queue,
                copies_bytes=config.max_queue_bytes,
            )
        self._reset()
        if self._spool is not None and self._spool.left():
            with self._changed:
                self._start()

    def _reset(self) -> None:
        config = self._config
        self._changed = threading.Condition(threading.RLock())
        self._at_work = threading.RLock()  # held while the sink's code runs
        self._ledger = Ledger()
        self._backlog = Backlog(
            self._ledger,
            self._changed,
            self._clock,
            batch_size=config.batch_size,
            batch_seconds=config.batch_timeout_seconds,
            max_records=config.max_queue,
            max_bytes=config.max_queue_bytes,
            when_full=config.when_full or ("drop_newest" if self._spool is None else "spool"),
            spool=self._spool,
        )
        self._sender = Sender(
            self.name,
            self.sink,
            self._backlog,
            self._ledger,
            self._changed,
            self._clock,
            batch_size=config.batch_size,
            at_work=self._at_work,
            dead_letters=None
            if config.dead_letters is None
            else DeadLetters(_absolute(config.dead_letters), self._kind),
        )
        self._flush_goal: tuple[int, int] = (0, 0)
        self._flushed: tuple[int, int] = (0, 0)
        self._threads: dict[str, threading.Thread] = {}
        self._closing = False
        self._sent = False  # whether the sender of a lane that is being closed has come to its end
        self._forking = False

    # ------------------------------------------------------------------ from any thread

    def put(self, records: list[AgentMetrics]) -> None:
        """Take records; what a full lane cannot take is dropped and counted."""
        with self._changed:
            if self._closing:
                self._ledger.refuse(len(records), "closed")
            elif self._backlog.put(records):
                self._start()
                self._changed.notify_all()

    def flush(self, deadline: float) -> bool:
        """Wait until what was put before is settled and the sink flushed; False where the deadline is too soon."""
        with self._changed:
            goal = self._ledger.goal()
            if self._is_flushed(goal):
                return True
            self._flush_goal = max(self._flush_goal[0], goal[0]), max(self._flush_goal[1], goal[1])
            self._start()
            self._changed.notify_all()
            while not self._is_flushed(goal) and self._is_staffed:
                left = deadline - time.monotonic()
                if left <= 0 or self._sender.pacing.not_before - self._clock.monotonic() > left:
                    return False
                self._changed.wait(min(left, IDLE_SECONDS))
            return self._is_flushed(goal)

    def close(self, deadline: float) -> int:
        """Flush and end the threads. What is left at the deadline stays in the spool, or is dropped as `shutdown`.

        A sink whose breaker is open is not waited for. How many records were dropped.
        """
        if self._sender.pacing.state != "open":
            self.flush(deadline)
        with self._changed:
            if self._closing:
                return 0
            self._closing = True
            self._sender.deadline = deadline
            threads = dict(self._threads)
            self._changed.notify_all()
        if self._spool is not None and "write" not in threads:
            self._backlog.write_out(hurry=True)
        self._join(threads.get("send"), self._send_all, deadline)
        with self._changed:
            self._sender.given_up = self._sent = True  # whatever a send still does is no longer counted
            self._changed.notify_all()
        if self._spool is not None:
            self._join(threads.get("write"), self._write_all, max(deadline, time.monotonic() + DISK_SECONDS))
        with self._changed:
            self._backlog.clear()
            return self._ledger.abandon("shutdown")

    def stats(self) -> SinkStats:
        """The account."""
        with self._changed:
            return self._ledger.stats(failures=dict(self._sender.failures), state=self._sender.pacing.state)

    # ------------------------------------------------------------------ forks

    def before_fork(self) -> None:
        """Wait, briefly, until the sink is not at work: a C library's lock (SQLite's) would stay taken in the child."""
        self._forking = self._at_work.acquire(timeout=FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Let the sink work again."""
        if self._forking:
            self._forking = False
            self._at_work.release()

    def after_fork(self) -> None:
        """The parent owns what waited: start empty, without threads, with new locks."""
        self._backlog.after_fork()
        self._sender.close()
        self._reset()
        if hasattr(self.sink, "after_fork"):
            guarded(self.name, self.sink.after_fork, default=None)

    # ------------------------------------------------------------------ the lane's own threads

    @property
    def _is_staffed(self) -> bool:
        """Whether its threads run; one alone, where the interpreter ended while they were started, waits in vain."""
        return "send" in self._threads and (self._spool is None or "write" in self._threads)

    def _start(self) -> None:
        if self._closing:
            return
        self._start_one("send", self._send_all)
        if self._spool is not None:
            self._start_one("write", self._write_all)

    def _start_one(self, role: str, work: Any) -> None:
        if role in self._threads:
            return
        suffix = "" if role == "send" else "-spool"
        thread = threading.Thread(target=work, name=f"tellmeter-{self.name}{suffix}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending: close() does the work on its own thread
            return
        self._threads[role] = thread

    @staticmethod
    def _join(thread: threading.Thread | None, work: Any, deadline: float) -> None:
        if thread is None:
            work()  # the interpreter is ending and starts no more threads (Python 3.12 and later)
        elif thread is not threading.current_thread():
            thread.join(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))

    def _is_flushed(self, goal: tuple[int, int]) -> bool:
        return self._ledger.covers(self._flushed, goal)

    @property
    def _hurry(self) -> bool:
        return self._closing or not self._is_flushed(self._flush_goal)

    def _send_all(self) -> None:
        changed, sender = self._changed, self._sender
        with suppressed():
            opened = False
            while (act := self._next_act()) is not None:
                if not opened:
                    opened = True
                    self._call("open")
                act()
            if opened:
                self._call("close")
            sender.close()
        with changed:
            if changed is self._changed:  # else this is a fork's child, which has no such thread
                self._threads.pop("send", None)
                changed.notify_all()

    def _next_act(self) -> Callable[[], None] | None:
        """Wait until there is something to do, and say what; None at the end of the lane."""
        sender, changed = self._sender, self._changed
        with changed:
            while not sender.given_up:
                if not self._is_flushed(self._flush_goal) and self._ledger.reached(self._flush_goal):
                    return self._flush_sink
                now = self._clock.monotonic()
                due = sender.due(hurry=self._hurry)
                if due <= now:
                    return self._step
                if not self._closing:
                    self._clock.wait(changed, None if due == math.inf else due - now)
                    continue
                left = sender.deadline - time.monotonic()
                # The write thread is at it, or close() itself.
                unwritten = self._spool is not None and self._ledger.queued
                if sender.pacing.state == "open":
                    left = 0.0
                if left <= 0 or (due - now >= left and not unwritten):
                    return None
                changed.wait(min(left, due - now, IDLE_SECONDS))
        return None

    def _step(self) -> None:
        if not self._sender.step():  # what was due is gone, as by a disk that failed meanwhile
            with self._changed:
                self._changed.wait(SHORT_SECONDS)

    def _flush_sink(self) -> None:
        with self._changed:
            settled = self._ledger.settled, self._ledger.adopted_settled
        self._call("flush")
        with self._changed:
            self._flushed = settled
            self._changed.notify_all()

    def _write_all(self) -> None:
        changed, backlog = self._changed, self._backlog
        with suppressed():
            while self._wait_to_write():
                guarded(self.name, backlog.write, self._hurry, default=None)
            backlog.close(in_flight_on_disk=self._sender.holds_frames)
        with changed:
            if changed is self._changed:
                self._threads.pop("write", None)
                changed.notify_all()

    def _wait_to_write(self) -> bool:
        """Wait until there is something to do on disk; False when nothing more will be sent."""
        with self._changed:
            while not self._sent:
                now = self._clock.monotonic()
                due = self._backlog.write_due(hurry=self._hurry)
                if due <= now:
                    return True
                self._clock.wait(self._changed, due - now)
        return False

    def _call(self, name: str) -> None:
        method = getattr(self.sink, name, None)
        if method is not None:
            with self._at_work:
                guarded(self.name, method, default=None)


def _absolute(path: str | os.PathLike[str]) -> str:
    """As it is now: a program may change its folder later."""
    return str(Path(path).expanduser().absolute())
