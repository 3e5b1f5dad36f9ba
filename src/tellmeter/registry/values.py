"""What may be recorded: finite numbers, and exemplars of bounded length. What may not is counted, never raised."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import repeat
from typing import Any

from ..cleaning import clean_text
from ..counts import count

EXACT = 2**53  # whole numbers up to here are floats without loss
_FEW = 24  # values below it: one bisection a value is the faster way
EXEMPLAR_LENGTH = 128  # of all names and values together; OpenMetrics 1.0, "Exemplars"


def finite(value: Any) -> bool:
    """Whether `value` is a number that is neither NaN nor infinite."""
    try:
        return bool(value - value == 0) and math.isfinite(value)
    except Exception:
        return False


def fit(values: list[Any], metric: str, *, negative: bool = True) -> list[float]:
    """The values that a metric may have, as plain floats and ints; the others are counted."""
    kept: list[float] = []
    for value in values:
        fault = fault_of(value, negative=negative)
        try:
            if fault is None:
                kept.append(value if type(value) is int and abs(value) <= EXACT else float(value))
        except Exception:
            fault = "not_a_number"  # it was one a moment ago
        if fault is not None:
            count("value_errors", f"{metric}:{fault}")
    return kept


def fault_of(value: Any, *, negative: bool = True) -> str | None:
    """Why `value` cannot be recorded: not_a_number, not_finite, negative; None where it can."""
    if issubclass(type(value), (str, bytes, bytearray, memoryview)):
        return "not_a_number"
    try:
        number = float(value)
    except OverflowError:
        return "not_finite"
    except Exception:
        return "not_a_number"
    if not math.isfinite(number):
        return "not_finite"
    return "negative" if number < 0 and not negative else None


def exemplar_of(labels: Mapping[str, str], metric: str) -> dict[str, str] | None:
    """The labels of an exemplar, made fit for OpenMetrics; None (and a count) where they cannot be."""
    try:
        cleaned = {str(name): clean_text(value, "exemplar", EXEMPLAR_LENGTH) for name, value in labels.items()}
    except Exception:
        cleaned = {}
    length = sum(len(name) + len(value) for name, value in cleaned.items())
    if not cleaned or length > EXEMPLAR_LENGTH or not all(name.isascii() and name.isidentifier() for name in cleaned):
        count("label_errors", f"{metric}:exemplar")
        return None
    return cleaned


def plain(total: Any) -> bool:
    """Whether a sum is a plain number: those of other libraries round, overflow, change, or do not add to floats."""
    return total.__class__ is float or total.__class__ is int


def spread(values: list[Any], bounds: tuple[float, ...], counts: list[int]) -> None:
    """Add sorted values to the buckets that hold them; a bound belongs to its bucket (`le`)."""
    if len(values) < _FEW:
        for bucket in map(bisect_left, repeat(bounds), values):
            counts[bucket] += 1
        return
    done = 0
    number = len(values)
    while done < number:
        bucket = bisect_left(bounds, values[done])
        if bucket == len(bounds):
            counts[bucket] += number - done
            return
        end = bisect_right(values, bounds[bucket], done)
        counts[bucket] += end - done
        done = end
