"""Records to PutMetricData: added up by metric, dimensions and minute, in parts that keep to the limits.

A record is never in two parts, so that what becomes of a request is what becomes of its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...records import AgentMetrics
from .limits import DATUM_VALUES, REQUEST_BYTES, REQUEST_DATA
from .metrics import Dimension, Dimensions, Metric, dimension_value, number, series_of

# One series without its metric: dimensions, and the period's beginning in Unix seconds.
Place = tuple[Dimensions, int]
# One metric by its index, with its label's value.
Slot = tuple[int, str]


class Points(NamedTuple):
    """What one record adds: each of the values, in each of the places."""

    places: list[Place]
    values: list[tuple[Slot, float]]


class Costs(NamedTuple):
    """Upper bounds of bytes in a request: of its head, of a datum, a dimension, a value with its count, a letter."""

    head: int
    datum: int
    dimension: int
    value: int
    letter: int


# The protocol of the client -> how large a request can get. The query protocol of older releases of botocore names each
# value in full (`MetricData.member.1000.Values.member.150=`) and quotes letters as three.
COSTS = {"smithy-rpc-v2-cbor": Costs(300, 140, 24, 18, 1), "json": Costs(600, 220, 32, 60, 2)}
LARGEST_COSTS = Costs(1000, 240, 110, 140, 3)


class Part(NamedTuple):
    """Records, by their index in the batch, and what they come to."""

    indexes: list[int]
    data: list[dict[str, Any]]


class Encoder:
    """Makes parts of records.

    Args:
        metrics, sets: what to tell.
        high_resolution: by the second instead of the minute.
        protocol: of the client.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        sets: Sequence[Sequence[Dimension]],
        *,
        high_resolution: bool = False,
        protocol: str = "",
    ) -> None:
        self._metrics = metrics
        self._sets = sets
        self._period = 1 if high_resolution else 60
        self._costs = COSTS.get(protocol, LARGEST_COSTS)

    def parts(self, batch: Sequence[AgentMetrics], indexes: Sequence[int]) -> Iterator[Part]:
        """The records of `indexes`, in their order, in as few requests as their limits allow."""
        sums = _Sums(self._metrics, self._costs)
        held: list[int] = []
        for index in indexes:
            points = self.points(batch[index])
            growth = sums.growth(points)
            if held and not sums.has_room(growth):
                yield Part(held, self._data(sums))
                sums, held = _Sums(self._metrics, self._costs), []
                growth = sums.growth(points)
            sums.add(points, growth)
            held.append(index)
        if held:
            yield Part(held, self._data(sums))

    def points(self, record: AgentMetrics) -> Points:
        """What one record adds to each of its series."""
        period = int(record.timestamp) // self._period * self._period
        values = []
        for index, metric in enumerate(self._metrics):
            value = metric.value(record)
            if value is not None:
                label = "" if metric.label is None else dimension_value(metric.label_value(record)) or "unknown"
                values.append(((index, label), number(value)))
        return Points([(series, period) for series in series_of(record, self._sets)], values)

    def _data(self, sums: _Sums) -> list[dict[str, Any]]:
        data = []
        for (dimensions, period), slots in sums.counts.items():
            names = [{"Name": name, "Value": value} for name, value in dimensions]
            at = datetime.fromtimestamp(period, UTC)
            for (index, label), counts in slots.items():
                metric = self._metrics[index]
                datum = {
                    "MetricName": metric.name,
                    "Dimensions": [*names, {"Name": metric.label, "Value": label}] if label else names,
                    "Timestamp": at,
                    "Unit": metric.unit,
                    "StorageResolution": self._period,
                }
                values = list(counts)
                for start in range(0, len(values), DATUM_VALUES):
                    some = values[start : start + DATUM_VALUES]
                    often = [float(counts[value]) for value in some]
                    # Without counts each is 1, and half as much is sent.
                    data.append({**datum, "Values": some, **({"Counts": often} if max(often) > 1 else {})})
        return data


class _Sums:
    """How often each value came, by series; and what that takes of a request at most."""

    def __init__(self, metrics: Sequence[Metric], costs: Costs) -> None:
        self.counts: dict[Place, dict[Slot, dict[float, int]]] = {}
        self._metrics = metrics
        self._costs = costs
        self._bytes = costs.head
        self._data = 0

    def has_room(self, growth: tuple[int, int]) -> bool:
        """Whether so many more data and bytes fit."""
        return self._data + growth[0] <= REQUEST_DATA and self._bytes + growth[1] <= REQUEST_BYTES

    def add(self, points: Points, growth: tuple[int, int]) -> None:
        """Add a record's points."""
        self._data += growth[0]
        self._bytes += growth[1]
        for place in points.places:
            slots = self.counts.setdefault(place, {})
            for slot, value in points.values:
                counts = slots.get(slot)
                if counts is None:
                    counts = slots[slot] = {}
                counts[value] = counts.get(value, 0) + 1

    def growth(self, points: Points) -> tuple[int, int]:
        """How many data and bytes a record's points come to; no two of them are in the same place and slot."""
        data = size = 0
        for place in points.places:
            slots = self.counts.get(place) or {}
            dimensions = self._size(place[0])
            for slot, value in points.values:
                counts = slots.get(slot)
                if counts is not None and value in counts:
                    continue
                size += self._costs.value
                if counts is None or len(counts) % DATUM_VALUES == 0:
                    data += 1
                    size += dimensions + self._label_size(slot)
        return data, size

    def _size(self, dimensions: Dimensions) -> int:
        letters = sum(len(name) + len(value) for name, value in dimensions)
        return self._costs.datum + self._costs.dimension * len(dimensions) + self._costs.letter * letters

    def _label_size(self, slot: Slot) -> int:
        metric, label = self._metrics[slot[0]], slot[1]
        letters = len(metric.name) + len(metric.unit) + len(metric.label or "") + len(label)
        return self._costs.dimension * bool(label) + self._costs.letter * letters
