"""Sends what waits, a batch at a time: reads each outcome once, splits, retries, gives up. Knows no threads."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import Counter
from typing import Any

import msgspec

from ..guard import note
from ..records import AgentMetrics
from .backlog import Backlog, Batch
from .clock import Clock
from .dead_letters import DeadLetters
from .ledger import Ledger
from .outcome import Delivered, Outcome, Partial, Rejected, RetryLater, TooLarge
from .pacing import Pacing

logger = logging.getLogger(__name__)

ATTEMPT_SECONDS = 10.0
GIVE_UP_SECONDS = 600.0  # a batch that is only in memory; one on disk is tried for ever
GROW_AFTER = 16  # batches delivered in a row, until larger ones are tried again after a TooLarge
LOG_SECONDS = 60.0  # between two lines about the same trouble
MAX_REASONS = 100
_PLAIN = re.compile(r"[^A-Za-z0-9_.:-]+")


class Sender:
    """`step()` does what is due. One thread calls it; `lock` is the lane's, and not held while the sink works.

    Args:
        at_work: held while the sink's code runs.
    """

    def __init__(
        self,
        name: str,
        sink: Any,
        backlog: Backlog,
        ledger: Ledger,
        lock: threading.Condition,
        clock: Clock,
        *,
        batch_size: int,
        at_work: threading.RLock,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        self._name = name
        self.sink = sink
        self._backlog = backlog
        self._ledger = ledger
        self._lock = lock
        self._clock = clock
        self._at_work = at_work
        self._batch_size = self._most = batch_size
        self._streak = 0
        self._dead_letters = dead_letters
        self._batch: Batch | None = None
        self._parts: list[list[AgentMetrics]] = []  # of the batch, not settled yet; the next one is the last
        self._since = 0.0  # when the batch was taken
        self._logged: dict[str, float] = {}
        self._reasons: set[str] = set()
        self._silent = False  # whether it was told that the sink does not take records
        self.pacing = Pacing()
        self.failures: Counter[str] = Counter()
        self.deadline = math.inf  # of time.monotonic, of a lane that is being closed
        self.given_up = False

    @property
    def is_busy(self) -> bool:
        """Whether a batch is under way."""
        return self._batch is not None

    @property
    def holds_frames(self) -> bool:
        """Whether the batch that is under way is on disk too."""
        return self._batch is not None and bool(self._batch.reads)

    def due(self, *, hurry: bool) -> float:
        """When `step` has something to do: a time of the clock. Called with the lock."""
        return max(self.pacing.not_before, -math.inf if self._parts else self._backlog.due(hurry=hurry))

    def step(self) -> bool:
        """Make one attempt; whether there was something to send."""
        if self._batch is None:
            self._batch = self._backlog.take(self._most)
            if self._batch is None:
                return False
            records = self._batch.records
            self._parts = [records[at : at + self._most] for at in range(0, len(records), self._most)][::-1]
            self._since = self._clock.monotonic()
        self._send(self._parts.pop())
        if not self._parts and not self.given_up:
            self._backlog.done(self._batch)
            self._batch = None
        return True

    def _send(self, part: list[AgentMetrics]) -> None:
        """One attempt with one part of the batch."""
        outcome = self._attempt(part)
        if self.given_up:  # the lane has closed meanwhile, and counted these
            return
        match outcome:
            case Delivered():
                self._settle(len(part), [], "")
            case Rejected(reason=reason):
                self._settle(0, part, reason)
            case Partial(retry=retry, rejected=rejected, reason=reason):
                again, lost = set(retry), set(rejected) - set(retry)
                rest = [record for index, record in enumerate(part) if index in again]
                refused = [record for index, record in enumerate(part) if index in lost]
                self._settle(len(part) - len(rest) - len(refused), refused, reason, failed=bool(rest))
                if rest:
                    self._retry(rest, None, reason)
            case TooLarge() if len(part) > 1:
                self.pacing.succeeded()
                self._most, self._streak = max(1, len(part) // 2), 0
                self._parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            case TooLarge():
                self._settle(0, part, "too_large")
            case RetryLater(after=after, reason=reason):
                self._retry(part, after, reason)

    def _attempt(self, part: list[AgentMetrics]) -> Outcome:
        try:
            with self._at_work:
                outcome = self.sink.send(part, min(time.monotonic() + ATTEMPT_SECONDS, self.deadline))
        except BaseException as error:
            note(self._name, error)
            return RetryLater(reason="exception")
        try:
            return self._checked(outcome)
        except Exception as error:
            note(self._name, error)  # a send() without an outcome: the records are not known to be delivered
            return Rejected("no_outcome")

    def _checked(self, outcome: Any) -> Outcome:
        """An outcome whose parts are what they should be: indexes that are none must not end the lane."""
        if isinstance(outcome, Delivered | TooLarge):
            return outcome
        if not isinstance(outcome, Rejected | Partial | RetryLater):
            raise TypeError(type(outcome))
        checked = msgspec.convert(msgspec.to_builtins(outcome), type(outcome))  # its making checks nothing
        return msgspec.structs.replace(checked, reason=self._known(checked.reason))

    def _known(self, reason: str) -> str:
        """A reason that may be a key and stand in a log: short, plain, and one of a hundred at most."""
        name = _PLAIN.sub("_", reason)[:60] or "unknown"
        if name not in self._reasons:
            if len(self._reasons) >= MAX_REASONS:
                return "other"
            self._reasons.add(name)
        return name

    def _settle(self, delivered: int, refused: list[AgentMetrics], reason: str, *, failed: bool = False) -> None:
        """Count what is delivered and what is dropped; whether the sink `failed` for others."""
        if refused and self._dead_letters is not None:
            self._dead_letters.write(refused, reason)
        if not failed:
            self.pacing.succeeded()
            if self._silent:
                self._silent = False
                logger.info("%s takes records again", self._name)
        if delivered:
            self._streak += 1
            if self._streak >= GROW_AFTER and self._most < self._batch_size:
                self._most, self._streak = min(self._batch_size, self._most * 2), 0
        if refused:
            self._tell(reason, "%s refused %d records (%s); they are dropped and counted", len(refused))
        assert self._batch is not None
        with self._lock:
            if not self.given_up:
                self._ledger.finish(
                    delivered=delivered, dropped=len(refused), reason=reason, adopted=self._batch.adopted
                )
            self._lock.notify_all()

    def _retry(self, part: list[AgentMetrics], after: float | None, reason: str) -> None:
        now = self._clock.monotonic()
        self.pacing.failed(now, after)
        with self._lock:
            self.failures[reason] += 1
        if not self.holds_frames and now - self._since >= GIVE_UP_SECONDS:
            self._settle(0, part, reason, failed=True)
            return
        self._parts.append(part)
        self._silent = True
        self._tell(reason, "%s does not take records (%s); it is tried again until it does. %d wait", None)

    def _tell(self, reason: str, text: str, number: int | None) -> None:
        """One line, at most once a minute for each reason. It never says more than names and numbers."""
        now = self._clock.monotonic()
        if now - self._logged.get(reason, -math.inf) < LOG_SECONDS:
            return
        self._logged[reason] = now
        if number is None:
            waiting = self._ledger.queued + self._ledger.in_flight + self._ledger.spooled
            logger.warning(text, self._name, reason, waiting)
        else:
            logger.warning(text, self._name, number, reason)

    def close(self) -> None:
        """Let go of files."""
        if self._dead_letters is not None:
            self._dead_letters.close()
