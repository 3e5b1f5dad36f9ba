import math
import threading

import pytest

from tellmeter import counts
from tellmeter.registry.definition import MetricDefinition
from tellmeter.registry.registry import MetricsRegistry
from tests.support.metrics import values_of


@pytest.fixture
def registry():
    made = MetricsRegistry()
    made.register_metric(MetricDefinition("c", "counter", "C", labels=["a"], aliases=["calls"]))
    made.register_metric(MetricDefinition("g", "gauge", "G", labels=["a"]))
    made.register_metric(MetricDefinition("h", "histogram", "H", labels=["a"]))
    made.register_metric(MetricDefinition("u", "up_down_counter", "U", labels=["a"]))
    return made


@pytest.fixture
def told():
    return []


def telling(told):
    return lambda name, value, labels: told.append((name, value, labels))


X = {"a": "x"}


def test_a_callback_is_told_name_value_and_labels_of_every_recording(registry, told):
    for name in ("c", "g", "h", "u"):
        registry.add_callback(name, telling(told))
    registry.increment("c", 2, X)
    registry.increment("c", labels=X)
    registry.set_gauge("g", 5, X)
    registry.increment_gauge("g", 2, X)
    registry.decrement_gauge("g", 1, X)
    registry.observe("h", 0.5, X)
    registry.record("c", 3, X)
    registry.record("g", 1, X)
    registry.record("u", -2, X)
    registry.increment("u", 5, X)
    assert told == [
        ("c", 2, X), ("c", 1, X), ("g", 5, X), ("g", 7, X), ("g", 6, X), ("h", 0.5, X),
        ("c", 3, X), ("g", 1, X), ("u", -2, X), ("u", 3, X),
    ]  # fmt: skip
    assert values_of(registry, "c") == {"a=x": 6.0}


def test_the_name_is_the_one_that_was_recorded_under(registry, told):
    registry.add_callback("calls", telling(told))
    for name in ("c", "calls", "c_total"):
        registry.increment(name, 1, X)
        registry.record(name, 1, X)
    assert [name for name, _, _ in told] == ["c", "c", "calls", "calls", "c_total", "c_total"]


def test_bound_series_tell_too_whether_they_were_bound_before_or_after(registry, told):
    early = [registry.counter("c").labels("x"), registry.gauge("g").labels("x"), registry.histogram("h").labels("x")]
    for name in ("c", "g", "h"):
        registry.add_callback(name, telling(told))
    late = [registry.counter("c").labels("y"), registry.gauge("g").labels("y"), registry.histogram("h").labels("y")]
    for total, level, spread in (early, late):
        total.inc(2)
        level.set(4)
        level.inc()
        level.dec(2)
        spread.observe(1)
    per_series = [("c", 2), ("g", 4), ("g", 5), ("g", 3), ("h", 1)]
    assert told == [(name, value, {"a": a}) for a in ("x", "y") for name, value in per_series]


def test_blocks_tell_when_they_begin_and_end(registry, told):
    for name in ("g", "h"):
        registry.add_callback(name, telling(told))
    with registry.recorders.active("g", X), registry.timer("h", X):
        pass
    assert [(name, value) for name, value, _ in told if name == "g"] == [("g", 1), ("g", 0)]
    assert [labels for name, _, labels in told if name == "h"] == [X]


@pytest.mark.parametrize("name", ["new", "new_total"])
def test_a_callback_may_come_before_its_metric(told, name):
    registry = MetricsRegistry()
    registry.add_callback(name, telling(told))
    registry.increment("new", 1, X)
    registry.increment("new", 1, X)
    assert told == [("new", 1, X)] * 2


def test_a_callback_may_come_before_the_alias_that_it_is_for(told):
    registry = MetricsRegistry()
    registry.add_callback("alias", telling(told))
    registry.increment("m", 1)
    registry.register_metric(MetricDefinition("m", "counter", "M", aliases=["alias"]))
    registry.increment("alias", 1)
    registry.counter("m").inc(2)
    assert told == [("alias", 1, {}), ("m", 2, {})]


def test_names_that_come_later_for_a_watched_metric_tell_too(told):
    registry = MetricsRegistry()
    registry.increment("m", 1)
    registry.add_callback("m", telling(told))
    registry.register_metric(MetricDefinition("m", "counter", "M", aliases=["alias"]))
    registry.increment("alias", 2)
    assert told == [("alias", 2, {})]


@pytest.mark.fault(16)
def test_several_callbacks_are_all_told_whatever_one_of_them_raises(registry, told):
    def fail(*call):
        raise ValueError("prompt")

    for callback in (telling(told), fail, telling(told)):
        registry.add_callback("c", callback)
    registry.increment("c", 1, X)
    assert told == [("c", 1, X)] * 2
    assert counts.snapshot()["guarded_errors"] == {"metric_callback": 1}
    assert values_of(registry, "c") == {"a=x": 1.0}


def test_a_callback_may_record_and_is_not_called_for_it(registry, told):
    def record(name, value, labels):
        told.append(name)
        registry.increment("c", 10, labels)
        registry.set_gauge("g", 1, {"a": "new"})
        registry.increment("fresh", 1)
        registry.text()

    for name in ("c", "g", "fresh"):
        registry.add_callback(name, record)
    registry.increment("c", 1, X)
    registry.counter("c").labels("x").inc()
    assert told == ["c", "c"]
    assert values_of(registry, "c") == {"a=x": 22.0}
    assert values_of(registry, "fresh") == {"": 2.0}


def test_what_a_callback_does_to_its_labels_harms_nobody(registry, told):
    registry.add_callback("c", lambda name, value, labels: labels.clear())
    registry.add_callback("c", telling(told))
    for _ in range(2):
        registry.increment("c", 1, X)
    assert told == [("c", 1, X)] * 2


def test_a_callback_that_adds_another_is_not_told_twice(registry, told):
    registry.add_callback("c", lambda *call: registry.add_callback("c", telling(told)))
    registry.increment("c", 1, X)
    assert told == []
    registry.increment("c", 1, X)
    assert told == [("c", 1, X)]


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, object()])
def test_what_is_refused_is_told_to_nobody(registry, told, value):
    for name in ("c", "g", "h"):
        registry.add_callback(name, telling(told))
    registry.increment("c", value, X)
    registry.increment("c", -1, X)
    registry.set_gauge("g", value, X)
    registry.increment_gauge("g", value, X)
    registry.decrement_gauge("g", value, X)
    registry.observe("h", value, X)
    registry.text()
    assert told == []
    assert counts.total("value_errors") == 6


def test_faulty_labels_are_told_as_they_were_recorded(registry, told):
    registry.add_callback("c", telling(told))
    registry.increment("c", 1, {"b": "y"})
    registry.increment("c", 1, {"a": 1})
    assert told == [("c", 1, {"a": ""}), ("c", 1, {"a": "1"})]


def test_series_of_other_metrics_stay_what_they_were(registry, told):
    before = type(registry.counter("plain", "P", labels=["a"]).labels("x"))
    watched = registry.counter("c").labels("x")
    registry.add_callback("c", telling(told))
    registry.increment("plain", 1, X)
    assert type(registry.counter("plain").labels("x")) is before is not type(watched)
    assert told == []


def test_callbacks_run_in_the_thread_that_records(registry):
    threads = []
    registry.add_callback("c", lambda *call: threads.append(threading.current_thread()))
    other = threading.Thread(target=registry.increment, args=("c", 1, X))
    other.start()
    other.join()
    registry.increment("c", 1, X)
    assert threads == [other, threading.current_thread()]


def test_a_strict_registry_calls_back_as_well(told):
    registry = MetricsRegistry(strict=True)
    registry.counter("c", "C", labels=["a"])
    registry.add_callback("c", telling(told))
    registry.increment("c", 1, X)
    assert told == [("c", 1, X)]
