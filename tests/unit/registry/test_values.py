import math
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.registry.values import EXEMPLAR_LENGTH, exemplar_of, fault_of, finite, fit


class Meter:
    """A number of another library."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


NUMBERS = [
    (0, 0),
    (1.5, 1.5),
    (True, 1),
    (False, 0),
    (2**53, 2**53),
    (2**53 + 1, float(2**53 + 1)),
    (10**300, 1e300),
    (Decimal("0.5"), 0.5),
    (Fraction(1, 4), 0.25),
    (Meter(2.5), 2.5),
    (numpy.float64(1.5), 1.5),
    (numpy.float32(1.5), 1.5),
    (numpy.float16(1.5), 1.5),
    (numpy.int8(100), 100),
    (numpy.uint64(2**40), 2**40),
    (numpy.bool_(True), 1),
    (numpy.array(3.0), 3.0),
]


class Once:
    """A number, the first time."""

    def __init__(self):
        self.asked = 0

    def __float__(self):
        self.asked += 1
        if self.asked > 1:
            raise RuntimeError("prompt")
        return 1.0


REFUSED = [
    (math.nan, "not_finite"),
    (math.inf, "not_finite"),
    (-math.inf, "not_finite"),
    (10**400, "not_finite"),
    (-(10**400), "not_finite"),
    (Decimal("nan"), "not_finite"),
    (Decimal("1e400"), "not_finite"),
    (Decimal("sNaN"), "not_a_number"),
    (Fraction(10**400), "not_finite"),
    (numpy.float64("nan"), "not_finite"),
    (Meter(math.nan), "not_finite"),
    (Meter(OverflowError()), "not_finite"),
    (Meter(RuntimeError("prompt")), "not_a_number"),
    (Meter("1"), "not_a_number"),
    (numpy.array([1.0, 2.0]), "not_a_number"),
    (numpy.array([]), "not_a_number"),
    (None, "not_a_number"),
    ("1", "not_a_number"),
    ("nan", "not_a_number"),
    (b"1", "not_a_number"),
    (bytearray(b"1"), "not_a_number"),
    (memoryview(b"1"), "not_a_number"),
    (numpy.str_("1"), "not_a_number"),
    (1j, "not_a_number"),
    ([], "not_a_number"),
    ({}, "not_a_number"),
    (object(), "not_a_number"),
    (float, "not_a_number"),
]


@pytest.mark.parametrize(("value", "number"), NUMBERS)
def test_numbers_of_any_library_become_plain_ones(value, number):
    assert fault_of(value) is None
    (kept,) = fit([value], "m")
    assert kept == number and type(kept) in (int, float)
    assert counts.snapshot() == {}


@pytest.mark.parametrize(("value", "fault"), REFUSED)
def test_what_is_no_finite_number_is_refused_and_counted(value, fault):
    assert fault_of(value) == fault
    assert not finite(value)
    assert fit([1, value, 2.5], "m") == [1, 2.5]
    assert counts.snapshot() == {"value_errors": {f"m:{fault}": 1}}


def test_a_number_that_changes_its_mind_is_refused():
    assert fit([1, Once(), 2], "m") == [1, 2]
    assert counts.snapshot() == {"value_errors": {"m:not_a_number": 1}}


def test_negative_numbers_are_refused_only_where_a_metric_cannot_have_them():
    assert fault_of(-1) is None
    assert fault_of(-1, negative=False) == "negative"
    assert fault_of(-0.0, negative=False) is None
    assert fit([-1, Decimal(-2), 3, -math.inf], "m", negative=False) == [3]
    assert counts.snapshot() == {"value_errors": {"m:negative": 2, "m:not_finite": 1}}


@given(st.integers() | st.floats() | st.decimals() | st.fractions() | st.booleans())
def test_what_fits_is_finite_and_as_near_as_a_float_comes(value):
    kept = fit([value], "m")
    assert bool(kept) == (fault_of(value) is None)
    for number in kept:
        assert math.isfinite(number) and number == float(value)


def test_finite_tells_numbers_from_others():
    assert finite(1) and finite(-2.5) and finite(Decimal(1)) and finite(numpy.float32(1))
    assert not finite(math.nan) and not finite(math.inf) and not finite("1")


def test_an_exemplars_labels_are_cleaned_texts():
    assert exemplar_of({"trace_id": "abc", "n": 5}, "m") == {"trace_id": "abc", "n": "5"}
    assert exemplar_of({"trace_id": "a\x00\ud800"}, "m") == {"trace_id": "a\ufffd\ufffd"}


class Hostile(dict):
    def items(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"trace_id": "x" * EXEMPLAR_LENGTH},
        {f"a{number}": "xxxxxxxx" for number in range(20)},
        {"": "x"},
        {"trace id": "x"},
        {"1st": "x"},
        {"é": "x"},
        {"a\ud800": "x"},
        Hostile(a="b"),
        ["trace_id"],
        "trace_id",
        7,
    ],
)
def test_an_exemplar_that_openmetrics_cannot_have_is_left_out_and_counted(labels):
    assert exemplar_of(labels, "m") is None
    assert counts.snapshot()["label_errors"] == {"m:exemplar": 1}


def test_the_longest_exemplar_has_128_characters_in_all():
    longest = {"trace_id": "x" * (EXEMPLAR_LENGTH - len("trace_id"))}
    assert exemplar_of(longest, "m") == longest
