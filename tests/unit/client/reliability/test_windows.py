import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.client.reliability.windows import SLOTS, Window, window_seconds, window_text
from tellmeter.errors import ConfigError

T0 = 1_700_000_000.0


@pytest.mark.parametrize(
    ("given", "seconds", "text"),
    [
        ("30s", 30.0, "30s"),
        ("90s", 90.0, "90s"),
        ("5m", 300.0, "5m"),
        ("1.5m", 90.0, "90s"),
        ("1h", 3600.0, "1h"),
        ("24h", 86_400.0, "1d"),
        ("7d", 604_800.0, "7d"),
        (3600, 3600.0, "1h"),
        (0.5, 0.5, "0.5s"),
    ],
)
def test_windows_as_they_are_written(given, seconds, text):
    assert window_seconds(given) == seconds
    assert window_text(seconds) == text


def test_none_stands_for_ever():
    assert window_seconds(None) is None


@pytest.mark.parametrize(
    "bad",
    ["", "1", "d", "1y", "-1d", "1 d", "0s", "1d\n", "9999d", 0, -1, math.inf, math.nan, 10**400, True, b"1d", []],
)
def test_what_is_no_window_is_refused(bad):
    with pytest.raises(ConfigError, match=r"Budget\.window = .*'30s'.* or None for ever"):
        window_seconds(bad)


def test_what_was_added_leaves_a_sixtieth_of_the_window_late_at_most():
    window = Window(60)
    window.add(T0, 5, 7)
    assert window.sums(T0 + 60) == (5, 7)
    assert window.sums(T0 + 61) == (0, 0)


def test_it_leaves_gradually():
    window = Window(60)
    for second in range(60):
        window.add(T0 + second, 1, 2)
    assert [window.sums(T0 + now)[0] for now in (60, 70, 90, 120)] == [60, 50, 30, 0]


def test_for_ever_nothing_leaves():
    window = Window(None)
    window.add(T0, 5, 7)
    window.add(T0 + 1e9, 5, 7)
    assert window.sums(T0 + 2e9) == (10, 14)
    assert window.seconds_until(lambda dollars, tokens: dollars < 10, T0) is None


def test_when_there_is_room_again():
    window = Window(60)
    for second in (0, 10, 20):
        window.add(T0 + second, 4, 0)
    now = T0 + 30
    assert window.seconds_until(lambda dollars, tokens: dollars < 13, now) == 0.0
    until = window.seconds_until(lambda dollars, tokens: dollars < 8, now)
    assert until == 41.0
    assert window.sums(now + until - 0.001)[0] == 8
    assert window.sums(now + until)[0] == 4


def test_a_clock_that_is_set_back_neither_loses_nor_keeps_for_good():
    window = Window(60)
    window.add(T0 + 3600, 3, 3)
    window.add(T0 + 3601, 4, 4)
    assert window.sums(T0) == (7, 7)
    assert window.sums(T0 + 60) == (7, 7)
    assert window.sums(T0 + 61) == (0, 0)


steps = st.lists(
    st.tuples(st.floats(0, 40), st.integers(0, 2**80), st.integers(0, 2**40)),
    max_size=200,
)


@given(steps, st.sampled_from([0.5, 7.0, 30.0, 3600.0]))
def test_it_holds_all_of_the_window_and_no_more_than_a_slot_beside(steps, seconds):
    window, now, added = Window(seconds), T0, []
    hair = 1e-9 * seconds + 1e-6  # of floats at T0
    for pause, dollars, tokens in steps:
        now += pause * seconds / 30
        window.add(now, dollars, tokens)
        added.append((now, dollars, tokens))
        assert len(window._slots) <= SLOTS + 1
    for later in (0.0, seconds / 7, seconds / 2, seconds, 1.1 * seconds):
        at = now + later
        for index, found in enumerate(window.sums(at)):
            inside = sum(one[index + 1] for one in added if one[0] > at - seconds + hair)
            beside = sum(one[index + 1] for one in added if one[0] >= at - seconds * (1 + 1 / SLOTS) - hair)
            assert inside <= found <= beside


@given(steps, st.integers(1, 2**80))
def test_room_is_there_when_it_was_said_to_be_and_not_before(steps, limit):
    window, now = Window(30), T0
    for pause, dollars, tokens in steps:
        now += pause
        window.add(now, dollars, tokens)
    seconds = window.seconds_until(lambda dollars, tokens: dollars < limit, now)
    if seconds > 0:
        assert window.sums(now + seconds - 0.01)[0] >= limit
    assert window.sums(now + seconds + 1e-6)[0] < limit


def test_nothing_drifts():
    window = Window(60)
    for number in range(10_000):
        window.add(T0 + number, 10**15 + number, 1)
    exact = sum(10**15 + number for number in range(10_000 - SLOTS - 1, 10_000))
    assert window.sums(T0 + 9_999) == (exact, SLOTS + 1)
