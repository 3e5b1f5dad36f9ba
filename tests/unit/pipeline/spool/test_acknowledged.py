from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.pipeline.spool.acknowledged import BEGINNING, Acknowledged, Place
from tests.support.fake_files import FakeDisk, FakeFiles

FOLDER = "/spool"
PATH = f"{FOLDER}/ack"


@pytest.fixture
def disk() -> FakeDisk:
    disk = FakeDisk()
    disk.folders.add(FOLDER)
    return disk


def load(disk: FakeDisk) -> Place:
    return Acknowledged(PATH, FakeFiles(disk)).load()


def test_what_was_saved_last_is_what_the_next_process_finds(disk: FakeDisk) -> None:
    assert load(disk) == BEGINNING
    acknowledged = Acknowledged(PATH, FakeFiles(disk))
    for number in range(1, 8):
        acknowledged.save(Place(number, 10 * number, 100 * number))
        assert load(disk) == Place(number, 10 * number, 100 * number)
    acknowledged.close()
    acknowledged.save(Place(9, 9, 9))  # it opens the file anew
    assert load(disk) == Place(9, 9, 9)


def test_the_next_process_overwrites_the_older_slot(disk: FakeDisk) -> None:
    for number in (1, 2, 3):
        acknowledged = Acknowledged(PATH, FakeFiles(disk))
        acknowledged.load()
        acknowledged.save(Place(number, 0, 0))
        acknowledged.close()
    disk.files[PATH].data[24:28] = b"torn" if load(disk) == Place(3, 0, 0) else b""
    assert load(disk) in (Place(3, 0, 0), Place(2, 0, 0))


@given(st.binary(max_size=60), st.integers(0, 47))
def test_a_torn_write_leaves_one_of_the_last_two_places(garbage: bytes, at: int) -> None:
    disk = FakeDisk()
    disk.folders.add(FOLDER)
    acknowledged = Acknowledged(PATH, FakeFiles(disk))
    places = [Place(1, 10, 5), Place(1, 20, 9)]
    for place in places:
        acknowledged.save(place)
    data = disk.files[PATH].data
    slot = at // 24 * 24
    data[at : slot + 24] = garbage[: slot + 24 - at].ljust(slot + 24 - at, b"\0")
    assert load(disk) in places


@pytest.mark.parametrize("content", [b"", b"short", bytes(24), bytes(48), b"x" * 64])
def test_what_is_damaged_is_the_beginning(disk: FakeDisk, content: bytes) -> None:
    FakeFiles(disk).replace(FOLDER, "ack", content)
    assert load(disk) == BEGINNING


def test_a_disk_that_fails_is_no_error_when_saving_and_is_one_when_loading(disk: FakeDisk) -> None:
    acknowledged = Acknowledged(PATH, FakeFiles(disk))
    acknowledged.save(Place(1, 1, 1))
    disk.fails.update(put=errno.EIO, load=errno.EIO)
    acknowledged.save(Place(2, 2, 2))
    with pytest.raises(OSError):
        load(disk)
    disk.fails.clear()
    assert load(disk) == Place(1, 1, 1)
    acknowledged.save(Place(3, 3, 3))
    assert load(disk) == Place(3, 3, 3)
