import json
import time

import pytest

from tellmeter import AgentMetrics, ConfigError, MetricsSummary, SchemaTooNew, SQLiteMetricsSink, StoreError
from tellmeter.cli.summary import parse_since, summary


@pytest.fixture
def store(tmp_path):
    sink = SQLiteMetricsSink(tmp_path / "calls.db")
    now = time.time()
    sink.send(
        [
            AgentMetrics(model="new", provider="openai", latency_ms=100.0, cost_usd=0.5, tags={"feature": "chat"}),
            AgentMetrics(model="new", provider="openai", latency_ms=300.0, status="error", error_class="APIError"),
            AgentMetrics(model="old", provider="anthropic", timestamp=now - 7200, tags={"run": "r1"}),
            AgentMetrics(model="older", provider="anthropic", timestamp=now - 90 * 86400, tags={"run": "r1"}),
        ],
        1e12,
    )
    sink.close()
    return f"sqlite:///{tmp_path}/calls.db"


def json_of(capfdbinary, *arguments, **options):
    assert summary(*arguments, as_json=True, **options) == 0
    return json.loads(capfdbinary.readouterr().out)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("1h", 3600), ("1.5h", 5400), ("7d", 604800), ("2w", 1209600), ("all", None)],
)
def test_since(text, seconds):
    assert parse_since(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1 h", "-1h", "0s", "1y", "1e3s", "٣h", "all ", "1h30m", "9" * 400 + "s"]
)
def test_since_that_is_none(text):
    with pytest.raises(ConfigError, match=r"--since.*30s"):
        parse_since(text)


def test_json_has_every_figure(store, capfdbinary):
    found = json_of(capfdbinary, store, "1h")
    assert found.keys() == {"store", "since", "run", "by", "groups", "total"}
    assert (found["store"], found["since"], found["run"], found["by"]) == (store, "1h", None, "model")
    assert found["groups"].keys() == {"new"}
    assert found["groups"]["new"].keys() == set(MetricsSummary.__struct_fields__)
    assert found["total"] | {"count": 2, "error_count": 1, "total_cost": 0.5} == found["total"]


@pytest.mark.parametrize(
    ("since", "run", "models"),
    [
        ("1h", None, {"new"}),
        (None, None, {"new", "old"}),
        ("all", None, {"new", "old", "older"}),
        (None, "r1", {"old", "older"}),
        ("1d", "r1", {"old"}),
    ],
)
def test_which_calls(store, capfdbinary, since, run, models):
    assert json_of(capfdbinary, store, since, run=run)["groups"].keys() == models


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("provider", {"openai", "anthropic"}),
        ("status", {"success", "error"}),
        ("error_class", {"APIError"}),
        ("tag:feature", {"chat"}),
    ],
)
def test_by_what(store, capfdbinary, by, groups):
    found = json_of(capfdbinary, store, "all", by)
    assert found["groups"].keys() == groups
    assert found["total"]["count"] == 4


def test_the_table(store, capsys):
    assert summary(store, "all") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].strip() == f"calls in {store}"
    assert [name in out for name in ("new", "old", "older", "total")] == [True] * 4


def test_no_calls_tells_where_older_ones_are(tmp_path, store, capsys):
    assert summary(store, "1s", run="nobody") == 0
    assert capsys.readouterr().out == (
        f"no calls of run nobody of the last 1s in {store}; --since all shows older ones\n"
    )


def test_stores_that_cannot_be_asked(tmp_path):
    with pytest.raises(StoreError, match="no such store"):
        summary(f"sqlite:///{tmp_path}/missing.db")
    with pytest.raises(ConfigError):
        summary("memory:")


def test_a_store_of_a_newer_tellmeter(store, tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "calls.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SchemaTooNew, match="upgrade tellmeter"):
        summary(store)


def test_a_bad_field():
    with pytest.raises(ConfigError, match="model, provider"):
        summary("sqlite:///calls.db", by="colour")
