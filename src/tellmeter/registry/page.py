"""The page that a scrape gets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..config import MULTIPROC_VARIABLE
from .registry import MetricsRegistry, get_metrics_registry
from .text import END, Shown, write


def page(registry: MetricsRegistry | None = None, *, openmetrics: bool = False) -> Iterator[bytes]:
    """A registry in pieces of at most about 64 KiB.

    The process's registry (also without one) comes with those of the other processes where `TELLMETER_MULTIPROC_DIR`
    is set; what this process knows of prometheus_client's registries follows, and is its own.
    """
    own = get_metrics_registry()
    if registry is not None and registry is not own:
        yield from own_page(registry, openmetrics=openmetrics)
        return
    if os.environ.get(MULTIPROC_VARIABLE, "").strip():
        from .shared.processes import share

        member = share(own)
        if member is not None:
            yield from _written(own, member.metrics(), openmetrics)
            return
    yield from own_page(own, openmetrics=openmetrics)


def own_page(registry: MetricsRegistry, *, openmetrics: bool = False) -> Iterator[bytes]:
    """One registry alone, settled, in pieces."""
    registry.settle()
    yield from _written(registry, registry.families(), openmetrics)


def _written(registry: MetricsRegistry, families: Iterable[Shown], openmetrics: bool) -> Iterator[bytes]:
    families = list(families)
    yield from write(families, openmetrics=openmetrics)
    if registry.sources:
        from .interop import foreign_page

        taken = {name for family in families for name in family.definition.sample_names()}
        yield from foreign_page(registry.sources, taken, openmetrics=openmetrics)
    if openmetrics:
        yield END
