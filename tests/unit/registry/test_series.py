import math
import sys
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.series import FOLD_AT

MORE_THAN_A_FOLD = FOLD_AT * 3 + 5
LARGEST = sys.float_info.max
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(10**6), 10**6)


def counter():
    return MetricsRegistry().counter("c", "A counter", labels=["a"]).labels("x")


def gauge():
    return MetricsRegistry().gauge("g", "A gauge", labels=["a"]).labels("x")


def histogram(buckets=(1.0, 2.0, 5.0)):
    return MetricsRegistry().histogram("h", "A histogram", labels=["a"], buckets=buckets).labels("x")


class Selfish:
    """It adds to itself and compares as if it were a number, but is none."""

    def __add__(self, other):
        return self

    __radd__ = __sub__ = __mul__ = __rmul__ = __add__

    def __le__(self, other):
        return True

    __lt__ = __ge__ = __gt__ = __le__


class Half:
    """A number that adds, but does not compare."""

    def __float__(self):
        return 0.5

    def __radd__(self, other):
        return other + 0.5


# What sums may become, or fail with, when it is added to: none of it may stay in the totals. None: refused.
ODD = [
    (Decimal("0.5"), 0.5),
    (Fraction(1, 2), 0.5),
    (numpy.float16(0.5), 0.5),
    (numpy.float32(0.5), 0.5),
    (numpy.array(0.5), 0.5),
    (numpy.array([0.5, 0.5]), None),
    (numpy.int8(100), 100.0),
    (numpy.uint8(200), 200.0),
    (True, 1.0),
    (Half(), 0.5),
    (Selfish(), None),
    ("1", None),
    (None, None),
    (math.nan, None),
    (math.inf, None),
    (10**400, None),
    ([], None),
]
NAMES = [type(value).__name__ for value, _ in ODD]


def test_a_counter_adds_up_exactly_over_many_folds():
    series = counter()
    for number in range(MORE_THAN_A_FOLD):
        series.inc(number)
    series.inc()
    assert series.read() == sum(range(MORE_THAN_A_FOLD)) + 1
    assert len(series.pending) == 0


@given(st.lists(st.floats(0, 1e6) | st.integers(0, 10**6)))
def test_a_counter_is_the_sum_of_what_was_added(values):
    series = counter()
    for value in values:
        series.inc(value)
    assert math.isclose(series.read(), math.fsum(values), rel_tol=1e-9)
    assert series.number == len(values)


@given(st.lists(numbers))
def test_a_histogram_has_each_value_in_the_bucket_that_holds_it(values):
    series = histogram(buckets=(-1.0, 0.0, 1.0, 100.0))
    for value in values:
        series.observe(value)
    found, total, low, high = series.read()
    bounds = (*series.family.bounds, math.inf)
    assert [sum(found[: at + 1]) for at in range(len(bounds))] == [sum(v <= bound for v in values) for bound in bounds]
    assert math.isclose(total, math.fsum(values), rel_tol=1e-6, abs_tol=1e-3)
    assert (low, high) == ((min(values), max(values)) if values else (math.inf, -math.inf))


@given(st.lists(st.tuples(st.sampled_from(["set", "inc", "dec", "read"]), st.integers(-100, 100))))
def test_a_gauge_is_what_was_set_last_and_added_since(steps):
    series = gauge()
    expected = 0
    for step, number in steps:
        if step == "read":
            assert series.read() == expected
        else:
            getattr(series, step)(number)
            expected = number if step == "set" else expected + number if step == "inc" else expected - number
    assert series.read() == expected


def test_a_gauge_that_only_goes_up_and_down_does_not_grow():
    series = gauge()
    for _ in range(MORE_THAN_A_FOLD):
        series.inc(2)
        series.dec()
    assert len(series.state) <= FOLD_AT + 1
    assert series.read() == MORE_THAN_A_FOLD


@pytest.mark.parametrize(("value", "number"), ODD, ids=NAMES)
@pytest.mark.parametrize(
    "before", [[], [1], [0.25], [1] * (FOLD_AT + 1), [Decimal(1)] * (FOLD_AT + 1), [numpy.float32(1)] * (FOLD_AT + 1)]
)
@pytest.mark.parametrize("times", [1, FOLD_AT + 1])
def test_numbers_of_other_libraries_are_counted_exactly_and_nothing_else_is(value, number, before, times):
    expected = sum(map(float, before)) + (number or 0.0) * times + 2.5
    refused = 0 if number is not None else times
    total, level, spread = counter(), gauge(), histogram()
    for one in [*before, *[value] * times, 0.5, 2]:
        total.inc(one)
        level.inc(one)
        spread.observe(one)
    assert (total.read(), total.number) == (expected, len(before) + times + 2 - refused)
    assert level.read() == expected
    found, seconds, low, high = spread.read()
    assert (sum(found), seconds) == (len(before) + times + 2 - refused, expected)
    assert high == max(2.0, number or 0.0) and low <= 0.5
    assert {type(part) for part in (total.read(), level.read(), seconds, low, high)} <= {int, float}
    assert (total.pending, spread.pending, len(level.state)) == ([], [], 1)
    assert counts.total("value_errors") == refused * 3


@pytest.mark.parametrize(
    ("value", "number"), [one for one, name in zip(ODD, NAMES, strict=True) if name not in ("Selfish", "int")]
)
def test_a_gauge_is_set_to_numbers_only(value, number):
    series = gauge()
    series.set(7)
    series.set(value)
    assert series.read() == (7 if number is None else number)
    series.inc()
    assert series.read() == (7 if number is None else number) + 1
    assert counts.total("value_errors") == (number is None)


@pytest.mark.parametrize("value", [Selfish(), 10**400, numpy.array([0.5])])
def test_what_passes_for_a_number_at_first_is_found_out_when_it_is_read_and_counted_once(value):
    series = gauge()
    series.set(value)
    assert math.isfinite(series.read()) and series.read() == series.read()
    assert counts.total("value_errors") == 1
    series.set(3)
    assert series.read() == 3


def test_a_counter_refuses_what_is_negative():
    series = counter()
    for value in (5, -1, -0.5, 2, -math.inf, Decimal(-1)):
        series.inc(value)
    assert series.read() == 7 and series.number == 2
    assert counts.snapshot()["value_errors"] == {"c:negative": 3, "c:not_finite": 1}


def test_a_batch_of_equal_negative_numbers_is_refused():
    series = counter()
    for _ in range(10):
        series.inc(-1)
    assert series.read() == 0 and series.number == 0


def test_what_sums_beyond_the_largest_float_is_read_all_the_same():
    total, level, spread = counter(), gauge(), histogram()
    for _ in range(MORE_THAN_A_FOLD):
        for series in (total, level):
            series.inc(10**308)
            series.inc(LARGEST)
        spread.observe(LARGEST)
    for value in (total.read(), level.read(), spread.read()[1]):
        assert value > 1e308 or value == 0
    assert spread.read()[0] == [0, 0, 0, MORE_THAN_A_FOLD]


def test_whole_numbers_beyond_floats_are_added_exactly_as_long_as_floats_have_them():
    series = counter()
    for _ in range(MORE_THAN_A_FOLD):
        series.inc(2**45 + 1)
    assert series.read() == (2**45 + 1) * MORE_THAN_A_FOLD


def test_equal_amounts_do_not_drift():
    series = counter()
    for _ in range(FOLD_AT + 1):
        series.inc(0.1)
    assert series.read() == 0.1 * (FOLD_AT + 1)


def test_a_gauge_takes_away_what_it_can():
    series = gauge()
    series.dec(2)
    series.dec("x")
    series.dec(None)
    assert series.read() == -2
    assert counts.snapshot()["value_errors"] == {"g:not_a_number": 2}


def test_a_value_on_a_bound_belongs_to_its_bucket():
    series = histogram()
    for _ in range(FOLD_AT):
        for value in (1.0, 1.0000001, 2, 5, 5.1, -3):
            series.observe(value)
    assert series.read()[0] == [2 * FOLD_AT, 2 * FOLD_AT, FOLD_AT, FOLD_AT]


def test_reset_begins_at_zero_and_hides_the_series_until_it_is_used():
    level, total, spread = gauge(), counter(), histogram()
    for series, record in (
        (total, total.inc),
        (level, level.inc),
        (level, lambda: level.set(0)),
        (spread, lambda: spread.observe(1)),
    ):
        assert series.visible
        record()
        series.reset()
        assert not series.visible and not series.visible
        record()
        assert series.visible and series.visible


def test_reset_forgets_values_that_wait_and_exemplars():
    total, spread = counter(), histogram()
    total.inc(5, {"trace_id": "a"})
    spread.observe(5, {"trace_id": "a"})
    for series in (total, spread):
        created = series.created
        series.reset()
        assert series.exemplars is None and series.created >= created
    assert total.read() == 0
    assert spread.read() == ([0, 0, 0, 0], 0.0, math.inf, -math.inf)
