"""Records as lines of CloudWatch's Embedded Metric Format: one JSON object per call, its numbers told by `_aws`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError
from ...records import AgentMetrics
from ..json_record import columns, encode
from .metrics import NAMES, Dimension, Metric, dimension_value, number, series_of

_NOT_TOLD = ("raw_chunks", "last_error")  # of a stream: what the provider sent
_LOG_PLACES = ("log_group_name", "log_stream_name")


class EMFEncoder:
    """Makes lines of records.

    Args:
        namespace: of the metrics.
        metrics, sets: what to tell.
        high_resolution: by the second instead of the minute.
        properties: whether the record's other fields are there too, for questions to the logs.
        log_places: `log_group_name` and `log_stream_name`, which the agent reads from each line.

    Raises:
        ConfigError: a dimension that has the name of a field or metric.
    """

    def __init__(
        self,
        namespace: str,
        metrics: Sequence[Metric],
        sets: Sequence[Sequence[Dimension]],
        *,
        high_resolution: bool = False,
        properties: bool = True,
        log_places: Mapping[str, str] | None = None,
    ) -> None:
        self._namespace = namespace
        self._metrics = metrics
        self._sets = sets
        self._resolution = {"StorageResolution": 1} if high_resolution else {}
        self._properties = properties
        self._log_places = dict(log_places or {})
        taken = {"_aws", *NAMES, *_LOG_PLACES, *AgentMetrics.__struct_fields__}
        for dimension in (dimension for one in sets for dimension in one):
            if dimension.name in taken:
                raise ConfigError(f"dimensions: {dimension.name} is the name of a field or metric in these lines")

    def line(self, record: AgentMetrics) -> bytes:
        """A record as one line of JSON."""
        series = series_of(record, self._sets)
        names = [[name for name, _ in one] for one in series]
        root: dict[str, Any] = {name: value for one in series for name, value in one}
        directives: dict[str | None, list[dict[str, Any]]] = {}
        for metric in self._metrics:
            value = metric.value(record)
            if value is None:
                continue
            root[metric.name] = number(value)
            if metric.label is not None:
                root[metric.label] = dimension_value(metric.label_value(record)) or "unknown"
            told = {"Name": metric.name, "Unit": metric.unit, **self._resolution}
            directives.setdefault(metric.label, []).append(told)
        told_of = [
            {
                "Namespace": self._namespace,
                "Dimensions": [one if label is None else [*one, label] for one in names],
                "Metrics": metrics,
            }
            for label, metrics in directives.items()
            if names
        ]
        properties = _properties(record) if self._properties else {"id": record.id}
        about = {"Timestamp": int(record.timestamp * 1000), "CloudWatchMetrics": told_of}
        return encode({"_aws": about, **root, **properties, **self._log_places}) + b"\n"


def _properties(record: AgentMetrics) -> dict[str, Any]:
    fields = columns(record)
    if "stream" in fields:
        fields["stream"] = {name: value for name, value in fields["stream"].items() if name not in _NOT_TOLD}
    return fields
