"""What InfluxDB's answers say of single lines, and of a database that is not there."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from ..sending.answers import HTTPAnswer

REFUSING = (400, 422)
ANSWER_BYTES = 1024 * 1024  # InfluxDB 3 quotes each line that it refuses

# As many lines InfluxDB tells of at most; of so many there may be more.
_MOST_TOLD = 100
_DROPPED = re.compile(r"dropped=([0-9]{1,9})\"?")
_MISSING = re.compile(r"(database|bucket|retention policy|organization)[^{}]{0,300}not found", re.IGNORECASE)
# What a refusal says -> why the records are dropped.
_REASONS = (
    ("type conflict", "type_conflict"),
    ("column type", "type_conflict"),
    ("beyond retention", "beyond_retention"),
    ("parse", "unparseable"),
    ("parsing", "unparseable"),
)


class Refused(NamedTuple):
    """Some lines are refused for good: those with these indexes, or nobody knows which (None). The rest is written."""

    lines: tuple[int, ...] | None
    reason: str


def refusal(answer: HTTPAnswer, count: int) -> Refused:
    """What an answer with 400 or 422 to `count` lines says."""
    text = answer.body.decode("utf-8", "replace")
    told, message = _read(text)
    reason = next((reason for words, reason in _REASONS if words in message.lower()), f"http_{answer.status}")
    dropped = _DROPPED.findall(message)
    if count == 1 or (dropped and int(dropped[-1]) == count):
        return Refused(tuple(range(count)), reason)
    if 0 < len(told) < _MOST_TOLD and all(0 <= line < count for line in told):
        return Refused(tuple(sorted(told)), reason)
    return Refused(None, reason)


def is_missing(answer: HTTPAnswer) -> bool:
    """Whether the database or bucket is not there, or what is asked for (a server of another version)."""
    return answer.status == 404 or (
        answer.status == 500 and bool(_MISSING.search(answer.body.decode("utf-8", "replace")))
    )


def _read(text: str) -> tuple[set[int], str]:
    """The lines that InfluxDB 3 names, from 0; and all that is said."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return set(), text
    if not isinstance(found, dict):
        return set(), text
    data = found.get("data")
    if not isinstance(data, list):
        return set(), " ".join(str(found.get(name, "")) for name in ("error", "message", "data"))
    errors = [one if isinstance(one, dict) else {} for one in data]
    message = " ".join(str(one.get("error_message", "")) for one in errors)
    lines = {line - 1 for one in errors if isinstance(line := one.get("line_number"), int)}
    return (lines if len(lines) == len(data) else set()), message
