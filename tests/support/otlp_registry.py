"""A registry's page beside what a collector makes of its export: the same samples, in one shape."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

from tellmeter.registry.definition import MetricDefinition
from tellmeter.registry.registry import MetricsRegistry

from .otlp import Point, points_in, prometheus_samples

# The convention's are on no page, and what tellmeter tells of itself changes with the export.
_APART = ("gen_ai_client_", "tellmeter_")
Samples = dict[tuple[str, tuple[tuple[str, Any], ...]], float]


def page_samples(registry: MetricsRegistry) -> Samples:
    """What /metrics shows. A label that is empty is none, and `le` is a number."""
    return _plain(
        ((sample.name, tuple(sample.labels.items())), sample.value)
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    )


def exported_samples(points: Iterable[Point]) -> Samples:
    """What a collector shows of an export."""
    return _plain(prometheus_samples(points).items())


def _plain(samples: Iterable[tuple[tuple[str, Iterable[tuple[str, str]]], float]]) -> Samples:
    found: Samples = {}
    for (name, labels), value in samples:
        if name.startswith(_APART):
            continue
        plain = [(key, float(text) if key == "le" else text) for key, text in labels if text]
        found[name, tuple(sorted(plain))] = value
    return found


def assert_same_samples(found: Samples, expected: Samples) -> None:
    """Sums of floats may differ in their last digits."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert math.isclose(found[key], value, rel_tol=1e-9, abs_tol=1e-300), key


def encoded(metrics: Iterable[Any]) -> list[Point]:
    """Metrics as a receiver reads them, encoded by the public exporter's encoder."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    scope = ScopeMetrics(InstrumentationScope("tellmeter"), list(metrics), "")
    request = encode_metrics(MetricsData([ResourceMetrics(Resource({}), [scope], "")]))
    return points_in([MessageToDict(request, preserving_proto_field_name=True)])


_TEXTS = ("a", "with space", 'say "x"', "back\\slash", "日本語 😀", "", "=,{}", "é" * 200)


def many_series(number: int, seed: int = 1) -> MetricsRegistry:
    """A registry with so many series and a few, of every kind, with hard labels and numbers; the same for a seed."""
    draw = random.Random(seed)
    registry = MetricsRegistry(max_series=number)
    units = ["", "s", "seconds", "bytes", "By", "{token}", "1", "%", "widgets", "By/s"]
    names = []
    for index in range(40):
        kind = draw.choice(["counter", "gauge", "histogram", "up_down_counter"])
        separator = draw.choice("._")
        name = separator.join(("load", f"part{index}", draw.choice(["size", "time", "bytes", "seconds", "ratio"])))
        bounds = sorted({draw.choice([0.5, 1.0, 7.25, 1e6, 2.5e7, 1e-3]) for _ in range(4)})
        labels = [[], ["model"], ["http.route", "status"]][min(index // 4, 2)]
        registry.register_metric(
            MetricDefinition(
                name, kind, "What it is", draw.choice(units), labels, bounds if kind == "histogram" else None
            )
        )
        names.append((name, labels))
    for index in range(number):
        name, labels = draw.choice(names[4:])
        text = draw.choice(_TEXTS)
        values = {label: f"{text}{index}" if label == labels[0] else text for label in labels}
        for _ in range(draw.choice([1, 1, 5])):
            registry.record(name, draw.choice([1, 0, 2.5, 1e-9, 12345.678, 10**6]), values)
    return registry
