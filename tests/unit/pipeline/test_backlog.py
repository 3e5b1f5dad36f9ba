from __future__ import annotations

import errno
import math
import threading
from typing import Any

import pytest

from tellmeter import AgentMetrics, StreamMetrics
from tellmeter.pipeline import backlog as module
from tellmeter.pipeline.backlog import Backlog, size_of
from tellmeter.pipeline.ledger import Ledger
from tellmeter.pipeline.spool.spool import Spool
from tests.support.fake_files import FakeDisk, FakeFiles


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Lane:
    def __init__(self, disk: FakeDisk | None = None, **options: Any) -> None:
        self.clock: Any = Clock()
        self.ledger = Ledger()
        self.files = None if disk is None else FakeFiles(disk)
        self.spool = None
        if self.files is not None:
            spool_max, segment = options.pop("spool_max", 100_000), options.pop("segment", 10_000)
            self.spool = Spool("/spool", "Sink", max_bytes=spool_max, segment_bytes=segment, files=self.files)
        self.number = 0
        given = {
            "batch_size": 4,
            "batch_seconds": 5.0,
            "max_records": 10,
            "max_bytes": 10**6,
            "when_full": "drop_newest",
        }
        self.backlog = Backlog(
            self.ledger,
            threading.Condition(threading.RLock()),
            self.clock,
            spool=self.spool,
            **{**given, **({"when_full": "spool"} if self.spool else {}), **options},
        )

    def put(self, number: int) -> bool:
        records = [AgentMetrics(model="m", id=f"r{self.number + index}") for index in range(number)]
        self.number += number
        return self.backlog.put(records)

    def take(self, most: int = 100) -> list[str]:
        """The ids of the next batch, which is delivered."""
        batch = self.backlog.take(most)
        if batch is None:
            return []
        self.ledger.finish(delivered=len(batch.records), dropped=0, reason="", adopted=batch.adopted)
        self.backlog.done(batch)
        assert self.stats.balanced
        return [record.id for record in batch.records]

    @property
    def stats(self) -> Any:
        return self.ledger.stats(failures={}, state="")


def ids(*numbers: int) -> list[str]:
    return [f"r{number}" for number in numbers]


# ---------------------------------------------------------------------- in memory


def test_batches_are_due_when_they_are_full_old_large_or_wanted() -> None:
    lane = Lane()
    assert lane.backlog.due(hurry=True) == math.inf
    assert lane.put(1) is True
    assert lane.backlog.due(hurry=False) == lane.clock.now + 5.0
    assert lane.backlog.due(hurry=True) == -math.inf
    assert lane.put(2) is False
    assert lane.put(1) is True
    assert lane.backlog.due(hurry=False) == -math.inf


def test_a_batch_is_due_when_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 2000)
    lane = Lane(batch_size=1000)
    lane.put(3)
    assert lane.backlog.due(hurry=False) == -math.inf
    assert len(lane.take()) == 2  # and no larger than that


@pytest.mark.parametrize(("when_full", "kept"), [("drop_newest", range(10)), ("drop_oldest", range(15, 25))])
def test_a_full_queue_drops_what_it_is_told_to(when_full: str, kept: range) -> None:
    lane = Lane(when_full=when_full)
    lane.put(5)
    lane.put(20)
    assert (lane.stats.accepted, lane.stats.queued, lane.stats.dropped) == (25, 10, {"lane_full": 15})
    assert lane.stats.balanced
    assert lane.take() == ids(*kept)


def test_a_record_that_is_larger_than_the_queue_drops_no_other() -> None:
    lane = Lane(when_full="drop_oldest", max_bytes=2000)
    lane.put(2)
    lane.backlog.put([AgentMetrics(model="m", tags={f"t{index}": "x" for index in range(20)})])
    assert lane.take() == ids(0, 1) and lane.stats.dropped == {"lane_full": 1}


def test_what_a_record_holds_grows_with_what_is_in_it() -> None:
    small = AgentMetrics(model="m")
    large = AgentMetrics(model="m" * 100, tags={"a": "b"}, stream=StreamMetrics())
    assert size_of(large) - size_of(small) == 99 + 160 + 500


# ---------------------------------------------------------------------- on disk


def test_records_go_to_disk_first_and_are_sent_from_there() -> None:
    lane = Lane(FakeDisk())
    lane.put(3)
    assert lane.take() == []  # nothing is sent that is not written
    assert lane.backlog.write_due(hurry=True) == -math.inf
    lane.backlog.write(False)
    assert lane.stats.queued == 3
    lane.clock.now += module.WRITE_SECONDS
    lane.backlog.write(False)
    assert (lane.stats.queued, lane.stats.spooled) == (0, 3)
    assert lane.take() == ids(0, 1, 2) and lane.stats.delivered == 3
    assert lane.backlog.due(hurry=True) == math.inf


def test_what_is_written_is_synced_a_fifth_of_a_second_later_or_at_once_in_a_hurry() -> None:
    disk = FakeDisk()
    lane = Lane(disk)
    lane.put(4)
    lane.backlog.write(False)
    assert disk.calls["sync"] == 0
    assert lane.backlog.write_due(hurry=False) == lane.clock.now + module.SYNC_SECONDS
    lane.clock.now += module.SYNC_SECONDS
    lane.backlog.write(False)
    assert disk.calls["sync"] == 1
    lane.put(1)
    lane.backlog.write(True)
    assert disk.calls["sync"] == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_while_the_disk_is_in_trouble_records_go_from_memory(code: int) -> None:
    disk = FakeDisk()
    lane = Lane(disk)
    lane.put(4)
    lane.backlog.write(True)
    disk.fails["write"] = code
    lane.put(4)
    lane.backlog.write(True)
    assert (lane.stats.queued, lane.stats.spooled) == (4, 4)
    assert lane.take() == ids(4, 5, 6, 7)
    assert lane.backlog.due(hurry=True) == lane.clock.now + module.TROUBLE_SECONDS
    disk.fails.clear()
    lane.clock.now += module.TROUBLE_SECONDS
    lane.put(1)
    lane.backlog.write(True)
    assert lane.take() == ids(0, 1, 2, 3, 8) and lane.stats.balanced


def test_what_could_not_be_written_keeps_its_place_in_the_queue() -> None:
    disk = FakeDisk()
    lane = Lane(disk)
    disk.room = 30
    lane.put(6)
    lane.backlog.write(True)
    assert lane.take() == ids(*range(6))


def test_a_frame_is_no_larger_than_a_segment() -> None:
    lane = Lane(FakeDisk(), spool_max=8000, batch_size=1000, max_records=1000)
    lane.put(20)
    lane.clock.now += module.WRITE_SECONDS
    lane.backlog.write(False)  # all of it, although each frame takes but two
    assert lane.stats.spooled == 20 and not lane.stats.dropped


@pytest.mark.parametrize(("when_full", "newest"), [("spool", True), ("drop_oldest", True), ("drop_newest", False)])
def test_a_full_spool_drops_what_it_is_told_to(when_full: str, newest: bool) -> None:
    lane = Lane(FakeDisk(), spool_max=2000, when_full=when_full)
    for _ in range(20):
        lane.put(4)
        lane.backlog.write(True)
    dropped = lane.stats.dropped["spool_full"]
    assert lane.stats.spooled == 80 - dropped > 0 and lane.stats.balanced
    assert lane.take() == ids(*(range(dropped, 80) if newest else range(80 - dropped)))


def test_what_earlier_processes_left_takes_turns_with_what_happens_now() -> None:
    disk = FakeDisk()
    before = Lane(disk)
    before.put(8)
    before.backlog.write(True)
    before.backlog.close(in_flight_on_disk=False)
    lane = Lane(disk)
    lane.number = 100
    lane.put(8)
    lane.backlog.write(True)
    assert (lane.stats.adopted, lane.stats.spooled) == (8, 16)
    assert lane.backlog.due(hurry=False) == -math.inf
    taken = [lane.take(4) for _ in range(4)]
    assert [batch[0] for batch in taken] == ["r0", "r100", "r4", "r104"]
    assert lane.stats.delivered == lane.stats.accepted == 16


def test_the_next_holding_is_looked_for_when_one_is_done_and_every_ten_seconds() -> None:
    disk = FakeDisk()
    for _ in range(2):
        before = Lane(disk)
        before.put(4)
        before.backlog.write(True)
        before.backlog.close(in_flight_on_disk=False)
    lane = Lane(disk)
    lane.backlog.write(False)
    assert lane.backlog.write_due(hurry=False) == lane.clock.now + module.ADOPT_SECONDS
    assert len(lane.take()) == 4
    assert lane.backlog.write_due(hurry=False) == -math.inf
    lane.backlog.write(False)
    assert len(lane.take()) == 4 and lane.stats.adopted == 8


def test_what_is_being_sent_when_a_lane_closes_is_called_spooled_and_there_for_the_next_process() -> None:
    disk = FakeDisk()
    lane = Lane(disk)
    lane.put(6)
    lane.backlog.write(True)
    assert lane.backlog.take(4) is not None
    lane.put(2)
    lane.backlog.close(in_flight_on_disk=True)
    assert (lane.stats.spooled, lane.stats.in_flight, lane.stats.queued) == (8, 0, 0)
    lane.backlog.clear()
    next_one = Lane(disk)
    next_one.backlog.write(False)
    assert next_one.stats.adopted == 8


def test_records_that_can_no_longer_be_read_are_counted_and_the_rest_is_sent() -> None:
    disk = FakeDisk()
    lane = Lane(disk, segment=400)
    assert lane.spool is not None
    lane.spool._max_copies = 0
    for _ in range(4):
        lane.put(4)
        lane.backlog.write(True)
    first = next(file for path, file in sorted(disk.files.items()) if path.endswith(".seg"))
    for at in range(8, len(first.data), 10):
        first.data[at] ^= 0x55
    taken = lane.take()
    assert lane.stats.dropped == {"spool_damaged": 16 - len(taken)} and 0 < len(taken) < 16
    assert lane.stats.balanced and not lane.stats.spooled
