"""The ends of a process: what was recorded is delivered, or its loss is told."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

CALLS = 100
ENDINGS = {
    "return": ("", 0),
    "exception": ("raise ValueError", 1),
    "sys.exit": ("sys.exit(3)", 3),
    "exit in a thread, then return": ("t = threading.Thread(target=sys.exit); t.start(); t.join()", 0),
    "daemon thread running": ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", 0),
    "asyncio.run": ("asyncio.run(asyncio.sleep(0))", 0),
}
PROGRAM = """
import asyncio, os, signal, sys, threading, time
import tellmeter
for number in range({calls}):
    with tellmeter.meter_call(model="gpt-4o", provider="openai") as call:
        call.output_tokens = number
{ending}
"""


def run(code: str, store: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "TELLMETER_SINKS": f"sqlite:///{store}", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def rows(store: Path) -> list[Any]:
    return sqlite3.connect(store).execute("select status from llm_metrics").fetchall()


@pytest.mark.fault(14)
def test_ctrl_c_kills_as_ever_although_prices_are_loaded_at_the_end(tmp_path: Path) -> None:
    done = run(PROGRAM.format(calls=CALLS, ending="raise KeyboardInterrupt"), tmp_path / "calls.db")
    assert done.returncode == -signal.SIGINT
    assert len(rows(tmp_path / "calls.db")) == CALLS


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.fault(14)
def test_nothing_is_lost_by(ending: str, tmp_path: Path) -> None:
    code, expected = ENDINGS[ending]
    done = run(PROGRAM.format(calls=CALLS, ending=code), tmp_path / "calls.db")
    assert done.returncode == expected, done.stderr
    assert len(rows(tmp_path / "calls.db")) == CALLS
    assert "not delivered" not in done.stderr


@pytest.mark.fault(14)
def test_calls_still_open_at_the_end_have_their_record(tmp_path: Path) -> None:
    run(
        "import tellmeter; call = tellmeter.meter_call(model='m', method='stream'); call.__enter__()",
        tmp_path / "calls.db",
    )
    assert rows(tmp_path / "calls.db") == [("abandoned",)]


@pytest.mark.fault(14)
def test_a_sink_that_hangs_delays_the_end_by_two_seconds_at_most_and_the_loss_is_told(tmp_path: Path) -> None:
    done = run(
        """
        import time, tellmeter
        class Hanging:
            def send(self, batch, deadline):
                time.sleep(60)
        tellmeter.configure(tellmeter.MetricsConfig(exit_timeout_seconds=1, enable_cost_tracking=False), sinks=[Hanging()])
        for _ in range(7):
            with tellmeter.meter_call(model="m"): pass
        """,
        tmp_path / "calls.db",
    )
    assert done.returncode == 0
    assert done.stderr.strip().splitlines() == ["7 records were not delivered (7 shutdown)"]


@pytest.mark.fault(14)
def test_os_exit_in_a_child_is_the_programs_own_choice_and_breaks_nothing(tmp_path: Path) -> None:
    done = run(
        PROGRAM.format(calls=3, ending="tellmeter.get_metrics_collector().flush_sync(); os._exit(4)"), tmp_path / "c.db"
    )
    assert done.returncode == 4
    assert len(rows(tmp_path / "c.db")) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.fault(14)
def test_a_store_stays_readable_after_a_killing_signal(tmp_path: Path, number: signal.Signals) -> None:
    done = run(PROGRAM.format(calls=50, ending=f"os.kill(os.getpid(), {int(number)})"), tmp_path / "calls.db")
    assert done.returncode == -number
    if (tmp_path / "calls.db").exists():
        sqlite3.connect(tmp_path / "calls.db").execute("pragma integrity_check").fetchall()
