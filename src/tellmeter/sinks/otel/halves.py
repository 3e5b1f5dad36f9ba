"""Half an export, for receivers that take no more."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

from opentelemetry.sdk.metrics.export import MetricsData


def points_of(data: MetricsData) -> int:
    """How many data points an export has."""
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def halves(data: MetricsData) -> tuple[MetricsData, MetricsData]:
    """The data points of an export in two parts, in their order. A metric whose points are parted is in both."""
    points = [
        (resource, scope, metric, point)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    middle = len(points) // 2
    return _whole(points[:middle]), _whole(points[middle:])


def _whole(points: list[tuple[Any, ...]]) -> MetricsData:
    """An export of such points, which are in order."""
    return MetricsData(
        [
            replace(
                resource[0][0],
                scope_metrics=[
                    replace(
                        scope[0][1],
                        metrics=[
                            replace(
                                metric[0][2], data=replace(metric[0][2].data, data_points=[one[3] for one in metric])
                            )
                            for metric in _grouped(scope, 2)
                        ],
                    )
                    for scope in _grouped(resource, 1)
                ],
            )
            for resource in _grouped(points, 0)
        ]
    )


def _grouped(points: list[tuple[Any, ...]], level: int) -> list[list[tuple[Any, ...]]]:
    return [list(group) for _, group in groupby(points, key=lambda point: id(point[level]))]
