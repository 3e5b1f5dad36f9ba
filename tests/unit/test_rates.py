from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.rates import COUNTS, Rates, adds_up, own_rates, settled
from tellmeter.usage import Usage


def test_rates_are_exact_where_floats_are_not():
    rates = own_rates({"input": 0.1, "output": 0.2})
    assert isinstance(rates, Rates)
    assert rates.dollars(Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == 0.3
    assert rates.dollars(Usage(input_tokens=10**18)) == 1e11


def test_tiny_and_huge_own_rates():
    assert own_rates({"input": 1e-9}).dollars(Usage(input_tokens=1)) == 1e-15
    assert own_rates({"input": 1e9}).dollars(Usage(input_tokens=1)) == 1000.0


def test_a_cache_rate_that_is_not_given_is_the_inputs():
    usage = Usage(input_tokens=100, cached_tokens=40, cache_write_tokens=10)
    assert own_rates({"input": 1}).dollars(usage) == 100 / 1e6
    assert own_rates({"input": 1, "cache_read": 0.1}).dollars(usage) == (60 + 4) / 1e6
    assert own_rates({"input": 0}).free and not own_rates({"output": 1}).free


@given(st.fixed_dictionaries(dict.fromkeys(COUNTS, st.integers(0, 10**6))))
def test_settled_counts_add_up_and_what_adds_up_is_left_alone(counts):
    usage = settled(Usage(**counts))
    assert adds_up(usage)
    assert (usage.input_tokens, usage.output_tokens) == (counts["input_tokens"], counts["output_tokens"])
    assert settled(usage) is usage


def test_counts_that_are_none_are_refused():
    with pytest.raises(ValueError, match="counts"):
        settled(Usage(input_tokens=-1))
