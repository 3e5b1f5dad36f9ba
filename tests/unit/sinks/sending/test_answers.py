from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.pipeline.outcome import Delivered, Rejected, RetryLater, TooLarge
from tellmeter.sinks.sending.answers import outcome_of, retry_after

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Delivered()),
        (201, Delivered()),
        (202, Delivered()),
        (204, Delivered()),
        (299, Delivered()),
        (300, Rejected("redirected")),
        (301, Rejected("redirected")),
        (302, Rejected("redirected")),
        (304, Rejected("redirected")),
        (308, Rejected("redirected")),
        (400, Rejected("http_400")),
        (401, RetryLater(60.0, "unauthorized")),
        (402, Rejected("http_402")),
        (403, RetryLater(60.0, "forbidden")),
        (404, Rejected("http_404")),
        (405, Rejected("http_405")),
        (407, Rejected("http_407")),
        (408, RetryLater(None, "http_408")),
        (409, Rejected("http_409")),
        (413, TooLarge()),
        (415, Rejected("http_415")),
        (422, Rejected("http_422")),
        (425, RetryLater(None, "http_425")),
        (429, RetryLater(5.0, "http_429")),
        (500, RetryLater(None, "http_500")),
        (501, RetryLater(None, "http_501")),
        (502, RetryLater(None, "http_502")),
        (503, RetryLater(5.0, "http_503")),
        (504, RetryLater(None, "http_504")),
        (529, RetryLater(None, "http_529")),
        (599, RetryLater(None, "http_599")),
        (101, Rejected("http_101")),
    ],
)
def test_every_status_has_one_meaning(status, outcome):
    assert outcome_of(status, "5", NOW) == outcome


@given(st.integers(100, 999), st.one_of(st.none(), st.text()))
def test_any_status_is_an_outcome(status, header):
    outcome = outcome_of(status, header, NOW)
    assert isinstance(outcome, Delivered) == (200 <= status < 300)
    assert isinstance(outcome, RetryLater) or status < 500


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("1000000000", 365 * 86_400.0),
        ("1e9", 365 * 86_400.0),
        ("inf", 365 * 86_400.0),
        ("9" * 60, 365 * 86_400.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),  # the preferred form
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),  # RFC 850
        ("Sun Nov  6 08:49:47 1994", 10.0),  # asctime
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),  # gone by
        ("Fri, 01 Jan 9999 00:00:00 GMT", 365 * 86_400.0),
        ("-1", None),
        ("-0.5", None),
        ("-inf", None),
        ("nan", None),
        ("NaN", None),
        ("", None),
        ("  ", None),
        ("soon", None),
        ("1 2", None),
        ("9" * 100_000, None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 25:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:47", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        (None, None),
        (5, None),
        (b"5", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after(value, NOW) == seconds


def test_two_digits_of_a_year_are_of_the_last_fifty_or_the_next():
    in_2026 = 1_790_000_000.0
    assert retry_after("Monday, 01-Jan-94 00:00:00 GMT", in_2026) == 0.0  # 1994
    assert retry_after("Monday, 01-Jan-27 00:00:00 GMT", in_2026) == 1_798_761_600.0 - in_2026


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/New_York"])
def test_a_date_does_not_depend_on_the_time_zone_here(monkeypatch, zone):
    import time

    if not hasattr(time, "tzset"):
        pytest.skip("no time zones to set here")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after("Sun Nov  6 08:49:47 1994", NOW) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()


dates = st.one_of(
    st.from_regex(r"\A(Sun, )?[0-9]{1,3} (Nov|Feb|Foo) [0-9]{1,5} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|Z)\Z"),
    st.from_regex(r"\ASunday, [0-9]{2}-(Nov|Foo)-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT\Z"),
    st.from_regex(r"\ASun Feb [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}\Z"),
)


@given(st.one_of(st.text(), dates, st.floats().map(str), st.integers().map(str)), st.floats(0, 1e11))
def test_retry_after_never_raises_and_is_a_time_to_wait(value, now):
    seconds = retry_after(value, now)
    assert seconds is None or (0.0 <= seconds <= 365 * 86_400.0 and math.isfinite(seconds))
