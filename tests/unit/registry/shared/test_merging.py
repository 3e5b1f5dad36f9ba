import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.shared import trouble
from tellmeter.registry.shared.gathering import Gathering
from tellmeter.registry.shared.merging import merge
from tellmeter.registry.shared.snapshot import Snapshot, decode, encode
from tellmeter.registry.text import write
from tests.support.metrics import read_page


@pytest.fixture(autouse=True)
def nothing_noticed(monkeypatch):
    monkeypatch.setattr(trouble, "_noticed", set())


def snapshot(*acts, at=1.0):
    """The snapshot of a process that did `acts`; each with its time where it is a pair."""
    registry = MetricsRegistry()
    gathering = Gathering(registry)
    for act in acts:
        act(registry)
    gathering.look(at)
    return decode(encode(Snapshot(0.0, gathering.parts)))


def merged(*snapshots, dead=()):
    return merge([*((one, True) for one in snapshots), *((one, False) for one in dead)])


def samples(metrics, name, *, openmetrics=False):
    page = b"".join(write(metrics, openmetrics=openmetrics))
    read = read_page(page + b"# EOF\n" if openmetrics else page, openmetrics=openmetrics, created=False)[name]
    return {
        (sample.removeprefix(name), *(value for _, value in labels)): value
        for (sample, labels), value in read.samples.items()
    }


def inc(name, number=1, **labels):
    return lambda registry: registry.increment(name, number, labels)


def set_gauge(mode, value):
    definition = MetricDefinition("g", MetricType.GAUGE, gauge_mode=mode)

    def act(registry):
        registry.register_metric(definition)
        if value is not None:
            registry.set_gauge("g", value)

    return act


def test_counters_add_up_by_labels():
    found = merged(snapshot(inc("a", 1, x="p"), inc("a", 2, x="q")), snapshot(inc("a", 40, x="q"), inc("a", 5, x="r")))
    assert samples(found, "a") == {("_total", "p"): 1, ("_total", "q"): 42, ("_total", "r"): 5}


def test_histograms_add_up():
    def observe(*values):
        return lambda registry: [registry.histogram("h", "d", (), buckets=(1, 2)).observe(value) for value in values]

    found = merged(snapshot(observe(0.5, 3)), snapshot(observe(1.5)), dead=[snapshot(observe(0.25, 1))])
    read = {key: value for key, value in samples(found, "h").items() if key[0] != "_created"}
    assert read == {
        ("_bucket", "1.0"): 3,
        ("_bucket", "2.0"): 4,
        ("_bucket", "+Inf"): 5,
        ("_count",): 5,
        ("_sum",): 6.25,
    }


def test_one_alone_is_shown_as_its_own_page_shows_it():
    registry = MetricsRegistry()
    registry.counter("a", "Words \\ and \n more.", ["x", "y"]).labels('"', "\\").inc(2, {"trace_id": "t"})
    registry.histogram("h", "Seconds.", ["x"], unit="seconds").labels("é").observe(3, {"trace_id": "u"})
    registry.gauge("g", "Level.").set(-0.5)
    registry.register_metric(MetricDefinition("u", MetricType.UP_DOWN_COUNTER))
    registry.counter("never", "Nobody recorded it.")
    gathering = Gathering(registry)
    gathering.look(1.0)
    found = merged(decode(encode(Snapshot(0.0, gathering.parts))))
    for openmetrics in (False, True):
        end = b"# EOF\n" if openmetrics else b""
        assert b"".join(write(found, openmetrics=openmetrics)) + end == registry.text(openmetrics=openmetrics)


@pytest.mark.parametrize(
    ("mode", "alive", "all_of_them"),
    [
        ("livesum", 5.0, 5.0),
        ("sum", 5.0, 15.0),
        ("livemax", 3.0, 3.0),
        ("max", 3.0, 10.0),
        ("livemin", 2.0, 2.0),
        ("min", 2.0, 2.0),
    ],
)
def test_gauges_go_by_their_mode(mode, alive, all_of_them):
    running = [snapshot(set_gauge(mode, 2)), snapshot(set_gauge(mode, 3))]
    assert samples(merged(*running), "g") == {("",): alive}
    assert samples(merged(*running, dead=[snapshot(set_gauge(mode, 10))]), "g") == {("",): all_of_them}


@pytest.mark.parametrize("mode", ["max", "min", "livemax", "livemin", "mostrecent"])
def test_a_process_that_never_set_a_gauge_has_no_say(mode):
    never, low = snapshot(set_gauge(mode, None)), snapshot(set_gauge(mode, -7))
    high = snapshot(set_gauge(mode, 7))
    assert samples(merged(never, low), "g") == {("",): -7}
    assert samples(merged(never, high), "g") == {("",): 7}
    assert samples(merged(never, never), "g") == {("",): 0}


def test_the_most_recent_is_what_changed_last():
    early, late = snapshot(set_gauge("mostrecent", 1), at=100.0), snapshot(set_gauge("mostrecent", 2), at=200.0)
    assert samples(merged(early, late), "g") == samples(merged(late, early), "g") == {("",): 2}
    assert samples(merged(early, dead=[late]), "g") == {("",): 2}


def test_gauges_of_the_dead_that_only_count_alive_are_gone():
    assert samples(merged(dead=[snapshot(set_gauge("livesum", 2))]), "g") == {}


def test_an_up_down_counter_is_a_gauge():
    def act(registry):
        registry.register_metric(MetricDefinition("u", MetricType.UP_DOWN_COUNTER))
        registry.increment("u", 2)

    assert samples(merged(snapshot(act), snapshot(act), dead=[snapshot(act)]), "u") == {("",): 4}


def test_the_help_of_a_metric_that_only_others_know_is_shown():
    other = snapshot(lambda registry: registry.counter("b", "Of others.").inc())
    assert b"# HELP b_total Of others.\n# TYPE b_total counter\nb_total 1.0\n" in b"".join(
        write(merged(snapshot(inc("a")), other))
    )


@pytest.mark.parametrize(
    "other",
    [
        lambda registry: registry.gauge("a_total").set(5),
        lambda registry: registry.gauge("a").set(5),
        lambda registry: registry.histogram("a_total").observe(5),
        inc("a", 5, y="q"),
    ],
)
def test_what_is_not_the_same_in_another_process_is_left_out_and_counted_once(other):
    mine, others = snapshot(inc("a", 1, x="p")), snapshot(other, inc("b", 2))
    for _ in range(3):
        found = merged(mine, others)
        assert samples(found, "a") == {("_total", "p"): 1}
        assert samples(found, "b") == {("_total",): 2}
    assert counts.snapshot()["snapshot_errors"] == {"conflict": 1}


def test_buckets_that_differ_are_not_mixed():
    def observe(bound):
        return lambda registry: registry.histogram("h", "d", (), buckets=(bound,)).observe(1)

    found = samples(merged(snapshot(observe(1.0)), snapshot(observe(2.0))), "h")
    assert (found["_count",], found["_bucket", "1.0"]) == (1, 1)
    assert counts.snapshot()["snapshot_errors"] == {"conflict": 1}


def test_words_may_differ_and_the_first_has_the_say():
    def act(words):
        return lambda registry: registry.counter("a", words).inc()

    (metric,) = merged(snapshot(act("Mine.")), snapshot(act("Others.")))
    assert metric.help == "Mine."
    assert samples([metric], "a") == {("_total",): 2}
    assert not counts.total("snapshot_errors")


def test_a_process_that_has_not_recorded_a_metric_yet_contradicts_nobody():
    waiting = snapshot(lambda registry: registry.counter("a", "Words."))
    busy = snapshot(inc("a", 2, x="p"))
    plain = snapshot(inc("b"), lambda registry: registry.counter("a").inc(4))
    assert samples(merged(waiting, busy), "a") == samples(merged(busy, waiting), "a") == {("_total", "p"): 2}
    assert samples(merged(waiting, plain), "a") == samples(merged(plain, waiting), "a") == {("_total",): 4}
    assert not counts.total("snapshot_errors")


def test_a_label_that_a_process_does_not_have_is_empty_there():
    def act(*labels):
        def calls(registry):
            family = registry.family(MetricDefinition("calls", MetricType.COUNTER, labels=("model",)))
            family.widen(labels)
            family.find({"model": "m", **dict.fromkeys(labels, "f")}).inc()

        return calls

    for order in ([act(), act("feature")], [act("feature"), act()]):
        found = merged(*map(snapshot, order), dead=[snapshot(act())])
        assert samples(found, "calls") == {("_total", "", "m"): 2, ("_total", "f", "m"): 1}
    assert not counts.total("snapshot_errors")


def test_the_first_creation_and_the_last_exemplars_are_shown():
    def act(created, *, trace):
        def count(registry):
            series = registry.counter("a", labels=()).labels()
            series.created = created
            series.inc(1, {"trace_id": trace})
            series.exemplars.timestamp = created

        return count

    (metric,) = merged(snapshot(act(20.0, trace="young")), snapshot(act(10.0, trace="old")))
    (series,) = metric.shown()
    assert (series.created, series.exemplars.labels, series.visible) == (10.0, {"trace_id": "young"}, True)


def test_exemplars_of_a_histogram_are_the_latest_of_each_bucket():
    def act(value, at, trace):
        def observe(registry):
            series = registry.histogram("h", buckets=(1, 2), labels=()).labels()
            series.observe(value, {"trace_id": trace})
            for one in series.exemplars.values():
                one.timestamp = at

        return observe

    (metric,) = merged(snapshot(act(0.5, 1.0, "a")), snapshot(act(0.5, 2.0, "b")), snapshot(act(9, 1.0, "c")))
    (series,) = metric.shown()
    assert {bucket: one.labels["trace_id"] for bucket, one in series.exemplars.items()} == {0: "b", 2: "c"}


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=6), st.randoms())
def test_the_order_of_the_processes_does_not_change_a_digit(values, random):
    shots = [snapshot(inc("a", value)) for value in values]
    shuffled = random.sample(shots, len(shots))
    assert samples(merged(*shots), "a") == samples(merged(*shuffled), "a") == {("_total",): math.fsum(values)}
