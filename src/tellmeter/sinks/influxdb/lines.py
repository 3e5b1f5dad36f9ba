"""Records as lines of InfluxDB's line protocol, each with the same field types for ever.

https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/ has the syntax. Where the parsers of InfluxDB 1
and 2, of InfluxDB 3 and of VictoriaMetrics differ, what is written here means the same to all of them.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from ...cleaning import MAX_INT, changed
from ...errors import ConfigError
from ...records import AgentMetrics, StreamMetrics
from ..json_record import encode

TAGS = ("provider", "model", "status", "operation", "method", "error_class")
"""The fields of a record that are tags of its point. `error`, the name of older queries, is `error_class` again."""

# int64 nanoseconds, of which InfluxDB keeps a few at the end for itself: the last whole millisecond before them.
_LAST_MILLISECOND = (2**63 - 2) // 1_000_000 - 1
_NANOSECONDS = 1_000_000  # in a millisecond
_CACHED_SERIES = 4096

# The parser of InfluxDB 3 takes two backslashes in a tag for one, that of 1 and 2 for two, and a backslash at the end
# of a tag escapes what follows it: no spelling is safe with all of them, so there is none in tags.
_BACKSLASH_IN_TAGS = "/"
_ESCAPED_IN_TAGS = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_ESCAPED_IN_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})


def _names(struct: type, *kinds: str) -> tuple[str, ...]:
    return tuple(name for name, kind in struct.__annotations__.items() if kind in kinds and name not in _APART)


def _column(name: str) -> str:
    """The field of a point that a field of the stream is."""
    return name if name.startswith("stream_") else f"stream_{name}"


# Tags, and what has a column of its own below.
_APART = {*TAGS, "timestamp", "tools_used", "tags", "stream"}
_NUMBERS = {"float": "%r", "int": "%di", "bool": "%r"}
_ALIASES = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
_OPTIONAL = {"float | None": "%r", "int | None": "%di"}

_always = [(name, name, _NUMBERS[kind]) for kind in _NUMBERS for name in _names(AgentMetrics, kind)]
_always += [(alias, name, "%di") for alias, name in _ALIASES.items()] + [("unix_seconds", "timestamp", "%r")]
_ALWAYS = ",".join(f"{column}={form}" for column, _, form in _always)
_always_of = attrgetter(*(name for _, name, _ in _always))
_SOMETIMES = [(name, f",{name}={form}") for kind, form in _OPTIONAL.items() for name in _names(AgentMetrics, kind)]
_TEXTS = _names(AgentMetrics, "str", "str | None")

_stream = [(name, _NUMBERS[kind]) for kind in ("float", "int") for name in _names(StreamMetrics, kind)]
_STREAM = "".join(f",{_column(name)}={form}" for name, form in _stream)
_stream_of = attrgetter(*(name for name, _ in _stream))
_STREAM_SOMETIMES = [
    (name, f",{_column(name)}={form}") for kind, form in _OPTIONAL.items() for name in _names(StreamMetrics, kind)
]
_STREAM_TEXTS = ("stream_id", "provider", "model", "status", "last_error")

FIELDS = frozenset(
    [column for column, _, _ in _always]
    + [name for name, _ in _SOMETIMES]
    + [*_TEXTS, "total_tokens", "tools_used", "tags"]
    + [_column(name) for name, _ in [*_stream, *_STREAM_SOMETIMES]]
    + [_column(name) for name in _STREAM_TEXTS]
)
"""All fields that a point may have."""


class Lines:
    """The lines of one measurement, with these tags of records as tags of points beside `TAGS`.

    Raises:
        ConfigError: a name that cannot be one.
    """

    def __init__(self, measurement: str, tags: Iterable[str]) -> None:
        self._measurement = _checked_measurement(measurement).translate(_ESCAPED_IN_MEASUREMENT)
        self._names = tuple(_checked_tag(name) for name in ((tags,) if isinstance(tags, str) else tags))
        self._keys = tuple(name.translate(_ESCAPED_IN_TAGS) for name in self._names)
        self._series = functools.lru_cache(_CACHED_SERIES)(self._make_series)

    def encode(self, batch: Sequence[AgentMetrics]) -> list[str]:
        """One line per record, without line breaks.

        No two records of a batch are the same point (the same tags and time), and a record that is encoded again is
        the same one.
        """
        points = [(self._series_of(record), nanoseconds(record)) for record in batch]
        if len(set(points)) < len(points):
            points = _apart(points, batch)
        return [f"{series} {_fields(record)} {time}" for record, (series, time) in zip(batch, points, strict=True)]

    def _series_of(self, record: AgentMetrics) -> str:
        tags = record.tags
        return self._series(
            record.provider,
            record.model,
            record.status,
            record.operation,
            record.method,
            record.error_class,
            *[tags.get(name) for name in self._names],
        )

    def _make_series(self, *values: str | None) -> str:
        keys = (*TAGS, *self._keys)
        pairs = [("error", values[TAGS.index("error_class")]), *zip(keys, values, strict=True)]
        return self._measurement + "".join(f",{key}={_tag_value(value)}" for key, value in pairs if value)


def nanoseconds(record: AgentMetrics) -> int:
    """The time of a record's point: its milliseconds, and six digits more that its id gives.

    The digits keep calls of the same millisecond apart, and are the same whenever the record is written again.
    """
    milliseconds = min(record.timestamp * 1000, float(_LAST_MILLISECOND))
    if milliseconds == _LAST_MILLISECOND:
        changed("influxdb_time")
    return int(milliseconds) * _NANOSECONDS + zlib.crc32(record.id.encode()) % _NANOSECONDS


def _apart(points: list[tuple[str, int]], batch: Sequence[AgentMetrics]) -> list[tuple[str, int]]:
    """The points, those that would be the same moved by nanoseconds: in the order of ids, so always in the same way."""
    found: dict[str, tuple[str, int]] = {}
    taken: set[tuple[str, int]] = set()
    for number in sorted(range(len(batch)), key=lambda number: batch[number].id):
        if batch[number].id in found:
            continue
        series, time = points[number]
        while (series, time) in taken:
            time += 1
        taken.add((series, time))
        found[batch[number].id] = series, time
    return [found[record.id] for record in batch]


def _fields(record: AgentMetrics) -> str:
    parts = [_ALWAYS % _always_of(record), f",total_tokens={min(record.total_tokens, MAX_INT)}i"]
    parts += [form % value for name, form in _SOMETIMES if (value := getattr(record, name)) is not None]
    parts += [f",{name}={_quoted(value)}" for name in _TEXTS if (value := getattr(record, name))]
    if record.tools_used:
        parts.append(f",tools_used={_quoted(encode(record.tools_used).decode())}")
    if record.tags:
        parts.append(f",tags={_quoted(encode(record.tags).decode())}")
    if record.stream is not None:
        parts += _stream_fields(record.stream)
    return "".join(parts)


def _stream_fields(stream: StreamMetrics) -> list[str]:
    parts = [_STREAM % _stream_of(stream)]
    parts += [form % value for name, form in _STREAM_SOMETIMES if (value := getattr(stream, name)) is not None]
    parts += [f",{_column(name)}={_quoted(value)}" for name in _STREAM_TEXTS if (value := getattr(stream, name))]
    return parts


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _tag_value(value: str) -> str:
    if "\\" in value:
        changed("influxdb_tag")
        value = value.replace("\\", _BACKSLASH_IN_TAGS)
    return value.translate(_ESCAPED_IN_TAGS)


def _checked_measurement(name: Any) -> str:
    # A line that begins with # is a comment; names with _ at their beginning are InfluxDB's own.
    if not _is_name(name) or name.startswith(("#", "_")):
        raise ConfigError(f"measurement = {str(name)[:40]!r}: {_ALLOWED}, without # or _ at its beginning")
    return str(name)


def _checked_tag(name: Any) -> str:
    if not _is_name(name) or name.startswith("_"):
        raise ConfigError(f"tags: {str(name)[:40]!r}: {_ALLOWED}, without _ at its beginning")
    if name in FIELDS or name in (*TAGS, "error", "time"):
        raise ConfigError(f"tags: {name!r} is a tag or field of every point already: rename the tag of the records")
    return str(name)


_ALLOWED = "it must be 1 to 64 printable characters, no backslash"


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 64 and name.isprintable() and "\\" not in name
