"""Making values fit for a record: finite numbers, bounded texts and tags. What is changed is counted, never refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .counts import count

T = TypeVar("T")

MAX_INT = 2**63 - 1
MAX_TAGS = 32
MAX_TOOLS = 64
TAG_NAME_LENGTH = 64
TEXT_LENGTH = 256
SHORT_LENGTH = 128
MODEL_LENGTH = 2048  # the longest ARN that AWS accepts


_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def changed(field: str) -> None:
    """Count that a field had to be changed."""
    count("sanitised", field)


def replaced(field: str, value: T) -> T:
    """Count that a field had to be changed, and give what takes its place."""
    count("sanitised", field)
    return value


def _number(value: object, field: str) -> float | int | None:
    """A plain Python number for what is one (numpy scalars and Decimal too), else None; not NaN."""
    kind = type(value)
    if kind is not float and kind is not int:
        changed(field)
        if value is None or isinstance(value, (str, bytes)):
            return None
        try:
            # `__index__` for ints of other libraries, `__float__` for the rest.
            value = int(value) if hasattr(value, "__index__") else float(value)  # type: ignore[arg-type]
        except Exception:
            return None
    assert isinstance(value, (int, float))
    return None if value != value else value


def clean_float(value: object, field: str) -> float:
    """A finite float that is not negative; 0.0 for what is no number."""
    return clean_optional_float(0.0 if value is None else value, field) or 0.0


def clean_optional_float(value: object, field: str) -> float | None:
    """As `clean_float`, but None for what is no number."""
    if value is None:
        return None
    number = _number(value, field)
    if number is None:
        return replaced(field, None)
    try:
        result = float(number)
    except OverflowError:
        result = math.inf
    if not 0.0 <= result < math.inf:
        changed(field)
        return 0.0 if result < 0 else None
    return result


def clean_int(value: object, field: str) -> int:
    """An int in 0..2**63-1; 0 for what is no number."""
    number = _number(value, field)
    if number is None:
        return replaced(field, 0)
    if number == math.inf or number > MAX_INT:
        return replaced(field, MAX_INT)
    if number < 0:
        return replaced(field, 0)
    return int(number)


def clean_text(value: object, field: str, limit: int) -> str:
    """Valid UTF-8 of at most `limit` characters; control characters and lone surrogates become U+FFFD."""
    if type(value) is not str:
        changed(field)
        if value is None:
            return ""
        try:
            value = str(value)
        except Exception:
            return ""
    if len(value) > limit:
        changed(field)
        value = value[:limit]
    if not value.isprintable() and _UNCLEAN.search(value):
        changed(field)
        value = _UNCLEAN.sub("\ufffd", value)
    return value


def clean_optional_text(value: object, field: str, limit: int) -> str | None:
    """As `clean_text`; an empty text is None."""
    return None if value is None else clean_text(value, field, limit) or None


def clean_names(values: Iterable[object], field: str) -> tuple[str, ...]:
    """At most 64 names of at most 256 characters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = (values,)
    names = tuple(clean_text(value, field, TEXT_LENGTH) for value in values)
    return names if len(names) <= MAX_TOOLS else replaced(field, names[:MAX_TOOLS])


def clean_tags(given: object) -> dict[str, str]:
    """At most 32 tags, names of at most 64 characters, values of at most 256; a None value drops its tag."""
    if not isinstance(given, Mapping):
        return replaced("tags", {})
    kept: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        if len(kept) >= MAX_TAGS:
            changed("tags")
            break
        if type(value) is not str and isinstance(value, (bool, int, float)):
            value = str(value)  # a tag is a text by nature: numbers are no fault
        kept[clean_text(name, "tags", TAG_NAME_LENGTH)] = clean_text(value, "tags", TEXT_LENGTH)
    return kept
