"""When a sink that failed is tried again."""

from __future__ import annotations

import math

FIRST = 0.5
LONGEST = 30.0
RETRY_AFTER_LONGEST = 300.0  # what a backend may ask for: a wrong or hostile Retry-After must not park a sink for ever
OPEN_AFTER = 5  # failures in a row


class Pacing:
    """Exponential backoff with full jitter (a random part of 0.5 s x2 up to 30 s), never before a backend's wish.

    It is the circuit breaker too: after five failures in a row it is `open`, and a flush or an exit does not wait for
    it; what is sent when the time has come is the probe that closes it, or opens it again.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.not_before = -math.inf

    def failed(self, now: float, after: float | None = None) -> None:
        """An attempt failed at `now`; the backend wants none for `after` seconds."""
        import random  # slow to import, and seldom needed

        longest = min(LONGEST, FIRST * 2.0 ** min(self.failures, 16))
        # Not by the module's functions: a program that seeded them must get the numbers that it would get without us.
        jitter = random.SystemRandom().uniform(0.0, longest)
        wished = after if after is not None and math.isfinite(after) and after > 0 else 0.0
        self.failures += 1
        self.not_before = now + max(jitter, min(wished, RETRY_AFTER_LONGEST))

    def succeeded(self) -> None:
        """An attempt was answered: the sink is there."""
        self.failures = 0
        self.not_before = -math.inf

    @property
    def state(self) -> str:
        """ready, retrying or open."""
        if not self.failures:
            return "ready"
        return "open" if self.failures >= OPEN_AFTER else "retrying"
