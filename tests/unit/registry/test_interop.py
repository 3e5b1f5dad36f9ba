import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from tellmeter import counts
from tellmeter.registry.definition import MetricDefinition
from tellmeter.registry.registry import MetricsRegistry
from tests.support.metrics import assert_same, read_families, read_page


@pytest.fixture
def registry():
    made = MetricsRegistry()
    made.counter("c", "A counter", ["a"], "calls").labels("x").inc(2, {"trace_id": "t"})
    made.gauge("g", "A gauge", []).set(-1.5)
    made.histogram("gen_ai.wait", "A histogram", ["b.c"], "s", [1, 2]).labels("y").observe(1.5, {"trace_id": "u"})
    made.register_metric(MetricDefinition("u", "up_down_counter", "Up and down"))
    return made


@pytest.fixture
def theirs():
    made = CollectorRegistry()
    Counter("theirs", "Their counter", ["a"], registry=made).labels('x"\\\n').inc(3, {"trace_id": "t"})
    Gauge("their_gauge", "Their gauge", registry=made).set(4)
    Histogram("their_histogram", "Their histogram", registry=made).observe(0.3)
    Summary("their_summary", "Their summary", registry=made).observe(0.3)
    Info("their", "Their info", registry=made).info({"version": "1"})
    Enum("their_state", "Their state", states=["on", "off"], registry=made).state("on")
    return made


def metric_errors():
    return counts.snapshot().get("metric_errors", {})


def test_their_registry_collects_ours_as_our_own_page_shows_it(registry):
    outer = CollectorRegistry()
    outer.register(registry)
    assert_same(
        read_page(generate_openmetrics(outer), openmetrics=True),
        read_page(registry.text(openmetrics=True), openmetrics=True),
    )
    text = {name: read for name, read in read_page(generate_latest(outer)).items() if not name.endswith("_created")}
    assert_same(text, read_page(registry.text()))
    assert_same(
        read_families(registry.collect(), created=False),
        read_page(registry.text(openmetrics=True), openmetrics=True, created=False),
    )


def test_a_histogram_with_negative_values_breaks_no_page_of_theirs():
    registry, outer = MetricsRegistry(), CollectorRegistry()
    registry.histogram("signed", "With negative values", [], "", [-1]).observe(-5)
    registry.histogram("below", "With negative values", [], "", [1]).observe(-5)
    outer.register(registry)
    for name in ("signed", "below"):
        read = read_page(generate_openmetrics(outer), openmetrics=True)[name]
        assert read.samples[f"{name}_bucket", (("le", "+Inf"),)] == 1.0


def test_a_sample_of_ours_is_found_by_name_and_labels(registry):
    outer = CollectorRegistry()
    outer.register(registry)
    assert outer.get_sample_value("c_total", {"a": "x"}) == 2.0
    assert outer.get_sample_value("gen_ai_wait_seconds_bucket", {"b_c": "y", "le": "2.0"}) == 1.0


def test_their_registry_knows_our_names_and_refuses_another_of_them(registry):
    outer = CollectorRegistry()
    outer.register(registry)
    with pytest.raises(ValueError, match="Duplicate"):
        Gauge("g", "Another", registry=outer)
    assert [len(metric.samples) for metric in registry.describe()] == [0] * 4


def test_descriptions_and_labels_that_no_page_can_have_do_not_break_theirs():
    registry = MetricsRegistry()
    registry.counter("c\ud800", "bad \ud800 \x00", ["a\ud800"]).labels("v\ud800").inc()
    outer = CollectorRegistry()
    outer.register(registry)
    for page, openmetrics in ((generate_latest(outer), False), (generate_openmetrics(outer), True)):
        read = read_page(page, openmetrics=openmetrics)["c_"]
        assert read.help == "bad \ufffd \ufffd"
        assert read.samples["c__total", (("a_", "v\ufffd"),)] == 1.0


@pytest.mark.parametrize("openmetrics", [False, True])
def test_our_page_shows_what_their_registry_has_as_they_would(registry, theirs, openmetrics):
    own = read_page(registry.text(openmetrics=openmetrics), openmetrics=openmetrics)
    registry.add_source(theirs)
    generate = generate_openmetrics if openmetrics else generate_latest
    expected = {**own, **read_page(generate(theirs), openmetrics=openmetrics)}
    assert_same(read_page(registry.text(openmetrics=openmetrics), openmetrics=openmetrics), expected)
    assert registry.text(openmetrics=True).count(b"# EOF") == 1
    assert metric_errors() == {}


class Source:
    def __init__(self, *metrics):
        self.metrics = metrics

    def collect(self):
        for metric in self.metrics:
            if isinstance(metric, Exception):
                raise metric
            yield metric


@pytest.mark.parametrize(
    "name", ["c", "c_total", "c_created", "g", "gen_ai_wait_seconds", "gen_ai_wait_seconds_bucket"]
)
def test_a_metric_of_theirs_whose_name_is_taken_is_left_out_and_counted(registry, name):
    before = registry.text()
    registry.add_source(
        Source(GaugeMetricFamily(name, "Theirs", value=99), GaugeMetricFamily("other", "Theirs", value=1))
    )
    page = registry.text()
    assert page.startswith(before) and b"99" not in page and b"\nother 1.0\n" in page
    assert metric_errors() == {f"{name}:name_taken": 1}
    read_page(registry.text(openmetrics=True), openmetrics=True)


def test_of_two_sources_with_the_same_name_the_first_is_shown(registry):
    registry.add_source(Source(GaugeMetricFamily("same", "One", value=1)))
    registry.add_source(Source(CounterMetricFamily("same", "Two", value=2), GaugeMetricFamily("more", "Two", value=2)))
    read = read_page(registry.text())
    assert read["same"].help == "One" and read["more"].samples == {("more", ()): 2.0}
    assert metric_errors() == {"same:name_taken": 1}


def test_a_source_that_fails_is_counted_and_costs_nobody_else(registry, theirs):
    own = read_page(registry.text())
    registry.add_source(Source(ValueError("prompt")))
    registry.add_source(Source("no metric"))
    registry.add_source(theirs)
    read = read_page(registry.text())
    assert set(own) < set(read) and "their_gauge" in read
    assert counts.snapshot()["guarded_errors"] == {"metrics_source": 2}
    read_page(registry.text(openmetrics=True), openmetrics=True)


def test_two_registries_that_show_each_other_end(registry, theirs):
    theirs.register(registry)
    registry.add_source(theirs)
    for openmetrics in (False, True):
        read = read_page(registry.text(openmetrics=openmetrics), openmetrics=openmetrics)
        assert {"c", "g", "their_gauge"} <= set(read)
    assert "their_gauge" in read_page(generate_latest(theirs)) and "g" in read_page(generate_latest(theirs))
    assert metric_errors() == {}
