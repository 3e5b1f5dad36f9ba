from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.secret import Secret
from tellmeter.sinks.clickhouse import address


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    for name in ("CLICKHOUSE_USER", "CLICKHOUSE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def headers(*arguments, **more):
    return {name: value.reveal() for name, value in address.server(*arguments, **more).headers.items()}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("clickhouse://", {"url": "http://localhost:8123"}),
        ("clickhouse:", {"url": "http://localhost:8123"}),
        ("clickhouse://h", {"url": "http://h:8123"}),
        ("clickhouse://h/", {"url": "http://h:8123"}),
        ("clickhouses://h/db", {"url": "https://h:8443", "database": "db"}),
        ("clickhouse://h/db?secure=true", {"url": "https://h:8443", "database": "db"}),
        ("clickhouses://h:99/db?secure=no", {"url": "http://h:99", "database": "db"}),
        ("clickhouse://[::1]/db", {"url": "http://[::1]:8123", "database": "db"}),
        ("clickhouse://[::1]:9/db", {"url": "http://[::1]:9", "database": "db"}),
        ("clickhouse://me@h", {"url": "http://h:8123", "user": "me"}),
        ("clickhouse://m%40e@h", {"url": "http://h:8123", "user": "m@e"}),
        (
            "clickhouse://me:p%2Fa:b@h/db?table=calls&cluster={cluster}&retention_days=7&async_insert=1&batch_size=9",
            {
                "url": "http://h:8123",
                "user": "me",
                "password": Secret("p/a:b"),
                "database": "db",
                "table": "calls",
                "cluster": "{cluster}",
                "retention_days": 7.0,
                "async_insert": True,
                "batch_size": 9,
            },
        ),
    ],
)
def test_a_url_is_the_sinks_arguments(url, expected):
    assert address.arguments_of(url) == expected


def test_a_password_is_named_not_written(monkeypatch):
    monkeypatch.setenv("STORE_PASSWORD", "canary\n")
    found = address.arguments_of("clickhouse://me@h/db?password_env=STORE_PASSWORD")
    assert (found["user"], found["password"].reveal()) == ("me", "canary")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("clickhouse:h/db", "clickhouse://host:8123/database"),
        ("clickhouse://me:canary@h/?colour=red", "colour"),
        ("clickhouse://me:canary@h/?secure=maybe", "secure"),
        ("clickhouse://me:canary@h/?password=canary", "password"),
        ("clickhouse://me@h/?password_env=NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE"),
        ("clickhouse://me:canary@h/?password_env=HOME", "password_env"),
    ],
)
def test_a_url_that_cannot_work_is_one_clear_line_without_secrets(url, told):
    with pytest.raises(ConfigError, match=told) as caught:
        address.arguments_of(url)
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=40), st.sampled_from(["clickhouse:", "clickhouse://", "clickhouses://u:p@", "clickhouse://h/?"])
)
def test_any_url_is_arguments_or_a_config_error(text, start):
    try:
        found = address.arguments_of(start + text)
        address.server(found["url"], found.get("user"), found.get("password"))
    except ConfigError as error:
        assert len(str(error).splitlines()) < 2
    else:
        assert found["url"].startswith(("http://", "https://"))


def test_who_asks_is_in_headers_and_nowhere_else():
    one = address.server("http://me:can%40ary@h:8123/", None, None)
    assert {name: value.reveal() for name, value in one.headers.items()} == {
        "X-ClickHouse-User": "me",
        "X-ClickHouse-Key": "can@ary",
    }
    assert one.url == "http://h:8123/"
    assert "can@ary" not in repr(one)
    assert headers("http://h", "me", "canary") == {"X-ClickHouse-User": "me", "X-ClickHouse-Key": "canary"}
    assert headers("http://h", "me", Secret("canary")) == headers("http://me:canary@h", None, None)
    assert headers("http://h", None, "canary")["X-ClickHouse-User"] == "default"
    assert headers("http://h", None, None) == {}


def test_the_environment_says_who_asks_where_nobody_else_does(monkeypatch):
    monkeypatch.setenv("CLICKHOUSE_USER", "them")
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "theirs")
    assert headers("http://h", None, None) == {"X-ClickHouse-User": "them", "X-ClickHouse-Key": "theirs"}
    assert headers("http://h", "me", "mine") == {"X-ClickHouse-User": "me", "X-ClickHouse-Key": "mine"}
    assert "CLICKHOUSE_USER" in os.environ


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ftp://h", None, None), "http://"),
        (("http://me:canary@h", "other", None), "user"),
        (("http://me:canary@h", None, "canary"), "user"),
        (("http://h/?database=x&key=canary", None, None), "arguments"),
        (("http://169.254.169.254", None, None), "link-local"),
        (("http://h", None, 5), "password"),
    ],
)
def test_a_server_that_cannot_be_is_refused_without_secrets(arguments, told):
    with pytest.raises(ConfigError, match=told) as caught:
        address.server(*arguments)
    assert "canary" not in str(caught.value)


def test_a_place_is_named_without_its_user():
    assert address.server("https://me:canary@H:8443/proxy/", None, None).place == "h:8443/proxy"


@pytest.mark.parametrize("name", ["", "a b", "a`", "1a", "a-b", "a.b", "ä", "a" * 129, None, 5, "a\n"])
def test_names_that_are_something_else_in_sql_are_refused(name):
    with pytest.raises(ConfigError, match="table"):
        address.check_name("table", name)


@pytest.mark.parametrize("name", ["", "a b", "a'", "a\\", None, "a\n"])
def test_clusters_that_are_something_else_in_sql_are_refused(name):
    with pytest.raises(ConfigError, match="cluster"):
        address.check_cluster(name)


def test_names_that_are_fit_are_kept():
    assert address.check_name("table", "_calls_2") == "_calls_2"
    assert [address.check_cluster(name) for name in ("prod-1.eu", "{cluster}")] == ["prod-1.eu", "{cluster}"]
