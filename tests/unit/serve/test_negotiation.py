"""What a scraper asks for: the headers of real scrapers, the rules of RFC 9110, and whatever else is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.serve.negotiation import wants_gzip, wants_openmetrics

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_WITH_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_TEXT_ONLY = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
OM = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        (PROMETHEUS_WITH_PROTOBUF, True),
        (PROMETHEUS_TEXT_ONLY, False),
        (BROWSER, False),
        ("application/json", False),
        (OM, True),
        (OM.upper(), True),
        (PROMETHEUS_2.encode(), True),
        (f" {OM} ; version = 1.0.0 ", True),
        (f'{OM}; version="1.0.0"', True),
        (f"{OM};version=0.0.1", True),
        # versions that we do not write
        (f"{OM};version=7.7.7", False),
        (f"{OM};version=abc", False),
        (f"{OM};version=2.0.0,{OM};version=1.0.0;q=0.5", True),
        (f"{OM};version=7.7.7,*/*;q=0.1", False),
        (f"text/plain;version=1.0.0,{OM};q=0.1", True),
        # the highest quality wins, nothing is 0
        (f"{OM};q=0", False),
        (f"{OM};q=0.000", False),
        (f"{OM};q=0,*/*", False),
        (f"{OM};version=1.0.0;q=0,{OM};version=0.0.1", False),
        (f"{OM};q=0.5,text/plain;q=0.4", True),
        (f"{OM};q=0.4,text/plain;q=0.5", False),
        (f"text/plain;q=0.5,{OM};q=0.4", False),
        ("text/plain;q=0,*/*", True),
        ("text/plain;q=0", False),
        ("*/*;q=0", False),
        # a tie: the more precise, then OpenMetrics if it is named
        (f"text/plain,{OM}", True),
        (f"text/plain;version=0.0.4,{OM}", False),
        (f"text/plain;version=0.0.4,{OM};version=1.0.0", True),
        (f"*/*,{OM}", True),
        (f"text/*,{OM}", True),
        ("text/*,application/*", False),
        ("application/*", True),
        ("text/*", False),
        # qualities that cannot be read ask for nothing
        (f"{OM};q=high", False),
        (f"{OM};q=nan", False),
        (f"{OM};q=-1", False),
        (f"{OM};q=1e3", False),
        (f"{OM};q=.", False),
        (f"{OM};q=1.5,text/plain", True),
        (f"{OM};q=.5", True),
        (f'text/plain;q=0.1, {OM}; foo="a,b;q=0"; q=0.2', True),
        (f'text/plain;note="{OM}', False),
    ],
)
def test_text_or_openmetrics(accept, openmetrics):
    assert wants_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("accept_encoding", "gzip"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        (b"gzip", True),
        ("x-gzip", True),
        ("gzip, deflate, br", True),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", True),
        ("gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("*", False),
        ("*;q=0", False),
        ("identity;q=0, *", True),
        ("identity;q=0", True),
        ("identity;q=0, gzip;q=0", False),
        ("identity", False),
        ("gzip, identity", True),
        ("gzip;q=0.5, identity", False),
        ("deflate, br", False),
        ("gzip;q=x", False),
    ],
)
def test_gzip_or_plain(accept_encoding, gzip):
    assert wants_gzip(accept_encoding) is gzip


WORDS = st.sampled_from(
    [
        *(OM, "text/plain", "text/*", "*/*", "gzip", "*", "identity", "version=", "1.0.0", "0.0.4", "q=", "q=0", "q=1"),
        *("0.5", "nan", "1" * 400, ";", ",", "=", '"', "\\", " ", "\n", "\0", "\xff", "\u0663"),
    ]
)


@given(st.one_of(st.text(), st.binary(), st.lists(WORDS).map("".join)))
def test_whatever_is_sent_is_answered(header):
    assert wants_openmetrics(header) in {True, False}
    assert wants_gzip(header) in {True, False}


@given(st.lists(st.sampled_from([OM, "text/plain", "*/*", "gzip", "*", "identity;q=0.1"]), max_size=4))
def test_what_is_refused_is_never_sent(others):
    assert not wants_openmetrics(", ".join([*others, f"{OM};version=1.0.0;q=0"]))
    assert not wants_gzip(", ".join(one for one in ["gzip;q=0", *others] if one != "gzip"))


def test_a_long_header_takes_no_long_time():
    for unit in ('"', "\\", ",", ";", "a", "a;", '"a', '\\"', "q=0;", " "):
        assert not wants_openmetrics(unit * (256 * 1024 // len(unit)))
