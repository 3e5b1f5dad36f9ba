"""Numbers that an LLMClient is given."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConfigError
from tellmeter.client.checks import check_number


@given(st.integers(-5, 5) | st.floats(-5, 5))
def test_what_is_in_the_range_passes_its_ends_included(value):
    if -2 <= value <= 3:
        check_number("x", value, -2, 3)
    else:
        with pytest.raises(ConfigError, match=r"^x = .* a number from -2 to 3$"):
            check_number("x", value, -2, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, None, "1", [1], 10**400])
def test_what_is_no_number_of_the_range_is_refused(value):
    with pytest.raises(ConfigError, match="a number from 0 to 100"):
        check_number("x", value, 0.0, 100.0)


@pytest.mark.parametrize("value", [1.0, 1.5, True, "1"])
def test_a_whole_number_is_an_int(value):
    with pytest.raises(ConfigError, match="a whole number from 1 to 1e\\+09"):
        check_number("x", value, 1, 1e9, whole=True)
    check_number("x", 1, 1, 1e9, whole=True)
