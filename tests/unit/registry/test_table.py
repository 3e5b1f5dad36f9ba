import pytest

from tellmeter import counts
from tellmeter.errors import MetricError
from tellmeter.registry import table as table_module
from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.family import CounterFamily
from tellmeter.registry.registry import MetricsRegistry
from tests.support.metrics import read_page, values_of


@pytest.fixture
def registry():
    return MetricsRegistry()


def metric_errors():
    return counts.snapshot().get("metric_errors", {})


def define(name, kind="counter", description="What it is", **fields):
    return MetricDefinition(name, kind, description, **fields)


@pytest.mark.parametrize(
    "definition",
    [
        define("c", labels=["a"]),
        define("g", "gauge", gauge_mode="max"),
        define("h", "histogram", buckets=[1, 2], labels=["a"]),
        define("u", "up_down_counter", aliases=["v", "w"]),
        define("gen_ai.calls", "counter", unit="{call}"),
    ],
)
def test_registering_an_equal_definition_again_changes_nothing(registry, definition):
    assert registry.register_metric(definition)
    registry.record(definition.name, 3, dict.fromkeys(definition.labels, "x"))
    before = registry.text()
    again = MetricDefinition(*(getattr(definition, field) for field in MetricDefinition.__struct_fields__))
    assert registry.register_metric(again)
    assert registry.text() == before


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (define("m", "gauge"), "type histogram and gauge"),
        (define("m", "histogram", labels=["b"], buckets=[1]), r"labels \('a',\) and \('b',\)"),
        (define("m", "histogram", labels=["a", "b"], buckets=[1]), "labels"),
        (define("m", "histogram", labels=["a"], buckets=[2]), r"buckets \(1.0,\) and \(2.0,\)"),
        (define("m", "histogram", "Else", labels=["a"], buckets=[1]), "description 'What it is' and 'Else'"),
        (define("m", "histogram", labels=["a"], buckets=[1], unit="seconds"), "unit '' and 'seconds'"),
        (define("m", "histogram", labels=["a"], buckets=[1], exposed="n"), "exposed 'm' and 'n'"),
        (define("m", "histogram", labels=["a"], buckets=[1], aliases=["n"]), "aliases"),
    ],
)
def test_another_definition_of_the_same_name_is_refused_and_told_apart(registry, other, told):
    first = define("m", "histogram", labels=["a"], buckets=[1])
    registry.register_metric(first)
    with pytest.raises(MetricError, match=told):
        registry.register_metric(other)
    assert [family.definition for family in registry.families()] == [first]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (define("requests"), define("requests_total", "gauge")),
        (define("requests_total"), define("requests", "gauge")),
        (define("requests"), define("requests_created", "gauge")),
        (define("requests_created", "gauge"), define("requests")),
        (define("h", "histogram"), define("h_count", "gauge")),
        (define("h", "histogram"), define("h_sum", "gauge")),
        (define("h", "histogram"), define("h_bucket", "gauge")),
        (define("h", "histogram"), define("h_created", "gauge")),
        (define("h_count", "gauge"), define("h", "histogram")),
        (define("h", "histogram"), define("h_count", "counter")),
        (define("a.b", "gauge"), define("a_b", "gauge")),
        (define("a b", "gauge"), define("a-b", "gauge")),
        (define("x", "gauge", exposed="y"), define("y", "gauge")),
        (define("x", "gauge", aliases=["y"]), define("y", "gauge")),
        (define("y", "gauge"), define("x", "gauge", aliases=["y"])),
        (define("requests"), define("x", "gauge", aliases=["requests_total"])),
    ],
)
def test_no_two_metrics_share_a_name_of_a_sample_or_an_alias(registry, first, second):
    registry.register_metric(first)
    with pytest.raises(MetricError):
        registry.register_metric(second)
    assert [family.name for family in registry.families()] == [first.name]
    read_page(registry.text(openmetrics=True), openmetrics=True)


def test_a_refused_metric_leaves_nothing_behind(registry):
    registry.register_metric(define("x_count", "gauge"))
    with pytest.raises(MetricError):
        registry.register_metric(define("x", "histogram"))
    registry.register_metric(define("x_bucket", "gauge"))
    registry.register_metric(define("x", "gauge"))


def test_a_metric_is_found_by_its_name_aliases_and_names_on_the_page(registry):
    registry.register_metric(
        define("rag.queries", unit="{query}", labels=["a"], aliases=["rag_queries_seen", "ragged"])
    )
    names = ["rag.queries", "rag_queries_seen", "ragged", "rag_queries_total", "rag_queries"]
    for name in names:
        registry.increment(name, 1, {"a": "x"})
        registry.record(name, 1, {"a": "x"})
        assert registry.counter(name) is registry.families()[0]
        assert registry.get_metric_stats(name)["count"] > 0
    assert values_of(registry, "rag_queries") == {"a=x": 2.0 * len(names)}
    assert metric_errors() == {}


def test_unknown_names_register_themselves_as_what_they_are_used_for(registry):
    registry.increment("clicks")
    registry.observe("size", 5, {"a": "x"})
    registry.set_gauge("level", 2)
    registry.increment_gauge("open")
    registry.decrement_gauge("shut")
    with registry.timer("work"):
        pass
    with registry.timer("gen_ai.step"):
        pass
    with registry.timer("total_seconds"):
        pass
    found = {
        name: (read.type, read.unit)
        for name, read in read_page(registry.text(openmetrics=True), openmetrics=True).items()
    }
    assert found == {
        "clicks": ("counter", ""),
        "size": ("histogram", ""),
        "level": ("gauge", ""),
        "open": ("gauge", ""),
        "shut": ("gauge", ""),
        "work_seconds": ("histogram", "seconds"),
        "gen_ai_step_seconds": ("histogram", "seconds"),
        "total_seconds": ("histogram", "seconds"),
    }
    assert metric_errors() == {}


def test_a_timer_and_its_name_on_the_page_are_one_metric(registry):
    registry.observe("work_seconds", 1)
    with registry.timer("work"):
        pass
    with registry.timer("work_seconds"):
        pass
    assert [family.name for family in registry.families()] == ["work_seconds"]
    assert registry.get_metric_stats("work_seconds")["count"] == 3


def test_a_name_that_no_metric_can_have_is_counted(registry):
    class Name(str):
        __slots__ = ()
        __hash__ = None

    registry.increment("taken")
    registry.increment("")
    registry.increment(None)
    registry.increment(["a"])
    registry.observe("  ", 1)
    registry.set_gauge("taken", 1)
    registry.set_gauge("taken_total", 1)
    registry.set_gauge("taken_created", 1)
    registry.record("nobody_knows", 1)
    registry.increment(Name("taken"))
    with registry.timer("taken"):
        pass
    assert metric_errors() == {
        ":invalid_name": 1,
        "NoneType:invalid_name": 1,
        "list:invalid_name": 1,
        "  :name_taken": 1,
        "taken:wrong_type": 2,
        "taken_total:wrong_type": 1,
        "taken_created:name_taken": 1,
        "nobody_knows:unknown": 1,
    }
    assert values_of(registry, "taken") == {"": 2.0}


def test_names_made_from_data_do_not_fill_the_memory(registry, monkeypatch):
    monkeypatch.setattr(table_module, "MAX_UNDEFINED", 10)
    for number in range(30):
        registry.increment(f"user_{number}")
    assert len(registry.families()) == 10
    assert set(metric_errors()) == {f"user_{number}:too_many" for number in range(10, 30)}
    registry.register_metric(define("still"))


def test_up_down_counters_take_what_counters_and_gauges_take(registry):
    registry.register_metric(define("u", "up_down_counter"))
    registry.increment("u", 5)
    registry.increment_gauge("u", 2)
    registry.decrement_gauge("u")
    registry.record("u", -3)
    assert values_of(registry, "u") == {"": 3.0}
    registry.set_gauge("u", 7)
    registry.observe("u", 1)
    assert values_of(registry, "u") == {"": 7.0}
    assert metric_errors() == {"u:wrong_type": 1}


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda registry: registry.increment("unknown"), "unknown"),
        (lambda registry: registry.observe("unknown", 1), "unknown"),
        (lambda registry: registry.set_gauge("unknown", 1), "unknown"),
        (lambda registry: registry.increment_gauge("unknown"), "unknown"),
        (lambda registry: registry.decrement_gauge("unknown"), "unknown"),
        (lambda registry: registry.timer("unknown"), "unknown"),
        (lambda registry: registry.record("unknown", 1), "unknown"),
        (lambda registry: registry.increment(""), "invalid name"),
        (lambda registry: registry.increment(None), "invalid name"),
        (lambda registry: registry.set_gauge("c", 1), "wrong type"),
        (lambda registry: registry.timer("c"), "wrong type"),
    ],
)
def test_a_strict_registry_raises_for_names_that_it_does_not_know(use, told):
    registry = MetricsRegistry(strict=True)
    registry.register_metric(define("c"))
    with pytest.raises(MetricError, match=told) as caught:
        use(registry)
    assert isinstance(caught.value, ValueError)
    assert len(registry.families()) == 1 and counts.snapshot() == {}


def test_a_definition_may_come_after_the_first_recordings(registry):
    registry.increment("calls", 2, {"a": "x"})
    registry.register_metric(define("calls", labels=["a"], unit="calls", aliases=["invocations"]))
    registry.increment("invocations", 3, {"a": "x"})
    read = read_page(registry.text())["calls"]
    assert read.help == "What it is" and list(read.samples.values()) == [5.0]


def test_a_definition_after_the_first_recordings_cannot_change_what_they_counted(registry):
    registry.increment("calls", 2, {"a": "x"})
    registry.observe("h", 2)
    for definition in (
        define("calls", labels=["b"]),
        define("calls", "gauge", labels=["a"]),
        define("h", "histogram", buckets=[1]),
        define("h", "histogram", exposed="other"),
    ):
        with pytest.raises(MetricError):
            registry.register_metric(definition)
    assert values_of(registry, "calls") == {"a=x": 2.0}


def test_a_definition_that_comes_late_takes_no_other_metrics_alias(registry):
    registry.increment("other")
    registry.increment("calls")
    with pytest.raises(MetricError, match="alias 'other' is a metric already"):
        registry.register_metric(define("calls", aliases=["other"]))
    assert registry.counter("calls").definition.description == ""


def test_a_metric_whose_labels_nobody_has_told_takes_any(registry):
    family = registry.counter("calls")
    registry.register_metric(define("calls", labels=["a"]))
    assert registry.counter("calls") is family
    family.labels("x").inc()
    assert values_of(registry, "calls") == {"a=x": 1.0}


def test_a_handler_that_registers_the_same_name_before_it_is_taken_has_the_same_metric(registry, monkeypatch):
    sample_names = MetricDefinition.sample_names

    def interrupted(self):
        monkeypatch.setattr(MetricDefinition, "sample_names", sample_names)
        registry.increment("calls", 1, {"a": "handler"})
        return sample_names(self)

    monkeypatch.setattr(MetricDefinition, "sample_names", interrupted)
    registry.increment("calls", 1, {"a": "main"})
    assert values_of(registry, "calls") == {"a=handler": 1.0, "a=main": 1.0}
    assert metric_errors() == {}


def test_a_handler_that_registers_the_same_name_in_the_midst_has_the_same_metric(registry, monkeypatch):
    class Interrupted(CounterFamily):
        __slots__ = ()

        def __init__(self, *arguments, **settings):
            monkeypatch.setitem(table_module._KINDS, MetricType.COUNTER, CounterFamily)
            registry.increment("calls", 1, {"a": "handler"})
            super().__init__(*arguments, **settings)

    monkeypatch.setitem(table_module._KINDS, MetricType.COUNTER, Interrupted)
    registry.increment("calls", 1, {"a": "main"})
    assert values_of(registry, "calls") == {"a=handler": 1.0, "a=main": 1.0}
    monkeypatch.setitem(table_module._KINDS, MetricType.COUNTER, Interrupted)
    registry = MetricsRegistry()
    registry.register_metric(define("calls", labels=["a"]))
    registry.increment("calls", 1, {"a": "main"})
    assert values_of(registry, "calls") == {"a=handler": 1.0, "a=main": 1.0}
    assert len(registry.families()) == 1 and registry.families()[0].definition.description == "What it is"


def test_a_timer_records_in_the_histogram_where_a_counter_has_the_bare_name(registry):
    registry.increment("work")
    registry.register_metric(define("work_seconds", "histogram"))
    with registry.timer("work"):
        pass
    assert registry.get_metric_stats("work_seconds")["count"] == 1
    assert metric_errors() == {}
