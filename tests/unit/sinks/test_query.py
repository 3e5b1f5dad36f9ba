from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.records import MetricsSummary, StreamMetrics
from tellmeter.sinks import query
from tellmeter.sinks.query import make_query
from tests.unit.sinks.made import T0, record

values = st.lists(st.floats(0, 1e9, allow_nan=False), min_size=1, max_size=60)


@given(values, st.one_of(st.integers(0, 100), st.floats(0, 100, allow_nan=False)))
def test_percentile_is_numpys(found, p):
    assert query.percentile(sorted(found), p) == pytest.approx(np.percentile(found, p), rel=1e-9, abs=1e-9)


def test_percentiles_are_exact_from_one_call_on():
    summary = query.summarise([record(latency_ms=7.0)])
    assert (summary.p50_latency_ms, summary.p95_latency_ms, summary.p99_latency_ms) == (7.0, 7.0, 7.0)
    assert query.percentile([], 50) == 0.0


@pytest.mark.parametrize("p", [-1, 101, math.nan, "50", None, True])
def test_a_percentile_outside_0_to_100_is_refused(p):
    with pytest.raises(ConfigError, match="percentile = "):
        query.percentile([1.0], p)


def test_an_empty_summary_is_all_zeros():
    assert query.summarise([]) == MetricsSummary()


def test_summary_counts_what_failed_not_what_the_application_broke_off():
    summary = query.summarise(
        [
            record(status="error", error_class="RateLimitError"),
            record(status="timeout", error_class="ReadTimeout"),
            record(status="rejected", error_class="CircuitOpen"),
            record(status="cancelled", error_class="CancelledError"),
            record(status="closed_early"),
            record(),
        ]
    )
    assert (summary.count, summary.error_count, summary.error_rate) == (6, 3, 0.5)
    assert summary.errors == {"CircuitOpen": 1, "RateLimitError": 1, "ReadTimeout": 1}


def test_summary_adds_known_costs_and_counts_the_unknown():
    summary = query.summarise([record(cost_usd=0.1), record(cost_usd=0.2), record(), record(cost_usd=0.0)])
    assert (summary.total_cost, summary.unpriced) == (math.fsum([0.1, 0.2]), 1)


def test_first_token_percentiles_are_over_streams_alone():
    streams = [record(stream=StreamMetrics(time_to_first_token_ms=ms)) for ms in (100.0, 300.0)]
    summary = query.summarise([*streams, record(), record(stream=StreamMetrics())])
    assert (summary.avg_ttft_ms, summary.p50_ttft_ms) == (200.0, 200.0)
    assert query.summarise([record()]).p50_ttft_ms is None


def test_sums_of_the_largest_floats_do_not_raise():
    summary = query.summarise([record(latency_ms=1.7e308, cost_usd=1.7e308) for _ in range(3)])
    assert summary.total_cost == query.MAX_FLOAT
    assert math.isfinite(summary.avg_latency_ms)


def test_names_are_ranked_by_calls_then_by_name():
    summary = query.summarise([record(model=model) for model in ("c", "b", "a", "b")])
    assert list(summary.models.items()) == [("b", 2), ("a", 1), ("c", 1)]


def test_filters_are_equalities_and_a_half_open_time():
    rows = [record(n, tags={"feature": "chat", "tenant": str(n)}) for n in range(5)]

    def found(**filters):
        return [int(row.timestamp - T0) for row in rows if make_query(**filters).matches(row)]

    assert found(start_time=T0 + 1, end_time=T0 + 3) == [1, 2]
    assert found(tags={"feature": "chat", "tenant": "4"}) == [4]
    assert found(tags={"absent": "4"}) == []
    assert found(request_id="unknown") == []
    assert found(model=None, tags=None) == [0, 1, 2, 3, 4]


def test_a_window_is_before_now_or_before_the_end_and_gives_way_to_a_start():
    assert make_query(window_seconds=60, now=1000).start_time == 940
    assert make_query(window_seconds=60, now=1000).end_time is None
    assert make_query(window_seconds=60, end_time=500, now=1000).start_time == 440
    assert make_query(window_seconds=60, start_time=5, now=1000).start_time == 5
    assert make_query(window_seconds=None, now=1000).start_time is None


@pytest.mark.parametrize(
    "filters",
    [
        {"modle": "gpt-4o"},
        {"model": 5},
        {"start_time": "yesterday"},
        {"window_seconds": True},
        {"tags": "feature=chat"},
        {"tags": {"feature": 1}},
    ],
)
def test_a_bad_filter_is_named(filters):
    with pytest.raises(ConfigError, match=next(iter(filters))):
        make_query(**filters)


def test_a_time_too_large_for_a_float_is_for_ever():
    assert make_query(end_time=10**400).end_time == math.inf
    assert make_query(start_time=-(10**400)).start_time == -math.inf


@given(st.lists(st.floats(0, 1e6), max_size=40), st.floats(0.01, 1e5))
@settings(deadline=None)
def test_every_call_is_in_exactly_one_point_of_a_series(moments, step):
    points = query.series([record(timestamp=moment) for moment in moments], step)
    assert sum(point.summary.count for point in points) == len(moments)
    assert all(first.timestamp < second.timestamp for first, second in pairwise(points))


def test_a_series_is_bounded():
    rows = [record(n) for n in range(query.MAX_POINTS + 1)]
    with pytest.raises(ConfigError, match="more than 20,000 points"):
        query.series(rows, 1)
    assert len(query.series(rows[1:], 1)) == query.MAX_POINTS


def test_a_breakdown_has_the_values_with_the_most_calls_first():
    rows = [record(tags={"tenant": name}) for name in "abbccc"] + [record()]
    found = query.breakdown(rows, "tag:tenant", 2)
    assert [(name, summary.count) for name, summary in found.items()] == [("c", 3), ("b", 2)]


@pytest.mark.parametrize("by", ["latency_ms", "tag:", "", None, "id"])
def test_what_cannot_be_broken_down_by_is_refused(by):
    with pytest.raises(ConfigError, match="by = "):
        query.check_breakdown(by)


def test_percentile_of_a_metric_skips_calls_without_it():
    rows = [record(cost_usd=3.0), record(), record(cost_usd=1.0, input_tokens=2, output_tokens=3)]
    assert query.percentile_of(rows, "cost_usd", 50) == 2.0
    assert query.percentile_of(rows, "tokens", 100) == 5.0
    assert query.percentile_of(rows, "ttft_ms", 50) == 0.0
    with pytest.raises(ConfigError, match="metric = 'speed'"):
        query.percentile_of(rows, "speed", 50)
