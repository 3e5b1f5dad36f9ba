"""Looking a name up in a value of any kind: dict, SDK object, pydantic model, struct. Pure, and nothing here raises."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from numbers import Integral
from types import NoneType
from typing import Any

from ..cleaning import MAX_INT

# What has no names to look up; most streams of one's own code yield such texts.
SILENT = frozenset({str, bytes, bytearray, NoneType, bool, int, float, complex, list, set, frozenset})
_MOST_KINDS = 256
_ITEMS, _ATTRIBUTES = "items", "attributes"
# How the values of a type are looked into; for pydantic models, whose missing attributes cost two microseconds each,
# the names that the class itself has, properties for one.
_ways: dict[type, str | frozenset[str]] = {}


def is_a(value: object, kinds: type | tuple[type, ...]) -> bool:
    """As `isinstance`, but by the value's true type: `__class__` is an attribute that may raise."""
    return issubclass(type(value), kinds)


def get(value: Any, name: str) -> Any:
    """The value's item or attribute of that name; None where it has none, or has one that raises."""
    kind = type(value)
    if kind in SILENT:
        return None
    try:
        way = _ways.get(kind) or _way(kind)
        if way is _ITEMS:
            return value.get(name)
        if way is not _ATTRIBUTES and name[0] != "_":
            found = value.__dict__.get(name)
            if found is None and value.__pydantic_extra__:
                found = value.__pydantic_extra__.get(name)
            if found is not None or name not in way:
                return found
        return getattr(value, name, None)
    except Exception:
        return None


def _way(kind: Any) -> str | frozenset[str]:
    way: str | frozenset[str] = _ATTRIBUTES
    if issubclass(kind, Mapping):
        way = _ITEMS
    elif getattr(kind, "__pydantic_root_model__", None) is not None:  # what models have, and pydantic's dataclasses not
        way = frozenset(name for base in kind.__mro__ for name in base.__dict__)
    if len(_ways) >= _MOST_KINDS:
        _ways.clear()
    _ways[kind] = way
    return way


def first(values: Any) -> Any:
    """The first of a list, None of anything else."""
    return values[0] if is_a(values, (list, tuple)) and values else None


def count(value: Any) -> int | None:
    """A number of tokens. Cohere's are floats, numpy's are of its own; a mock that converts to 1 is none."""
    kind = type(value)
    if kind is not int:
        if kind is float:
            value = int(value) if value.is_integer() else None
        elif kind is bool or not is_a(value, Integral):
            return None
        else:
            value = number(value)
    return value if value is not None and 0 <= value <= MAX_INT else None


def number(value: Any) -> int | None:
    """The int that a number of another library is."""
    try:
        return int(value)
    except Exception:
        return None


def text(value: Any) -> str | None:
    """A text that is not empty, a str whatever its class; an Enum's value."""
    try:
        if is_a(value, Enum):
            value = value.value
        return str.__str__(value) or None if is_a(value, str) else None
    except Exception:
        return None
