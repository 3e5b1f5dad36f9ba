"""Numbers that somebody else keeps, brought into a registry: what they grew by since they were last looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .registry import MetricsRegistry

Labels = tuple[str, ...]


class Deltas:
    """What changed between two looks at the same numbers: label values -> number.

    Several owners may feed one metric, each with deltas of its own, and the metric is their sum.
    """

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry
        self._resets = registry.resets
        self._counted: dict[str, dict[Labels, float]] = {}
        self._gauged: dict[str, dict[Labels, float]] = {}

    def grown(self, name: str, now: Mapping[Labels, float]) -> Iterator[tuple[Labels, float]]:
        """What counters grew by. One that is lower than before began again at zero, as in a forked child."""
        before = self._counted.get(name, {})
        self._counted[name] = dict(now)
        for labels, number in now.items():
            last = before.get(labels, 0)
            if number != last:
                yield labels, number - last if number > last else number

    def moved(self, name: str, now: Mapping[Labels, float]) -> Iterator[tuple[Labels, float]]:
        """What gauges moved by; what is no longer there moved to zero."""
        if self._resets != self._registry.resets:
            self._resets = self._registry.resets
            self._gauged = {}
        before = self._gauged.get(name, {})
        self._gauged[name] = dict(now)
        for labels in {**before, **now}:
            change = now.get(labels, 0) - before.get(labels, 0)
            if change or labels not in before:
                yield labels, change

    def begin_again(self) -> None:
        """In a forked child, whose counts are its own: they start at zero."""
        self._counted = {}
