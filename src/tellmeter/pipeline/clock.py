"""Time as lanes see it, so that tests can have ten minutes pass in an instant."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock, and waiting by it."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait until `condition`, which the caller holds, is notified, or `seconds` have passed (None: no limit)."""


class SystemClock:
    """The real one."""

    def monotonic(self) -> float:
        """`time.monotonic()`."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """`condition.wait(seconds)`, with the longest time that a lock can wait as its bound."""
        condition.wait(None if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))


SYSTEM_CLOCK = SystemClock()
