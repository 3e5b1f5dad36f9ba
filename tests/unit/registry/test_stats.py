import math
import statistics
from bisect import bisect_left

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.registry.family import VALUE_LENGTH
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.stats import quantile
from tests.support.hostile import Raising

SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
BOUNDS = (-10.0, 0.0, 1.0, 2.5, 10.0, 1000.0)
EMPTY = {"count": 0, "sum": 0, "mean": 0, "min": None, "max": None, "p50": None, "p95": None, "p99": None}


@pytest.fixture
def registry():
    return MetricsRegistry()


def test_figures_of_what_nobody_recorded(registry):
    registry.counter("c", labels=["a"])
    registry.gauge("g", labels=["a"])
    registry.histogram("h", labels=["a"])
    for name in "cgh":
        assert registry.get_metric_stats(name) == EMPTY
    registry.histogram("h").labels("x")
    assert registry.get_metric_stats("h") == EMPTY


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_count_sum_mean_min_and_max_of_a_histogram_are_those_of_the_values(values):
    registry = MetricsRegistry()
    series = registry.histogram("h", "H", labels=[], buckets=BOUNDS).labels()
    for value in values:
        series.observe(value)
    stats = registry.get_metric_stats("h")
    assert stats["count"] == len(values)
    assert math.isclose(stats["sum"], math.fsum(values), rel_tol=1e-9, abs_tol=1e-6)
    assert math.isclose(stats["mean"], statistics.fmean(values), rel_tol=1e-9, abs_tol=1e-6)
    assert (stats["min"], stats["max"]) == (min(values), max(values))


def bucket_of(value):
    return bisect_left(BOUNDS, value)


@given(st.lists(st.floats(-100, 2000), min_size=1, max_size=200))
def test_percentiles_are_in_the_bucket_that_holds_the_true_value(values):
    registry = MetricsRegistry()
    for value in values:
        registry.observe("h", value)  # registers itself with other buckets
    series = registry.histogram("own", "H", labels=[], buckets=BOUNDS).labels()
    for value in values:
        series.observe(value)
    stats = registry.get_metric_stats("own")
    for name, share in SHARES.items():
        # Two neighbours are true where share * count is a whole number, but for its rounding.
        lower = numpy.quantile(values, max(share - 1e-9, 0), method="inverted_cdf")
        upper = numpy.quantile(values, min(share + 1e-9, 1), method="inverted_cdf")
        bounds = (-math.inf, *BOUNDS, math.inf)
        assert bounds[bucket_of(lower)] <= stats[name] <= bounds[bucket_of(upper) + 1]
        assert stats["min"] <= stats[name] <= stats["max"]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_a_greater_share_is_never_a_smaller_value(buckets, one, other):
    bounds = [float(number) for number in range(1, len(buckets))]
    if sum(buckets):
        low, high = sorted((one, other))
        shown = [quantile(share, bounds, buckets, 0.0, float(len(buckets))) for share in (low, high)]
        assert shown[0] <= shown[1] or math.isclose(*shown)


def test_a_constant_is_all_its_percentiles(registry):
    for _ in range(1000):
        registry.observe("h", 3.2)
    stats = registry.get_metric_stats("h")
    assert {stats[name] for name in ("min", "max", *SHARES)} == {3.2}


def test_percentiles_are_interpolated_inside_a_bucket(registry):
    registry.histogram("h", "H", labels=[], buckets=[100.0])
    for value in range(101):
        registry.observe("h", value)
    stats = registry.get_metric_stats("h")
    assert (stats["p50"], stats["p95"], stats["p99"]) == pytest.approx((50.0, 95.0, 99.0))


def test_values_beyond_the_last_bound_are_between_it_and_the_greatest(registry):
    registry.histogram("h", "H", labels=[], buckets=[1.0])
    for value in (5.0, 7.0, 9.0):
        registry.observe("h", value)
    stats = registry.get_metric_stats("h")
    assert 5.0 <= stats["p50"] <= stats["p95"] <= stats["p99"] <= 9.0


def test_the_figures_of_a_counter_are_its_recordings_and_its_series_values(registry):
    for number in range(1, 5):
        for _ in range(number):
            registry.increment("c", 10, {"a": str(number)})
    assert registry.get_metric_stats("c") == {
        "count": 10, "sum": 100, "mean": 10, "min": 10, "max": 40, "p50": 30, "p95": 40, "p99": 40,
    }  # fmt: skip


def test_the_figures_of_a_gauge_are_those_of_its_series(registry):
    for number in range(4):
        registry.set_gauge("g", 99, {"a": str(number)})
        registry.set_gauge("g", number - 1, {"a": str(number)})
    assert registry.get_metric_stats("g") == {
        "count": 4, "sum": 2, "mean": 0.5, "min": -1, "max": 2, "p50": 1, "p95": 2, "p99": 2,
    }  # fmt: skip


def test_labels_choose_the_series_that_have_them(registry):
    for a in ("x", "y"):
        for b in (1, 2):
            registry.increment("c", b, {"a": a, "b": b})
            registry.observe("h", b, {"a": a, "b": b})
    for name in ("c", "h"):
        assert registry.get_metric_stats(name)["sum"] == 6
        assert registry.get_metric_stats(name, {})["sum"] == 6
        assert registry.get_metric_stats(name, {"a": "x"})["sum"] == 3
        assert registry.get_metric_stats(name, {"a": "x", "b": 2})["sum"] == 2
        assert registry.get_metric_stats(name, {"b": "1"})["sum"] == 2
        assert registry.get_metric_stats(name, {"a": "z"}) == EMPTY
        assert registry.get_metric_stats(name, {"c": "x"}) == EMPTY


def test_series_are_chosen_by_the_values_they_were_recorded_with(registry):
    for value in (None, True, 1.5, "x" * (VALUE_LENGTH + 100), "a\x00", Raising()):
        registry.set_gauge("g", 1, {"a": "other"})
        registry.increment("c", 1, {"a": value})
        assert registry.get_metric_stats("c", {"a": value})["count"] >= 1
    assert registry.get_metric_stats("c")["count"] == 6


def test_sums_beyond_floats_raise_nothing(registry):
    for number in range(3):
        for _ in range(3):
            registry.increment("c", 1.5e308, {"a": str(number)})
            registry.increment("c", 10**308, {"a": str(number)})
            registry.observe("h", 1.5e308, {"a": str(number)})
        registry.set_gauge("g", 1.5e308, {"a": str(number)})
        registry.set_gauge("d", (-1) ** number * 1.5e308, {"a": str(number)})
    for name in ("c", "g", "h"):
        assert registry.get_metric_stats(name)["sum"] == math.inf
    assert registry.get_metric_stats("d")["sum"] == 1.5e308
    assert registry.get_all_metrics().keys() == {"c", "g", "d", "h"}


def test_counts_and_sums_are_exact_after_more_recordings_than_any_list_holds(registry):
    for number in range(12_345):
        registry.increment("c", number, {"a": "x"})
        registry.observe("h", number, {"a": "x"})
    for name in ("c", "h"):
        stats = registry.get_metric_stats(name)
        assert (stats["count"], stats["sum"]) == (12_345, sum(range(12_345)))
