"""What became of every record, in numbers: the promise that nothing is lost without a count."""

from __future__ import annotations

from collections import Counter

import msgspec


class SinkStats(msgspec.Struct, frozen=True, kw_only=True):
    """One sink's account. `accepted == delivered + dropped + queued + in_flight + spooled` at every moment.

    accepted: records that came to the sink, those that an earlier process had left in the spool included (`adopted`).
    dropped: by reason. The lane's own are lane_full, spool_full, spool_damaged, too_large, shutdown and closed; others
        are the sink's, as rejected or unreachable.
    queued, spooled: records that wait in memory and on disk. in_flight: those that are being sent.
    failures: attempts that failed, by reason. state: ready, or why the sink waits before the next attempt: retrying,
        or open (as a circuit breaker is), after five failures in a row.
    """

    accepted: int = 0
    delivered: int = 0
    dropped: dict[str, int] = {}
    queued: int = 0
    in_flight: int = 0
    spooled: int = 0
    adopted: int = 0
    failures: dict[str, int] = {}
    state: str = "ready"

    @property
    def waiting(self) -> int:
        """Records that are neither delivered nor dropped."""
        return self.queued + self.in_flight + self.spooled

    @property
    def balanced(self) -> bool:
        """Whether the account adds up."""
        return self.accepted == self.delivered + sum(self.dropped.values()) + self.waiting


class Ledger:
    """The numbers behind `SinkStats`. Whoever moves records holds the lane's lock.

    A flush waits until as many are `settled` (delivered, or dropped by the sink) as had `entered` when it began, or all
    are. What is lost while it waits, or overtakes, is taken back from `entered`: it may have come after what the flush
    waits for.
    """

    def __init__(self) -> None:
        self.accepted = self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self.queued = self.in_flight = self.spooled = 0
        self.entered = self.settled = self.finished = self.overtaking = 0
        self.adopted = self.adopted_settled = self.adopted_unread = 0

    def enter(self, number: int) -> None:
        """Records came, and wait in memory."""
        self.accepted += number
        self.queued += number
        self.entered += number

    def refuse(self, number: int, reason: str) -> None:
        """Records came, and were not taken."""
        self.accepted += number
        self.dropped[reason] += number

    def adopt(self, number: int) -> None:
        """Records of an earlier process were taken over, on disk."""
        self.accepted += number
        self.spooled += number
        self.adopted += number
        self.adopted_unread += number

    def write(self, number: int) -> None:
        """Records in memory are on disk now."""
        self.queued -= number
        self.spooled += number

    def lose(self, number: int, reason: str, *, spooled: bool = False, adopted: bool = False) -> None:
        """Records that waited are dropped."""
        if spooled or adopted:
            self.spooled -= number
        else:
            self.queued -= number
        if adopted:
            self.adopted_unread -= number
            self.adopted_settled += number
        else:
            self.entered -= number
        self._drop(number, reason)

    def take(self, number: int, *, spooled: bool = False, adopted: bool = False) -> None:
        """Records that waited are being sent."""
        if spooled or adopted:
            self.spooled -= number
        else:
            self.queued -= number
            if self.spooled > self.adopted_unread:  # the disk is in trouble: they overtake what is on it
                self.overtaking += number
                self.entered -= number
        if adopted:
            self.adopted_unread -= number
        self.in_flight += number

    def finish(self, *, delivered: int, dropped: int, reason: str, adopted: bool) -> None:
        """Records that were being sent are delivered or dropped."""
        self.in_flight -= delivered + dropped
        self.delivered += delivered
        self.finished += delivered + dropped
        if not self.in_flight:  # of a batch of which some are sent again, the others may be newer
            if adopted:
                self.adopted_settled += self.finished
            else:
                self.settled += self.finished - self.overtaking
            self.finished = self.overtaking = 0
        self._drop(dropped, reason)

    def give_back(self) -> None:
        """What is being sent is on disk as well, where the next process finds it."""
        self.spooled += self.in_flight
        self.in_flight = 0

    def abandon(self, reason: str) -> int:
        """What is in memory is dropped: the lane ends. How many records that were."""
        left = self.queued + self.in_flight
        self.queued = self.in_flight = 0
        self._drop(left, reason)
        return left

    def goal(self) -> tuple[int, int]:
        """What must be settled until everything that came so far is."""
        return self.entered, self.adopted

    def reached(self, goal: tuple[int, int]) -> bool:
        """Whether everything is settled that had come when `goal()` was asked."""
        return self.covers((self.settled, self.adopted_settled), goal)

    def covers(self, settled: tuple[int, int], goal: tuple[int, int]) -> bool:
        """Whether a goal was reached when so many were settled."""
        return settled[0] >= min(goal[0], self.entered + self.overtaking) and settled[1] >= goal[1]

    def stats(self, *, failures: dict[str, int], state: str) -> SinkStats:
        """The account as it is."""
        return SinkStats(
            accepted=self.accepted,
            delivered=self.delivered,
            dropped=dict(self.dropped),
            queued=self.queued,
            in_flight=self.in_flight,
            spooled=self.spooled,
            adopted=self.adopted,
            failures=failures,
            state=state,
        )

    def _drop(self, number: int, reason: str) -> None:
        if number:
            self.dropped[reason] += number


class CollectorStats(msgspec.Struct, frozen=True, kw_only=True):
    """A collector's account. `recorded == passed + dropped + queued`; each sink accepts what passed while it was there.

    `dropped` tells, by reason, what never reached a lane: queue_full, filtered, sampled_out, not_llm, error.
    `counts` is what tellmeter noticed about itself in this process: name -> key -> number.
    """

    recorded: int = 0
    passed: int = 0
    dropped: dict[str, int] = {}
    queued: int = 0
    sinks: dict[str, SinkStats] = {}
    counts: dict[str, dict[str, int]] = {}

    @property
    def balanced(self) -> bool:
        """Whether every account adds up."""
        return self.recorded == self.passed + sum(self.dropped.values()) + self.queued and all(
            sink.balanced for sink in self.sinks.values()
        )

    @property
    def lost(self) -> dict[str, int]:
        """What nobody wanted dropped, by reason, at the end of a process, when nothing can follow."""
        found = Counter({reason: self.dropped.get(reason, 0) for reason in ("queue_full", "error")})
        for sink in self.sinks.values():
            found.update(sink.dropped)
        found["undelivered"] += self.queued
        return {reason: number for reason, number in found.items() if number}


class FlushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a flush or shutdown reached: `complete` where all that was recorded before it is delivered or dropped.

    `waiting`, by sink ("" is the hand-off), is what waits now, with what other threads have recorded meanwhile;
    `spooled`, by sink, are those among them that are on disk and survive the process.
    """

    complete: bool = True
    waiting: dict[str, int] = {}
    spooled: dict[str, int] = {}
    seconds: float = 0.0
