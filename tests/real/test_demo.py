"""`tellmeter demo` as a user has it: the simulator, the real SDKs, the table."""

import json
import os
import pty
import re
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

TELLMETER = str(Path(sysconfig.get_path("scripts")) / "tellmeter")


@pytest.fixture
def environment(tmp_path):
    known = {name: value for name, value in os.environ.items() if not name.startswith("TELLMETER_")}
    return {**known, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "TMPDIR": str(tmp_path)}


def left_behind(folder):
    """Processes of a demo whose folder this was."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(f"TMPDIR={folder}") in environment.split(b"\0"):
            found.append((process / "cmdline").read_bytes())
    return found


@pytest.mark.sdk
def test_it_ends_by_itself_with_the_summary(environment, tmp_path):
    store = f"sqlite:///{tmp_path}/demo.db"
    run = subprocess.run(
        [TELLMETER, "demo", "--seconds", "6", "--store", store],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert re.search(r"^\d+ s: \d+ calls, ", run.stdout, re.MULTILINE)
    assert "\x1b" not in run.stdout
    assert [word in run.stdout for word in ("gpt-", "claude-", "total", "--run ")] == [True] * 4
    told = subprocess.run(
        [TELLMETER, "summary", "--store", store, "--by", "provider", "--json"],
        env=environment,
        capture_output=True,
        check=True,
    )
    found = json.loads(told.stdout)
    assert found["groups"].keys() >= {"openai", "anthropic"}
    assert f" {found['total']['count']} " in next(line for line in run.stdout.splitlines() if line.startswith(" total"))
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary(environment, tmp_path, ending):
    with subprocess.Popen([TELLMETER, "demo"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        while " 0 calls" in (line := process.stdout.readline()):
            pass
        assert " calls, " in line
        process.send_signal(ending)
        assert "total" in process.stdout.read()
        assert process.wait(30) == 0
    assert left_behind(tmp_path) == []
    assert [path.name for path in tmp_path.glob("tellmeter-*")] == []


def test_a_terminal_gets_a_live_table(environment, tmp_path):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(environment, TERM="xterm", COLUMNS="140", LINES="40")
        os.execv(TELLMETER, [TELLMETER, "demo"])
    seen, deadline, pressed = b"", time.monotonic() + 60, False
    while time.monotonic() < deadline:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # its end
            break
        if seen.count(b"Ctrl-C ends it") > 8 and b"gpt-" in seen and not pressed:
            pressed = True
            os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, seen[-2000:]
    final = seen[seen.rindex(b"tellmeter demo") :]
    assert b"Ctrl-C" not in final
    assert b"total" in final
    assert left_behind(tmp_path) == []
