import pytest

from tellmeter import MetricsRegistry
from tellmeter.registry.catalogue import CATALOGUE, known
from tellmeter.registry.definition import MetricType

RECORD = {
    MetricType.COUNTER: lambda registry, name, labels: registry.increment(name, 1, labels),
    MetricType.GAUGE: lambda registry, name, labels: registry.set_gauge(name, 1, labels),
    MetricType.HISTOGRAM: lambda registry, name, labels: registry.observe(name, 1, labels),
}


@pytest.mark.parametrize("definition", CATALOGUE, ids=lambda one: one.name)
def test_each_metric_is_there_by_all_its_names_even_in_a_strict_registry(definition):
    registry = MetricsRegistry(strict=True)
    labels = dict.fromkeys(definition.labels, "x")
    names = [definition.name, *definition.aliases, definition.exposed]
    for name in names:
        assert known(name) is definition
        RECORD[definition.type](registry, name, labels)
    assert registry.get_all_metrics()[definition.name]["labels"] == list(definition.labels)
    assert definition.description.encode() in registry.text()
    assert definition.exposed.encode() in registry.text()


def test_all_of_them_fit_on_one_page():
    registry = MetricsRegistry(strict=True)
    for definition in CATALOGUE:
        registry.register_metric(definition)
    assert len(registry.families()) == len(CATALOGUE) == len({one.exposed for one in CATALOGUE})


def test_what_was_never_recorded_is_not_on_the_page():
    assert MetricsRegistry().text() == b""


def test_two_names_of_one_thing_are_one_metric():
    registry = MetricsRegistry(strict=True)
    # Each guide has labels that the other does not know.
    registry.increment("rag_queries", 1, {"operation": "search", "status": "success"})
    registry.increment("rag_queries_total", 1, {"pipeline": "standard", "status": ""})
    registry.increment("llm_cost_dollars", 0.5, {"provider": "openai", "model": "m"})
    registry.increment("llm_cost_dollars_total", 0.5, {"provider": "openai", "model": "m"})
    assert registry.get_metric_stats("rag_queries")["sum"] == 2
    assert registry.get_metric_stats("llm_cost_dollars")["sum"] == 1


def test_a_timer_finds_the_metric_that_is_named_with_its_unit():
    registry = MetricsRegistry(strict=True)
    with registry.timer("llm_request_duration", {"provider": "p", "model": "m", "method": "generate"}):
        pass
    with registry.timer("request_duration", {"endpoint": "/", "method": "GET"}):
        pass
    assert set(registry.get_all_metrics()) == {"llm_request_duration_seconds", "request_duration"}


def test_a_bound_handle_comes_from_the_catalogue_too():
    registry = MetricsRegistry(strict=True)
    registry.counter("request_count").labels(endpoint="/", method="GET", status="200").inc()
    assert b'request_count_total{endpoint="/",method="GET",status="200"} 1.0' in registry.text()


def test_a_program_may_define_a_metric_of_the_same_name_before():
    registry = MetricsRegistry()
    registry.counter("request_count", "mine", ["a"]).labels(a="x").inc()
    registry.increment("request_count", 1, {"a": "x"})
    assert b'request_count_total{a="x"} 2.0' in registry.text()
