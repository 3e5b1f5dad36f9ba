import os

import pytest

from tellmeter import ConfigError, MetricsConfig
from tellmeter.cli.run import SITE, metered, report, run, where

URL = "sqlite:////calls.db"


def test_the_environment_of_a_metered_program():
    changed = metered({"HOME": "/h"}, URL, ["run=1"], "/marks")
    assert changed == {
        "HOME": "/h",
        "PYTHONPATH": str(SITE),
        "TELLMETER_SINKS": URL,
        "TELLMETER_TAGS": "run=1",
        "TELLMETER_RUN_DIR": "/marks",
    }
    assert (SITE / "sitecustomize.py").exists()
    assert [path.name for path in SITE.iterdir() if path.name != "__pycache__"] == ["sitecustomize.py"]


def test_what_the_environment_has_already_stays():
    given = {"PYTHONPATH": "/a:/b", "TELLMETER_SINKS": f"console:, {URL},", "TELLMETER_TAGS": "team=x,run=old,"}
    changed = metered(given, URL, ["run=1"], "/marks")
    assert changed["PYTHONPATH"] == os.pathsep.join([str(SITE), "/a:/b"])
    assert changed["TELLMETER_SINKS"] == f"console:,{URL}"
    assert MetricsConfig.from_env(changed).tags == {"team": "x", "run": "1"}
    assert given["PYTHONPATH"] == "/a:/b"


@pytest.mark.parametrize("tag", ["novalue", "=x", " =x", "a=1,b=2", "run=mine"])
def test_tags_that_cannot_be(tag, tmp_path):
    with pytest.raises(ConfigError, match="--tag"):
        run(["true"], f"sqlite:///{tmp_path}/calls.db", [tag])


def test_a_comma_in_the_store_would_be_two_sinks(tmp_path):
    with pytest.raises(ConfigError, match="comma"):
        run(["true"], f"sqlite:///{tmp_path}/a,b.db")


def test_nothing_metered_leaves_no_store(tmp_path, capfd):
    url = f"sqlite:///{tmp_path}/none/calls.db"
    assert run(["true"], url) == 0
    assert "no Python process was metered" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_fails_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.db").write_bytes(b"broken" * 1000)
    report(f"sqlite:///{tmp_path}/broken.db", "1", attached=True)
    err = capsys.readouterr().err
    assert err.startswith("tellmeter: no table: ")
    assert err.count("\n") == 1


def test_a_report_to_a_closed_descriptor_is_silent(tmp_path, monkeypatch):
    closed = (tmp_path / "err").open("w")
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    report(f"sqlite:///{tmp_path}/none.db", "1", attached=True)


def test_the_command_that_shows_a_run_again(monkeypatch):
    monkeypatch.setenv("TELLMETER_STORE", URL)
    assert where(URL, "1") == f"records are in {URL}; again: tellmeter summary --run 1"
    assert where("sqlite:////my calls.db", "1") == "again: tellmeter summary --store 'sqlite:////my calls.db' --run 1"
