"""Snapshots of dead processes added up, so that their number does not matter to anybody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..definition import MetricDefinition, MetricType
from ..family import OVERFLOW
from .exact import exact_sum
from .snapshot import Part, Row, Snapshot, definition_of, encode_part
from .trouble import trouble

MAX_METRICS = 10_000  # of all dead together; names made from data must not make the file grow for ever

_Key = tuple[Any, ...]


def added_up(snapshots: Iterable[Snapshot], *, max_series: int) -> list[Any]:
    """The parts of one snapshot that says what `snapshots`, all of dead processes, say together.

    What metrics do not agree on is kept apart, for whoever reads to choose. Gauges that only count while their process
    lives are left out.

    Args:
        snapshots: the one with what was added up before comes first: its series stay.
        max_series: label sets that a metric keeps; what comes after them goes to `__overflow__`.
    """
    metrics: dict[_Key, _Heap] = {}
    found: dict[tuple[bytes, bool], _Heap | None] = {}
    for snapshot in snapshots:
        for part in snapshot.parts:
            key = (part.definition, part.undefined)
            if key not in found:
                found[key] = _heap_of(metrics, part)
            heap = found[key]
            if heap is not None:
                heap.add(part.rows, max_series)
    return [heap.part() for heap in metrics.values() if heap.rows]


def _heap_of(metrics: dict[_Key, _Heap], part: Part) -> _Heap | None:
    definition = definition_of(part.definition)
    gauge = definition.type in (MetricType.GAUGE, MetricType.UP_DOWN_COUNTER)
    mode = definition.gauge_mode if gauge else ""
    if mode.startswith("live") or part.undefined:
        return None
    key = (definition.exposed, definition.type, definition.labels, definition.buckets, mode)
    heap = metrics.get(key)
    if heap is None:
        if len(metrics) >= MAX_METRICS:
            trouble("full", "dead processes had more than %d metrics; the others are forgotten", MAX_METRICS)
            return None
        heap = metrics[key] = _Heap(definition, mode)
    return heap


class _Heap:
    """The rows of one metric."""

    def __init__(self, definition: MetricDefinition, mode: str) -> None:
        self.rows: dict[tuple[str, ...], list[Row]] = {}
        self._definition = definition
        self._mode = mode
        self._overflow = (OVERFLOW,) * len(definition.labels)

    def add(self, rows: Iterable[Row], max_series: int) -> None:
        known = self.rows
        for row in rows:
            values = row.values
            if values not in known and len(known) >= max_series and values:
                values = self._overflow
            known.setdefault(values, []).append(row)

    def part(self) -> Any:
        return encode_part(self._definition, [_one(values, rows, self._mode) for values, rows in self.rows.items()])


def _one(values: tuple[str, ...], rows: Sequence[Row], mode: str) -> Row:
    """What `rows` say together."""
    first = rows[0]
    if len(rows) == 1 and first.values == values:
        return first
    if mode in ("max", "min", "mostrecent"):
        said = [row for row in rows if row.at] or rows
        chosen = {"max": max, "min": min}[mode](said, key=_total) if mode != "mostrecent" else max(said, key=_at)
        return Row(values, _created(rows), chosen.total, (), max(row.at for row in rows))
    sums = exact_sum(number for row in rows for number in (row.total, *row.rest))
    counts = tuple(map(sum, zip(*[row.counts for row in rows], strict=True)))
    return Row(values, _created(rows), sums[-1], counts, max(row.at for row in rows), _latest(rows), sums[:-1])


def _latest(rows: Sequence[Row]) -> tuple[tuple[int, dict[str, str], float, float], ...]:
    found: dict[int, tuple[int, dict[str, str], float, float]] = {}
    for row in rows:
        for exemplar in row.exemplars:
            kept = found.get(exemplar[0])
            if kept is None or kept[3] < exemplar[3]:
                found[exemplar[0]] = exemplar
    return tuple(found.values())


def _created(rows: Sequence[Row]) -> float:
    return min(row.created for row in rows)


def _total(row: Row) -> float:
    return row.total


def _at(row: Row) -> float:
    return row.at
