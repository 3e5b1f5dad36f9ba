from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.sinks.address import positive
from tellmeter.sinks.postgresql import dsn as dsns

OPTIONS = {"table": str, "retention_days": positive}


@pytest.mark.parametrize(
    ("dsn", "conninfo", "options"),
    [
        ("postgresql://me@host:5433/db", "postgresql://me@host:5433/db", {}),
        (" Postgres://host/db ", "postgres://host/db", {}),
        ("postgresql:", "postgresql://", {}),
        ("postgresql://h/d?sslmode=require&table=calls", "postgresql://h/d?sslmode=require", {"table": "calls"}),
        ("postgresql://h/d?retention_days=2", "postgresql://h/d", {"retention_days": 2.0}),
        ("postgresql://h/d?options=-c%20x%3Dy&table=t", "postgresql://h/d?options=-c%20x%3Dy", {"table": "t"}),
        ("host=h dbname=d password='a b'", "host=h dbname=d password='a b'", {}),
        ("", "", {}),
    ],
)
def test_our_options_are_taken_out_and_the_rest_is_left_to_libpq(dsn, conninfo, options):
    assert dsns.split(dsn, OPTIONS) == (conninfo, options)
    dsns.read(conninfo)


@pytest.mark.parametrize(
    "dsn",
    [
        None,
        b"postgresql://h/d",
        "postgresql://h\0/d",
        "postgresql:me:canary@h",
        "postgresql://me:canary@h:port/d",
        "postgresql://me:canary@h/d?colour=red",
        "postgresql://me:canary@h/d?retention_days=none",
        "postgresql://me:can%zzary@h/d",
        "host=h password=canary colour=red",
        "host=h password='canary",
        "just canary words",
    ],
)
def test_what_cannot_work_is_one_line_without_the_password(dsn):
    with pytest.raises(ConfigError) as caught:
        dsns.read(dsns.split(dsn, OPTIONS)[0])
    assert "canary" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.__cause__ is None


@given(st.sampled_from(["postgresql:", "postgresql://", "postgres://u:canary@h/", "host=", ""]), st.text(max_size=20))
def test_any_text_is_read_or_a_config_error(start, text):
    try:
        parameters = dsns.read(dsns.split(start + text, OPTIONS)[0])
    except ConfigError as error:
        assert "canary" not in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(dsns.destination(parameters, None, "t"), str)


def test_the_destination_names_the_place_and_neither_user_nor_password(monkeypatch):
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGHOSTADDR"):
        monkeypatch.delenv(name, raising=False)
    one = dsns.destination(dsns.read("postgresql://me:canary@db.example:5433/app?sslpassword=canary"), None, "calls")
    assert one == "postgresql://db.example:5433/app/calls"
    assert dsns.destination(dsns.read("host=a,b dbname=app password=canary"), "metrics", "calls") == (
        "postgresql://a,b:5432/app/metrics.calls"
    )
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGDATABASE", "other")
    assert dsns.destination(dsns.read(""), None, "calls") == "postgresql://elsewhere:5432/other/calls"


@pytest.mark.parametrize("name", ["", "1a", "a b", 'a"b', "a;drop", "a.b", "a" * 64, "ä", "a\n", None, 5])
def test_names_that_are_not_safe_are_refused(name):
    with pytest.raises(ConfigError, match="table = "):
        dsns.check_name("table", name)


def test_names_as_sql():
    assert dsns.check_name("table", "_Calls9") == "_Calls9"
    assert dsns.quoted(None, "Calls") == '"Calls"'
    assert dsns.quoted("s", "t") == '"s"."t"'
