"""Running sums for an API where the last write wins."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.sinks.datadog.buckets import Buckets, forget
from tellmeter.sinks.datadog.schema import METRICS

A, B = (METRICS[0], ("a:1",)), (METRICS[1], ("a:1",))


def test_a_second_batch_of_an_interval_is_sent_with_the_first():
    buckets = Buckets(10)
    assert buckets.opened(1005.9) == 1000
    first = buckets.with_more({A: 3})
    buckets.written(1000, first)
    assert buckets.opened(1009) == 1000
    assert buckets.with_more({A: 2, B: 1}) == {A: 5, B: 1}
    assert buckets.opened(1010) == 1010
    assert buckets.with_more({A: 2}) == {A: 2}


def test_what_did_not_arrive_is_not_counted():
    buckets = Buckets(1)
    buckets.opened(5)
    assert buckets.with_more({A: 3}) == buckets.with_more({A: 3}) == {A: 3}


def test_a_clock_that_goes_back_overwrites_nothing():
    buckets = Buckets(10)
    buckets.written(buckets.opened(1000), {A: 3})
    assert buckets.opened(900) == 1000
    assert buckets.with_more({A: 1}) == {A: 4}


def test_a_clock_that_goes_far_back_is_believed():
    buckets = Buckets(10)
    buckets.written(buckets.opened(100_000), {A: 3})
    assert buckets.opened(99_705) == 100_000
    assert buckets.opened(99_689) == 99_680
    assert buckets.with_more({A: 1}) == {A: 1}


def test_a_sink_that_follows_another_goes_on_with_its_sums_and_a_forked_child_does_not():
    first = Buckets.shared("test-buckets", 10)
    first.written(first.opened(1000), {A: 3})
    assert Buckets.shared("test-buckets", 10).with_more({A: 1}) == {A: 4}
    assert Buckets.shared("elsewhere", 10).with_more({A: 1}) == {A: 1}
    forget()
    assert Buckets.shared("test-buckets", 10).with_more({A: 1}) == {A: 1}


steps = st.tuples(
    st.floats(-5, 30),  # seconds since the last one
    st.dictionaries(st.sampled_from([A, B]), st.integers(1, 100)),
    st.sampled_from(["answered", "lost before it arrived", "lost after it arrived"]),  # the first attempt
    st.booleans(),  # whether it is tried again, which is answered
)


@given(st.lists(steps, max_size=20), st.sampled_from([1, 10, 60]))
def test_the_last_writes_add_up_to_what_was_delivered(history, interval):
    """However often answers are lost, and whatever the clock does. What is given up may have arrived, or not."""
    buckets, kept, delivered, unknown, now = Buckets(interval), {}, {A: 0, B: 0}, {A: 0, B: 0}, 1000.0
    for passed, more, first, again in history:
        now += passed
        second = buckets.opened(now)
        sums = buckets.with_more(more)
        if again or first != "lost before it arrived":
            kept.update({(context, second): value for context, value in sums.items()})
        known = again or first == "answered"
        if known:
            buckets.written(second, sums)
        for context, value in more.items():
            (delivered if known else unknown)[context] += value
    for context, total in delivered.items():
        found = math.fsum(value for (one, _), value in kept.items() if one == context)
        assert total <= found <= total + unknown[context]
