"""Text format 0.0.4 and OpenMetrics 1.0, in pieces, so that no reader holds the interpreter for long.

Formats: Prometheus, "Text-based exposition format"; OpenMetrics 1.0 of the same documentation. `_created` and
exemplars are OpenMetrics' own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from .definition import MetricDefinition, MetricType
from .labels import label_text
from .names import unit_word
from .series import Exemplar

LINES_A_PIECE = 500


class Shown(Protocol):
    """A metric as a page needs it: a registry's, or one merged from several processes."""

    definition: MetricDefinition
    exposed: str
    type: MetricType
    help: str
    les: tuple[str, ...]

    def shown(self) -> Iterable[Any]:
        """Its series: `text`, `created`, `exemplars` and `read()`."""


def write(families: Iterable[Shown], *, openmetrics: bool = False) -> Iterator[bytes]:
    """The page of `families`, without OpenMetrics' end."""
    lines: list[str] = []
    for family in families:
        lines.append(_head(family, openmetrics))
        writer = _histogram if family.type is MetricType.HISTOGRAM else _number
        for series in family.shown():
            writer(lines, family, series, openmetrics)
            if len(lines) >= LINES_A_PIECE:
                yield "".join(lines).encode()
                lines.clear()
    if lines:
        yield "".join(lines).encode()


END = b"# EOF\n"


def _head(family: Shown, openmetrics: bool) -> str:
    kind = "gauge" if family.type is MetricType.UP_DOWN_COUNTER else family.type.value
    if not openmetrics:
        return f"# HELP {family.exposed} {family.help}\n# TYPE {family.exposed} {kind}\n"
    name = family.exposed.removesuffix("_total") if kind == "counter" else family.exposed
    told = family.help.replace('"', '\\"')
    word = unit_word(family.definition.unit)
    unit = f"# UNIT {name} {word}\n" if word and name.endswith(f"_{word}") else ""
    return f"# HELP {name} {told}\n# TYPE {name} {kind}\n{unit}"


def _number(lines: list[str], family: Shown, series: Any, openmetrics: bool) -> None:
    labels = f"{{{series.text}}}" if series.text else ""
    value = number(series.read())
    if not openmetrics or family.type is not MetricType.COUNTER:
        lines.append(f"{family.exposed}{labels} {value}\n")
        return
    base = family.exposed.removesuffix("_total")
    lines.append(
        f"{family.exposed}{labels} {value}{_exemplar(series.exemplars)}\n"
        f"{base}_created{labels} {number(series.created)}\n"
    )


def _histogram(lines: list[str], family: Shown, series: Any, openmetrics: bool) -> None:
    counts, total, _, _ = series.read()
    name, text = family.exposed, series.text
    prefix = f'{name}_bucket{{{text},le="' if text else f'{name}_bucket{{le="'
    below = 0
    if openmetrics and series.exemplars:
        for bucket, (le, found) in enumerate(zip(family.les, counts, strict=True)):
            below += found
            lines.append(f'{prefix}{le}"}} {below}.0{_exemplar(series.exemplars.get(bucket))}\n')
    else:
        for le, found in zip(family.les, counts, strict=True):
            below += found
            lines.append(f'{prefix}{le}"}} {below}.0\n')
    labels = f"{{{text}}}" if text else ""
    # OpenMetrics 1.0 has no sum that is negative or may fall, and no count without a sum.
    if not openmetrics or (total >= 0 and family.les[0][0] != "-"):
        lines.append(f"{name}_count{labels} {below}.0\n{name}_sum{labels} {number(total)}\n")
    if openmetrics:
        lines.append(f"{name}_created{labels} {number(series.created)}\n")


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    labels = label_text(tuple(exemplar.labels), tuple(exemplar.labels.values()))
    return f" # {{{labels}}} {number(exemplar.value)} {number(exemplar.timestamp)}"


def number(value: float) -> str:
    """A sample's value as both formats write it."""
    if value.__class__ is not float:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf if value > 0 else -math.inf
    if value - value != 0:
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    return repr(value)
