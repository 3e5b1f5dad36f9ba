from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import AggregationTemporality as Temporality
from opentelemetry.sdk.metrics.export import Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tellmeter.sinks.otel.halves import halves, points_of

RESOURCE = Resource({"a": "b"})


def export(shape):
    """A scope for each list, a metric for each number of points."""
    scopes = [
        ScopeMetrics(
            InstrumentationScope(f"scope{at}"),
            [
                Metric(
                    f"m{number}", "", "s", Sum([point(at, number, one) for one in range(many)], Temporality.DELTA, True)
                )
                for number, many in enumerate(metrics)
            ],
            "",
        )
        for at, metrics in enumerate(shape)
    ]
    return MetricsData([ResourceMetrics(RESOURCE, scopes, "")])


def point(*where):
    return NumberDataPoint({"at": str(where)}, 1, 2, 3.0)


def flat(data):
    return [
        (resource.resource, scope.scope, metric.name, metric.unit, metric.data.is_monotonic, one)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for one in metric.data.data_points
    ]


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=3))
def test_halves_have_every_point_once_in_order(shape):
    data = export(shape)
    number = points_of(data)
    assert number == sum(map(sum, shape))
    first, second = halves(data)
    assert flat(first) + flat(second) == flat(data)
    assert (points_of(first), points_of(second)) == (number // 2, number - number // 2)
