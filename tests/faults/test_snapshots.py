"""Processes that are killed at any moment, while several others ask and add up at the same time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.shared.merging import Merged
from tellmeter.registry.shared.processes import Member

# Says after each write how much of what it counted is on file.
COUNTING = """
import sys
from tellmeter.registry.shared.processes import Member
from tellmeter.registry.registry import MetricsRegistry
registry = MetricsRegistry()
member = Member(registry, sys.argv[1])
total = 0
while True:
    registry.increment("c", 1, {"x": str(total % 7)})
    registry.observe("h", 0.1)
    total += 1
    member.write()
    print(total, flush=True)
"""
# Asks and adds up, until its input ends; says what it saw fall.
ASKING = """
import os, select, sys
from tellmeter.registry.shared.processes import Member
from tellmeter.registry.registry import MetricsRegistry
member = Member(MetricsRegistry(), sys.argv[1])
seen = {}
asked = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for metric in member.metrics():
        for series in metric.shown():
            value = series.read()
            key = metric.exposed, series.values
            value = value if isinstance(value, float) else value[1]
            if value < seen.get(key, 0): print("fell", key, seen[key], value, flush=True)
            seen[key] = value
    asked += 1
print("asked", asked, flush=True)
"""
KILLS = 60


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str], *, after: int) -> int:
    """Kill it when it has said so many words; how much it said to be on file."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(after)]
    process.kill()
    said += process.stdout.readlines()
    process.communicate()
    return int(said[-1])


def total(metrics: list[Merged]) -> float:
    return sum(series.read() for metric in metrics if metric.exposed == "c_total" for series in metric.shown())


@pytest.mark.heavy
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_whoever_is_killed_whenever_nothing_is_lost_and_nothing_falls(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    asking = [start(ASKING, folder) for _ in range(2)]
    counting = [start(COUNTING, folder) for _ in range(3)]
    written = 0
    try:
        for _ in range(KILLS):
            written += kill(counting.pop(0), after=random.randrange(1, 30))
            counting.append(start(COUNTING, folder))
        written += sum(kill(one, after=1) for one in counting)
        for one in asking:
            told = one.communicate("\n")[0].splitlines()
            assert told[-1].startswith("asked") and int(told[-1].split()[1]) > 10
            assert len(told) == 1, told
        found = total(Member(MetricsRegistry(), str(folder)).metrics())
        # Each may have been killed between its last write and the word of it.
        assert written <= found <= written + KILLS + len(counting)
        Member(MetricsRegistry(), str(folder)).fold()
        assert sorted(os.listdir(folder)) == ["dead.snap", "fold.lock"]
    finally:
        for one in (*asking, *counting):
            one.kill()
            one.communicate()
