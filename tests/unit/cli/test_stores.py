import pytest

from tellmeter import AgentMetrics, ConfigError, SQLiteMetricsSink, StoreError
from tellmeter.cli.stores import ask, chosen_url, file_of, opened, run_filter


@pytest.fixture
def store(tmp_path):
    sink = SQLiteMetricsSink(tmp_path / "calls.db")
    sink.send(
        [
            AgentMetrics(model="a", timestamp=100.0, tags={"run": "1"}),
            AgentMetrics(model="a", timestamp=200.0, tags={"run": "2"}),
            AgentMetrics(model="b", timestamp=300.0),
        ],
        1e12,
    )
    sink.close()
    return f"sqlite:///{tmp_path}/calls.db"


def test_the_url_is_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somebody")
    assert chosen_url("sqlite:///calls.db") == f"sqlite:///{tmp_path}/calls.db"
    assert chosen_url("calls.db") == f"sqlite:///{tmp_path}/calls.db"
    assert chosen_url(" sqlite:////abs/calls.db ") == "sqlite:////abs/calls.db"
    assert chosen_url("sqlite:///~/calls.db?retention_days=3") == "sqlite:////somebody/calls.db?retention_days=3"


def test_the_default_is_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TELLMETER_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert chosen_url(None) == f"sqlite:///{tmp_path}/tellmeter/calls.db"
    monkeypatch.setenv("TELLMETER_STORE", "sqlite:////else/where.db")
    assert chosen_url(None) == "sqlite:////else/where.db"


@pytest.mark.parametrize("url", ["nonsense", "nonsense://x", "memory:", "console:"])
def test_what_is_no_store(url):
    with pytest.raises(ConfigError):
        chosen_url(url)


def test_a_store_that_is_not_made_yet_is_none_and_stays_unmade(tmp_path):
    url = f"sqlite:///{tmp_path}/none/calls.db"
    assert opened(url) is None
    assert not file_of(url).parent.exists()


def test_a_store_that_cannot_be_read(tmp_path):
    (tmp_path / "broken.db").write_bytes(b"broken" * 1000)
    with pytest.raises(StoreError, match=r"broken\.db"):
        opened(f"sqlite:///{tmp_path}/broken.db")


def test_answers_and_their_total(store):
    found = ask(opened(store), "model")
    assert {name: one.count for name, one in found.items()} == {"a": 2, "b": 1}
    assert found.total.count == 3


def test_filters_of_a_run_and_of_a_time(store):
    assert ask(opened(store), "model", **run_filter("2", None, 0.0)).total.count == 1
    assert ask(opened(store), "model", **run_filter(None, 150.0, 300.0)).total.count == 2
    assert ask(opened(store), "model", **run_filter("1", 150.0, 300.0)).total.count == 0
    assert ask(opened(store), "model", **run_filter(None, None, 300.0)).total.count == 3
