"""Sums that do not depend on who adds first.

A counter that falls by the last digit of a float is, to Prometheus, one that began again at zero: `rate()` would add
the whole value. So what processes counted is added exactly and rounded once, in whichever order and by whomever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def exact_sum(numbers: Iterable[float]) -> tuple[float, ...]:
    """Floats, growing in size, whose exact sum is that of `numbers`; mostly one, never many.

    Shewchuk, "Adaptive precision floating-point arithmetic and fast robust geometric predicates" (1997).
    """
    parts: list[float] = []
    for number in numbers:
        kept = 0
        for part in parts:
            large, small = (number, part) if abs(number) >= abs(part) else (part, number)
            number = large + small
            lost = small - (number - large)
            if lost:
                parts[kept] = lost
                kept += 1
        parts[kept:] = [number]
        if number - number != 0:  # an infinity makes the remainders NaNs, and no sum of it is exact
            return (number if number == number else math.inf,)
    return tuple(parts) or (0.0,)


def rounded_sum(numbers: Iterable[float]) -> float:
    """The exact sum of `numbers`, rounded once; infinite where no float is as large."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return math.inf
