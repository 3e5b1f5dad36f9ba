from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.cleaning import (
    MAX_INT,
    MAX_TAGS,
    MAX_TOOLS,
    clean_float,
    clean_int,
    clean_names,
    clean_optional_float,
    clean_optional_text,
    clean_tags,
    clean_text,
)


class Hostile:
    """Raises wherever it is asked."""

    def __float__(self) -> float:
        raise RuntimeError

    def __index__(self) -> int:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("value", [Hostile(), "12", b"3", [], float("nan")])
def test_what_is_no_number_is_nothing(value: Any) -> None:
    assert clean_float(value, "f") == 0.0
    assert clean_int(value, "f") == 0
    assert clean_optional_float(value, "f") is None


def test_numbers_that_are_clean_are_not_counted() -> None:
    before = counts.total("sanitised")
    assert (clean_float(1.5, "f"), clean_float(2, "f"), clean_int(7, "f"), clean_int(7.0, "f")) == (1.5, 2.0, 7, 7)
    assert clean_text("gpt-4o", "f", 10) == "gpt-4o"
    assert clean_tags({"a": "b", "n": 3}) == {"a": "b", "n": "3"}
    assert counts.total("sanitised") == before


def test_bounds() -> None:
    assert clean_int(float("inf"), "f") == MAX_INT
    assert clean_int(-5, "f") == 0
    assert clean_optional_float(float("inf"), "f") is None
    assert clean_optional_float(-1.0, "f") == 0.0
    assert len(clean_names([str(number) for number in range(99)], "f")) == MAX_TOOLS
    assert len(clean_tags({str(number): "x" for number in range(99)})) == MAX_TAGS


def test_names_may_be_given_as_one_text_or_as_nonsense() -> None:
    assert clean_names("search", "f") == ("search",)
    assert clean_names(7, "f") == ("7",)
    assert clean_names([Hostile()], "f") == ("",)


def test_tags_without_a_value_are_left_out() -> None:
    assert clean_tags({"a": None, "b": True, "c": Hostile()}) == {"b": "True", "c": ""}
    assert clean_tags("nonsense") == {}


def test_an_empty_optional_text_is_none() -> None:
    assert clean_optional_text("", "f", 5) is None
    assert clean_optional_text(None, "f", 5) is None


@given(st.text(), st.integers(0, 20))
def test_a_clean_text_is_valid_bounded_and_stays_as_it_is(text: str, limit: int) -> None:
    once = clean_text(text, "f", limit)
    once.encode()
    assert len(once) <= limit
    assert clean_text(once, "f", limit) == once
