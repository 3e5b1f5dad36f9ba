from prometheus_client.parser import text_string_to_metric_families

from tellmeter import MetricsRegistry
from tellmeter.counts import count


def shown(registry):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(registry.text().decode())
        for sample in family.samples
    }


def test_a_registry_of_ones_own_says_nothing_about_tellmeter():
    registry = MetricsRegistry()
    count("guarded_errors", "here")
    assert shown(registry) == {}


def test_counts_are_shown_exactly_however_often_it_is_read():
    registry = MetricsRegistry()
    registry.tell_about_itself()
    registry.tell_about_itself()
    before = shown(registry).get(("tellmeter_guarded_errors_total", "test_about_itself"), 0)
    for _ in range(3):
        count("guarded_errors", "test_about_itself")
        shown(registry)
    assert shown(registry)["tellmeter_guarded_errors_total", "test_about_itself"] == before + 3


def test_label_faults_are_told_by_metric_and_kind():
    registry = MetricsRegistry()
    registry.tell_about_itself()
    registry.increment("jobs:of_about_itself", labels={"a": "x"})
    registry.increment("jobs:of_about_itself", labels={"a": "x", "b": "y"})
    registry.increment("jobs:of_about_itself", -1, {"a": "x"})
    found = shown(registry)
    assert found["tellmeter_label_errors_total", "jobs:of_about_itself", "undeclared"] == 1
    assert shown(registry)["tellmeter_value_errors_total", "jobs:of_about_itself", "negative"] == 1


def test_two_registries_show_the_same_counts():
    one, two = MetricsRegistry(), MetricsRegistry()
    one.tell_about_itself()
    two.tell_about_itself()
    count("oversize_body")
    assert shown(one)["tellmeter_oversize_body_total",] == shown(two)["tellmeter_oversize_body_total",] >= 1
