"""`tellmeter spool`, as a user types it, over what a process left that was killed."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tellmeter.cli.commands import run_command_line

LEAVES = """
import os, sys, tellmeter
from tellmeter.sinks.sqlite import SQLiteMetricsSink

SQLiteMetricsSink.send = lambda self, batch, deadline: tellmeter.RetryLater(after=60)
spool, store, number = sys.argv[1:]
collector = tellmeter.MetricsCollector(tellmeter.MetricsConfig(spool=spool), sinks=[f"sqlite:///{store}"])
for _ in range(int(number)):
    collector.record(tellmeter.AgentMetrics(model="m"))
collector.flush_sync(0.5)
while collector.stats().sinks["SQLiteMetricsSink"].queued:
    pass
os.kill(os.getpid(), 9)
"""
RECORDS = 250


def leave(spool: Path, store: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES, str(spool), str(store), str(RECORDS)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    leave(tmp_path / "spool", tmp_path / "calls.db")
    return tmp_path / "spool"


def rows(store: Path) -> int:
    return int(sqlite3.connect(store).execute("SELECT count(*) FROM llm_metrics").fetchone()[0])


def say(*arguments: object) -> int:
    return run_command_line([str(argument) for argument in arguments])


def test_ls_shows_what_waits(spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("spool", "ls", "--spool", spool) == 0
    shown = capsys.readouterr().out
    assert "SQLiteMetricsSink-" in shown and "250" in shown and "ended" in shown and str(tmp_path / "calls.db") in shown
    assert say("spool", "ls", "--spool", spool, "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["records"] == RECORDS and one["in_use"] is False


def test_replay_delivers_once_and_leaves_nothing(
    spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELLMETER_SPOOL", str(spool))
    assert say("spool", "replay", "--to", f"sqlite:///{tmp_path}/calls.db") == 0
    assert capsys.readouterr().out == "250 records delivered\n"
    assert rows(tmp_path / "calls.db") == RECORDS
    assert say("spool", "ls") == 0
    assert capsys.readouterr().out == f"nothing waits in {spool}\n"


def test_replay_to_another_place_needs_the_sinks_name(
    spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = f"jsonl:///{tmp_path}/other.jsonl"
    assert say("spool", "replay", "--spool", spool, "--to", other) == 2
    told = capsys.readouterr().err
    assert "choose one by --sink" in told
    name = next(word.strip(";") for word in told.split() if word.startswith("SQLiteMetricsSink-"))
    assert say("spool", "replay", "--spool", spool, "--to", other, "--sink", name) == 0
    assert len((tmp_path / "other.jsonl").read_text().splitlines()) == RECORDS


def test_replay_to_a_sink_that_fails_loses_nothing_and_says_why(
    spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    name = next(spool.iterdir()).name
    # Nobody can make a folder under a file, root neither: the sink refuses for good.
    assert say("spool", "replay", "--spool", spool, "--to", f"sqlite:///{blocked}/calls.db", "--sink", name) == 1
    assert capsys.readouterr().out == "0 records delivered, 250 still wait (no_such_folder)\n"
    assert say("spool", "replay", "--spool", spool, "--to", f"sqlite:///{tmp_path}/calls.db") == 0
    assert rows(tmp_path / "calls.db") == RECORDS


def test_drop_says_first_what_would_be_gone(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("spool", "drop", "--spool", spool) == 0
    assert capsys.readouterr().out.startswith("250 records of 1 ended processes would be gone; say --yes")
    assert say("spool", "drop", "--spool", spool, "--yes") == 0
    assert capsys.readouterr().out == "250 records dropped\n"
    assert say("spool", "drop", "--spool", spool) == 0
    assert capsys.readouterr().out == "ended processes left nothing\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ls",), "Say --spool FOLDER, or set TELLMETER_SPOOL"),
        (("ls", "--spool", "/nowhere/at/all"), "there is no such folder"),
        (("replay", "--spool", ".", "--to", "memory:"), "a sink in memory ends with this command"),
        (("replay", "--spool", ".", "--to", "what:"), "is unknown"),
        (("drop", "--spool", ".", "--sink", "x"), "nothing waits"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("TELLMETER_SPOOL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert say("spool", *arguments) in (1, 2)
    shown = capsys.readouterr().err
    assert told in shown and shown.count("\n") == 1
