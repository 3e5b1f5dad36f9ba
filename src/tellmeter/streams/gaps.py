"""Gaps: how long a stream waited between its chunks, in buckets that take the same memory however many there are."""

from __future__ import annotations

import math
from bisect import bisect
from operator import mul

# Four buckets to a power of two: 4 * bits + the two bits after the first one. What is shorter than 64 us came together
# with the chunk before it and has a bucket of its own. Nanoseconds of a year need 55 bits: 160 buckets at most.
_SHORT = (1 << 16) - 1


class Gaps:
    """The number, sum, squares, largest and rough distribution of waits in nanoseconds."""

    __slots__ = ("_buckets", "_count", "_squares", "_total", "largest")

    def __init__(self) -> None:
        self.largest = 0
        self._buckets: dict[int, int] = {}
        self._count = 0
        self._total = 0
        self._squares = 0

    def note(self, waits: list[int]) -> None:
        """Add some; sorts the list."""
        self._total += sum(waits)
        self._squares += sum(map(mul, waits, waits))
        self._count += len(waits)
        waits.sort()
        self.largest = max(self.largest, waits[-1])
        buckets = self._buckets
        short = bisect(waits, _SHORT)  # what came together, in one step
        buckets[0] = buckets.get(0, 0) + short
        for wait in waits[short:]:
            bits = wait.bit_length()
            bucket = bits << 2 | (wait >> bits - 3 & 3)
            buckets[bucket] = buckets.get(bucket, 0) + 1

    def deviation(self) -> float:
        """The standard deviation, in nanoseconds."""
        if not self._count:
            return 0.0
        # In whole numbers, so that nothing is lost to cancellation.
        return math.sqrt(self._count * self._squares - self._total**2) / self._count

    def percentile(self, share: float) -> float:
        """The gap that `share` of the gaps do not exceed, in nanoseconds; at most 13 % off, as its bucket is."""
        below = 0
        for bucket in sorted(self._buckets):
            below += self._buckets[bucket]
            if below >= share * self._count:
                return min(_middle(bucket), self.largest)
        return 0.0


def _middle(bucket: int) -> int:
    """The middle of a bucket in nanoseconds."""
    if not bucket:
        return _SHORT // 2
    bits, quarter = bucket >> 2, bucket & 3
    width = 1 << (bits - 3)
    return (4 + quarter) * width + width // 2
