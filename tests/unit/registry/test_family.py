import enum
import threading
import tracemalloc

import pytest

from tellmeter import counts
from tellmeter.errors import MetricError
from tellmeter.registry import family as family_module
from tellmeter.registry.definition import MetricDefinition
from tellmeter.registry.family import OVERFLOW, VALUE_LENGTH, CounterFamily, HistogramFamily
from tellmeter.registry.registry import MetricsRegistry
from tests.support.hostile import BROKEN, VALUES, Liar
from tests.support.metrics import values_of


class Model(enum.StrEnum):
    GPT = "gpt"


@pytest.fixture
def registry():
    return MetricsRegistry()


def label_errors():
    return counts.snapshot().get("label_errors", {})


def test_a_metric_without_labels_is_zero_before_anything_happens(registry):
    registry.counter("c", "C", labels=[])
    registry.gauge("g", "G", labels=[])
    registry.histogram("h", "H", labels=[], buckets=[1])
    page = registry.text().decode()
    for line in ("c_total 0.0", "g 0.0", 'h_bucket{le="+Inf"} 0.0', "h_count 0.0", "h_sum 0.0"):
        assert f"\n{line}\n" in page


def test_a_metric_with_labels_shows_a_series_from_when_it_is_bound(registry):
    family = registry.counter("c", "C", labels=["a"])
    assert values_of(registry, "c") == {}
    family.labels("x")
    assert values_of(registry, "c") == {"a=x": 0.0}


def test_a_series_is_found_by_position_by_name_in_any_order_and_by_both(registry):
    family = registry.counter("c", "C", labels=["a", "b"])
    found = family.labels("1", "2")
    assert family.labels(a="1", b="2") is family.labels(b="2", a="1") is family.labels("1", b="2") is found
    assert family.find({"b": "2", "a": "1"}) is found
    assert label_errors() == {}


def test_labels_may_be_called_self_and_values(registry):
    family = registry.counter("c", "C", labels=["self", "values"])
    assert family.labels(self="1", values="2").values == ("1", "2")


def test_values_that_are_equal_for_a_dict_are_different_series(registry):
    family = registry.counter("c", "C", labels=["a"])
    for value in (1, True, 1.0, "1", "True", "1.0", None, ""):
        for _ in range(3):
            family.labels(value).inc()
            registry.increment("c", 1, {"a": value})
    assert values_of(registry, "c") == {"a=1": 12.0, "a=True": 12.0, "a=1.0": 12.0, "a=": 12.0}


def test_a_text_enum_is_its_value(registry):
    for _ in range(2):
        registry.increment("c", 1, {"model": Model.GPT})
        registry.increment("c", 1, {"model": "gpt"})
    assert values_of(registry, "c") == {"model=gpt": 4.0}


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("value", "text"), VALUES)
def test_any_label_value_finds_the_series_of_its_text_every_time(registry, number, value, text):
    names = ["a", "b"][:number]
    family = registry.counter("c", "C", labels=names)
    text = str.__str__(value)[:VALUE_LENGTH] if isinstance(value, str) and text == "x" * 100 else text
    for _ in range(3):
        series = family.find(dict.fromkeys(names, value))
        registry.increment("c", 1, dict.fromkeys(names, value))
        assert series.values == (text,) * number
    assert series.read() == 3 and len(family.series) == 1


def test_long_values_are_cut_and_counted(registry):
    family = registry.counter("c", "C", labels=["a"])
    assert family.labels("x" * (VALUE_LENGTH + 1)) is family.labels("x" * VALUE_LENGTH)
    assert label_errors() == {"c:cleaned": 1}


@pytest.mark.parametrize(
    ("labels", "values", "kinds"),
    [
        (None, ("", ""), ["missing"]),
        ({"a": "1"}, ("1", ""), ["missing"]),
        ({"a": "1", "b": "2", "c": "3"}, ("1", "2"), ["undeclared"]),
        ({"a": "1", "c": "3"}, ("1", ""), ["missing", "undeclared"]),
        ({"a": "1", "b": "\x00"}, ("1", "\ufffd"), ["cleaned"]),
        (["a", "b"], ("", ""), ["not_a_mapping"]),
        ("ab", ("", ""), ["not_a_mapping"]),
    ],
)
def test_wrong_labels_are_counted_each_time_and_the_value_is_recorded(registry, labels, values, kinds):
    family = registry.counter("c", "C", labels=["a", "b"])
    for _ in range(3):
        registry.increment("c", 1, labels)
    assert {key: series.read() for key, series in family.series.items()} == {values: 3}
    assert label_errors() == {f"c:{kind}": 3 for kind in kinds}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_mapping_that_raises_is_counted_and_the_value_is_recorded(registry, broken):
    family = registry.counter("c", "C", labels=["a"])
    for _ in range(3):
        registry.increment("c", 1, Liar(broken))
    assert sum(series.read() for series in family.series.values()) == 3
    assert label_errors() in ({}, {"c:not_a_mapping": 3})


def test_labels_on_a_metric_that_has_none_are_dropped_and_counted(registry):
    family = registry.counter("c", "C", labels=[])
    registry.increment("c", 1, {"a": "x"})
    family.labels("x").inc()
    family.labels(a="x").inc()
    family.inc()
    assert values_of(registry, "c") == {"": 4.0}
    assert label_errors() == {"c:undeclared": 3}


def test_a_mapping_that_changes_its_values_reaches_no_series_but_the_one_it_named(registry):
    class Fickle(dict):
        asked = 0

        def __getitem__(self, name):
            Fickle.asked += 1
            return "first" if Fickle.asked < 4 else "other"

    family = registry.counter("c", "C", labels=["a"])
    family.find(Fickle(a=1))
    registry.increment("c", 1, {"a": "other"})
    assert {values: series.read() for values, series in family.series.items()} == {("first",): 0, ("other",): 1}


def test_the_first_recording_says_which_labels_there_are(registry):
    family = registry.counter("c", "C")
    assert values_of(registry, "c") == {}
    registry.increment("c", 1, {"b": "2", "a": "1", "__name__": "x", "a-": "3", 7: 4})
    registry.increment("c", 1, {"a": "1"})
    assert family.definition.labels == ("b", "a", "a-")
    assert set(family.series) == {("2", "1", "3"), ("", "1", "")}
    assert label_errors() == {"c:undeclared": 1, "c:missing": 1}


@pytest.mark.parametrize("labels", [None, {}, "text", 7, *BROKEN])
def test_a_first_recording_without_usable_labels_makes_a_metric_without(registry, labels):
    registry.increment("c", 2, Liar(labels) if labels in BROKEN else labels)
    registry.increment("c", 1)
    assert sum(series.read() for series in registry.counter("c").series.values()) == 3


def test_le_is_no_label_of_a_histogram_that_registers_itself(registry):
    seen = []
    registry.add_callback("watched", lambda *told: seen.append(told))
    for name in ("plain", "watched"):
        registry.observe(name, 1, {"le": "1", "a": "x"})
        assert registry.histogram(name).definition.labels == ("a",)
    assert seen == [("watched", 1, {"a": "x"})]


def test_a_thread_that_comes_while_labels_are_learned_waits_for_them(registry, monkeypatch):
    """What it does is done between the two steps of the first: the definition is not complete there."""
    family = registry.counter("c", "C")
    define = CounterFamily._define
    meanwhile = []

    def slow(self, definition):
        second = threading.Thread(target=registry.increment, args=("c", 1, {"a": "x"}))
        second.start()
        meanwhile.append(second)
        second.join(0.05)
        define(self, definition)
        second.join(0.05)

    monkeypatch.setattr(CounterFamily, "_define", slow)
    registry.increment("c", 1, {"a": "x"})
    for thread in meanwhile:
        thread.join(20)
        assert not thread.is_alive()
    assert {values: series.read() for values, series in family.series.items()} == {("x",): 2}
    assert label_errors() == {}


@pytest.mark.parametrize("before", [True, False])
def test_a_handler_that_interrupts_the_learning_of_labels_has_the_same_ones(registry, monkeypatch, before):
    family = registry.counter("c", "C")
    define = CounterFamily._define

    def interrupted(self, definition):
        monkeypatch.setattr(CounterFamily, "_define", define)
        if before:
            registry.increment("c", 1, {"b": "handler"})
            define(self, definition)
        else:
            define(self, definition)
            registry.increment("c", 1, {"b": "handler"})

    monkeypatch.setattr(CounterFamily, "_define", interrupted)
    registry.increment("c", 1, {"a": "main"})
    assert family.definition.labels == ("a",)
    assert {values: series.read() for values, series in family.series.items()} == {("main",): 1, ("",): 1}
    assert registry.get_metric_stats("c")["sum"] == 2


def test_a_handler_that_makes_the_same_series_in_the_midst_has_the_same_one(registry, monkeypatch):
    label_text = family_module.label_text

    def interrupted(names, values):
        monkeypatch.setattr(family_module, "label_text", label_text)
        registry.increment("c", 1, {"a": "x"})
        return label_text(names, values)

    registry.counter("c", "C", labels=["a"])
    monkeypatch.setattr(family_module, "label_text", interrupted)
    registry.increment("c", 1, {"a": "x"})
    assert values_of(registry, "c") == {"a=x": 2.0}


def test_a_thread_that_read_the_old_labels_makes_no_series_of_the_old_width(registry, monkeypatch):
    family = registry.counter("c", "C", labels=["a"])
    sorted_out = family_module.sorted_out

    def widened_meanwhile(declared, labels, limit):
        monkeypatch.setattr(family_module, "sorted_out", sorted_out)
        answer = sorted_out(declared, labels, limit)
        family.widen(["b"])
        return answer

    monkeypatch.setattr(family_module, "sorted_out", widened_meanwhile)
    registry.increment("c", 1, {"a": "x"})
    assert set(family.series) == {("x", "")}
    assert family.find({"a": "x", "b": ""}).read() == 1


def test_more_labels_leave_what_was_counted(registry):
    family = registry.counter("c", "C", labels=["a"])
    bound = family.labels("x")
    bound.inc()
    family.widen(["b", "a"])
    family.widen(["b"])
    bound.inc()
    registry.increment("c", 1, {"a": "x", "b": ""})
    registry.increment("c", 1, {"a": "x", "b": "y"})
    assert values_of(registry, "c") == {"a=x": 3.0, "a=x,b=y": 1.0}
    assert label_errors() == {}


def test_series_beyond_the_limit_are_one_and_no_value_is_lost():
    registry = MetricsRegistry(max_series=10)
    for number in range(25):
        for _ in range(2):
            registry.increment("c", 1, {"a": str(number), "b": "x"})
            registry.observe("h", 2.0, {"a": str(number)})
            registry.set_gauge("g", number, {"a": str(number)})
    totals = values_of(registry, "c")
    assert len(totals) == 11 and totals[f"a={OVERFLOW},b={OVERFLOW}"] == 30
    assert sum(totals.values()) == 50
    assert registry.get_metric_stats("h") == {**registry.get_metric_stats("h"), "count": 50, "sum": 100.0}
    assert values_of(registry, "g")[f"a={OVERFLOW}"] == 24
    assert counts.snapshot()["series_overflow"] == {"c": 30, "h": 30, "g": 30}


def test_the_limit_is_each_metrics_own_and_changes_act_on_what_is_new():
    registry = MetricsRegistry(max_series=1)
    for name in ("a", "b"):
        registry.increment(name, 1, {"x": "1"})
    assert counts.total("series_overflow") == 0
    registry.max_series = 2
    registry.increment("a", 1, {"x": "2"})
    registry.increment("a", 1, {"x": "3"})
    assert registry.max_series == 2
    assert values_of(registry, "a") == {"x=1": 1.0, "x=2": 1.0, f"x={OVERFLOW}": 1.0}


def test_a_metric_without_labels_is_never_beyond_the_limit():
    registry = MetricsRegistry(max_series=0)
    registry.increment("c", 1)
    assert values_of(registry, "c") == {"": 1.0}


@pytest.mark.fault(19)
def test_a_hundred_thousand_label_values_do_not_fill_the_memory(registry):
    registry.counter("c", "C", labels=["user"])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100_000):
            registry.increment("c", 1, {"user": f"user-{number:020}"})
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20 * 2**20
    assert registry.get_metric_stats("c")["sum"] == 100_000
    assert counts.snapshot()["series_overflow"] == {"c": 98_000}


@pytest.mark.parametrize("labels", [None, {"a": "1", "b": "2"}, "a", {}])
def test_a_strict_registry_raises_for_labels_that_are_not_as_declared(labels):
    registry = MetricsRegistry(strict=True)
    family = registry.counter("c", "C", labels=["a"])
    with pytest.raises(MetricError, match=r"c: its labels are \['a'\]; found"):
        registry.increment("c", 1, labels)
    with pytest.raises(MetricError):
        family.find(labels)
    assert family.series == {} and counts.snapshot() == {}


def test_a_strict_registry_raises_for_more_values_than_labels():
    family = MetricsRegistry(strict=True).counter("c", "C", labels=["a"])
    with pytest.raises(MetricError, match="undeclared"):
        family.labels("1", "2")


def test_families_record_by_themselves_as_their_series_without_labels_does(registry):
    registry.counter("c", "C", labels=[]).inc(2, {"trace_id": "x"})
    level = registry.gauge("g", "G", labels=[])
    level.set(5)
    level.inc(2)
    level.dec()
    with level.track():
        assert values_of(registry, "g") == {"": 7.0}
    spread = registry.histogram("h", "H", labels=["a"])
    spread.observe(1.5)
    with spread.time({"a": "x"}):
        pass
    assert values_of(registry, "g") == {"": 6.0}
    assert values_of(registry, "c") == {"": 2.0}
    assert registry.get_metric_stats("h")["count"] == 2
    assert label_errors() == {"h:missing": 1}
    assert isinstance(spread, HistogramFamily)


def test_an_optional_label_may_be_missing_and_no_other():
    registry = MetricsRegistry(strict=True)
    registry.register_metric(MetricDefinition("jobs", "counter", labels=["kind", "team"], optional=["team"]))
    registry.increment("jobs", 1, {"kind": "a"})
    registry.counter("jobs").labels(kind="a").inc()
    assert registry.get_metric_stats("jobs", {"kind": "a", "team": ""})["sum"] == 2
    with pytest.raises(MetricError, match="missing"):
        registry.increment("jobs", 1, {"team": "b"})
    with pytest.raises(MetricError, match="optional"):
        MetricDefinition("jobs", "counter", labels=["kind"], optional=["team"])
