"""The three that are measured, with the same metrics: our registry, prometheus_client and the OpenTelemetry SDK.

By name, prometheus_client is used as the code does that this replaces: a dict of metrics, and `labels(**labels)` at every
call. The OpenTelemetry SDK takes labels as they are and has no function around it.
"""

import random

import prometheus_client
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_page

from tellmeter.registry.definition import MetricDefinition, MetricType
from tellmeter.registry.registry import MetricsRegistry

try:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
except ImportError:  # what it collects is measured then, without the page
    PrometheusMetricReader = None

LABELS = {"endpoint": "/query", "method": "POST", "status": "200"}
LITERAL = repr(LABELS)  # who records by name makes the dict as well
NAMES = tuple(LABELS)
BOUNDS = prometheus_client.Histogram.DEFAULT_BUCKETS[:-1]
COUNTER, HISTOGRAM, GAUGE = "requests_total", "request_duration_seconds", "active_requests"
ALL = (COUNTER, HISTOGRAM, GAUGE)
UNLIMITED = 10**7


def lognormal(number):
    """Durations in seconds; multiples of 2**-20, so that their sum is exact in whatever order they are added."""
    rng = random.Random(1)
    return [round(rng.lognormvariate(-1, 1) * 2**20) / 2**20 for _ in range(number)]


def many_labels(number):
    return [{"endpoint": f"/v1/resource/{index}", "method": "POST", "status": "200"} for index in range(number)]


class Ours:
    name = "tellmeter"

    def __init__(self, metrics=ALL):
        self.registry = MetricsRegistry(max_series=UNLIMITED)
        types = {COUNTER: MetricType.COUNTER, HISTOGRAM: MetricType.HISTOGRAM, GAUGE: MetricType.GAUGE}
        for metric in metrics:
            buckets = BOUNDS if metric == HISTOGRAM else None
            self.registry.register_metric(MetricDefinition(metric, types[metric], "d", labels=NAMES, buckets=buckets))
        self.record = self.registry.record

    def names(self):
        """What statements use."""
        registry = self.registry
        return {
            "increment": registry.increment,
            "observe": registry.observe,
            "set_gauge": registry.set_gauge,
            "timer": registry.timer,
            "counter": registry.counter(COUNTER).labels(**LABELS),
            "histogram": registry.histogram(HISTOGRAM).labels(**LABELS),
            "gauge": registry.gauge(GAUGE).labels(**LABELS),
            "LABELS": LABELS,
        }

    def page(self):
        return self.registry.text()

    def openmetrics(self):
        return self.registry.text(openmetrics=True)

    def totals(self):
        """What the counters say; how many were observed, and their sum."""
        durations = self.registry.get_metric_stats(HISTOGRAM)
        return self.registry.get_metric_stats(COUNTER)["sum"], durations["count"], durations["sum"]


class PrometheusClient:
    name = "prometheus_client"

    def __init__(self, metrics=ALL):
        self.registry = registry = prometheus_client.CollectorRegistry()
        make = {
            COUNTER: lambda: prometheus_client.Counter(COUNTER, "d", NAMES, registry=registry),
            HISTOGRAM: lambda: prometheus_client.Histogram(HISTOGRAM, "d", NAMES, registry=registry, buckets=BOUNDS),
            GAUGE: lambda: prometheus_client.Gauge(GAUGE, "d", NAMES, registry=registry),
        }
        self.by_name = {metric: make[metric]() for metric in metrics}

    def names(self):
        by_name = self.by_name

        def increment(name, value=1, labels=None):
            if labels:
                by_name[name].labels(**labels).inc(value)
            else:
                by_name[name].inc(value)

        def observe(name, value, labels=None):
            if labels:
                by_name[name].labels(**labels).observe(value)
            else:
                by_name[name].observe(value)

        def set_gauge(name, value, labels=None):
            if labels:
                by_name[name].labels(**labels).set(value)
            else:
                by_name[name].set(value)

        def timer(name, labels=None):
            return by_name[name].labels(**labels).time() if labels else by_name[name].time()

        return {
            "increment": increment,
            "observe": observe,
            "set_gauge": set_gauge,
            "timer": timer,
            "counter": by_name[COUNTER].labels(**LABELS),
            "histogram": by_name[HISTOGRAM].labels(**LABELS),
            "gauge": by_name[GAUGE].labels(**LABELS),
        }

    def record(self, metric, value, labels):
        bound = self.by_name[metric].labels(**labels)
        (bound.inc if metric == COUNTER else bound.observe)(value)

    def page(self):
        """Without `_created`, which would double it."""
        prometheus_client.disable_created_metrics()
        try:
            return prometheus_client.generate_latest(self.registry)
        finally:
            prometheus_client.enable_created_metrics()

    def openmetrics(self):
        return openmetrics_page(self.registry)

    def totals(self):
        samples = [sample for family in self.registry.collect() for sample in family.samples]
        names = (COUNTER, f"{HISTOGRAM}_count", f"{HISTOGRAM}_sum")
        return tuple(sum(one.value for one in samples if one.name == name) for name in names)


class OpenTelemetry:
    name = "OpenTelemetry SDK"

    def __init__(self, metrics=ALL, *, exporter=False):
        limits = {Counter: UNLIMITED, Histogram: UNLIMITED}
        if exporter and PrometheusMetricReader:
            registry = prometheus_client.CollectorRegistry()
            self.reader = PrometheusMetricReader(
                registry=registry, scope_info_enabled=False, disable_target_info=True, cardinality_limits=limits
            )
            self.page = lambda: prometheus_client.generate_latest(registry)
        else:
            self.reader = InMemoryMetricReader(cardinality_limits=limits)
            self.page = self.reader.get_metrics_data
        meter = MeterProvider([self.reader], shutdown_on_exit=False).get_meter("benchmark")
        make = {
            COUNTER: lambda: meter.create_counter(COUNTER),
            HISTOGRAM: lambda: meter.create_histogram(HISTOGRAM, explicit_bucket_boundaries_advisory=list(BOUNDS)),
            GAUGE: lambda: meter.create_gauge(GAUGE),
        }
        self.by_name = {metric: make[metric]() for metric in metrics}

    def names(self):
        return {"by_name": self.by_name, "LABELS": LABELS}

    def record(self, metric, value, labels):
        instrument = self.by_name[metric]
        (instrument.add if metric == COUNTER else instrument.record)(value, labels)

    def totals(self):
        (resource,) = self.reader.get_metrics_data().resource_metrics
        found = {metric.name: metric.data.data_points for scope in resource.scope_metrics for metric in scope.metrics}
        durations = found.get(HISTOGRAM, ())
        return (
            sum(point.value for point in found.get(COUNTER, ())),
            sum(point.count for point in durations),
            sum(point.sum for point in durations),
        )


SUBJECTS = (Ours, PrometheusClient, OpenTelemetry)
