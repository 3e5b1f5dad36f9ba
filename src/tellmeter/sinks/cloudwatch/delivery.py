"""One batch on its way to CloudWatch, part by part: what is settled, and what the batch comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ...pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater, TooLarge
from ...records import AgentMetrics
from .encoder import Encoder, Part
from .limits import refused_time

Put = Callable[[list[dict[str, Any]]], Outcome]
_TIMEOUT = RetryLater(reason="timeout")


class Delivery:
    """Runs on a thread that may be abandoned: `outcome()` may be asked at any time, once."""

    def __init__(self, batch: Sequence[AgentMetrics], now: float) -> None:
        self._batch = batch
        self._delivered: set[int] = set()
        self._rejected: dict[int, str] = {}
        for index, record in enumerate(batch):
            if reason := refused_time(record.timestamp, now):
                self._rejected[index] = reason
        self._stopped: Outcome = _TIMEOUT
        self._is_narrowing = False
        self.is_over = False
        """Whether the outcome was asked for: nothing that happens later is told."""

    def run(self, encoder: Encoder, put: Put, deadline: float) -> None:
        """Send what CloudWatch may take. Of a part that it refuses, halves, until single records are refused."""
        parts = self._parts(encoder, [at for at in range(len(self._batch)) if at not in self._rejected])
        while parts and not self.is_over and time.monotonic() < deadline:
            part = parts.pop()
            outcome = put(part.data) if part.data else Delivered()
            if self.is_over:
                return
            match outcome:
                case Delivered():
                    self._delivered.update(part.indexes)
                case Rejected(reason=reason) if len(part.indexes) == 1:
                    self._rejected[part.indexes[0]] = reason
                case Rejected():
                    self._is_narrowing = True
                    half = len(part.indexes) // 2
                    parts += self._parts(encoder, part.indexes[half:]) + self._parts(encoder, part.indexes[:half])
                case _:
                    self._stopped = outcome
                    return

    def outcome(self) -> Outcome:
        """What became of the batch; a part that is still under way may be taken all the same."""
        self.is_over = True
        delivered, refused = set(self._delivered), dict(self._rejected)
        # One outcome has one reason: what was refused for another one comes again, and is refused again.
        reason = next(iter(refused.values()), "")
        rejected = tuple(index for index, why in refused.items() if why == reason)
        rest = tuple(index for index in range(len(self._batch)) if index not in delivered and index not in rejected)
        if not rest and not rejected:
            return Delivered()
        if len(rejected) == len(self._batch):
            return Rejected(reason)
        if len(rest) < len(self._batch):
            return Partial(
                retry=rest, rejected=rejected, reason=reason or getattr(self._stopped, "reason", "too_large")
            )
        # A slow server, and a record that it refuses: the next attempt begins with less.
        return TooLarge() if self._is_narrowing and self._stopped is _TIMEOUT else self._stopped

    def _parts(self, encoder: Encoder, indexes: Sequence[int]) -> list[Part]:
        """To be taken from the end."""
        return list(encoder.parts(self._batch, indexes))[::-1]
