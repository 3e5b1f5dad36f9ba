"""Queue, sender and spool against a model, on a disk that fails and forgets, through crashes and power cuts.

Nothing here has threads: the parts of a lane know none. What the machine believes is checked after every step, and at
its end everything that must have survived is delivered by a last process.
"""

from __future__ import annotations

import errno
import math
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tellmeter import AgentMetrics, Delivered, Partial, Rejected, RetryLater, TooLarge
from tellmeter.pipeline.backlog import Backlog
from tellmeter.pipeline.ledger import Ledger
from tellmeter.pipeline.sender import Sender
from tellmeter.pipeline.spool import spool
from tellmeter.pipeline.spool.spool import Spool
from tests.support.fake_files import FakeDisk, FakeFiles


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        raise AssertionError("nothing here waits")


class Sink:
    """Answers what the machine drew; keeps what it took and what it refused."""

    def __init__(self) -> None:
        self.answer: Any = Delivered()
        self.taken: list[str] = []
        self.refused: list[str] = []

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Any:
        ids = [record.id for record in batch]
        answer = self.answer
        if isinstance(answer, BaseException):
            raise answer
        match answer:
            case _ if answer in MALFORMED:
                self.refused += ids
            case Delivered():
                self.taken += ids
            case Rejected() | None:
                self.refused += ids
            case TooLarge() if len(ids) == 1:
                self.refused += ids
            case Partial(retry=retry, rejected=rejected):
                lost = set(rejected) - set(retry)
                self.refused += [one for index, one in enumerate(ids) if index in lost]
                self.taken += [one for index, one in enumerate(ids) if index not in lost | set(retry)]
        return answer


class Process:
    """What one process has: a backlog, a sender and a sink, over its own view of the disk."""

    def __init__(self, disk: FakeDisk, clock: Clock, limits: dict[str, Any]) -> None:
        self.limits = limits
        self.files = FakeFiles(disk)
        self.ledger = Ledger()
        self.lock = threading.Condition(threading.RLock())
        self.spool = None
        if limits["with_spool"]:
            self.spool = Spool(
                "/spool",
                "Sink",
                "somewhere",
                max_bytes=limits["spool_max"],
                copies=limits["copies"],
                segment_bytes=limits["segment"],
                files=self.files,
            )
        self.backlog = Backlog(
            self.ledger,
            self.lock,
            clock,
            batch_size=limits["batch"],
            batch_seconds=5.0,
            max_records=limits["queue"],
            max_bytes=10_000_000,
            when_full=limits["when_full"],
            spool=self.spool,
        )
        self.sink = Sink()
        self.sender = Sender(
            "sink",
            self.sink,
            self.backlog,
            self.ledger,
            self.lock,
            clock,
            batch_size=limits["batch"],
            at_work=threading.RLock(),
        )
        self.put: list[str] = []
        self.goals: list[tuple[tuple[int, int], set[str]]] = []  # of flushes, and what each waits for
        self.faults = disk.faults  # how many the disk had seen when the process began

    @property
    def folder(self) -> str | None:
        own = None if self.spool is None else self.spool._own
        return None if own is None else own.path

    @property
    def batch(self) -> list[str]:
        batch = self.sender._batch
        return [] if batch is None or not batch.reads else [record.id for record in batch.records]


def on_disk(disk: FakeDisk, folder: str) -> list[str]:
    """The ids in whole frames of a process's folder that are not acknowledged, read without the code under test."""
    ack = disk.files.get(f"{folder}/ack")
    segment, offset = 0, 0
    for slot in (ack.data[:24], ack.data[24:48]) if ack is not None else ():
        if len(slot) == 24 and zlib.crc32(slot[:20]) == int.from_bytes(slot[20:], "big"):
            segment, offset = max((segment, offset), struct.unpack(">IQQ", slot[:20])[:2])
    found = []
    for path in sorted(disk.files):
        if not path.startswith(f"{folder}/") or not path.endswith(".seg"):
            continue
        number, data, at = int(path[-12:-4]), bytes(disk.files[path].data), 8
        while number >= segment and at + 20 <= len(data):
            length, crc = struct.unpack(">II", data[at : at + 8])
            end = at + 20 + length
            if end > len(data) or zlib.crc32(data[at + 8 : end]) != crc:
                break
            if number > segment or at >= offset:
                found += [record["id"] for record in msgspec.msgpack.decode(data[at + 20 : end])]
            at = end
    return found


MALFORMED: list[Any] = [
    Partial(retry=None),
    Partial(retry=([],)),
    RetryLater(after="soon"),
    RetryLater(after=10**400),
    Rejected(reason=None),
    "delivered",
    Delivered,
]
OUTCOMES = st.one_of(
    st.just(Delivered()),
    st.just(Delivered()),
    st.builds(RetryLater, after=st.sampled_from([None, 2.0, 60.0, 1e9, math.nan, math.inf, -5.0])),
    st.just(Rejected("schema")),
    st.just(TooLarge()),
    st.builds(
        Partial,
        retry=st.lists(st.integers(-1, 3), max_size=3).map(tuple),
        rejected=st.lists(st.integers(-1, 3), max_size=3).map(tuple),
    ),
    st.just(OSError("down")),
    st.none(),
    st.sampled_from(MALFORMED),
)
OPERATIONS = ["make_folder", "names", "create", "open", "write", "read", "size", "cut", "sync", "replace", "load"]
OPERATIONS += ["open_slots", "put"]
OPERATIONS += ["move", "remove", "remove_folder", "lock", "is_locked", "weigh", "is_ours"]


class Delivery(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.disk = FakeDisk()
        self.clock = Clock()
        self.processes: list[Process] = []
        self.ended: list[Process] = []
        self.number = 0
        self.everything: set[str] = set()
        self.must: set[str] = set()  # what ended processes left on disk
        self.again: set[str] = set()  # what may come a second time: it was delivered, and on disk still
        self.twice: Counter[str] = Counter()
        self.names = 0
        self.patch = patch.object(spool, "new_name", self.new_name)
        self.patch.start()

    def new_name(self) -> str:
        """Names as processes have them, the same in every run of an example."""
        self.names += 1
        return f"{self.names % 7}-{self.names * 0x9E3779B97F4A7C15 % 2**64:016x}"

    @initialize(
        queue=st.integers(3, 8),
        batch=st.integers(1, 3),
        segment=st.sampled_from([256, 512, 1024]),
        spool_max=st.sampled_from([1500, 4000, 1_000_000]),
        copies=st.sampled_from([0, 2, 1000]),
        when_full=st.sampled_from(["spool", "drop_newest", "drop_oldest"]),
        with_spool=st.sampled_from([True, True, True, False]),
        faults=st.booleans(),
    )
    def begin(self, **limits: Any) -> None:
        self.limits = limits
        self.processes.append(Process(self.disk, self.clock, limits))

    # ------------------------------------------------------------------ what a lane's threads do

    def pick(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    @rule(which=st.integers(0, 2), number=st.integers(1, 6), large=st.booleans())
    def put(self, which: int, number: int, large: bool) -> None:
        process = self.pick(which)
        records = []
        for _ in range(number):
            self.number += 1
            tags = {"tag": "\N{SNOWMAN}" * 200} if large else {}
            records.append(AgentMetrics(model="m", id=f"r{self.number:06}", tags=tags))
        process.put += [record.id for record in records]
        self.everything |= set(process.put)
        with process.lock:
            process.backlog.put(records)

    @rule(which=st.integers(0, 2), hurry=st.booleans())
    def write(self, which: int, hurry: bool) -> None:
        self._write(self.pick(which), hurry=hurry)

    @rule(which=st.integers(0, 2), hurry=st.booleans(), outcome=OUTCOMES)
    def send(self, which: int, hurry: bool, outcome: Any) -> None:
        self._send(self.pick(which), hurry=hurry, outcome=outcome)

    @rule(which=st.integers(0, 2))
    def flush(self, which: int) -> None:
        process = self.pick(which)
        process.goals.append((process.ledger.goal(), set(process.put)))

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 6.0, 40.0, 700.0]))
    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.disk.time += seconds

    def _write(self, process: Process, *, hurry: bool) -> None:
        if process.backlog.write_due(hurry=hurry) <= self.clock.now:
            process.backlog.write(hurry)

    def _send(self, process: Process, *, hurry: bool, outcome: Any) -> None:
        if process.sender.due(hurry=hurry) > self.clock.now:
            return
        process.sink.answer = outcome
        before = len(process.sink.taken)
        process.sender.step()
        for one in process.sink.taken[before:]:
            assert one in self.everything
            self.twice[one] += 1
            assert self.twice[one] == 1 or one in self.again, f"{one} is delivered twice"
            self.again.discard(one)

    # ------------------------------------------------------------------ what goes wrong

    @precondition(lambda self: self.limits["faults"])
    @rule(operation=st.sampled_from(OPERATIONS), code=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS]))
    def break_disk(self, operation: str, code: int) -> None:
        self.disk.fails[operation] = code

    @precondition(lambda self: self.limits["faults"])
    @rule(room=st.integers(0, 600))
    def fill_disk(self, room: int) -> None:
        self.disk.room = room

    @precondition(lambda self: self.disk.fails or self.disk.room is not None)
    @rule(seconds=st.sampled_from([0.0, 40.0]))
    def mend_disk(self, seconds: float) -> None:
        self.disk.fails.clear()
        self.disk.room = None
        self.clock.now += seconds

    # ------------------------------------------------------------------ ends and beginnings

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def start(self) -> None:
        self.processes.append(Process(self.disk, self.clock, self.limits))

    @precondition(lambda self: len(self.processes) > 1)
    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        process = self.pick(which)
        process.files.crash()
        self._gone(process)

    @precondition(lambda self: len(self.processes) > 1)
    @rule(which=st.integers(0, 2))
    def close(self, which: int) -> None:
        process = self.pick(which)
        self._close(process)

    @rule(undone=st.integers(0, 3), parts=st.lists(st.integers(0, 1000), min_size=1, max_size=5), zeros=st.booleans())
    def power_cut(self, undone: int, parts: list[int], zeros: bool) -> None:
        for process in self.processes:
            process.files.crash()
        self.disk.power_cut(undone, lambda length: min(length, parts[length % len(parts)]), zeros=zeros)
        # What came to disk is still promised; what did not is gone, acknowledgements too.
        left = self._left()
        self.must &= left
        for process in list(self.processes):
            self._gone(process)
        self.processes.append(Process(self.disk, self.clock, self.limits))

    def _close(self, process: Process) -> None:
        healthy = process.faults == self.disk.faults and not self.disk.fails and self.disk.room is None
        in_memory = process.sender.is_busy and not process.sender.holds_frames
        process.backlog.close(in_flight_on_disk=process.sender.holds_frames)
        with process.lock:
            process.backlog.clear()
            lost = process.ledger.abandon("shutdown")
        assert not process.files.open_files, "a descriptor stays open"
        assert not healthy or self.limits["with_spool"] <= (lost == 0 or in_memory)
        self._check(process)
        self._gone(process)

    def _gone(self, process: Process) -> None:
        self.processes.remove(process)
        self.ended.append(process)
        left = self._left()
        self.must |= left
        self.again |= left & {one for one in self.twice if self.twice[one]}

    def _left(self) -> set[str]:
        """What is on disk, of processes that have ended."""
        alive = {process.folder for process in self.processes}
        folders = {path.rpartition("/")[0] for path in self.disk.files if path.endswith(".seg")}
        return {
            one
            for folder in folders
            if folder not in alive and "quarantine" not in folder
            for one in on_disk(self.disk, folder)
        }

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def everything_adds_up(self) -> None:
        for process in self.processes:
            self._check(process)

    def _check(self, process: Process) -> None:
        ledger, sink = process.ledger, process.sink
        stats = ledger.stats(failures={}, state="")
        assert stats.balanced, stats
        assert min(stats.queued, stats.in_flight, stats.spooled, ledger.adopted_unread) >= 0, stats
        assert stats.delivered == len(sink.taken)
        refused = sum(
            stats.dropped[reason]
            for reason in ("schema", "rejected", "too_large", "no_outcome")
            if reason in stats.dropped
        )
        given_up = sum(stats.dropped.get(reason, 0) for reason in ("unavailable", "exception"))
        assert refused + given_up >= len(sink.refused) >= refused - stats.dropped.get("rejected", 0)
        adopted_and_lost = stats.accepted - len(process.put) - stats.adopted
        assert 0 <= adopted_and_lost <= stats.dropped.get("spool_damaged", 0) + stats.dropped.get("spool_full", 0)
        assert ledger.settled <= ledger.entered and ledger.adopted_settled <= ledger.adopted
        assert len(process.backlog._queue) <= process.limits["queue"] + process.limits["batch"]
        assert process.backlog._bytes == sum(size for _, size in process.backlog._queue)

    @invariant()
    def the_disk_has_what_is_called_spooled(self) -> None:
        for process in self.processes:
            ledger = process.ledger
            own = ledger.spooled - ledger.adopted_unread
            batch = process.sender._batch
            if batch is not None and batch.reads and not batch.adopted:
                own += len(batch.records)
            found = [] if process.folder is None else on_disk(self.disk, process.folder)
            if process.faults == self.disk.faults:
                assert len(found) == own, (len(found), own)
            else:
                assert len(found) >= own, (len(found), own)

    @invariant()
    def a_flush_ends_when_what_it_waits_for_is_settled(self) -> None:
        for process in self.processes:
            waiting = {record.id for record, _ in process.backlog._queue}
            waiting |= {record.id for part in process.sender._parts for record in part}
            if process.folder is not None and not process.ledger.dropped["spool_damaged"]:
                settled = {*process.batch, *process.sink.taken, *process.sink.refused}
                waiting |= set(on_disk(self.disk, process.folder)) - settled
            for goal, ids in list(process.goals):
                if process.ledger.reached(goal):
                    process.goals.remove((goal, ids))
                    assert not ids & waiting, "a flush ended early"
                else:
                    assert process.ledger.stats(failures={}, state="").waiting, "a flush waits for nothing"

    @invariant()
    def the_bound_of_the_spool_holds(self) -> None:
        for process in self.processes:
            if process.folder is not None and "cut" not in self.disk.fails and process.faults == self.disk.faults:
                segments = sum(
                    len(file.data)
                    for path, file in self.disk.files.items()
                    if path.startswith(process.folder) and path.endswith(".seg")
                )
                assert segments <= process.limits["spool_max"]

    # ------------------------------------------------------------------ the end

    def teardown(self) -> None:
        try:
            if hasattr(self, "limits"):
                self.end()
        finally:
            self.patch.stop()

    def end(self) -> None:
        self.mend_disk(seconds=0.0)
        for process in list(self.processes):
            self._settle(process)
            self._close(process)
        last = Process(self.disk, self.clock, self.limits)
        self.processes.append(last)
        self._settle(last)
        assert not last.ledger.spooled and not last.ledger.queued and not last.ledger.in_flight
        taken = {one for process in (*self.ended, last) for one in process.sink.taken}
        refused = {one for process in (*self.ended, last) for one in process.sink.refused}
        dropped: Counter[str] = Counter()
        for process in (*self.ended, last):
            dropped.update(process.ledger.dropped)
        missing = self.must - taken - refused
        assert len(missing) <= dropped["spool_full"] + dropped["spool_damaged"], missing
        self._close(last)
        left = [
            path for path in self.disk.files if path.rpartition("/")[0] != last.spool.path and "quarantine" not in path
        ]
        assert not left, left

    def _settle(self, process: Process) -> None:
        for _ in range(2000):
            self.clock.now += 11.0
            self._write(process, hurry=True)
            self._send(process, hurry=True, outcome=Delivered())
            ledger = process.ledger
            waiting = ledger.spooled + ledger.queued + ledger.in_flight
            if not waiting and (len(self.processes) > 1 or not self._left_folders()):
                return
        raise AssertionError(f"no end: {ledger.stats(failures={}, state='')}, {sorted(self.disk.files)}")

    def _left_folders(self) -> set[str]:
        alive = {process.folder for process in self.processes}
        return {path.rpartition("/")[0] for path in self.disk.files if path.endswith("/lock")} - alive


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
