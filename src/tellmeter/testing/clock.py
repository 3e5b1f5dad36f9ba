"""FakeClock: time that stands still until the test says so."""

from __future__ import annotations

import math
import threading
import time
from typing import NamedTuple

from ..errors import ConfigError


class _Sleeper(NamedTuple):
    condition: threading.Condition
    due: float


class FakeClock:
    """A clock for `MetricsCollector(clock=...)`: ten minutes of retries pass in an instant.

        clock = FakeClock()
        ...                       # something waits 30 seconds
        clock.wait_for_sleepers(1)
        clock.advance(30)

    Who waits until a time (a sleeper) wakes when `advance` reaches it, or when its condition is notified; as with any
    condition, it may also wake with another that waits on the same one.

    Args:
        now: what `monotonic()` says first, in seconds.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        # Nobody waits for a lane's condition while holding this one, so that advance() and lanes never wait in a ring.
        self._changed = threading.Condition()
        self._sleepers: dict[object, _Sleeper] = {}
        self._seen = threading.local()

    def monotonic(self) -> float:
        """Seconds; the same until `advance`."""
        now = self._seen.now = self._now
        return now

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait until `condition`, which the caller holds, is notified, or `seconds` have passed (None: no limit)."""
        # Counted from the time that this thread has read last: it worked `seconds` out from that, and an advance() in
        # between would else be lost on it.
        since, self._seen.now = getattr(self._seen, "now", None), None
        if seconds is None:
            condition.wait()
            return
        me = object()
        with self._changed:
            due = (self._now if since is None else since) + seconds
            late = due <= self._now
            if not late:
                self._sleepers[me] = _Sleeper(condition, due)
                self._changed.notify_all()
        try:
            condition.wait(0 if late else None)
        finally:
            with self._changed:
                self._sleepers.pop(me, None)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and wake whose time has come. Not to be called while holding a condition of a sleeper.

        Raises:
            ConfigError: a number below 0, or none.
        """
        if not 0 <= seconds < math.inf:
            raise ConfigError(f"seconds = {seconds!r}: it must be a number from 0")
        with self._changed:
            self._now += seconds
            awake = {me: sleeper for me, sleeper in self._sleepers.items() if sleeper.due <= self._now}
            for me in awake:
                del self._sleepers[me]
        for condition in {id(sleeper.condition): sleeper.condition for sleeper in awake.values()}.values():
            with condition:
                condition.notify_all()

    @property
    def sleepers(self) -> int:
        """How many wait for a time that has not come."""
        with self._changed:
            return len(self._sleepers)

    @property
    def next_due(self) -> float | None:
        """The earliest time, of `monotonic()`, at which a sleeper wakes; None without one."""
        with self._changed:
            return min((sleeper.due for sleeper in self._sleepers.values()), default=None)

    def wait_for_sleepers(self, number: int, timeout: float = 10.0) -> None:
        """Wait until at least `number` sleep, for `timeout` real seconds at most.

        Raises:
            TimeoutError: fewer do.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while len(self._sleepers) < number:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(self._sleepers)} of {number} sleep after {timeout:g} s")
                self._changed.wait(left)
