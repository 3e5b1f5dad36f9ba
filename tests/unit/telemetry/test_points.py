"""A registry's metrics as data points: against the encoder of the public exporter, and against the registry's page."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import AggregationTemporality

from tellmeter.errors import MetricError
from tellmeter.registry.catalogue import CATALOGUE
from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.names import prometheus_name
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.telemetry import points as points_module
from tellmeter.telemetry.points import Points, is_counted, naming
from tests.support.otlp import settled
from tests.support.otlp_registry import (
    assert_same_samples,
    encoded,
    exported_samples,
    many_series,
    page_samples,
)

TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


@pytest.fixture
def registry():
    return MetricsRegistry()


def collected(registry, **options):
    return encoded(Points([registry], **{"delta": False, **options}).collect())


def values(points):
    return {(name, *dict(attributes).values()): value for (name, attributes), value in settled(points).items()}


def flat(value):
    return [value] if isinstance(value, float) else [*value[:2], *value[2]]


def test_every_kind_has_its_points(registry):
    registry.counter("calls", "Calls.", ["model"]).labels("m").inc(3)
    registry.gauge("depth", "Depth.").set(2.5)
    registry.register_metric(MetricDefinition("jobs", MetricType.UP_DOWN_COUNTER))
    registry.increment_gauge("jobs", -2)
    registry.histogram("wait", "Waits.", [], "seconds", [1.0, 2.0]).observe(1.5)
    found = {point.name: point for point in collected(registry)}
    calls, depth, jobs, wait = (found[name] for name in ("calls", "depth", "jobs", "wait"))
    assert (calls.kind, calls.monotonic, calls.value, calls.attributes) == ("sum", True, 3.0, (("model", "m"),))
    assert (depth.kind, depth.value, depth.start) == ("gauge", 2.5, 0)
    assert (jobs.kind, jobs.monotonic, jobs.value) == ("sum", False, -2.0)
    assert (wait.kind, wait.value, wait.bounds) == ("histogram", (1, 1.5, (0, 1, 0)), (1.0, 2.0))
    for point in (calls, jobs, wait):
        assert 0 < point.start <= point.time <= time.time_ns()
        assert not point.delta


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_collector_shows_what_the_page_shows(seed, delta):
    registry = many_series(2000, seed)
    points = collected(registry, delta=delta)
    found, expected = exported_samples(points), page_samples(registry)
    if delta:  # what has counted nothing yet is not told
        expected = {key: value for key, value in expected.items() if key in found or value}
    assert_same_samples(found, expected)
    assert len(points) >= (1500 if delta else 2000)


numbers = st.floats(0, 1e9) | st.integers(0, 10**12)
hard_texts = st.text(st.characters(), max_size=8)  # lone surrogates included
hard_values = st.floats() | st.integers(-(10**400), 10**400) | st.text(max_size=3) | st.none()
words = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True).filter(lambda word: word not in ("total", "ratio"))
steps = st.lists(st.tuples(st.sampled_from(["c", "h", "u"]), st.sampled_from("xyz"), numbers), max_size=12)


@given(st.lists(steps, min_size=1, max_size=6), st.booleans())
def test_delta_exports_add_up_to_the_cumulative_one(rounds, exemplars):
    registry = MetricsRegistry()
    registry.register_metric(MetricDefinition("c", "counter", labels=["n"]))
    registry.register_metric(MetricDefinition("h", "histogram", labels=["n"], buckets=[1.0, 1e5]))
    registry.register_metric(MetricDefinition("u", "up_down_counter", labels=["n"]))
    points = Points([registry], delta=True, exemplars=exemplars)
    told = []
    for one in rounds:
        for name, label, number in one:
            registry.record(name, number, {"n": label})
        fresh = encoded(points.collect())
        assert {point.name for point in fresh if point.delta} <= {name for name, _, number in one}
        told += fresh
    assert all(point.start <= point.time for point in told)
    expected = {key: value for key, value in values(collected(registry)).items() if value}
    found = values(told)
    assert {key for key in expected if key[0] != "u"} - set(found) == set()
    for key, value in found.items():
        assert flat(value) == pytest.approx(flat(expected.get(key, 0.0)), rel=1e-9), key


def test_a_delta_begins_where_the_one_before_ended(registry):
    points = Points([registry], delta=True)
    calls = registry.counter("calls", "d", [])
    calls.inc(2)
    (first,) = encoded(points.collect())
    assert encoded(points.collect()) == []
    calls.inc(3)
    (second,) = encoded(points.collect())
    assert (first.value, second.value) == (2, 3)
    assert first.time <= second.start < second.time


@pytest.mark.parametrize("delta", [False, True])
def test_a_zero_is_told_as_the_page_does_but_is_no_delta(registry, delta):
    registry.counter("calls", "d", [])
    registry.histogram("wait", "d", [], buckets=[1.0])
    expected = {} if delta else {("calls",): 0, ("wait",): (0, 0, (0, 0))}
    assert values(collected(registry, delta=delta)) == expected


@pytest.mark.parametrize("delta", [False, True])
def test_a_reset_begins_a_series_anew(registry, delta):
    points = Points([registry], delta=delta)
    calls, wait = registry.counter("calls", "d", []), registry.histogram("wait", "d", [], buckets=[1.0])
    calls.inc(5)
    wait.observe(0.5)
    before = encoded(points.collect())
    registry.reset()
    assert encoded(points.collect()) == []
    calls.inc(1)
    wait.observe(2.0)
    after = encoded(points.collect())
    assert [point.value for point in after] == [1, (1, 2.0, (0, 1))]
    assert all(now.start > then.time for now, then in zip(after, before, strict=True))


def test_a_clock_that_was_set_back_makes_no_point_that_ends_before_it_begins(registry, monkeypatch):
    points = Points([registry], delta=True)
    calls = registry.counter("calls", "d", [])
    for hours in (0, 1, 2):
        calls.inc()
        monkeypatch.setattr(points_module.time, "time", lambda hours=hours: 1_000_000.0 - hours * 3600)
        (point,) = encoded(points.collect())
        assert (point.start, point.value) == (point.time, 1)


@pytest.mark.parametrize("delta", [False, True])
def test_a_forked_child_tells_what_it_counted_itself(registry, delta):
    points = Points([registry], delta=delta)
    calls = registry.counter("calls", "d", ["n"])
    wait = registry.histogram("wait", "d", [], buckets=[1.0])
    for label in "ab":
        calls.labels(label).inc(100)
    wait.observe(0.5)
    registry.gauge("depth", "d").set(3)
    points.collect()
    points.begin_again()
    told = points.collect()
    assert values(encoded(told)) == {("depth",): 3}
    assert not any(map(is_counted, told))
    calls.labels("a").inc(1)
    calls.labels("new").inc(7)
    wait.observe(2.0)
    fork = time.time_ns()
    found = encoded(points.collect())
    assert values(found) == {
        ("calls", "a"): 1,
        ("calls", "new"): 7,
        ("wait",): (1, 2.0, (0, 1)),
        ("depth",): 3,
    }
    calls.labels("a").inc(1)
    assert values(encoded(points.collect()))["calls", "a"] == (1 if delta else 2)
    assert all(point.start < fork for point in found)


def test_exemplars_are_told_once_with_the_ids_of_their_trace(registry):
    points = Points([registry], delta=False)
    registry.counter("calls", "d", []).inc(1, {**TRACE, "user": "u"})
    wait = registry.histogram("wait", "d", [], buckets=[1.0])
    wait.observe(0.25, TRACE)
    wait.observe(4.0, TRACE)
    first = {point.name: point.exemplars for point in encoded(points.collect())}
    ids = tuple(TRACE.values())
    assert first == {"calls": ((*ids, 1.0),), "wait": ((*ids, 0.25), (*ids, 4.0))}
    again = {point.name: point.exemplars for point in encoded(points.collect())}
    assert again == first, "nobody has it yet"
    points.delivered()
    wait.observe(0.5, TRACE)
    assert {point.name: point.exemplars for point in encoded(points.collect())} == {
        "calls": (),
        "wait": ((*ids, 0.5),),
    }


@pytest.mark.parametrize(
    "labels",
    [
        {"trace_id": "0" * 32, "span_id": TRACE["span_id"]},
        {"trace_id": TRACE["trace_id"]},
        {"trace_id": "no hex", "span_id": "é"},
        {"order": "7"},
    ],
)
def test_an_exemplar_without_the_ids_of_a_span_keeps_its_labels(registry, labels):
    registry.counter("calls", "d", []).inc(1, labels)
    (metric,) = Points([registry], delta=False).collect()
    (exemplar,) = metric.data.data_points[0].exemplars
    assert (exemplar.trace_id, exemplar.span_id, dict(exemplar.filtered_attributes)) == (None, None, labels)
    assert encoded([metric])[0].exemplars == (("", "", 1.0),)


def test_exemplars_can_be_left_out(registry):
    registry.counter("calls", "d", []).inc(1, TRACE)
    assert collected(registry, exemplars=False)[0].exemplars == ()


def test_a_histogram_with_values_below_zero_has_no_sum(registry):
    for name, bounds, value in (("cold", [-5.0, 0.0], -1.0), ("odd", [1.0], -1.0), ("warm", [1.0], 1.0)):
        registry.histogram(name, "d", [], buckets=bounds).observe(value)
    sums = {metric.name: metric.data.data_points[0].sum for metric in Points([registry], delta=False).collect()}
    assert sums == {"cold": None, "odd": None, "warm": 1.0}
    assert {metric.data.data_points[0].min for metric in Points([registry], delta=False).collect()} == {None}


def test_the_bound_on_series_holds_here_too():
    registry = MetricsRegistry(max_series=3)
    calls = registry.counter("calls", "d", ["n"])
    for number in range(10):
        calls.labels(str(number)).inc()
    assert values(collected(registry)) == {("calls", "0"): 1, ("calls", "1"): 1, ("calls", "2"): 1} | {
        ("calls", "__overflow__"): 7
    }


@given(st.lists(st.tuples(st.sampled_from(["counter", "histogram", "gauge"]), hard_texts, hard_values), max_size=8))
def test_whatever_is_recorded_an_export_can_be_encoded(recordings):
    registry = MetricsRegistry()
    for kind, text, value in recordings:
        name, unit = text or "x", text[::-1]
        try:
            family = getattr(registry, kind)(name, text, [text] if text else [], unit)
        except MetricError:
            continue
        getattr(family.labels(text), {"counter": "inc", "histogram": "observe", "gauge": "set"}[kind])(value)
    for delta in (False, True):
        encoded(Points([registry], delta=delta).collect())


def test_several_registries_are_one_export():
    first, second = MetricsRegistry(), MetricsRegistry()
    first.counter("a", "d", []).inc(1)
    second.counter("b", "d", []).inc(2)
    assert values(encoded(Points([first, second], delta=False).collect())) == {("a",): 1, ("b",): 2}


def test_a_metric_that_got_more_labels_tells_them(registry):
    points = Points([registry], delta=False)
    family = registry.counter("calls", "d", ["model"])
    family.labels("m").inc()
    points.collect()
    family.widen(["feature"])
    family.labels("m", "search").inc()
    assert values(encoded(points.collect())) == {("calls", "m"): 1, ("calls", "search", "m"): 1}


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("definition", CATALOGUE, ids=lambda one: one.name)
def test_names_of_the_catalogue_come_back(definition):
    name, unit = naming(definition)
    assert prometheus_name(name, unit, definition.type.value) == definition.exposed
    assert not name.endswith(("_total", "_seconds", "_bytes"))


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.duration", "s", "histogram", ("http.server.duration", "s")),
        ("requests", "", "counter", ("requests", "")),
        ("wait_seconds", "seconds", "histogram", ("wait", "s")),
        ("memory_usage", "bytes", "gauge", ("memory_usage", "{bytes}")),  # By would make it memory_usage_bytes
        ("latency_ms", "ms", "histogram", ("latency_ms", "{milliseconds}")),
        ("score", "1", "gauge", ("score", "")),
        ("score_ratio", "1", "gauge", ("score_ratio", "1")),
        ("tokens", "tokens", "histogram", ("tokens", "{tokens}")),
        ("odd__name", "s", "histogram", ("odd__name", "{seconds}")),
        ("a.b c", "", "counter", ("a_b_c", "")),
        ("9 lives", "no unit\u20ac", "gauge", ("_9_lives", "")),
    ],
)
def test_a_name_is_the_shortest_that_comes_back(name, unit, kind, expected):
    assert naming(MetricDefinition(name, kind, unit=unit)) == expected


@given(st.lists(words, min_size=1, max_size=3), st.sampled_from(["", "s", "seconds", "By", "%", "1", "x"]), st.data())
def test_names_come_back(parts, unit, data):
    kind = data.draw(st.sampled_from(list(MetricType)))
    definition = MetricDefinition(data.draw(st.sampled_from("._")).join(parts), kind, unit=unit)
    assert prometheus_name(*naming(definition), kind.value) == definition.exposed


def test_two_metrics_do_not_become_one(registry):
    registry.histogram("wait_seconds", "d", [], "seconds").observe(1)
    registry.gauge("wait", "d").set(1)
    registry.gauge("size_bytes", "d", unit="bytes").set(1)
    registry.counter("size", "d", [], unit="bytes").inc(1)
    metrics = Points([registry], delta=False).collect()
    assert sorted(metric.name for metric in metrics) == ["size", "size_bytes", "wait", "wait_seconds"]
    assert {
        prometheus_name(metric.name, metric.unit, kind)
        for metric, kind in zip(metrics, ("histogram", "gauge", "gauge", "counter"), strict=True)
    } == {"wait_seconds", "wait", "size_bytes", "size_total"}


def test_the_temporality_is_the_sdks(registry):
    registry.counter("calls", "d", []).inc()
    for delta, expected in ((True, AggregationTemporality.DELTA), (False, AggregationTemporality.CUMULATIVE)):
        (metric,) = Points([registry], delta=delta).collect()
        assert metric.data.aggregation_temporality is expected
