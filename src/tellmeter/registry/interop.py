"""prometheus_client at our edges: our metrics in any of its registries, its registries' metrics on our page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..counts import count
from ..errors import MissingExtra
from ..guard import note
from .definition import MetricType
from .labels import clean_value
from .names import unit_word
from .text import END, Shown

if TYPE_CHECKING:
    from prometheus_client import Metric

    from .registry import MetricsRegistry

_local = threading.local()  # two registries that show each other must not do so for ever


def metrics_of(registry: MetricsRegistry, *, samples: bool = True) -> Iterator[Metric]:
    """A registry's metrics as prometheus_client's, settled; none while that registry is collecting on our behalf.

    Raises:
        MissingExtra: prometheus_client is not installed.
    """
    try:
        from prometheus_client import Metric
    except ImportError:
        raise MissingExtra("prometheus_client", "prometheus") from None
    if getattr(_local, "collecting", False):
        return iter(())
    if samples:
        registry.settle()
    return (_metric(Metric, family, samples) for family in registry.families())


def _metric(make: Callable[..., Metric], family: Shown, samples: bool) -> Metric:
    from prometheus_client import samples as kinds

    kind = "gauge" if family.type is MetricType.UP_DOWN_COUNTER else family.type.value
    name = family.exposed.removesuffix("_total") if kind == "counter" else family.exposed
    word = unit_word(family.definition.unit)
    description = family.definition.description
    description = clean_value(description, len(description))
    metric = make(name, description, kind, word if word and name.endswith(f"_{word}") else "")
    names = family.definition.exposed_labels

    def exemplar(found: Any) -> Any:
        return None if found is None else kinds.Exemplar(found.labels, found.value, found.timestamp)

    for series in family.shown() if samples else ():
        labels = dict(zip(names, series.values, strict=False))
        value = series.read()
        if kind == "gauge":
            metric.add_sample(name, labels, value)
        elif kind == "counter":
            metric.add_sample(f"{name}_total", labels, float(value), exemplar=exemplar(series.exemplars))
            metric.add_sample(f"{name}_created", labels, series.created)
        else:
            counts, total, _, _ = value
            below = 0
            for bucket, (le, number) in enumerate(zip(family.les, counts, strict=True)):
                below += number
                noted = exemplar((series.exemplars or {}).get(bucket))
                metric.add_sample(f"{name}_bucket", {**labels, "le": le}, float(below), exemplar=noted)
            if total >= 0 and family.les[0][0] != "-":  # as in OpenMetrics
                metric.add_sample(f"{name}_count", labels, float(below))
                metric.add_sample(f"{name}_sum", labels, total)
            metric.add_sample(f"{name}_created", labels, series.created)
    return metric


def load_writers() -> None:
    """Import what `foreign_page` needs, before anything forks in the midst of it."""
    try:
        import prometheus_client.openmetrics.exposition  # noqa: F401
    except ImportError:
        pass  # told when there is something to write


def foreign_page(sources: Iterable[Any], taken: set[str], *, openmetrics: bool) -> Iterator[bytes]:
    """What prometheus_client's registries and collectors have, written by its own writers.

    A metric with a name of `taken`, which grows, is left out and counted; a source that fails is, too.
    """
    for source in sources:
        try:
            yield from _written(source, taken, openmetrics)
        except Exception as error:
            note("metrics_source", error)


def _written(source: Any, taken: set[str], openmetrics: bool) -> Iterator[bytes]:
    write: Any
    if openmetrics:
        from prometheus_client.openmetrics.exposition import generate_latest as write
    else:
        from prometheus_client import generate_latest as write
    _local.collecting = True
    try:
        found = list(source.collect())
    finally:
        _local.collecting = False
    for metric in found:
        names = {metric.name, *(sample.name for sample in metric.samples)}
        if names & taken:
            count("metric_errors", f"{metric.name}:name_taken")
            continue
        taken |= names
        yield write(_One(metric)).removesuffix(END)


class _One:
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric
