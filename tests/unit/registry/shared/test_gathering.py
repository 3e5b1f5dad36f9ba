import pytest

from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.shared.gathering import Gathering
from tellmeter.registry.shared.snapshot import Row, Snapshot, decode, definition_of, encode


@pytest.fixture
def registry():
    return MetricsRegistry()


def rows(gathering):
    """The metrics by name, their rows by labels."""
    found = decode(encode(Snapshot(0.0, gathering.parts)))
    return {definition_of(part.definition).name: {row.values: row for row in part.rows} for part in found.parts}


def test_every_kind_of_series_is_a_row(registry):
    registry.counter("requests", labels=["path"]).labels("/a").inc(3, {"trace_id": "t"})
    registry.gauge("temperature").set(-1.5)
    registry.gauge("never", labels=())
    histogram = registry.histogram("seconds", buckets=[1, 2])
    histogram.observe(0.5)
    histogram.observe(7, {"trace_id": "u"})
    gathering = Gathering(registry)
    assert gathering.look(50.0)
    assert gathering.series == 4
    found = rows(gathering)
    request = found["requests"]["/a",]
    assert (request.total, request.exemplars[0][:3]) == (3.0, (0, {"trace_id": "t"}, 3.0))
    assert (found["temperature"][()].total, found["temperature"][()].at) == (-1.5, 50.0)
    assert (found["never"][()].total, found["never"][()].at) == (0.0, 0.0)
    seconds = found["seconds"][()]
    assert (seconds.counts, seconds.total) == ((1, 0, 1), 7.5)
    assert [one[:3] for one in seconds.exemplars] == [(2, {"trace_id": "u"}, 7.0)]


def test_nothing_new_is_no_change_and_the_same_bytes(registry):
    registry.counter("a").inc()
    registry.gauge("b").inc(2.5)
    registry.histogram("c").observe(1)
    gathering = Gathering(registry)
    assert gathering.look(1.0)
    before = gathering.parts
    assert not gathering.look(2.0)
    assert all(one is other for one, other in zip(before, gathering.parts, strict=True))


@pytest.mark.parametrize(
    "act",
    [
        lambda registry: registry.counter("a").inc(),
        lambda registry: registry.gauge("b").set(0),  # nobody had set it
        lambda registry: registry.gauge("b").inc(0.0),
        lambda registry: registry.histogram("c").observe(1),
        lambda registry: registry.increment("new", 1, {"x": "y"}),
        lambda registry: registry.reset(),
        lambda registry: registry.register_metric(MetricDefinition("later", MetricType.GAUGE, "Words.")),
    ],
)
def test_only_what_changed_is_encoded_again(registry, act):
    registry.counter("a", labels=())
    registry.gauge("b", labels=())
    registry.histogram("c", labels=())
    gathering = Gathering(registry)
    gathering.look(1.0)
    before = gathering.parts
    act(registry)
    assert gathering.look(2.0)
    assert not gathering.look(3.0)
    kept = [part for part in before if any(part is other for other in gathering.parts)]
    assert len(kept) in (0, 2, 3)  # all begin again, or the two others, or all and a new one


def test_a_gauge_remembers_when_it_changed(registry):
    gauge = registry.gauge("g", labels=["x"])
    gauge.labels("a").set(1)
    gauge.labels("b").set(2)
    gathering = Gathering(registry)
    gathering.look(10.0)
    gauge.labels("a").set(1)
    gauge.labels("b").set(3)
    gathering.look(20.0)
    assert {values: row.at for values, row in rows(gathering)["g"].items()} == {("a",): 10.0, ("b",): 20.0}


def test_what_a_reset_left_is_no_row(registry):
    counter = registry.counter("a", labels=["x"])
    for value in "pq":
        counter.labels(value).inc()
    registry.reset()
    counter.labels("q").inc(2)
    gathering = Gathering(registry)
    gathering.look(1.0)
    assert {values: row.total for values, row in rows(gathering)["a"].items()} == {("q",): 2.0}


def test_a_metric_that_nobody_recorded_yet_is_a_part_without_rows(registry):
    registry.counter("undefined")
    gathering = Gathering(registry)
    gathering.look(1.0)
    (part,) = decode(encode(Snapshot(0.0, gathering.parts))).parts
    assert (part.undefined, part.rows, gathering.series) == (True, [], 0)


def test_labels_that_a_metric_gets_later_are_in_its_rows(registry):
    definition = MetricDefinition("calls", MetricType.COUNTER, labels=("model",))
    family = registry.family(definition)
    family.labels("m").inc()
    gathering = Gathering(registry)
    gathering.look(1.0)
    family.widen(["feature"])
    assert gathering.look(2.0)
    assert list(rows(gathering)["calls"]) == [("m", "")]


def test_numbers_of_any_size_are_floats(registry):
    registry.gauge("large").set(10**400)
    registry.counter("many").inc(2**70)
    gathering = Gathering(registry)
    gathering.look(1.0)
    assert isinstance(rows(gathering)["many"][()], Row)
    assert rows(gathering)["many"][()].total == float(2**70)
