"""What a record says in numbers: the metrics, and the dimensions that tell their series apart."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

from ...cleaning import changed
from ...errors import ConfigError
from ...records import AgentMetrics
from .limits import DIMENSIONS, LARGEST_VALUE, REQUEST_DATA, SMALLEST_VALUE, VALUE_LENGTH, check_dimension_name

Dimensions = tuple[tuple[str, str], ...]
"""Names and values of one series."""


class Metric(NamedTuple):
    """`value` of a record, None where it says nothing; `label` is one more dimension, on this metric alone."""

    name: str
    unit: str
    value: Callable[[AgentMetrics], float | None]
    label: str | None = None
    label_value: Callable[[AgentMetrics], str] = str


def _some(name: str) -> Callable[[AgentMetrics], float | None]:
    """A part that most calls do not have: a series of nothing but zeros would be paid for."""
    read = attrgetter(name)
    return lambda record: read(record) or None


# In the order of docs/cloudwatch.md. Names and units of the first three are the seed guide's.
METRICS = (
    Metric("RequestLatency", "Milliseconds", attrgetter("latency_ms")),
    Metric("TokenUsage", "Count", attrgetter("total_tokens"), "TokenType", lambda record: "total"),
    Metric(
        "Errors",
        "Count",
        lambda record: 1.0 if record.failed else None,
        "ErrorType",
        lambda record: record.error_class or record.error_category or record.status,
    ),
    Metric("Errors", "Count", lambda record: 1.0 if record.failed else 0.0),
    Metric("Requests", "Count", lambda record: 1.0),
    Metric("InputTokens", "Count", attrgetter("input_tokens")),
    Metric("OutputTokens", "Count", attrgetter("output_tokens")),
    Metric("CachedTokens", "Count", _some("cached_tokens")),
    Metric("CacheWriteTokens", "Count", _some("cache_write_tokens")),
    Metric("ReasoningTokens", "Count", _some("reasoning_tokens")),
    Metric("Cost", "None", attrgetter("cost_usd")),
    Metric("Retries", "Count", _some("retries")),
    Metric("TimeToFirstToken", "Milliseconds", attrgetter("ttft_ms")),
)
NAMES = tuple(dict.fromkeys(metric.name for metric in METRICS))
LABELS = tuple(metric.label for metric in METRICS if metric.label is not None)

# Field of a record -> its dimension. Any other name is a tag's.
FIELDS = {
    "provider": "Provider",
    "model": "Model",
    "response_model": "ResponseModel",
    "operation": "Operation",
    "method": "Method",
    "status": "Status",
    "finish_reason": "FinishReason",
}
DEFAULT_DIMENSIONS = (("provider", "model"), ("provider",), ())


class Dimension(NamedTuple):
    """`read` gives a record's value, "" where it has none."""

    name: str
    read: Callable[[AgentMetrics], str | None]


def check_metrics(names: Sequence[str] | None) -> tuple[Metric, ...]:
    """The metrics of these names, all without any.

    Raises:
        ConfigError: a name that is no metric's.
    """
    if names is None:
        return METRICS
    if isinstance(names, str) or not names or any(name not in NAMES for name in names):
        raise ConfigError(f"metrics = {str(names)[:60]!r}: a list of some of {', '.join(NAMES)}")
    return tuple(metric for metric in METRICS if metric.name in names)


def check_dimensions(
    sets: Sequence[Sequence[str]] | None, metrics: Sequence[Metric]
) -> tuple[tuple[Dimension, ...], ...]:
    """The dimension sets by their names.

    Raises:
        ConfigError: what is no list of lists of names, a name that CloudWatch refuses, or too many.
    """
    if sets is None:
        sets = DEFAULT_DIMENSIONS
    if isinstance(sets, str) or any(isinstance(one, str) for one in sets) or not sets:
        raise ConfigError('dimensions: a list of lists of names, as [["provider", "model"], ["provider"], []]')
    found = tuple(tuple(_dimension(name) for name in one) for one in sets)
    for one in found:
        names = [dimension.name for dimension in one]
        if len(set(names)) < len(names):
            raise ConfigError(f"dimensions: {names} names one twice")
        if len(one) >= DIMENSIONS:  # one is left for a metric's own label
            raise ConfigError(f"dimensions: {len(one)} in one set, {DIMENSIONS - 1} at most")
    if len({frozenset(dimension.name for dimension in one) for one in found}) < len(found):
        raise ConfigError("dimensions: two sets are the same")
    if len(found) * len(metrics) > REQUEST_DATA:
        raise ConfigError(f"dimensions: {len(found)} sets are too many, one request holds {REQUEST_DATA} data")
    return found


def _dimension(name: str) -> Dimension:
    if isinstance(name, str) and name in FIELDS:
        return Dimension(FIELDS[name], attrgetter(name))
    tag = check_dimension_name(name.removeprefix("tag:") if isinstance(name, str) else name)
    if tag in LABELS:
        raise ConfigError(f"dimensions: {tag} is a dimension that some metrics have by themselves")
    return Dimension(tag, lambda record: record.tags.get(tag))


def dimension_sets(text: str) -> list[list[str]]:
    """The sets that an option of a URL names: `provider+model;provider;` has three, the last without a dimension."""
    return [re.findall(r"[^\s,]+", one) for one in text.split(";")]


def names_in(text: str) -> list[str]:
    """Names with commas or spaces between them."""
    return re.findall(r"[^\s,]+", text)


def series_of(record: AgentMetrics, sets: Sequence[Sequence[Dimension]]) -> list[Dimensions]:
    """A record's dimensions in each of the sets that it has all values of."""
    found: list[Dimensions] = []
    for one in sets:
        values = tuple((dimension.name, dimension_value(dimension.read(record) or "")) for dimension in one)
        if all(value for _, value in values):
            found.append(values)
    return found


@functools.lru_cache(4096)
def dimension_value(text: str) -> str:
    """A text as CloudWatch takes it: ASCII (other letters as their escapes), 1024 characters; "" for blanks alone."""
    if not text.isascii():
        text = text.encode("ascii", "backslashreplace").decode()
    return text[:VALUE_LENGTH] if text.strip() else ""


def number(value: float) -> float:
    """A value as CloudWatch takes it: a double from 0 to 2**360. A larger one is cut, and counted as sanitised."""
    value = float(value)
    if value > LARGEST_VALUE:
        changed("cloudwatch_value")
        return LARGEST_VALUE
    return value if value >= SMALLEST_VALUE else 0.0
