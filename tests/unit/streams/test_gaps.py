from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.streams.gaps import Gaps

WAITS = st.lists(st.integers(0, 10**15), min_size=1, max_size=200)


def noted(waits: list[int], size: int = 7) -> Gaps:
    gaps = Gaps()
    for at in range(0, len(waits), size):
        gaps.note(waits[at : at + size])
    return gaps


@given(WAITS, st.sampled_from([0.5, 0.95, 1.0]))
def test_percentiles_are_within_an_eighth(waits: list[int], share: float) -> None:
    ordered = sorted(waits)
    exact = ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]
    assert abs(noted(waits).percentile(share) - exact) <= max(0.13 * exact, 33_000)  # 64 us is one bucket


@given(WAITS, st.integers(1, 50))
def test_largest_and_deviation_are_exact_however_they_come(waits: list[int], size: int) -> None:
    gaps = noted(waits, size)
    assert gaps.largest == max(waits)
    exact = statistics.pstdev(waits)
    assert abs(gaps.deviation() - exact) <= 1e-9 * exact + 1e-6


def test_nothing_is_zero() -> None:
    assert (Gaps().percentile(0.5), Gaps().deviation(), Gaps().largest) == (0.0, 0.0, 0)


def test_memory_does_not_grow_with_their_number() -> None:
    gaps = Gaps()
    for power in range(63):
        gaps.note([(1 << power) + number * (1 << power) // 100 for number in range(100)])
    assert len(gaps._buckets) <= 4 * 64
