import sqlite3

import pytest

from tellmeter import AgentMetrics, SQLiteMetricsSink
from tellmeter.cli import diagnosis
from tellmeter.cli.diagnosis import Library, diagnose
from tellmeter.cli.probe import Probed


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The probe imports every SDK; it has its own tests."""
    monkeypatch.setattr(diagnosis, "probe_apart", lambda names: {name: Probed("hooked") for name in names})


@pytest.fixture
def look(tmp_path):
    return lambda **environment: diagnose({"XDG_DATA_HOME": str(tmp_path), **environment})


def problems(found):
    return [problem.what for problem in found.problems]


def test_a_healthy_installation(look):
    found = look()
    assert problems(found) == []
    assert found.settings == []
    assert found.prices.startswith("genai-prices ")
    assert {one.name for one in found.libraries if one.state == "hooked"} >= {"httpx", "httpx2"}
    assert found.store.exists is False
    assert not (found.store.url.startswith("sqlite:///~"))


def test_extras_and_what_they_lack(look, monkeypatch):
    monkeypatch.setattr(diagnosis, "_version", lambda name: None if name == "uvicorn" else "1.0")
    found = {one.name: one for one in look().extras}
    assert found["cli"].missing == []
    assert found["demo"].missing == ["uvicorn"]
    assert found["demo"].install == "pip install 'tellmeter[demo]'"


def test_an_extra_includes_the_ones_it_names():
    assert set(diagnosis._needed("demo")) >= {"click", "rich", "openai", "anthropic", "uvicorn"}


def test_settings_and_where_they_come_from(look):
    found = look(
        METRICS_BATCH_SIZE="500",
        TELLMETER_TAGS="team=search",
        TELLMETER_SINKS="console:,sqlite:////calls.db",
        TELLMETER_STORE="sqlite:////nowhere/calls.db",
    )
    assert [(one.name, one.value, one.source) for one in found.settings] == [
        ("batch_size", "500", "METRICS_BATCH_SIZE"),
        ("tags", "team=search", "TELLMETER_TAGS"),
        ("sinks", "console:, sqlite:////calls.db", "TELLMETER_SINKS"),
        ("store", "sqlite:////nowhere/calls.db", "TELLMETER_STORE"),
    ]


def test_secrets_are_masked(look):
    found = look(TELLMETER_SINKS="postgresql://me:hunter2@host/db", TELLMETER_STORE="clickhouse://me:hunter2@host")
    import msgspec

    assert b"hunter2" not in msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("environment", "what", "cure"),
    [
        ({"TELLMETER_BATCH_SIZ": "5"}, "TELLMETER_BATCH_SIZ is no setting", "TELLMETER_BATCH_SIZE"),
        ({"TELLMETER_WIBBLE_WOBBLE": "5"}, "TELLMETER_WIBBLE_WOBBLE is no setting", "unset"),
        ({"TELLMETER_BATCH_SIZE": "many"}, "TELLMETER_BATCH_SIZE", "correct"),
        ({"METRICS_ENABLED": "false"}, "metering is off (METRICS_ENABLED)", "unset METRICS_ENABLED"),
        ({"TELLMETER_SINKS": "nonsense://x"}, "nonsense", "correct"),
        ({"TELLMETER_STORE": "console:"}, "console", "TELLMETER_STORE"),
    ],
)
def test_what_is_wrong_and_its_cure(look, environment, what, cure):
    found = look(**environment)
    assert len(found.problems) == 1, found.problems
    assert what in found.problems[0].what
    assert cure in found.problems[0].cure


def test_the_store(look, tmp_path):
    sink = SQLiteMetricsSink(tmp_path / "tellmeter" / "calls.db")
    sink.send([AgentMetrics(model="a"), AgentMetrics(model="b")], 1e12)
    sink.close()
    store = look().store
    assert (store.exists, store.records, store.schema_version) == (True, 2, 1)
    assert store.bytes > 0


def test_a_store_of_a_newer_version(look, tmp_path):
    path = tmp_path / "calls.db"
    SQLiteMetricsSink(path).check()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    found = look(TELLMETER_STORE=f"sqlite:///{path}")
    assert len(found.problems) == 1
    assert "newer tellmeter" in found.problems[0].what
    assert found.store.records is None


def test_a_store_that_cannot_be_made(look, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis.os, "access", lambda path, mode: False)
    assert "cannot be created" in problems(look())[0]


def test_an_sdk_that_is_not_hooked_is_a_problem(look, monkeypatch):
    monkeypatch.setattr(diagnosis, "probe_apart", lambda names: {"httpx": Probed("hooked", "ImportError")})
    found = look()
    assert Library("httpx", diagnosis._version("httpx"), "import fails (ImportError)") in found.libraries
    assert any(what.startswith("openai") and "not checked" in what for what in problems(found))


def test_no_http_client_at_all(look, monkeypatch):
    monkeypatch.setattr(diagnosis, "_version", lambda name: None)
    assert any("no HTTP client that tellmeter hooks" in what for what in problems(look()))


def test_the_folder_that_processes_share(look, tmp_path):
    found = look(TELLMETER_MULTIPROC_DIR=str(tmp_path / "metrics"))
    assert ("metrics shared in", str(tmp_path / "metrics")) in [(one.name, one.value) for one in found.settings]
    assert found.problems == []
    (tmp_path / "link").symlink_to(tmp_path)
    (problem,) = look(TELLMETER_MULTIPROC_DIR=str(tmp_path / "link")).problems
    assert "it is a link" in problem.what and "another folder" in problem.cure


def test_what_ended_processes_left_in_the_spool_is_told(tmp_path):
    from tellmeter import AgentMetrics
    from tellmeter.pipeline.spool.spool import Spool

    spool = Spool(str(tmp_path), "Sink", max_bytes=10**8)
    spool.append([AgentMetrics(model="m") for _ in range(3)], 1000)
    told = lambda: [one.what for one in diagnose({"TELLMETER_SPOOL": str(tmp_path)}).problems if "spool" in one.cure]  # noqa: E731
    assert told() == []  # this process would deliver them
    spool.close()
    assert told() == [f"3 records that ended processes left wait in {tmp_path}"]


def test_a_spool_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    told = [one.what for one in diagnose({"TELLMETER_SPOOL": str(tmp_path / "file")}).problems]
    assert any("it is no folder" in what for what in told)
