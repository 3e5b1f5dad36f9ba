import asyncio
import math

import numpy
import pytest

from tellmeter import counts
from tellmeter.registry import series as series_module
from tellmeter.registry.recording import no_recorders
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.series import FOLD_AT
from tests.support.hostile import BROKEN, Liar
from tests.support.metrics import read_page, values_of

MORE_THAN_A_FOLD = FOLD_AT * 2 + 9


@pytest.fixture
def registry():
    return MetricsRegistry()


def test_recording_by_name_and_on_bound_series_is_the_same(registry):
    total = registry.counter("c", "C", labels=["a"]).labels("x")
    level = registry.gauge("g", "G", labels=["a"]).labels("x")
    spread = registry.histogram("h", "H", labels=["a"]).labels("x")
    for number in range(MORE_THAN_A_FOLD):
        for labels in ({"a": "x"}, {"a": "y"}):
            registry.increment("c", number, labels)
            registry.increment_gauge("g", 3, labels)
            registry.decrement_gauge("g", 1, labels)
            registry.observe("h", number, labels)
        total.inc(number)
        level.inc(3)
        level.dec(1)
        spread.observe(number)
    gain = sum(range(MORE_THAN_A_FOLD))
    assert values_of(registry, "c") == {"a=x": 2 * gain, "a=y": gain}
    assert values_of(registry, "g") == {"a=x": 4 * MORE_THAN_A_FOLD, "a=y": 2 * MORE_THAN_A_FOLD}
    assert registry.get_metric_stats("h", {"a": "x"})["sum"] == 2 * gain
    assert registry.get_metric_stats("h", {"a": "y"})["count"] == MORE_THAN_A_FOLD
    assert counts.snapshot() == {}


def test_a_counter_counts_ones_where_no_value_is_given(registry):
    for _ in range(3):
        registry.increment("c")
        registry.increment_gauge("g")
        registry.decrement_gauge("d")
    assert (values_of(registry, "c"), values_of(registry, "g"), values_of(registry, "d")) == (
        {"": 3},
        {"": 3},
        {"": -3},
    )


def test_more_than_a_thousand_ones_are_counted(registry):
    for _ in range(5000):
        registry.increment("c")
    assert values_of(registry, "c") == {"": 5000.0}


def test_labels_beyond_the_declared_ones_do_not_pass_for_a_known_series(registry):
    registry.counter("c", "C", labels=["a"]).labels("x")
    for _ in range(3):
        registry.increment("c", 1, {"a": "x", "b": "y"})
        registry.set_gauge("g", 1, {"a": "x"})
        registry.set_gauge("g", 2, {"a": "x", "b": "y"})
        registry.observe("h", 1, {"a": "x"})
        registry.observe("h", 2, {"a": "x", "b": "y"})
    assert values_of(registry, "c") == {"a=x": 3.0}
    assert counts.snapshot()["label_errors"] == {f"{name}:undeclared": 3 for name in "cgh"}


RECORDERS = ["increment", "observe", "set_gauge", "increment_gauge", "decrement_gauge", "record"]
ODD = [math.nan, math.inf, "1", b"1", None, [], {}, object(), 1j, 10**400, numpy.array([1, 2]), numpy.array([])]


@pytest.mark.parametrize("method", RECORDERS)
@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_a_value_that_is_no_finite_number_raises_nothing_and_changes_nothing(registry, method, value):
    kind = {"increment": "counter", "observe": "histogram", "record": "histogram"}.get(method, "gauge")
    getattr(registry, kind)("m", "M", labels=["a"])
    labels = {"a": "x"}
    getattr(registry, method)("m", 5, labels)
    before = registry.get_metric_stats("m")
    getattr(registry, method)("m", value, labels)
    stats = registry.get_metric_stats("m")
    if method != "set_gauge" or value.__class__ not in (int, complex):  # these pass for numbers until they are read
        assert stats == before
    assert counts.total("value_errors") == 1
    registry.text()
    getattr(registry, method)("m", 5, labels)
    assert math.isfinite(registry.get_metric_stats("m")["sum"])


@pytest.mark.parametrize("method", RECORDERS)
@pytest.mark.parametrize("labels", ["text", 7, [], [("a", "x")], object(), *BROKEN])
@pytest.mark.parametrize("declared", [None, [], ["a"], ["a", "b"]])
def test_no_labels_raise(registry, method, labels, declared):
    if labels in BROKEN:
        labels = Liar(labels)
    kind = {"increment": "counter", "observe": "histogram", "record": "histogram"}.get(method, "gauge")
    getattr(registry, kind)("m", "M", labels=declared)
    for _ in range(3):
        getattr(registry, method)("m", 2, labels)
    stats = registry.get_metric_stats("m")
    assert {"set_gauge": 2, "decrement_gauge": -6}.get(method, 6) == stats["sum"]
    read_page(registry.text(openmetrics=True), openmetrics=True)


@pytest.mark.parametrize("name", ["", None, 7, [], {}, b"name", object()])
def test_no_name_raises(registry, name):
    for method in RECORDERS:
        getattr(registry, method)(name, 1)
        getattr(registry, method)(name, 1, {"a": "x"})
    with registry.timer(name), registry.recorders.active(name):
        pass
    assert registry.families() == []
    assert counts.total("metric_errors") == 2 * len(RECORDERS) + 2


def test_bools_count_as_one_and_zero(registry):
    for value in (True, False, True):
        registry.increment("c", value)
        registry.observe("h", value)
        registry.set_gauge("g", value)
    assert values_of(registry, "c") == {"": 2.0}
    assert values_of(registry, "g") == {"": 1.0}
    stats = registry.get_metric_stats("h")
    assert (stats["count"], stats["sum"], stats["min"], stats["max"]) == (3, 2.0, 0, 1)
    assert counts.snapshot() == {}


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(series_module, "clock", lambda: self.now)


def test_blocks_are_timed_and_tracked_by_name(registry, monkeypatch):
    clock = Clock(monkeypatch)

    async def work():
        for labels in ({"a": "x"}, {"a": "x"}, {"a": 1}):
            async with registry.timer("work", labels), registry.recorders.active("open", labels):
                inside.append(values_of(registry, "open"))
                clock.now += 2
            with registry.timer("work", labels), registry.recorders.active("open", labels):
                clock.now += 1

    inside = []
    asyncio.run(work())
    assert inside == [{"a=x": 1.0}, {"a=x": 1.0}, {"a=x": 0.0, "a=1": 1.0}]
    assert values_of(registry, "open") == {"a=x": 0.0, "a=1": 0.0}
    stats = registry.get_metric_stats("work")
    assert (stats["count"], stats["sum"]) == (6, 9.0)
    assert registry.get_metric_stats("work", {"a": 1})["count"] == 2


def test_a_block_keeps_its_exception_and_its_value(registry, monkeypatch):
    Clock(monkeypatch)
    error = ValueError("prompt")
    with pytest.raises(ValueError) as caught, registry.timer("work"), registry.recorders.active("open"):
        raise error
    assert caught.value is error
    assert values_of(registry, "open") == {"": 0.0}
    assert registry.get_metric_stats("work")["count"] == 1


def test_blocks_of_a_name_that_cannot_be_run_and_record_nothing(registry):
    registry.increment("c")
    with registry.timer("c"), registry.timer("c"), registry.recorders.active("c"):
        pass
    assert values_of(registry, "c") == {"": 1.0}
    assert counts.snapshot()["metric_errors"] == {"c:wrong_type": 3}


def test_recorders_that_are_switched_off_do_nothing_with_anything():
    off = no_recorders()
    for recorder in (off.increment, off.set_gauge, off.observe, off.increment_gauge, off.decrement_gauge):
        assert recorder("m", object(), object()) is None
    with off.timer("m", {"a": "x"}), off.active("m"):
        pass

    async def work():
        async with off.timer("m"), off.active("m"):
            pass

    asyncio.run(work())
    assert counts.snapshot() == {}
