import gc
import math
import threading
import weakref

import numpy
import pytest

import tellmeter
from tellmeter import counts
from tellmeter.errors import MetricError
from tellmeter.registry import registry as registry_module
from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.family import CounterFamily, GaugeFamily, HistogramFamily
from tellmeter.registry.registry import MAX_SERIES, MetricsRegistry, get_metrics_registry
from tests.support.metrics import in_child, read_page, values_of


@pytest.fixture
def registry():
    return MetricsRegistry()


def test_a_metric_is_registered_by_the_call_that_returns_it(registry):
    assert isinstance(registry.counter("c", "C", ["a"], "calls"), CounterFamily)
    assert isinstance(registry.gauge("g"), GaugeFamily)
    assert isinstance(registry.histogram("h", buckets=[1, 2]), HistogramFamily)
    definition = registry.counter("c").definition
    assert (definition.description, definition.labels, definition.unit) == ("C", ("a",), "calls")
    assert registry.histogram("h").definition.buckets == (1.0, 2.0)


def test_asking_again_gives_the_same_metric(registry):
    made = registry.counter("c", "C", labels=["a"])
    assert registry.counter("c") is registry.counter("c", "C", labels=["a"]) is made
    assert registry.counter("c", "C") is registry.counter("c_total") is made
    assert registry.gauge("g", labels=["a"]) is registry.gauge("g")
    registry.register_metric(MetricDefinition("u", "up_down_counter"))
    assert isinstance(registry.gauge("u"), GaugeFamily)


def test_asking_for_something_else_under_the_same_name_is_an_error(registry):
    registry.counter("c", "C", labels=["a"])
    registry.histogram("h", buckets=[1])
    for ask in (
        lambda: registry.gauge("c"),
        lambda: registry.histogram("c"),
        lambda: registry.gauge("c", "C", labels=["a"]),
        lambda: registry.counter("c", "C", labels=["b"]),
        lambda: registry.counter("c", "Else", labels=["a"]),
        lambda: registry.histogram("h", buckets=[2]),
        lambda: registry.counter("n", labels="ab"),
        lambda: registry.counter(""),
        lambda: registry.counter(None),
        lambda: registry.histogram("n", buckets=[]),
    ):
        with pytest.raises(MetricError):
            ask()
    assert [family.name for family in registry.families()] == ["c", "h"]


def test_a_description_that_comes_later_leaves_the_labels_open(registry):
    family = registry.counter("c")
    assert registry.counter("c", "Calls") is family
    registry.increment("c", 1, {"a": "x"})
    assert values_of(registry, "c") == {"a=x": 1.0}
    assert read_page(registry.text())["c"].help == "Calls"


def test_only_definitions_are_registered(registry):
    for wrong in ("c", None, MetricDefinition, {"name": "c"}):
        with pytest.raises(MetricError, match="takes a MetricDefinition"):
            registry.register_metric(wrong)


def test_record_does_what_the_metrics_type_does(registry):
    for kind in MetricType:
        registry.register_metric(MetricDefinition(kind.value, kind, labels=["a"]))
        registry.record(kind.value, 2, {"a": "x"})
        registry.record(kind.value, 3, {"a": "x"})
    assert values_of(registry, "counter") == {"a=x": 5.0}
    assert values_of(registry, "gauge") == {"a=x": 3.0}
    assert values_of(registry, "up_down_counter") == {"a=x": 5.0}
    stats = registry.get_metric_stats("histogram")
    assert (stats["count"], stats["sum"]) == (2, 5.0)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        ("1", "not a number"),
        (None, "not a number"),
        (numpy.array([1, 2]), "not a number"),
    ],
)
def test_a_strict_registry_raises_for_values_that_others_count(value, told):
    strict, other = MetricsRegistry(strict=True), MetricsRegistry()
    for registry in (strict, other):
        registry.counter("c", "C", labels=[])
        registry.gauge("g", "G", labels=[])
        registry.histogram("h", "H", labels=[])
    for method, name in (
        ("increment", "c"),
        ("set_gauge", "g"),
        ("increment_gauge", "g"),
        ("decrement_gauge", "g"),
        ("observe", "h"),
        ("record", "c"),
        ("record", "g"),
        ("record", "h"),
    ):
        with pytest.raises(MetricError, match=f"{name}: a value is {told}"):
            getattr(strict, method)(name, value)
        getattr(other, method)(name, value)
    assert values_of(other, "c") == values_of(other, "g") == {"": 0.0}
    assert other.get_metric_stats("h")["count"] == 0
    assert counts.total("value_errors") == 8


def test_a_strict_registry_raises_for_negative_counts_and_takes_the_rest():
    registry = MetricsRegistry(strict=True)
    registry.counter("c", "C", labels=["a"])
    registry.gauge("g", "G", labels=[])
    with pytest.raises(MetricError, match="c: a value is negative"):
        registry.increment("c", -1, {"a": "x"})
    for _ in range(3):
        registry.increment("c", 2, {"a": "x"})
        registry.set_gauge("g", -5)
    assert values_of(registry, "c") == {"a=x": 6.0}
    assert values_of(registry, "g") == {"": -5.0}


def test_registries_know_nothing_of_each_other():
    one, other = MetricsRegistry(), MetricsRegistry()
    one.counter("m", "One", labels=["a"]).labels("x").inc(5)
    other.gauge("m", "Other").set(7)
    for _ in range(100):
        one.increment("m", 1, {"a": "x"})
        other.set_gauge("m", 8)
    assert values_of(one, "m") == {"a=x": 105.0}
    assert values_of(other, "m") == {"": 8.0}
    one.reset()
    assert values_of(other, "m") == {"": 8.0}


def test_a_registry_that_nobody_holds_goes():
    registry = MetricsRegistry()
    registry.increment("c", 1, {"a": "x"})
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_there_is_one_registry_of_the_process():
    found = []
    threads = [threading.Thread(target=lambda: found.append(get_metrics_registry())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(map(id, found)) == {id(get_metrics_registry())}
    assert tellmeter.get_metrics_registry() is get_metrics_registry()
    assert get_metrics_registry().max_series == MAX_SERIES == 2000


def test_threads_that_ask_first_at_the_same_time_get_the_same_registry(monkeypatch):
    class Slow(MetricsRegistry):
        def __init__(self):
            started.set()
            ready.wait(0.05)
            super().__init__()

    started, ready = threading.Event(), threading.Event()
    monkeypatch.setattr(registry_module, "_process_registry", None)
    monkeypatch.setattr(registry_module, "MetricsRegistry", Slow)
    found = []
    first = threading.Thread(target=lambda: found.append(get_metrics_registry()))
    first.start()
    assert started.wait(20)
    found.append(get_metrics_registry())
    first.join(20)
    assert len(found) == 2 and found[0] is found[1]


def test_reset_sets_to_zero_and_keeps_what_was_set_up(registry):
    told = []
    total = registry.counter("c", "C", labels=["a"]).labels("x")
    level = registry.gauge("g", "G", labels=[]).labels()
    spread = registry.histogram("h", "H", labels=["a"], buckets=[1]).labels("x")
    registry.add_callback("c", lambda *call: told.append(call))
    total.inc(5)
    level.set(5)
    spread.observe(5)
    before = registry.resets
    registry.reset()
    assert registry.resets == before + 1
    for name in ("c", "g", "h"):
        assert read_page(registry.text())[name].samples == {}
        assert registry.get_metric_stats(name) == {**registry.get_metric_stats(name), "count": 0, "sum": 0, "min": None}
    total.inc(1)
    registry.increment("c", 1, {"a": "x"})
    level.inc()
    spread.observe(0.5)
    assert values_of(registry, "c") == {"a=x": 2.0}
    assert values_of(registry, "g") == {"": 1.0}
    assert registry.get_metric_stats("h")["max"] == 0.5
    assert told == [("c", amount, {"a": "x"}) for amount in (5, 1, 1)]
    assert registry.counter("c", "C", labels=["a"]).labels("x") is total


def test_after_a_reset_there_is_room_for_what_was_there_before_only():
    registry = MetricsRegistry(max_series=1)
    registry.increment("c", 1, {"a": "x"})
    registry.reset()
    registry.increment("c", 1, {"a": "x"})
    assert values_of(registry, "c") == {"a=x": 1.0}


def test_all_metrics_are_told_with_their_figures(registry):
    registry.counter("c", "Calls", ["a"], "calls").labels("x").inc(5)
    registry.register_metric(MetricDefinition("gen_ai.open", "up_down_counter", unit="{call}"))
    told = registry.get_all_metrics()
    assert list(told) == ["c", "gen_ai.open"]
    stats = told["c"].pop("stats")
    assert told["c"] == {
        "type": "counter",
        "description": "Calls",
        "unit": "calls",
        "labels": ["a"],
        "exposed": "c_total",
    }
    assert (stats["count"], stats["sum"]) == (1, 5)
    assert told["gen_ai.open"]["type"] == "up_down_counter"
    assert told["gen_ai.open"]["exposed"] == "gen_ai_open"


def test_figures_of_a_name_that_nobody_knows_are_empty(registry):
    assert registry.get_metric_stats("unknown") == {}


class Refresher:
    def __init__(self, registry, error=None):
        self.registry, self.error, self.calls = registry, error, 0
        registry.refresh_with(self.refresh)

    def refresh(self):
        self.calls += 1
        if self.error is not None:
            raise self.error
        self.registry.set_gauge("looked_at", self.calls)
        self.registry.text()  # reading while it refreshes does not begin again


def test_what_is_only_looked_at_is_brought_up_to_date_by_every_reader(registry):
    refresher = Refresher(registry)
    readers = (
        registry.text,
        lambda: registry.text(openmetrics=True),
        lambda: registry.get_metric_stats("looked_at"),
        registry.get_all_metrics,
        lambda: list(registry.collect()),
    )
    for number, read in enumerate(readers, 1):
        read()
        assert refresher.calls == number
    assert registry.get_metric_stats("looked_at")["max"] == len(readers) + 1


def test_a_refresher_that_raises_is_counted_and_one_that_is_gone_is_forgotten(registry):
    failing, working, gone = Refresher(registry, ValueError("prompt")), Refresher(registry), Refresher(registry)
    del gone
    gc.collect()
    registry.text()
    assert (failing.calls, working.calls) == (1, 1)
    assert counts.snapshot()["guarded_errors"] == {"metrics_refresh": 1}
    Refresher(registry)
    gc.collect()
    assert len(registry._refreshers) <= 3


def test_wrong_arguments_of_a_set_up_are_errors(registry):
    with pytest.raises(MetricError, match="not callable"):
        registry.add_callback("c", "callback")
    with pytest.raises(MetricError, match="something with collect"):
        registry.add_source(object())


def test_a_registry_shows_no_source_twice_and_never_itself(registry):
    class Source:
        def collect(self):
            return []

    source = Source()
    registry.add_source(source)
    registry.add_source(source)
    registry.add_source(registry)
    assert registry.sources == [source]


def test_importing_the_registry_needs_no_prometheus_client():
    code = """
    import json, sys
    sys.modules["prometheus_client"] = None
    from tellmeter.errors import MissingExtra
    from tellmeter.registry.registry import MetricsRegistry
    registry = MetricsRegistry()
    registry.increment("c")
    registry.text(openmetrics=True)
    try:
        registry.collect()
    except MissingExtra as error:
        print(json.dumps(str(error)))
    """
    assert in_child(code) == "prometheus_client is needed here: pip install 'tellmeter[prometheus]'"
