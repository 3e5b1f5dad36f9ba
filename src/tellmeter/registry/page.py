"""The page that a scrape gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .registry import MetricsRegistry, get_metrics_registry
from .text import END, Shown, write


def page(registry: MetricsRegistry | None = None, *, openmetrics: bool = False) -> Iterator[bytes]:
    """A registry (the process's, merged with those of the other processes) in pieces of at most about 64 KiB."""
    yield from own_page(get_metrics_registry() if registry is None else registry, openmetrics=openmetrics)


def own_page(registry: MetricsRegistry, *, openmetrics: bool = False) -> Iterator[bytes]:
    """One registry alone, settled, in pieces."""
    registry.settle()
    yield from _written(registry, registry.families(), openmetrics)


def _written(registry: MetricsRegistry, families: Iterable[Shown], openmetrics: bool) -> Iterator[bytes]:
    yield from write(families, openmetrics=openmetrics)
    if registry.sources:
        from .interop import foreign_page

        taken = {name for family in registry.families() for name in family.definition.sample_names()}
        yield from foreign_page(registry.sources, taken, openmetrics=openmetrics)
    if openmetrics:
        yield END
