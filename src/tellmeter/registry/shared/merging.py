"""Snapshots of several processes as one page's metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from ..definition import MetricDefinition, MetricType
from ..labels import bucket_labels, help_text, label_text
from ..names import clean_label
from ..series import Exemplar
from .exact import rounded_sum
from .snapshot import Part, Row, Snapshot, definition_of
from .trouble import trouble

INFINITY = float("inf")


def merge(snapshots: Iterable[tuple[Snapshot, bool]]) -> list[Merged]:
    """The metrics of all `snapshots`. Where two do not agree on what a metric is, the first wins.

    Args:
        snapshots: each with whether its process is alive.
    """
    table = _Table()
    for snapshot, alive in snapshots:
        for part in snapshot.parts:
            metric = table.find(part)
            if metric is not None:
                metric.add(part, alive)
    return list(table.metrics.values())


class _Table:
    """The metrics of a page by their names on it."""

    def __init__(self) -> None:
        self.metrics: dict[str, Merged] = {}
        self._found: dict[tuple[bytes, bool], Merged | None] = {}
        self._taken: dict[str, str] = {}  # name of a sample -> name of its metric

    def find(self, part: Part) -> Merged | None:
        """The metric that `part` counts in; None (and a count) where it contradicts what came before."""
        key = (part.definition, part.undefined)
        if key not in self._found:
            self._found[key] = found = self._place(definition_of(part.definition), part.undefined)
            if found is None:
                name = definition_of(part.definition).exposed
                told = "metric %s is not the same in all processes: what differs from the process asked is left out"
                trouble("conflict", told, name, about=part.definition)
        return self._found[key]

    def _place(self, definition: MetricDefinition, undefined: bool) -> Merged | None:
        names = definition.sample_names()
        if any(self._taken.get(name, definition.exposed) != definition.exposed for name in names):
            return None
        found = self.metrics.get(definition.exposed)
        if found is None or (found.undefined and found.type is definition.type and not undefined):
            # In its place, where it is there: one that nobody recorded has no labels yet that could disagree.
            found = self.metrics[definition.exposed] = Merged(definition, undefined=undefined)
            self._taken.update(dict.fromkeys(names, definition.exposed))
        return found if (undefined and found.type is definition.type) or found.takes(definition) else None


class Merged:
    """One metric of several processes, as `text.write` shows it."""

    __slots__ = ("_rows", "definition", "exposed", "help", "labels", "les", "mode", "type", "undefined")

    def __init__(self, definition: MetricDefinition, *, undefined: bool = False) -> None:
        self.definition = definition
        self.exposed = definition.exposed
        self.type = definition.type
        self.help = help_text(definition)
        self.les = _les(tuple(definition.buckets or ()))
        self.labels: tuple[str, ...] = tuple(definition.labels)
        gauge = definition.type in (MetricType.GAUGE, MetricType.UP_DOWN_COUNTER)
        self.mode = definition.gauge_mode if gauge else ""
        self.undefined = undefined
        self._rows: dict[tuple[str, ...], list[Row]] = {}

    def takes(self, definition: MetricDefinition) -> bool:
        """Whether the counts of `definition` can be added: equal type and buckets, and labels of which one has more.

        A label that a process does not know (yet: `label_tags` adds some later) is "" there, which Prometheus calls
        the same.
        """
        if definition.type is not self.type or definition.buckets != self.definition.buckets:
            return False
        mine, others = set(self.labels), set(definition.labels)
        return mine <= others or mine >= others

    def add(self, part: Part, alive: bool) -> None:
        """Add what a process counted, if it counts."""
        if not part.rows or (not alive and self.mode.startswith("live")):
            return
        names = definition_of(part.definition).labels
        more = tuple(name for name in names if name not in self.labels)
        if more:
            self.labels += more
            self._rows = {values + ("",) * len(more): rows for values, rows in self._rows.items()}
        same = self.labels == names
        known = self._rows
        for row in part.rows:
            values = row.values if same else _arranged(self.labels, names, row.values)
            rows = known.get(values)
            if rows is None:
                known[values] = [row]
            else:
                rows.append(row)

    def shown(self) -> Iterator[MergedSeries]:
        """Its series."""
        kind = _KINDS.get(self.type, MergedGauge)
        names = tuple(map(clean_label, self.labels))
        return (kind(values, _text(names, values), rows, self.mode) for values, rows in self._rows.items())


class MergedSeries:
    """One label set of a metric, in all processes."""

    __slots__ = ("_mode", "_rows", "text", "values")

    visible = True

    def __init__(self, values: tuple[str, ...], text: str, rows: list[Row], mode: str) -> None:
        self.values = values
        self.text = text
        self._rows = rows
        self._mode = mode

    @property
    def created(self) -> float:
        """When the first of them was, in Unix seconds."""
        return min(row.created for row in self._rows)

    @property
    def exemplars(self) -> Any:
        """As of one process's series: the latest."""
        return self._latest().get(0)

    def _latest(self) -> dict[int, Exemplar]:
        found: dict[int, Exemplar] = {}
        for row in self._rows:
            for bucket, labels, value, timestamp in row.exemplars:
                if bucket not in found or found[bucket].timestamp < timestamp:
                    found[bucket] = Exemplar(labels, value, timestamp)
        return found

    def _total(self) -> float:
        if len(self._rows) == 1 and not self._rows[0].rest:
            return self._rows[0].total
        return rounded_sum(number for row in self._rows for number in (row.total, *row.rest))

    def read(self) -> Any:
        """As of one process's series."""
        return self._total()


class MergedGauge(MergedSeries):
    """A gauge, by its mode. A process that never set it has no say in what is largest, smallest or latest."""

    __slots__ = ()

    def read(self) -> float:
        """The value that the mode makes of all."""
        mode = self._mode.removeprefix("live")
        if mode == "sum":
            return self._total()
        rows = [row for row in self._rows if row.at] or self._rows
        if mode == "mostrecent":
            return max(rows, key=_when).total
        return max(row.total for row in rows) if mode == "max" else min(row.total for row in rows)


class MergedHistogram(MergedSeries):
    """A histogram."""

    __slots__ = ()

    @property
    def exemplars(self) -> dict[int, Exemplar]:
        """Bucket -> the latest in it."""
        return self._latest()

    def read(self) -> tuple[Sequence[int], float, float, float]:
        """Counts a bucket, and the sum; smallest and largest are not known."""
        rows = self._rows
        counts = rows[0].counts if len(rows) == 1 else list(map(sum, zip(*[row.counts for row in rows], strict=True)))
        return counts, self._total(), INFINITY, -INFINITY


_KINDS: dict[MetricType, type[MergedSeries]] = {
    MetricType.COUNTER: MergedSeries,
    MetricType.HISTOGRAM: MergedHistogram,
}


def _when(row: Row) -> float:
    return row.at


def _arranged(labels: Sequence[str], names: Sequence[str], values: tuple[str, ...]) -> tuple[str, ...]:
    known = dict(zip(names, values, strict=True))
    return tuple(known.get(label, "") for label in labels)


@lru_cache(maxsize=20_000)
def _text(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return label_text(names, values)


@lru_cache(maxsize=1024)
def _les(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return bucket_labels(bounds)
