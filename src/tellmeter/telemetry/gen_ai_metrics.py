"""The GenAI convention's metrics beside a registry's own, of every call that is counted there; only for exports.

They have a registry to themselves: on /metrics they would say everything twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..errors import MetricError
from ..guard import note
from ..records import AgentMetrics
from ..registry.definition import MetricDefinition, MetricType
from ..registry.family import OVERFLOW as OVERFLOWN
from ..registry.family import Family
from ..registry.llm import trace_labels
from ..registry.registry import MetricsRegistry
from ..registry.series import Histogram
from ..sinks.otel.gen_ai import OVERFLOW, GenAIMetrics

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

_LABELS = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.token.type",
    "error.type",
)


class GenAISeries:
    """The convention's histograms, in `registry`, of the calls that it is told of."""

    def __init__(self) -> None:
        self.registry = MetricsRegistry()
        self._by_tags: dict[tuple[str, ...], GenAIMetrics] = {}

    def count(self, records: Sequence[AgentMetrics], tags: tuple[str, ...]) -> None:
        """Count finished calls, whose tags of these names are attributes."""
        metrics = self._by_tags.get(tags) or self._made(tags)
        for record in records:
            metrics.record(record, cast("Any", trace_labels(record)))

    def _made(self, tags: tuple[str, ...]) -> GenAIMetrics:
        try:
            found = GenAIMetrics(cast("Meter", _Meter(self.registry, tags)), tags)
        except MetricError as error:  # a tag that is one of the convention's attributes
            note("gen_ai_tags", error)
            found = GenAIMetrics(cast("Meter", _Meter(self.registry, ())))
        self._by_tags[tags] = found
        return found


class _Meter:
    """What GenAIMetrics asks of a meter."""

    def __init__(self, registry: MetricsRegistry, tags: Sequence[str]) -> None:
        self._registry = registry
        self._tags = tags

    def create_histogram(
        self, name: str, unit: str, description: str, *, explicit_bucket_boundaries_advisory: Sequence[float]
    ) -> _Instrument:
        family = self._registry.family(
            MetricDefinition(
                name, MetricType.HISTOGRAM, description, unit, _LABELS, explicit_bucket_boundaries_advisory
            )
        )
        family.widen(self._tags)
        return _Instrument(family)


class _Instrument:
    """What GenAIMetrics asks of a histogram."""

    def __init__(self, family: Family[Histogram]) -> None:
        self._family = family
        # By the identity of attributes, which GenAIMetrics makes once a set and keeps.
        self._series: dict[int, Histogram] = {}

    def record(self, value: float, attributes: Mapping[str, str], exemplar: Mapping[str, str] | None) -> None:
        series = self._series.get(id(attributes))
        if series is None:
            labels = self._family.definition.labels
            every = OVERFLOWN if attributes is cast("Any", OVERFLOW) else ""
            series = self._family.find({label: attributes.get(label, every) for label in labels})
            self._series[id(attributes)] = series
        series.observe(value, exemplar)
