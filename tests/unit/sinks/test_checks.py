from __future__ import annotations

import math

import pytest

from tellmeter.errors import ConfigError
from tellmeter.sinks.checks import check_positive, check_whole


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, 2**63])
def test_what_is_no_whole_number_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"max_size = .*: it must be a whole number, 1 or more"):
        check_whole("max_size", value)


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, True, "1", None])
def test_what_is_no_positive_number_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"step = .*: it must be a number above 0"):
        check_positive("step", value)


def test_good_numbers_pass():
    check_whole("backups", 0, 0)
    check_whole("max_size", 2**63 - 1)
    assert check_positive("step", 5) == 5.0
