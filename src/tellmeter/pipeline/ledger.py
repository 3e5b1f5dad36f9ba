"""What became of every record, in numbers: the promise that nothing is lost without a count."""

from __future__ import annotations

import msgspec


class SinkStats(msgspec.Struct, frozen=True, kw_only=True):
    """One sink's account. `accepted == delivered + dropped + queued + in_flight + spooled` at every moment."""

    accepted: int = 0
    delivered: int = 0
    dropped: dict[str, int] = {}
    queued: int = 0
    in_flight: int = 0
    spooled: int = 0

    @property
    def balanced(self) -> bool:
        """Whether the account adds up."""
        return self.accepted == (
            self.delivered + sum(self.dropped.values()) + self.queued + self.in_flight + self.spooled
        )


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


class FlushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a flush or shutdown reached: `complete`, or how many records still wait, by sink ("" is the hand-off)."""

    complete: bool = True
    waiting: dict[str, int] = {}
    seconds: float = 0.0
