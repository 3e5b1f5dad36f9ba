"""Sums for an API that keeps one value a metric, set of tags and second: the last one written."""

from __future__ import annotations

from collections.abc import Mapping

from .schema import Context, plus

# The API takes 600, https://docs.datadoghq.com/api/latest/metrics/#submit-metrics; the rest is for other clocks.
AHEAD_SECONDS = 300


class Buckets:
    """Sums by intervals. A point is sent as what its interval has come to so far, so the last write is the right one.

    What was sent and not answered can be sent again as it was: the point is overwritten by itself and nothing counts
    twice. When the clock goes back, the interval stays until it has caught up, unless that is more than the API takes.

    Args:
        interval: seconds.
    """

    @classmethod
    def shared(cls, place: str, interval: int) -> Buckets:
        """Those of a place, for all sinks of this process: a sink may follow another within an interval."""
        return _SHARED.setdefault((place, interval), cls(interval))

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self._second = 0
        self._sums: dict[Context, float] = {}

    def opened(self, now: float) -> int:
        """The second that stands for the interval of `now`."""
        second = int(now) // self.interval * self.interval
        if second > self._second or second < self._second - AHEAD_SECONDS:
            self._second, self._sums = second, {}
        return self._second

    def with_more(self, more: Mapping[Context, float]) -> dict[Context, float]:
        """What the interval would come to, of the sums that change."""
        return {context: plus(self._sums.get(context, 0), value) for context, value in more.items()}

    def written(self, second: int, sums: Mapping[Context, float]) -> None:
        """They have arrived: what comes next is added to them."""
        if second == self._second:
            self._sums.update(sums)


def forget() -> None:
    """In a forked child: what is open is the parent's."""
    _SHARED.clear()


_SHARED: dict[tuple[str, int], Buckets] = {}
