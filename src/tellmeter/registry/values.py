"""What may be recorded: finite numbers, and exemplars of bounded length. What may not is counted, never raised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..cleaning import clean_text
from ..counts import count

_EXACT = 2**53  # whole numbers up to here are floats without loss
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
        if fault is None:
            kept.append(value if type(value) is int and abs(value) <= _EXACT else float(value))
        else:
            count("value_errors", f"{metric}:{fault}")
    return kept


def fault_of(value: Any, *, negative: bool = True) -> str | None:
    """Why `value` cannot be recorded: not_a_number, not_finite, negative; None where it can."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
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
