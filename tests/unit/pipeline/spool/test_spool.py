from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tellmeter import AgentMetrics, ConfigError
from tellmeter.pipeline.spool import frames
from tellmeter.pipeline.spool import spool as module
from tellmeter.pipeline.spool.files import Files
from tellmeter.pipeline.spool.spool import Adopted, Read, Spool, folder_name
from tests.support.fake_files import FakeDisk, FakeFiles

SIZE = 100
NOTHING = Adopted(0, 0, 0)


def make(root: Path | str, destination: str = "here", **options: Any) -> Spool:
    return Spool(str(root), "Sink", destination, **{"max_bytes": 100_000, "segment_bytes": 300, **options})


def batch(first: int, number: int = 2) -> list[AgentMetrics]:
    return [AgentMetrics(model="m", id=f"r{index:04}") for index in range(first, first + number)]


def fill(spool: Spool, number: int, first: int = 0) -> list[str]:
    for index in range(first, first + number):
        assert spool.append(batch(2 * index), SIZE) == (0, 0)
    return [f"r{index:04}" for index in range(2 * first, 2 * (first + number))]


def drain(spool: Spool, *, adopted: bool = False, acknowledge: bool = True) -> list[str]:
    ids: list[str] = []
    while True:
        read, damaged = spool.read_adopted() if adopted else spool.read()
        if read is None and not damaged:
            return ids
        if read is not None:
            ids += [record.id for record in read.records]
            if acknowledge:
                spool.acknowledge(read)


def drain_left(spool: Spool) -> list[str]:
    ids: list[str] = []
    while spool.adopt().waiting:
        ids += drain(spool, adopted=True)
    return ids


def processes(spool: Spool) -> list[str]:
    return [name for name in os.listdir(spool.path) if module.PROCESS_NAME.fullmatch(name)]


# ---------------------------------------------------------------------- reading and writing


@pytest.mark.parametrize("copies", [0, 5, 1000])
def test_what_is_written_is_read_in_order_from_memory_or_disk(tmp_path: Path, copies: int) -> None:
    spool = make(tmp_path, copies=copies)
    expected = fill(spool, 20)
    assert drain(spool) == expected
    assert spool.read() == (None, 0)
    spool.close()
    assert os.listdir(spool.path) == ["destination"]


def test_segments_rotate_and_go_when_they_are_delivered(tmp_path: Path) -> None:
    spool = make(tmp_path)
    fill(spool, 20)
    (name,) = processes(spool)
    there = sorted(Path(spool.path, name).glob("*.seg"))
    assert len(there) > 3 and all(path.stat().st_size <= 300 for path in there)
    for left in range(20, 0, -5):
        for _ in range(5):
            read, _ = spool.read()
            assert read is not None
            spool.acknowledge(read)
        assert len(list(Path(spool.path, name).glob("*.seg"))) <= (left - 5) // 2 + 2
    spool.close()


def test_a_spool_that_is_not_used_makes_nothing(tmp_path: Path) -> None:
    spool = make(tmp_path / "spool")
    assert (spool.adopt(), spool.read(), spool.read_adopted(), spool.left()) == (NOTHING, (None, 0), (None, 0), [])
    spool.sync()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_spool_drops_its_oldest_and_says_how_many(tmp_path: Path) -> None:
    spool = make(tmp_path, max_bytes=1000)
    lost = 0
    for index in range(50):
        dropped, refused = spool.append(batch(2 * index), SIZE)
        lost += dropped
        assert refused == 0
        assert sum(path.stat().st_size for path in Path(spool.path).glob("*/*.seg")) <= 1000
    ids = drain(spool)
    assert len(ids) == 100 - lost and ids == [f"r{index:04}" for index in range(lost, 100)]
    spool.close()


def test_a_full_spool_that_keeps_its_oldest_refuses_and_says_how_many(tmp_path: Path) -> None:
    spool = make(tmp_path, max_bytes=1000)
    refused = sum(spool.append(batch(2 * index), SIZE, drop_oldest=False)[1] for index in range(50))
    ids = drain(spool)
    assert len(ids) == 100 - refused > 0 and ids == [f"r{index:04}" for index in range(len(ids))]
    spool.close()


def test_records_that_are_larger_than_they_look_do_not_break_the_bound(tmp_path: Path) -> None:
    spool = make(tmp_path, max_bytes=4000)
    fill(spool, 3)
    large = [AgentMetrics(model="m", tags={f"tag{index}": "\N{SNOWMAN}" * 200 for index in range(10)})]
    assert spool.append(large, SIZE) == (0, 1)  # nothing is dropped for what has no room anyway
    assert len(drain(spool)) == 6
    spool.close()


def test_modes_and_content(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        spool = make(tmp_path / "a" / "spool", destination="postgresql://host/db")
        fill(spool, 3)
        read, _ = spool.read()
        assert read is not None
        spool.acknowledge(read)
    finally:
        os.umask(before)
    for path in (tmp_path / "a").rglob("*"):
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    (segment,) = Path(spool.path).glob("*/00000001.seg")
    data = segment.read_bytes()
    frame = frames.find(lambda number, at: data[at : at + number], 8, len(data))
    assert frame is not None
    # Records and nothing else: what is in a file is what AgentMetrics has fields for, and it has none for a prompt.
    assert {key for one in msgspec.msgpack.decode(frame.payload) for key in one} <= set(AgentMetrics.__struct_fields__)
    assert Path(spool.path, "destination").read_text("utf-8") == "postgresql://host/db"
    spool.close()


# ---------------------------------------------------------------------- what ended processes left


CHILD = """
import sys
from tellmeter import AgentMetrics
from tellmeter.pipeline.spool.spool import Spool
spool = Spool(sys.argv[1], "Sink", "here", max_bytes=100_000, segment_bytes=300)
for index in range(10):
    spool.append([AgentMetrics(model="m", id=f"r{index}")], 100)
print(flush=True)
sys.stdin.read()
"""


def test_a_living_process_keeps_its_own_and_a_killed_ones_is_taken_over(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None and child.stdout.readline()
        spool = make(tmp_path)
        assert len(spool.left()) == 1 and spool.adopt() == NOTHING and spool.drop_left() == 0
    finally:
        child.kill()
        child.communicate()
    assert spool.adopt() == Adopted(10, 0, 0)
    assert drain(spool, adopted=True) == [f"r{index}" for index in range(10)]
    assert spool.left() == [] and processes(spool) == []
    spool.close()


def test_one_of_two_gets_it(tmp_path: Path) -> None:
    for _ in range(20):
        left = make(tmp_path)
        fill(left, 3)
        left.close()
        both = [make(tmp_path), make(tmp_path)]
        start = threading.Barrier(2)
        found: list[int] = []

        def race(spool: Spool, start: threading.Barrier = start, found: list[int] = found) -> None:
            start.wait(10)
            found.append(spool.adopt().waiting)

        threads = [threading.Thread(target=race, args=(spool,)) for spool in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(found) == [0, 6]
        assert sum(len(drain(spool, adopted=True)) for spool in both) == 6
        for spool in both:
            spool.close()


def test_what_is_oldest_comes_first_one_holding_at_a_time(tmp_path: Path) -> None:
    expected: list[str] = []
    for number in (2, 0, 1):
        left = make(tmp_path)
        before = set(processes(left)) if expected else set()
        expected += fill(left, 1, first=number)
        left.close()
        (newest,) = set(processes(left)) - before
        for path in Path(left.path, newest).iterdir():
            os.utime(path, (1000 + number, 1000 + number))
    spool = make(tmp_path)
    assert spool.adopt().waiting == 2
    assert spool.adopt() == NOTHING  # while it has one
    assert drain(spool, adopted=True) + drain_left(spool) == sorted(expected)
    spool.close()


def test_too_much_that_was_left_is_dropped_the_oldest_first_and_counted(tmp_path: Path) -> None:
    for number in range(4):
        left = make(tmp_path)
        fill(left, 10, first=10 * number)
        left.close()
    sizes = [sum(path.stat().st_size for path in Path(left.path, name).iterdir()) for name in processes(left)]
    spool = make(tmp_path, max_bytes=int(2.5 * max(sizes)))
    first = spool.adopt()
    assert (first.waiting, first.over) == (20, 40)
    drain(spool, adopted=True)
    assert spool.adopt() == Adopted(20, 0, 0)
    drain(spool, adopted=True)
    assert spool.adopt() == NOTHING and processes(spool) == []
    spool.close()


def test_what_living_processes_have_does_not_count_as_left(tmp_path: Path) -> None:
    living, left = make(tmp_path), make(tmp_path)
    fill(living, 40)
    expected = fill(left, 2)
    left.close()
    spool = make(tmp_path, max_bytes=1000)
    assert spool.adopt() == Adopted(4, 0, 0)
    assert drain(spool, adopted=True) == expected
    spool.close()
    living.close()


def test_two_lanes_to_one_place_in_one_process_keep_apart(tmp_path: Path) -> None:
    one, other = make(tmp_path), make(tmp_path)
    mine, theirs = fill(one, 3), fill(other, 3, first=3)
    assert one.adopt() == other.adopt() == NOTHING
    assert (drain(one), drain(other)) == (mine, theirs)
    one.close()
    other.close()


def test_other_destinations_are_other_folders(tmp_path: Path) -> None:
    left = make(tmp_path, destination="there")
    fill(left, 3)
    left.close()
    spool = make(tmp_path)
    assert spool.adopt() == NOTHING
    assert re.fullmatch(r"Sink-[0-9a-f]{12}", folder_name("Sink", "here"))
    assert folder_name("Sink", "here") != folder_name("Sink", "there")
    assert folder_name("../..", "") == ".._.." and "/" not in folder_name("a/b", "x")
    spool.close()


def test_what_is_damaged_is_set_aside_and_its_folder_goes(tmp_path: Path) -> None:
    left = make(tmp_path)
    expected = fill(left, 10)
    left.close()
    (name,) = processes(left)
    segments = sorted(Path(left.path, name).glob("*.seg"))
    segments[0].write_bytes(b"somebody else's")
    (Path(left.path, name) / "99999999.seg").write_bytes(b"also somebody else's")
    spool = make(tmp_path)
    found = spool.adopt()
    ids = drain(spool, adopted=True)
    assert ids == expected[-len(ids) :] and found.waiting == len(ids) and found.damaged == 20 - len(ids) > 0
    assert processes(spool) == [] and len(list(Path(spool.path, module.QUARANTINE).iterdir())) == 2
    spool.close()


def test_a_holding_whose_last_records_cannot_be_read_does_not_block_the_others(tmp_path: Path) -> None:
    for number in range(2):
        left = make(tmp_path, segment_bytes=10_000)
        fill(left, 3, first=3 * number)
        left.close()
    spool = make(tmp_path)
    assert spool.adopt().waiting == 6
    assert spool._adopted is not None
    segment = Path(spool._adopted.path, "00000001.seg")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1  # between the look at it and the reading
    segment.write_bytes(data)
    assert len(drain(spool, adopted=True)) == 4
    assert spool.adopt().waiting == 6
    assert len(drain(spool, adopted=True)) == 6
    spool.close()
    assert processes(spool) == []


def test_damage_that_is_found_before_trouble_is_told_all_the_same() -> None:
    disk = FakeDisk()
    spool = make("/spool", copies=0, files=FakeFiles(disk))
    fill(spool, 10)
    first = next(file for path, file in sorted(disk.files.items()) if path.endswith("00000001.seg"))
    first.data[20] ^= 1
    first.data[120] ^= 1
    first.data[200] ^= 1
    told = 0
    for _ in range(5):
        read, damaged = spool.read()
        told += damaged
        if read is None:
            break
        told += len(read.records)
    disk.fails["open"] = errno.EIO
    with pytest.raises(OSError):
        while True:
            read, damaged = spool.read()
            told += damaged + (0 if read is None else len(read.records))
    disk.fails.clear()
    assert told + len(drain(spool)) == 20


# ---------------------------------------------------------------------- what must not be touched, and locks


@pytest.mark.security(10)
def test_a_folder_that_is_a_link_is_neither_written_to_nor_taken_over(tmp_path: Path) -> None:
    planted = make(tmp_path / "elsewhere")
    fill(planted, 3)
    planted.close()
    (tmp_path / "spool").mkdir()
    spool = make(tmp_path / "spool")
    Path(spool.path).symlink_to(planted.path)
    with pytest.raises(PermissionError):
        spool.append(batch(0), SIZE)
    assert spool.adopt() == NOTHING and spool.drop_left() == 0
    assert len(processes(planted)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_somebody_elses_folder_is_neither_written_to_nor_taken_over(tmp_path: Path) -> None:
    planted = make(tmp_path)
    fill(planted, 3)
    planted.close()
    os.chown(planted.path, 65534, 65534)
    spool = make(tmp_path)
    with pytest.raises(PermissionError):
        spool.append(batch(0), SIZE)
    assert spool.adopt() == NOTHING and len(processes(planted)) == 1


def test_without_locks_there_is_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAN_LOCK", False)
    with pytest.raises(ConfigError, match="file locks"):
        make(tmp_path)


def test_a_file_system_without_locks_is_trouble_that_leaves_nothing_behind() -> None:
    disk = FakeDisk()
    spool = make("/spool", files=FakeFiles(disk))
    disk.fails["lock"] = errno.ENOLCK
    for _ in range(3):
        with pytest.raises(OSError):
            spool.append(batch(0), SIZE)
    assert disk.folders == {spool.path}
    disk.fails.clear()
    assert spool.append(batch(0), SIZE) == (0, 0)


def test_a_lock_that_others_always_have_is_trouble_and_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FakeDisk()
    files = FakeFiles(disk)
    spool = make("/spool", files=files)
    monkeypatch.setattr(files, "lock", lambda path, create: None)
    with pytest.raises(OSError):
        spool.append(batch(0), SIZE)


def test_a_disk_that_is_in_trouble_for_a_while_costs_no_left_record() -> None:
    disk = FakeDisk()
    left = make("/spool", files=FakeFiles(disk))
    expected = fill(left, 5)
    left.close()
    files = FakeFiles(disk)
    spool = make("/spool", files=files)
    disk.fails["open"] = errno.EMFILE
    for _ in range(10):
        assert spool.adopt() == NOTHING
    disk.fails.clear()
    assert drain_left(spool) == expected
    assert not files.open_files


FORK = """
import os, sys
from tellmeter import AgentMetrics
from tellmeter.pipeline.spool.spool import Spool

def make():
    return Spool(sys.argv[1], "Sink", "here", max_bytes=100_000)

spool = make()
spool.append([AgentMetrics(model="m", id="r0")], 100)
pid = os.fork()
if not pid:
    code = 1
    try:
        spool.after_fork()
        code = 0 if spool.read() == (None, 0) and not make().adopt().waiting else 2
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
assert not make().adopt().waiting
assert [record.id for record in spool.read()[0].records] == ["r0"]
"""


def test_a_forked_child_leaves_the_parents_records_and_locks_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_answer_that_comes_after_the_end_is_ignored(tmp_path: Path) -> None:
    spool = make(tmp_path)
    fill(spool, 2)
    read, _ = spool.read()
    assert isinstance(read, Read)
    spool.close()
    spool.acknowledge(read)
    next_one = make(tmp_path)
    assert next_one.adopt().waiting == 4
    assert next_one.drop_left() == 0
    next_one.close()
    last = make(tmp_path)
    assert last.drop_left() == 4 and processes(last) == []


def test_the_files_are_the_real_ones_unless_given(tmp_path: Path) -> None:
    assert type(make(tmp_path)._files) is Files
