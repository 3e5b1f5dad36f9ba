import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.family import OVERFLOW
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.shared import folding
from tellmeter.registry.shared.folding import added_up
from tellmeter.registry.shared.gathering import Gathering
from tellmeter.registry.shared.merging import merge
from tellmeter.registry.shared.snapshot import Snapshot, decode, encode
from tellmeter.registry.text import write


def snapshot(*acts, at=1.0):
    registry = MetricsRegistry()
    gathering = Gathering(registry)
    for act in acts:
        act(registry)
    gathering.look(at)
    return decode(encode(Snapshot(0.0, gathering.parts)))


def folded(*snapshots, max_series=100):
    return decode(encode(Snapshot(0.0, added_up(snapshots, max_series=max_series))))


def shown(*snapshots, openmetrics=False):
    return b"".join(write(merge((one, False) for one in snapshots), openmetrics=openmetrics)).decode()


def inc(name, number=1, **labels):
    return lambda registry: registry.increment(name, number, labels)


DID = st.lists(
    st.tuples(
        st.sampled_from(["counter", "sum", "max", "min", "histogram"]), st.sampled_from("xy"), st.floats(-1e6, 1e6)
    ),
    max_size=6,
)


def do(acts):
    """A process that records as the triples of `acts` say."""

    def act(registry):
        for kind, label, value in acts:
            if kind == "counter":
                registry.increment("c", abs(value), {"label": label})
            elif kind == "histogram":
                registry.observe("h", value, {"label": label})
            else:
                registry.register_metric(
                    MetricDefinition(f"g_{kind}", MetricType.GAUGE, labels=("label",), gauge_mode=kind)
                )
                registry.set_gauge(f"g_{kind}", value, {"label": label})

    return act


@given(st.lists(DID, max_size=5), st.data())
def test_folded_or_not_the_page_is_the_same(processes, data):
    shots = [snapshot(do(acts)) for acts in processes]
    cut = data.draw(st.integers(0, len(shots)))
    one = folded(folded(*shots[:cut]), *shots[cut:])
    assert sorted(shown(one).splitlines()) == sorted(shown(*shots).splitlines())


def test_exemplars_and_creation_stay():
    shots = [snapshot(lambda registry: registry.counter("c").inc(1, {"trace_id": "t"})) for _ in range(3)]
    assert shown(folded(*shots), openmetrics=True) == shown(*shots, openmetrics=True)


def test_the_most_recent_value_stays():
    def act(value):
        def set_gauge(registry):
            registry.register_metric(MetricDefinition("g", MetricType.GAUGE, gauge_mode="mostrecent"))
            registry.set_gauge("g", value)

        return set_gauge

    early, late = snapshot(act(1), at=10.0), snapshot(act(2), at=20.0)
    for both in (folded(early, late), folded(late, early)):
        assert "g 2.0" in shown(both)
        assert "g 3.0" in shown(both, snapshot(act(3), at=30.0))
        assert "g 2.0" in shown(both, snapshot(act(3), at=15.0))


def test_gauges_that_count_alive_are_left_out():
    assert folded(snapshot(lambda registry: registry.set_gauge("g", 1))).parts == []


def test_label_sets_are_bounded_and_those_that_were_there_stay():
    before = folded(snapshot(inc("c", 1, x="a"), inc("c", 1, x="b")), max_series=2)
    after = folded(
        before, snapshot(inc("c", 10, x="b"), inc("c", 5, x="new")), snapshot(inc("c", 7, x="newer")), max_series=2
    )
    assert {row.values[0]: row.total for row in after.parts[0].rows} == {"a": 1, "b": 11, OVERFLOW: 12}
    again = folded(after, *[snapshot(inc("c", 1, x=str(number))) for number in range(20)], max_series=2)
    assert {row.values[0]: row.total for row in again.parts[0].rows} == {"a": 1, "b": 11, OVERFLOW: 32}


def test_one_that_overflows_alone_is_the_overflow():
    (part,) = folded(snapshot(inc("c", 1, x="a"), inc("c", 2, x="b")), max_series=1).parts
    assert {row.values[0]: row.total for row in part.rows} == {"a": 1, OVERFLOW: 2}


def test_a_metric_without_labels_never_overflows():
    (part,) = folded(snapshot(inc("c", 1)), snapshot(inc("c", 2)), max_series=0).parts
    assert [(row.values, row.total) for row in part.rows] == [((), 3.0)]


def test_what_does_not_agree_is_kept_apart():
    old = snapshot(lambda registry: registry.histogram("h", "d", (), buckets=(1,)).observe(0.5))
    new = snapshot(lambda registry: registry.histogram("h", "d", (), buckets=(2,)).observe(0.5))
    both = folded(old, new, new)
    assert [part.rows[0].counts for part in both.parts] == [(1, 0), (2, 0)]
    assert "h_count 3.0" in shown(new, both)  # with whoever is asked, those count that agree with it
    assert "h_count 2.0" in shown(old, both)


def test_metrics_are_bounded(monkeypatch):
    monkeypatch.setattr(folding, "MAX_METRICS", 2)
    one = folded(snapshot(inc("a"), inc("b"), inc("c")))
    assert len(one.parts) == 2
    assert counts.snapshot()["snapshot_errors"]["full"] == 1


@pytest.mark.parametrize("first", [0, 1])
def test_one_that_nobody_recorded_hides_nothing(first):
    waiting = snapshot(lambda registry: registry.counter("a"))
    busy = snapshot(lambda registry: registry.counter("a", labels=()).inc(3))
    assert [part.rows[0].total for part in folded(*[waiting, busy][:: 1 - 2 * first]).parts] == [3.0]
