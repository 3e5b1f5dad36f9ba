"""Making values fit for a span: what OpenTelemetry takes and every exporter can write, bounded.

One value that protobuf cannot write (a lone surrogate, a number of 65 bits, None) loses the whole batch of spans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..counts import count
from ..guard import note

TEXT_LENGTH = 4096
_MOST_ITEMS = 128
_MOST_ATTRIBUTES = 128  # the SDK's own default
_LOW, _HIGH = -(2**63), 2**63
_SURROGATES = re.compile("[\ud800-\udfff]")

Fit = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]


def fit_attributes(given: object) -> dict[str, Any]:
    """At most 128 attributes with values that fit; None leaves its attribute out. Never raises, what is lost counts."""
    if given is None:
        return {}
    try:
        if not isinstance(given, Mapping):
            raise TypeError(type(given).__name__)  # noqa: TRY301 - counted in one place
        found: dict[str, Any] = {}
        for name, value in given.items():
            if len(found) >= _MOST_ATTRIBUTES or not (isinstance(name, str) and name):
                count("tracing_faults", "attribute")
            elif value is not None:
                found[fit_text(name)] = fit_value(value)
    except Exception as error:
        note("span_attributes", error)
        return {}
    return found


def fit_value(value: object) -> Fit:
    """A text, number or bool as it is, a sequence of them as a list of one type; of all else the name of its type.

    `str()` of what is unknown is not asked: it may hold a prompt, or a key.
    """
    if isinstance(value, (list, tuple, set, frozenset)):
        items: list[Any] = [_fit_one(item) for item in list(value)[:_MOST_ITEMS]]
        kinds = set(map(type, items))
        if kinds == {int, float}:
            return [float(item) for item in items]
        return items if len(kinds) <= 1 else [str(item) for item in items]
    return _fit_one(value)


def fit_text(text: str) -> str:
    """Valid UTF-8 of at most 4,096 characters."""
    return _SURROGATES.sub("\ufffd", str.__str__(text)[:TEXT_LENGTH])


def _fit_one(value: object) -> str | bool | int | float:
    if isinstance(value, str):
        return fit_text(value)
    if isinstance(value, bool):
        return value
    try:
        # `__index__` for ints of other libraries and of enums, `__float__` for the rest: Decimal, numpy's.
        if hasattr(value, "__index__"):
            number = int(value)
            if _LOW <= number < _HIGH:
                return number
        elif hasattr(value, "__float__"):
            return float(value)
    except Exception:  # it is no number after all
        pass
    return type(value).__name__
