"""The short form of tools/soak.py; `python tools/soak.py` runs for ten minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS, RATE = 20, 3000
GROWTH = 16 * 2**20  # bytes after the warm-up, where a leak of every record is about 30 MiB
TOOL = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.fixture(scope="module")
def soaked() -> Any:
    # In a process of its own: what other tests left in this one would be in the figures.
    command = [sys.executable, "-W", "error", str(TOOL), "--json", "--seconds", str(SECONDS), "--rate", str(RATE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    found["warm"] = [one for one in found["samples"] if one["seconds"] >= SECONDS / 2]
    assert len(found["warm"]) >= 2
    return found


pytestmark = [
    pytest.mark.fault(30),
    pytest.mark.heavy,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident size from /proc"),
]


def test_every_record_is_accounted_for_and_only_refused_ones_are_lost(soaked: Any) -> None:
    end = soaked["end"]
    assert soaked["sound"], end
    assert all(one["balanced"] for one in soaked["samples"])
    assert end["taken"] + sum(end["dropped"]["FlakySink"].values()) == end["recorded"]


def test_the_flaky_sink_was_down_and_refused_records(soaked: Any) -> None:
    assert max(one["waiting"] for one in soaked["samples"]) > 0
    assert soaked["end"]["dropped"]["FlakySink"]


def test_threads_and_descriptors_are_constant_after_the_warm_up(soaked: Any) -> None:
    assert len({one["threads"] for one in soaked["warm"]}) == 1
    descriptors = [one["descriptors"] for one in soaked["warm"]]
    # The spool's segments are opened and closed as they are read; a leak of one a batch would be hundreds.
    assert max(descriptors) - min(descriptors) <= 4, descriptors


def test_memory_does_not_grow_after_the_warm_up(soaked: Any) -> None:
    resident = [one["resident"] for one in soaked["warm"]]
    assert max(resident) - resident[0] < GROWTH, resident
