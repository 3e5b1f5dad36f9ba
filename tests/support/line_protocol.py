"""InfluxDB's line protocol, read strictly: what is not written in the one way that all its parsers agree on is refused.

https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/ is the specification.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# No backslash but before what it escapes, so that `\\` cannot mean one thing here and another there.
_MEASUREMENT = re.compile(r"(?:[^\\, \n\t\r#_]|\\[, ])(?:[^\\, \n\t\r]|\\[, ])*")
_KEY = re.compile(r"(?:[^\\,= \n\t\r]|\\[,= ])+")
_STRING = re.compile(r'"((?:[^"\\\n\r]|\\["\\])*)"')
_FLOAT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")
_INTEGER = re.compile(r"(-?[0-9]+)i")
_BOOLEAN = re.compile(r"True|False|true|false")
_TIME = re.compile(r" (-?[0-9]+)")


class Point(NamedTuple):
    measurement: str
    tags: dict[str, str]
    fields: dict[str, str | float | int | bool]
    time: int


def points(text: str) -> list[Point]:
    """The points of a body; ValueError where it is not right."""
    return [_point(line) for line in text.split("\n")]


def _point(line: str) -> Point:
    reading = _Reading(line)
    measurement = _plain(reading.take(_MEASUREMENT)[0])
    tags: dict[str, str] = {}
    while reading.next_is(","):
        key = _plain(reading.take(_KEY)[0])
        reading.must(reading.next_is("="), "a tag has a value")
        reading.must(key not in tags, f"the tag {key} is there twice")
        tags[key] = _plain(reading.take(_KEY)[0])
    reading.must(reading.next_is(" "), "fields follow")
    fields: dict[str, str | float | int | bool] = {}
    while True:
        key = _plain(reading.take(_KEY)[0])
        reading.must(reading.next_is("="), "a field has a value")
        reading.must(key not in fields and key not in tags, f"{key} is there twice")
        fields[key] = _value(reading)
        if not reading.next_is(","):
            break
    time = int(reading.take(_TIME)[1])
    reading.must(reading.at == len(line), "nothing follows the time")
    reading.must(-(2**63) + 2 <= time <= 2**63 - 2, "the time is in range")
    reading.must("time" not in tags and "time" not in fields, "time is reserved")
    return Point(measurement, tags, fields, time)


def _value(reading: _Reading) -> str | float | int | bool:
    if found := reading.maybe(_STRING):
        return re.sub(r'\\(["\\])', r"\1", found[1])
    if found := reading.maybe(_INTEGER):
        reading.must(-(2**63) <= int(found[1]) < 2**63, "an integer has 64 bits")
        return int(found[1])
    if found := reading.maybe(_BOOLEAN):
        return found[0].lower() == "true"
    return float(reading.take(_FLOAT)[0])


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


class _Reading:
    def __init__(self, line: str) -> None:
        self.line = line
        self.at = 0

    def must(self, right: bool, told: str) -> None:
        if not right:
            raise ValueError(f"{told}: {self.line[: self.at]!r} before {self.line[self.at :]!r}")

    def next_is(self, letter: str) -> bool:
        right = self.line.startswith(letter, self.at)
        self.at += len(letter) * right
        return right

    def maybe(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.line, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = self.maybe(pattern)
        self.must(found is not None, f"{pattern.pattern} is expected")
        assert found is not None
        return found
