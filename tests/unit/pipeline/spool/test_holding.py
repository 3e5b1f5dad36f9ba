from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import AgentMetrics, counts
from tellmeter.pipeline.spool import frames
from tellmeter.pipeline.spool.acknowledged import Acknowledged
from tellmeter.pipeline.spool.files import Files
from tellmeter.pipeline.spool.holding import Holding, OwnHolding
from tests.support.fake_files import FakeDisk, FakeFiles

FOLDER = "/spool/1-0000000000000001"
ASIDE = "/spool/quarantine"
BATCHES = 6
EACH = 2


def batch(number: int) -> list[AgentMetrics]:
    return [AgentMetrics(model="m", id=f"r{number}-{index}") for index in range(EACH)]


def own(disk: FakeDisk, segment_bytes: int = 200) -> OwnHolding:
    files = FakeFiles(disk)
    files.make_folder("/spool")
    files.make_folder(FOLDER)
    lock = files.lock(f"{FOLDER}/lock", create=True)
    assert lock is not None
    return OwnHolding(FOLDER, lock, files, ASIDE, segment_bytes=segment_bytes)


def fill(holding: OwnHolding, first: int = 0, last: int = BATCHES) -> None:
    for number in range(first, last):
        holding.append(frames.encode(batch(number), holding.sequence), EACH)


def adopt(disk: FakeDisk) -> tuple[Holding, int]:
    files = FakeFiles(disk)
    lock = files.lock(f"{FOLDER}/lock", create=True)
    assert lock is not None
    holding = Holding(FOLDER, lock, files, ASIDE)
    return holding, holding.scan()


def ids(records: list[AgentMetrics]) -> list[str]:
    return [record.id for record in records]


def read_all(holding: Holding) -> list[str]:
    """What can be read, with everything acknowledged."""
    found = []
    while holding.next_frame() is not None:
        try:
            records, place = holding.read()
        except ValueError:
            holding.skip()
            continue
        found += ids(records)
        holding.acknowledge(place)
    return found


EVERYTHING = [one for number in range(BATCHES) for one in ids(batch(number))]


def segments(disk: FakeDisk) -> list[str]:
    return sorted(path for path in disk.files if path.endswith(".seg"))


def set_aside() -> int:
    return counts.total("spool_set_aside")


def test_what_is_written_is_read_in_order_from_several_segments() -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding)
    assert len(segments(disk)) > 2 and holding.unread == BATCHES * EACH
    assert holding.size == disk.size(FOLDER)
    assert read_all(holding) == EVERYTHING
    assert holding.is_done and len(segments(disk)) <= 1
    holding.close()
    assert not disk.files and FOLDER not in disk.folders


def test_the_next_process_gets_what_was_not_acknowledged() -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding)
    for _ in range(3):
        assert holding.next_frame()
        _, place = holding.read()
    holding.acknowledge(place)
    assert holding.next_frame()
    holding.read()  # in flight when the process ends
    holding._files.crash()  # type: ignore[attr-defined]
    next_one, lost = adopt(disk)
    assert lost == 0 and next_one.unread == (BATCHES - 3) * EACH
    assert read_all(next_one) == EVERYTHING[3 * EACH :]
    next_one.close()
    assert not disk.files


def test_an_older_acknowledgement_takes_nothing_back() -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding)
    places = []
    for _ in range(3):
        assert holding.next_frame()
        places.append(holding.read()[1])
    for place in reversed(places):
        holding.acknowledge(place)
    assert Acknowledged(f"{FOLDER}/ack", FakeFiles(disk)).load() == places[-1]


def test_the_oldest_segment_goes_first_and_never_the_one_that_is_written_to() -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=1)  # a segment a frame
    fill(holding)
    assert [holding.drop_oldest() for _ in range(BATCHES)] == [EACH] * (BATCHES - 1) + [None]
    assert read_all(holding) == EVERYTHING[-EACH:]


def test_what_is_being_delivered_stays_on_disk_when_room_is_made() -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=1)
    fill(holding)
    assert holding.next_frame()
    _, place = holding.read()
    assert [holding.drop_oldest() for _ in range(BATCHES)] == [EACH] * (BATCHES - 2) + [None] * 2
    holding._files.crash()  # type: ignore[attr-defined]
    next_one, lost = adopt(disk)
    assert read_all(next_one) == EVERYTHING[:EACH] + EVERYTHING[-EACH:]
    assert lost == 0  # what was dropped was counted by the process that dropped it
    assert place.segment == 1


def test_a_segment_that_is_read_and_delivered_makes_room_before_any_that_is_not() -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=1)
    fill(holding, 0, 1)
    assert read_all(holding) == EVERYTHING[:EACH]
    fill(holding, 1)
    assert holding.drop_oldest() == 0
    assert read_all(holding) == EVERYTHING[EACH:]


@given(st.integers(0, 10**6), st.integers(1, 255))
@pytest.mark.fault(11)
def test_a_flipped_byte_loses_what_it_is_in_and_counts_it(where: int, change: int) -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding)
    holding._files.crash()  # type: ignore[attr-defined]
    paths = segments(disk)
    path = paths[where % len(paths)]
    at = where // len(paths) % len(disk.files[path].data)
    before = set_aside()
    disk.files[path].data[at] ^= change
    next_one, lost = adopt(disk)
    found = read_all(next_one)
    assert [one for one in EVERYTHING if one in found] == found
    missing = len(EVERYTHING) - len(found)
    assert missing <= 3 * EACH  # a segment at most
    if path != paths[-1]:
        assert lost == missing  # told by the numbers of what follows; behind the last frame there is none
    assert set_aside() - before == (1 if at < 8 else 0)
    next_one.close()
    assert not [one for one in disk.files if not one.startswith(ASIDE)] and FOLDER not in disk.folders


@given(st.integers(0, 10**6))
def test_a_torn_tail_loses_the_frame_that_was_being_written(cut: int) -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=10**6)
    fill(holding)
    holding._files.crash()  # type: ignore[attr-defined]
    (path,) = segments(disk)
    data = disk.files[path].data
    del data[cut % (len(data) + 1) :]
    next_one, lost = adopt(disk)
    assert lost == 0
    found = read_all(next_one)
    assert found == EVERYTHING[: len(found)] and len(found) % EACH == 0
    next_one.close()
    assert not disk.files


def test_only_the_newest_three_damaged_files_are_kept() -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=1)
    fill(holding)
    holding._files.crash()  # type: ignore[attr-defined]
    for path in segments(disk)[:5]:
        disk.files[path].data[0] ^= 1
    next_one, lost = adopt(disk)
    assert lost == 5 * EACH and read_all(next_one) == EVERYTHING[-EACH:]
    next_one.close()
    assert sorted(disk.files) == [f"{ASIDE}/1-0000000000000001-{number:08}.seg" for number in (3, 4, 5)]


@pytest.mark.parametrize("operation", ["open", "read", "size", "names", "load"])
@pytest.mark.fault(10)
def test_a_disk_in_trouble_is_an_error_until_the_last_try(operation: str) -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding)
    assert holding.next_frame()
    holding.acknowledge(holding.read()[1])
    holding._files.crash()  # type: ignore[attr-defined]
    files = FakeFiles(disk)
    lock = files.lock(f"{FOLDER}/lock", create=True)
    assert lock is not None
    next_one = Holding(FOLDER, lock, files, ASIDE)
    disk.fails[operation] = errno.EMFILE
    with pytest.raises(OSError):
        next_one.scan(last_try=False)
    disk.fails.clear()
    before = set_aside()
    next_one = Holding(FOLDER, lock, files, ASIDE)
    assert next_one.scan(last_try=False) == 0 and read_all(next_one) == EVERYTHING[EACH:]
    assert set_aside() == before


def test_what_cannot_be_read_at_the_last_try_is_set_aside() -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=10**6)
    fill(holding)
    holding._files.crash()  # type: ignore[attr-defined]
    disk.fails["read"] = errno.EIO
    next_one, _ = adopt(disk)
    disk.fails.clear()
    assert next_one.is_done and segments(disk) == [f"{ASIDE}/1-0000000000000001-00000001.seg"]


@pytest.mark.parametrize("operation", ["write", "create", "sync"])
def test_what_could_not_be_written_is_written_whole_the_next_time(operation: str) -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding, 0, 2)
    disk.fails[operation] = errno.ENOSPC
    failed = 0
    for _ in range(3):
        try:
            fill(holding, 2, 3)
        except OSError:
            failed += 1
        else:
            break
    disk.fails.clear()
    if failed == 3:
        fill(holding, 2, 3)
    fill(holding, 3)
    assert failed
    assert read_all(holding) == EVERYTHING


@given(st.integers(0, 400), st.booleans())
def test_what_a_full_disk_took_of_a_frame_is_cut_off(room: int, cut_fails: bool) -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=10**6)
    written: list[str] = []
    disk.room = room
    if cut_fails:
        disk.fails["cut"] = errno.EIO
    for number in range(BATCHES):
        try:
            fill(holding, number, number + 1)
            written += ids(batch(number))
        except OSError:
            disk.room = None
            disk.fails.clear()
    if not cut_fails:
        assert holding.size == disk.size(FOLDER)
    holding._files.crash()  # type: ignore[attr-defined]
    next_one, lost = adopt(disk)
    assert lost == 0 and read_all(next_one) == written


def test_a_segment_that_cannot_be_removed_keeps_its_acknowledgement() -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding)
    assert read_all(holding) == EVERYTHING
    disk.fails["remove"] = errno.EROFS
    holding.close()
    disk.fails.clear()
    next_one, lost = adopt(disk)
    assert (next_one.unread, lost) == (0, 0)
    next_one.close()
    assert not disk.files


@pytest.mark.fault(9)
def test_sync_is_what_a_power_cut_leaves() -> None:
    disk = FakeDisk()
    holding = own(disk, segment_bytes=10**6)
    fill(holding, 0, 3)
    holding.sync()
    fill(holding, 3)
    holding._files.crash()  # type: ignore[attr-defined]
    disk.power_cut(0, lambda tail: tail // 2, zeros=True)
    next_one, lost = adopt(disk)
    found = read_all(next_one)
    assert lost == 0 and found[: 3 * EACH] == EVERYTHING[: 3 * EACH] and len(found) < len(EVERYTHING)


def test_a_segment_that_is_full_is_synced_before_the_next_one_begins() -> None:
    disk = FakeDisk()
    holding = own(disk)
    fill(holding)
    *full, _ = segments(disk)
    assert full and all(disk.files[path].durable == disk.files[path].data for path in full)


def test_a_real_holding_takes_a_link_for_damage_and_does_not_follow_it(tmp_path: Path) -> None:
    files = Files()
    folder = tmp_path / "1-0000000000000001"
    folder.mkdir(mode=0o700)
    (tmp_path / "target").write_bytes(frames.MAGIC + frames.encode(batch(0), 0))
    (folder / "00000001.seg").symlink_to(tmp_path / "target")
    (folder / "00000002.seg").write_bytes(b"somebody's file")
    lock = files.lock(str(folder / "lock"), create=True)
    assert lock is not None
    holding: Any = Holding(str(folder), lock, files, str(tmp_path / "quarantine"))
    assert holding.scan() == 0 and holding.unread == 0
    holding.close()
    assert not folder.exists() and (tmp_path / "target").exists()
    assert len(list((tmp_path / "quarantine").iterdir())) == 2
