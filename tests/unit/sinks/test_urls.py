from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.config import default_store_url
from tellmeter.errors import ConfigError, StoreError
from tellmeter.records import AgentMetrics
from tellmeter.sinks.console import ConsoleMetricsSink
from tellmeter.sinks.in_memory import InMemoryMetricsSink
from tellmeter.sinks.jsonl import JSONLMetricsSink
from tellmeter.sinks.sqlite import SQLiteMetricsSink
from tellmeter.sinks.urls import SCHEMES, STORES, sink_from_url, store_from_url
from tests.unit.sinks.made import deadline, python, run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite:///calls.db", SQLiteMetricsSink),
        ("jsonl:///calls.jsonl", JSONLMetricsSink),
        ("console:", ConsoleMetricsSink),
        ("memory:", InMemoryMetricsSink),
        ("memory://", InMemoryMetricsSink),
        (" Memory:?max_size=5 ", InMemoryMetricsSink),
        ("calls.db", SQLiteMetricsSink),
        ("folder/calls.SQLITE3", SQLiteMetricsSink),
        ("/abs/calls.sqlite", SQLiteMetricsSink),
        ("c:/calls.db", SQLiteMetricsSink),
    ],
)
def test_a_url_names_a_sink(url, kind):
    assert type(sink_from_url(url)) is kind


# What each scheme needs at least after its colon.
PLACES = {
    "http": "//host",
    "https": "//host",
    "influxdb": "//host/database",
    "influxdbs": "//host/database",
    "jsonl": "///x",
    "kafka": "//host/topic",
    "parquet": "///x",
    "sqlite": "///x",
    "emf+tcp": "//host:1",
    "otlps": "//host",
    "emf+udp": "//host:1",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_a_sink(scheme, monkeypatch):
    monkeypatch.setenv("DD_API_KEY", "key")
    assert callable(sink_from_url(f"{scheme}:{PLACES.get(scheme, '')}").after_fork)


def test_every_store_is_a_scheme():
    assert set(STORES) <= set(SCHEMES)


def test_a_bare_path_is_a_sqlite_file(tmp_path):
    assert sink_from_url("calls.db").path == tmp_path / "calls.db"
    assert store_from_url(str(tmp_path / "calls.db")).path == tmp_path / "calls.db"


def test_the_default_store_url_is_a_store(tmp_path):
    url = default_store_url({"XDG_DATA_HOME": str(tmp_path)})
    assert url.startswith("sqlite:////")
    assert store_from_url(url).path == tmp_path / "tellmeter" / "calls.db"


def test_options_reach_the_sink():
    sink = sink_from_url("sqlite:///x.db?retention_days=30&retention_rows=100000")
    assert (sink.retention_days, sink.retention_rows) == (30.0, 100_000)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mysql://me:hunter2@host/db",
            "mysql://me:***@host/db: mysql: is unknown; there are clickhouse:, ",
        ),
        ("hunter2calls", "'hunter2calls' is no URL"),
        ("", "a URL is needed, as sqlite:///calls.db"),
        (None, "a URL is needed"),
        ("memory:?colour=red", "'colour' is no option of memory: URLs; its options are max_size, ttl_seconds"),
        ("memory:?max_size=many", "it must be a whole number above 0"),
        ("sqlite:///x.db?retention_days=-1", "retention_days = '-1'"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite:///:memory:", "InMemoryMetricsSink"),
        ("jsonl:x", "three slashes"),
    ],
)
def test_what_cannot_work_is_one_clear_line(url, message):
    with pytest.raises(ConfigError) as caught:
        sink_from_url(url)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if url != "hunter2calls":
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["memory:", "console:", "jsonl:///x.jsonl"])
def test_what_cannot_be_asked_names_what_can(url):
    with pytest.raises(ConfigError) as caught:
        store_from_url(url)
    assert f"cannot be asked; a store is {', '.join(f'{scheme}:' for scheme in STORES)}" in str(caught.value)
    with pytest.raises(ConfigError, match="is unknown"):
        store_from_url("mysql://host")


def test_a_store_that_must_exist_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="there is no such store"):
        store_from_url("sqlite:///calls.db", must_exist=True)
    assert list(tmp_path.iterdir()) == []
    writer = sink_from_url("sqlite:///calls.db")
    writer.send([AgentMetrics(model="m")], deadline())
    assert run(store_from_url("calls.db", must_exist=True).get_summary()).count == 1
    writer.close()


def test_naming_one_sink_imports_no_other():
    code = """
import sys
from tellmeter.sinks.urls import sink_from_url
sink_from_url("memory:")
print([name for name in ("sqlite3", "asyncio", "rich", "tellmeter.sinks.jsonl") if name in sys.modules])
"""
    assert python(code).stdout.strip() == "[]"


@given(
    st.text(max_size=30),
    st.sampled_from(["", "sqlite:", "sqlite:///", "memory:?", "jsonl:///", "console:?", "x://u:p@"]),
)
def test_any_url_is_a_sink_or_a_config_error(text, start):
    try:
        sink_from_url(start + text)
    except ConfigError as error:
        told = str(error)
    else:
        told = ""
    assert len(told.splitlines()) < 2
