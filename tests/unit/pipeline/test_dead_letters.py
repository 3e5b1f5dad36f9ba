from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec
import pytest

from tellmeter import AgentMetrics, MetricsConfig, Rejected, counts
from tellmeter.pipeline import dead_letters
from tellmeter.pipeline.dead_letters import DeadLetters
from tellmeter.pipeline.thread_lane import ThreadLane
from tests.support.fake_files import FakeDisk, FakeFiles


def records(number: int) -> list[AgentMetrics]:
    return [AgentMetrics(model=f"m{index}", tags={"feature": '\N{SNOWMAN} \\ "\n'}) for index in range(number)]


def lost(sink: str) -> int:
    return counts.snapshot().get("dead_letters_lost", {}).get(sink, 0)


def lines(data: bytes) -> list[dict[str, object]]:
    assert data.endswith(b"\n")
    return [msgspec.json.decode(line) for line in data.splitlines()]


def test_what_is_kept_says_who_refused_what_and_why(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "on the way"
    letters = DeadLetters(str(folder), "PostgreSQLMetricsSink")
    kept = records(3)
    letters.write(kept[:2], "schema")
    letters.write(kept[2:], "too_large")
    letters.close()
    letters.close()
    (file,) = folder.iterdir()
    assert file.name.startswith(f"PostgreSQLMetricsSink-{os.getpid()}-") and file.suffix == ".jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, folder.parent)] == [0o700, 0o700]
    found = lines(file.read_bytes())
    assert [one["reason"] for one in found] == ["schema", "schema", "too_large"]
    assert {one["sink"] for one in found} == {"PostgreSQLMetricsSink"}
    assert [msgspec.convert(one["record"], AgentMetrics) for one in found] == kept


def test_nothing_is_made_until_something_is_refused(tmp_path: Path) -> None:
    DeadLetters(str(tmp_path / "folder"), "Sink").close()
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_bound_is_counted_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_BYTES", 1000)
    letters = DeadLetters(str(tmp_path), "Bounded")
    for _ in range(50):
        letters.write(records(1), "schema")
    letters.close()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size <= 1000
    assert len(lines(file.read_bytes())) + lost("Bounded") == 50 and lost("Bounded") > 0


@pytest.mark.parametrize("stubborn", [False, True], ids=["cut", "not even cut"])
def test_on_a_full_disk_whole_lines_stay_and_the_rest_is_counted(stubborn: bool) -> None:
    disk = FakeDisk()
    name = f"Full{stubborn}"
    letters = DeadLetters("/dead", name, FakeFiles(disk))
    letters.write(records(2), "schema")
    disk.room = 100
    if stubborn:
        disk.fails["cut"] = errno.EIO
    letters.write(records(3), "schema")
    assert lost(name) == 3
    disk.room = None
    disk.fails.clear()
    letters.write(records(1), "schema")
    letters.close()
    (file,) = disk.files.values()
    if stubborn:
        assert lost(name) == 4
    else:
        assert len(lines(bytes(file.data))) == 3


def test_a_folder_that_is_not_ours_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    letters = DeadLetters(str(tmp_path / "link"), "Linked")
    letters.write(records(2), "schema")
    assert list((tmp_path / "elsewhere").iterdir()) == [] and lost("Linked") == 2


def test_a_lane_keeps_what_its_sink_refused(tmp_path: Path) -> None:
    class Refusing:
        def send(self, batch: list[AgentMetrics], deadline: float) -> Rejected:
            return Rejected("not valid")

    lane = ThreadLane("Refusing", Refusing(), MetricsConfig(dead_letters=tmp_path))
    given = records(2)
    lane.put(given)
    lane.close(float("inf"))
    (file,) = tmp_path.iterdir()
    found = lines(file.read_bytes())
    assert [msgspec.convert(one["record"], AgentMetrics) for one in found] == given
    assert {one["reason"] for one in found} == {"not_valid"}
