from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.pipeline.pacing import Pacing

NOW = 1000.0


@pytest.mark.parametrize(
    ("after", "at_least"),
    [(2.0, 2.0), (299.0, 299.0), (1e9, 300.0), (math.nan, 0.0), (-5.0, 0.0), (math.inf, 0.0), (None, 0.0), (0, 0.0)],
)
def test_what_a_backend_asks_for_is_obeyed_within_five_minutes(after: float | None, at_least: float) -> None:
    for _ in range(50):
        pacing = Pacing()
        pacing.failed(NOW, after)
        assert NOW + at_least <= pacing.not_before <= NOW + max(at_least, 0.5)


@given(st.integers(0, 200))
def test_the_wait_is_a_random_part_of_a_doubling_bound(before: int) -> None:
    pacing = Pacing()
    pacing.failures = before
    pacing.failed(NOW)
    assert NOW <= pacing.not_before <= NOW + min(30.0, 0.5 * 2.0 ** min(before, 10))


def test_the_whole_range_is_used() -> None:
    waits = []
    for _ in range(400):
        pacing = Pacing()
        pacing.failures = 10
        pacing.failed(0.0)
        waits.append(pacing.not_before)
    assert min(waits) < 5.0 and 25.0 < max(waits) <= 30.0  # 400 draws miss a sixth once in 10^31


def test_five_failures_in_a_row_open_it_and_an_answer_closes_it() -> None:
    pacing = Pacing()
    states = [pacing.state]
    for _ in range(6):
        pacing.failed(NOW)
        states.append(pacing.state)
    assert states == ["ready", "retrying", "retrying", "retrying", "retrying", "open", "open"]
    pacing.succeeded()
    assert (pacing.state, pacing.not_before) == ("ready", -math.inf)
    pacing.failed(NOW)
    assert pacing.state == "retrying"


def test_a_program_that_seeded_its_random_numbers_gets_its_own() -> None:
    random.seed(7)
    expected = random.getstate()
    Pacing().failed(NOW)
    assert random.getstate() == expected
