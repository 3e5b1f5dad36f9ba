from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError, MissingExtra, TellmeterError
from tellmeter.secret import Secret
from tellmeter.sinks.address import flag, whole
from tellmeter.sinks.sending.url import http_url, is_link_local, split_options


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "destination"),
    [
        ("http://h/p", "h", 80, "/p", "http://h:80/p"),
        ("https://h", "h", 443, "/", "https://h:443/"),
        (" HTTPS://H.example:8443/a/b?c=d&e#f ", "h.example", 8443, "/a/b?c=d&e", "https://h.example:8443/a/b"),
        ("http://[::1]:81/x", "::1", 81, "/x", "http://[::1]:81/x"),
        (
            "http://münchen.example/ü",
            "xn--mnchen-3ya.example",
            80,
            "/%C3%BC",
            "http://xn--mnchen-3ya.example:80/%C3%BC",
        ),
        ("http://h?q", "h", 80, "/?q", "http://h:80/"),
    ],
)
def test_a_url_is_taken_apart(url, host, port, target, destination):
    found = http_url(url)
    assert (found.host, found.port, found.target, found.destination) == (host, port, target, destination)
    assert found.user is None


def test_a_user_is_kept_apart_and_not_shown():
    found = http_url("https://canary:p%40ss@h/p?api_key=hidden")
    assert found.user == Secret("canary:p@ss")
    assert found.destination == "https://h:443/p"
    assert found.shown == "https://h/p?api_key=***"
    for secret in ("canary", "p@ss", "p%40ss", "hidden"):
        assert secret not in repr(found)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h:8443/p?to=a@b&c#f", "https://h:8443/p?to=a@b&c"),
        ("http://canary@[::1]/", "http://[::1]/"),
        ("http://h/?x_token=canary&a=1&sig=canary", "http://h/?x_token=***&a=1&sig=***"),
    ],
)
def test_a_url_is_shown_with_its_host_and_without_its_secrets(url, shown):
    assert http_url(url).shown == shown


@pytest.mark.parametrize(
    "url", ["ftp://canary@h/", "http://canary:canary@h:99999/", "http://canary:can/ary@h/", "canary@h"]
)
def test_what_is_refused_is_shown_without_its_user(url):
    with pytest.raises(ConfigError) as caught:
        http_url(url)
    assert "canary" not in str(caught.value) or "://" not in url


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        5,
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http:///p",
        "https:",
        "h/p",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/",
        "http://a b/",
        "http://h/\x00",
        "unix:///run/x",
    ],
)
def test_what_is_no_url_of_http_is_refused(url):
    with pytest.raises(ConfigError):
        http_url(url)


@given(st.text(max_size=40).map(lambda text: f"https://me:canary@{text}"))
def test_any_text_is_taken_or_refused_without_its_password(text):
    try:
        shown = repr(http_url(text))
    except TellmeterError as error:
        shown = str(error)
    assert "canary" not in shown


LINK_LOCAL = [
    "169.254.169.254",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "169.16689662",
    "[fe80::1]",
    "[FEBF::1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::]",
]


@pytest.mark.parametrize("host", LINK_LOCAL)
def test_link_local_addresses_are_refused_in_every_form(host):
    with pytest.raises(ConfigError, match="allow_link_local|no URL"):
        http_url(f"http://{host}/latest/meta-data/")


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
def test_link_local_addresses_can_be_allowed(host):
    assert http_url(f"http://{host}/", allow_link_local=True).port == 80


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.253.255.255", "169.255.0.0", "::1", "fec0::1", "::ffff:10.0.0.1", "h", "", "1.2.3"]
)
def test_other_addresses_are_not_link_local(address):
    assert not is_link_local(address)


def test_a_zone_does_not_hide_an_address():
    assert is_link_local("fe80::1%eth0")


def test_options_of_ours_are_taken_out_and_the_rest_stays_as_it_is_written():
    url, options = split_options(
        " https://h/p?a=%20b&batch_size=5&c&verify=no&&a=2#f ", {"batch_size": whole, "verify": flag}
    )
    assert url == "https://h/p?a=%20b&c&a=2"
    assert options == {"batch_size": 5, "verify": False}
    assert split_options("https://h/p?verify=1", {"verify": flag}) == ("https://h/p", {"verify": True})
    assert split_options("https://h/p", {"verify": flag}) == ("https://h/p", {})


def test_a_bad_value_is_refused_without_showing_secrets():
    with pytest.raises(ConfigError, match="batch_size") as caught:
        split_options("https://me:canary@h/p?api_key=canary&batch_size=x", {"batch_size": whole})
    assert "canary" not in str(caught.value)


def test_without_httpx2_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtra, match=r"tellmeter\[http\]"):
        http_url("https://h/")
