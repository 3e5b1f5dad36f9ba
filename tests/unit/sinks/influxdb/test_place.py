from __future__ import annotations

import base64

import pytest

from tellmeter.errors import ConfigError
from tellmeter.secret import Secret
from tellmeter.sinks.influxdb.place import from_url, place

URL = "http://localhost:8086"
VARIABLES = [
    *(f"INFLUXDB_V2_{name}" for name in ("URL", "TOKEN", "ORG", "BUCKET")),
    *(f"INFLUX_{name}" for name in ("HOST", "TOKEN", "DATABASE")),
]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def basic(pair):
    return "Basic " + base64.b64encode(pair.encode()).decode()


PLACES = [
    (
        {"url": URL, "token": "t", "org": "my org", "bucket": "b/c"},
        ("2", "/api/v2/write?org=my%20org&bucket=b%2Fc&precision=ns", "Token t", "my%20org/b%2Fc"),
    ),
    ({"url": URL + "/", "database": "calls"}, ("1", "/write?db=calls&precision=ns", None, "calls")),
    (
        {"url": URL, "database": "calls", "retention_policy": "week", "username": "me", "password": "pä"},
        ("1", "/write?db=calls&rp=week&precision=ns", basic("me:pä"), "calls/week"),
    ),
    (
        {"url": URL, "database": "calls", "token": Secret("t")},
        ("3", "/api/v3/write_lp?db=calls&precision=nanosecond&accept_partial=true", "Bearer t", "calls"),
    ),
]


@pytest.mark.parametrize(("given", "expected"), PLACES)
def test_the_version_is_guessed_from_the_arguments(given, expected):
    found = place(None, given)
    assert found.url == URL
    shown = found.authorization.reveal() if found.authorization else None
    assert (found.version, found.write, shown, found.name) == expected
    assert place(found.version, given) == found


def test_a_version_3_without_a_token_is_named():
    found = place("3", {"url": URL, "database": "calls"})
    assert (found.version, found.authorization) == ("3", None)


def test_the_variables_of_the_vendors_clients(monkeypatch):
    monkeypatch.setenv("INFLUX_HOST", "http://three:8181")
    monkeypatch.setenv("INFLUX_TOKEN", "t3\n")
    monkeypatch.setenv("INFLUX_DATABASE", "calls")
    found = place(None, {})
    assert (found.version, found.url, found.authorization.reveal()) == ("3", "http://three:8181", "Bearer t3")
    for name, value in {"URL": "http://two:8086", "TOKEN": "t2", "ORG": "o", "BUCKET": "b"}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    found = place(None, {})
    assert (found.version, found.url, found.authorization.reveal()) == ("2", "http://two:8086", "Token t2")
    assert found.name == "o/b"
    assert place(None, {"bucket": "mine"}).name == "o/mine"
    assert place("3", {}).url == "http://three:8181"
    assert place(None, {"url": URL, "database": "d"}).authorization is None


@pytest.mark.parametrize(
    ("version", "given", "told"),
    [
        (None, {}, "INFLUXDB_V2_URL"),
        (None, {"url": URL}, "INFLUXDB_V2_TOKEN"),
        (None, {"url": URL, "token": "canary"}, "INFLUXDB_V2_ORG"),
        (None, {"url": URL, "token": "canary", "org": "o"}, "INFLUXDB_V2_BUCKET"),
        ("3", {"url": URL, "token": "canary"}, "INFLUX_DATABASE"),
        ("1", {"url": URL}, "database"),
        ("1", {"url": URL, "database": "d", "token": "canary"}, "token"),
        ("2", {"url": URL, "token": "canary", "org": "o", "bucket": "b", "database": "d"}, "database"),
        ("4", {"url": URL, "database": "d"}, "version"),
        (2, {"url": URL, "database": "d"}, "version"),
        ("1", {"url": URL, "database": ""}, "database"),
        ("1", {"url": URL, "database": 5}, "database"),
        ("1", {"url": URL, "database": "d", "username": "me"}, "password"),
        ("1", {"url": URL, "database": "d", "password": "canary"}, "username"),
        ("1", {"url": URL, "database": "d", "username": "me", "password": 5}, "password"),
        (None, {"url": URL, "database": "d", "token": ""}, "token"),
        ("1", {"url": "http://me:canary@h/?q=1", "database": "d"}, "before the"),
    ],
)
def test_what_cannot_work_is_refused(version, given, told):
    with pytest.raises(ConfigError, match=told) as caught:
        place(version, given)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("influxdb://h:8086/b?org=o", {"url": "http://h:8086", "bucket": "b", "org": "o", "version": "2"}),
        ("influxdbs://h/calls", {"url": "https://h", "database": "calls", "version": "1"}),
        ("influxdb://h/calls?version=3", {"url": "http://h", "database": "calls", "version": "3"}),
        ("influxdb://h/calls?token_env=T", {"url": "http://h", "database": "calls", "version": "3", "token": "tok"}),
        (
            "influxdb://h/prefix/a%20b?retention_policy=week",
            {"url": "http://h/prefix", "database": "a b", "retention_policy": "week", "version": "1"},
        ),
        (
            "influxdb://me@h/d?password_env=T",
            {"url": "http://h", "database": "d", "username": "me", "password": "tok", "version": "1"},
        ),
        (
            "influxdb://me:p%40@h/d",
            {"url": "http://h", "database": "d", "username": "me", "password": "p@", "version": "1"},
        ),
        ("influxdb://h:8086?org=o", {"url": "http://h:8086", "org": "o", "version": "2"}),
    ],
)
def test_a_url_gives_arguments(url, expected, monkeypatch):
    monkeypatch.setenv("T", "tok")
    found = {name: value.reveal() if isinstance(value, Secret) else value for name, value in from_url(url, {}).items()}
    assert found == expected


def test_a_url_with_a_token_in_the_environment(monkeypatch):
    monkeypatch.setenv("INFLUX_TOKEN", "t")
    assert from_url("influxdb://h/d", {})["version"] == "3"
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", "t")
    assert from_url("influxdb://h/b", {}) == {"url": "http://h", "bucket": "b", "version": "2"}
    monkeypatch.setenv("INFLUXDB_V2_ORG", "o")
    monkeypatch.setenv("T", "tok")
    assert from_url("influxdb://h/b?token_env=T", {})["version"] == "2"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("influxdb:", "write influxdb:"),
        ("influxdb:///d", "write influxdb:"),
        ("influxdb://h/d?colour=red", "colour"),
        ("influxdb://me:canary@h/d?token_env=NO_SUCH", "NO_SUCH"),
    ],
)
def test_urls_that_cannot_work_are_refused(url, told):
    with pytest.raises(ConfigError, match=told) as caught:
        from_url(url, {})
    assert "canary" not in str(caught.value)
