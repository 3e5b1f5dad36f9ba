import gc
import weakref

import pytest

from tellmeter import MetricDefinition, MetricsRegistry, MetricType
from tellmeter.instruments.metric import MOST_BOUND, CounterMetric, GaugeMetric, HistogramMetric
from tests.support.metrics import values_of


def test_nothing_is_registered_before_something_is_recorded(registry):
    metric = CounterMetric("calls_total", {"a": "x"}, registry=registry)
    assert registry.families() == []
    metric.series().inc()
    assert values_of(registry, "calls") == {"a=x": 1}


def test_constant_labels_are_bound_once(registry):
    metric = HistogramMetric("d_seconds", {"a": "x"}, "status", registry=registry)
    assert metric.series("success") is metric.series("success") is not metric.series("error")
    assert registry.families()[0].definition.unit == "seconds"


def test_a_metric_has_all_labels_that_it_can_emit(registry, own_counts):
    metric = CounterMetric("calls_total", {"a": "x"}, "status", registry=registry)
    metric.series("success", {"b": "y"}).inc()
    metric.series("success").inc()  # the extractor failed
    assert values_of(registry, "calls") == {"a=x,b=y,status=success": 1, "a=x,b=,status=success": 1}
    assert registry.families()[0].definition.labels == ("a", "status", "b")
    assert own_counts() == {}


def test_an_extractor_that_fails_at_first_is_waited_for(registry, own_counts):
    metric = CounterMetric("calls_total", {}, registry=registry)
    metric.series().inc()
    metric.series("", {"b": "y"}).inc()
    assert values_of(registry, "calls") == {"": 1, "b=y": 1}  # an empty label is none
    metric.series("", {"c": "z"}).inc()  # labels that come later are nobody's promise
    assert set(own_counts()["label_errors"]) == {"calls_total:missing", "calls_total:undeclared"}


def test_decorators_that_share_a_name_share_their_labels(registry, own_counts):
    one = CounterMetric("calls_total", {"a": "x"}, registry=registry)
    other = CounterMetric("calls_total", {"b": "y"}, registry=registry)
    one.series().inc()
    other.series().inc()
    one.series().inc()
    assert values_of(registry, "calls") == {"a=x": 2, "a=,b=y": 1}
    assert own_counts() == {}


def test_what_the_program_registered_keeps_its_labels(registry, own_counts):
    registry.register_metric(MetricDefinition("calls_total", MetricType.COUNTER, labels=["a"]))
    CounterMetric("calls_total", {"a": "x", "b": "y"}, "status", registry=registry).series("success").inc()
    assert values_of(registry, "calls") == {"a=x": 1}
    assert own_counts() == {"label_errors": {"calls_total:undeclared": 1}}  # b, which the user gave; not status


def test_a_metric_that_only_has_a_name_learns_its_labels(registry, own_counts):
    registry.counter("calls_total")
    CounterMetric("calls_total", {"a": "x"}, "b", registry=registry).series("y").inc()
    assert values_of(registry, "calls") == {"a=x,b=y": 1}
    assert own_counts() == {}


def test_a_definition_may_come_after_the_decorator(registry):
    CounterMetric("calls_total", {"a": "x"}, registry=registry).series().inc()
    registry.register_metric(MetricDefinition("calls_total", MetricType.COUNTER, "Calls.", labels=["a"]))
    assert b"# HELP calls_total Calls." in registry.text()


@pytest.mark.parametrize("given", ["status", "error_type"])
def test_a_label_that_the_user_gave_is_kept(given, registry):
    metric = CounterMetric("calls_total", {given: "mine"}, given, registry=registry)
    metric.series("ours").inc()
    metric.series("ours", {given: "the call's"}).inc()
    assert values_of(registry, "calls") == {f"{given}=mine": 1, f"{given}=the call's": 1}


def test_the_catalogues_metrics_are_filled_only_where_the_decorator_chose_them(registry, own_counts):
    CounterMetric("error_count", {}, "error_type", registry=registry, fill=True).series("ValueError").inc()
    assert values_of(registry, "error_count") == {"endpoint=,error_type=ValueError,function=": 1}
    assert own_counts() == {}
    HistogramMetric("request_duration", {"endpoint": "/"}, registry=registry).series().observe(1)
    assert own_counts() == {"label_errors": {"request_duration:missing": 1}}


@pytest.mark.parametrize(
    ("name", "kind"), [("active_requests", "wrong_type"), ("", "invalid"), (None, "invalid"), (3, "invalid")]
)
def test_what_cannot_be_a_metric_is_counted_and_recorded_nowhere(name, kind, registry, own_counts):
    metric = CounterMetric(name, {"a": "x"}, registry=registry)
    metric.series().inc()
    metric.series().inc()
    told = name if isinstance(name, str) else type(name).__name__
    assert own_counts() == {"metric_errors": {f"{told}:{kind}": 1}}
    metric.series("", {"a": "y"}).inc()
    assert registry.text() == b"" or name == "active_requests"


def test_buckets_are_those_given_and_others_are_counted(registry, own_counts):
    HistogramMetric("d_seconds", {}, registry=registry, buckets=[1, 2]).series().observe(1.5)
    assert registry.families()[0].bounds == (1.0, 2.0)
    HistogramMetric("d_seconds", {}, registry=registry, buckets=[3]).series().observe(1.5)
    assert own_counts() == {"metric_errors": {"d_seconds:other_buckets": 1}}
    assert registry.get_metric_stats("d_seconds")["count"] == 2


def test_labels_of_prometheus_own_are_left_out(registry):
    HistogramMetric("d", {"le": "1", "__name__": "x", "a": "y"}, registry=registry, seconds=True).series().observe(1)
    assert registry.families()[0].definition.labels == ("a",)
    assert registry.families()[0].exposed == "d_seconds"


def test_one_series_each_is_kept_at_hand_up_to_a_bound(registry):
    metric = CounterMetric("errors_seen_total", {}, "error_type", registry=registry)
    for number in range(MOST_BOUND + 50):
        metric.series(f"Made{number}").inc()
    assert len(metric._bound) == MOST_BOUND
    assert sum(values_of(registry, "errors_seen").values()) == MOST_BOUND + 50


def test_callbacks_hear_of_what_is_bound(registry):
    heard = []
    metric = GaugeMetric("g", {"a": "x"}, registry=registry)
    metric.series().set(1)
    registry.add_callback("g", lambda *what: heard.append(what))
    metric.series().set(2)
    assert heard == [("g", 2, {"a": "x"})]


def test_a_registry_is_not_kept_alive():
    registry = MetricsRegistry()
    CounterMetric("calls_total", {}, registry=registry).series().inc()
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_a_total_is_that_of_all_series_with_a_label(registry):
    metric = CounterMetric("hits_total", {"cache": "a"}, registry=registry)
    assert metric.total("cache", "a") == 0
    metric.series("", {"tenant": "x"}).inc()
    metric.series("", {"tenant": "y"}).inc(2)
    assert (metric.total("cache", "a"), metric.total("cache", "b"), metric.total("nothing", "a")) == (3, 0, 0)
