"""The contract holds for right sinks of every shape, and catches what breaks in wrong ones."""

import fcntl
import os
import sqlite3
import threading
from contextlib import contextmanager

import msgspec
import pytest

from tellmeter import AgentMetrics, Delivered, JSONLMetricsSink, SQLiteMetricsSink
from tellmeter.testing import SinkContract, contract_kit
from tests.unit.testing.kinds import Backend, BufferedSink, MemorySink, PlainSink, PostContract


class TestPostSink(PostContract):
    @pytest.fixture(autouse=True)
    def server(self):
        self.backend = Backend()
        with self.backend.server:
            yield


class FileContract(SinkContract):
    """A backend that is a file of ids."""

    make = PlainSink

    @pytest.fixture(autouse=True)
    def file(self, tmp_path):
        self.path = tmp_path / "ids"

    def make_sink(self):
        return type(self).make(self.path)

    def read_back(self):
        return self.path.read_text().split() if self.path.exists() else []

    faults = ("down", "reject")

    @contextmanager
    def fault(self, kind):
        if kind not in self.faults:
            super().fault(kind)
        kept = self.path.read_bytes() if self.path.exists() else None
        self.path.unlink(missing_ok=True)
        self.path.mkdir()
        yield
        self.path.rmdir()
        if kept is not None:
            self.path.write_bytes(kept)


class TestPlainSink(FileContract):
    """A sink of single records loses what it cannot write, and the ledger says so."""


class TestBufferedAsyncSink(FileContract):
    make = BufferedSink

    def fault(self, kind):
        pytest.skip("what such a sink loses in its buffer, nobody counts")


class TestMemorySink(SinkContract):
    across_processes = False
    keeps_fields = True

    def make_sink(self):
        self.records = getattr(self, "records", [])
        return MemorySink(self.records)

    def read_back(self):
        return list(self.records)


class TestSQLite(SinkContract):
    idempotent = True
    keeps_fields = True

    @pytest.fixture(autouse=True)
    def store(self, tmp_path):
        self.path = tmp_path / "calls.db"

    def make_sink(self):
        return SQLiteMetricsSink(self.path)

    def read_back(self):
        return _asked(SQLiteMetricsSink(self.path))

    @contextmanager
    def fault(self, kind):
        if kind == "hang":  # another program does not let go of its lock
            SQLiteMetricsSink(self.path).check()
            other = sqlite3.connect(self.path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            yield
            other.close()
        elif kind == "reject":
            self.path.write_bytes(b"this is no database" * 100)
            yield
            self.path.unlink()
        else:
            super().fault(kind)


class TestJSONL(SinkContract):
    keeps_fields = True

    @pytest.fixture(autouse=True)
    def file(self, tmp_path):
        self.path = tmp_path / "calls.jsonl"

    def make_sink(self):
        return JSONLMetricsSink(self.path)

    def read_back(self):
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return [msgspec.json.decode(line, type=AgentMetrics) for line in lines]

    @contextmanager
    def fault(self, kind):
        if kind == "hang":
            with open(self.path, "a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        elif kind == "reject":
            self.path.mkdir()
            yield
            self.path.rmdir()
        else:
            super().fault(kind)


def _asked(store):
    import asyncio

    return asyncio.run(store.get_metrics(limit=100_000))


# ---------------------------------------------------------------------- what is wrong is caught


def contract_of(sink_class, tmp_path, **attributes):
    contract = type("Broken", (FileContract,), {"make": sink_class, **attributes})()
    contract.path = tmp_path / "ids"
    return contract


class Good:
    """A sink with send(), on a file of ids."""

    def __init__(self, path):
        self.path = path

    def send(self, batch, deadline):
        with open(self.path, "a") as file:
            file.writelines(f"{record.id}\n" for record in batch)
        return Delivered()


class Losing(Good):
    def send(self, batch, deadline):
        return super().send(batch[1:], deadline)


class Repeating(Good):
    def send(self, batch, deadline):
        return super().send([*batch, batch[0]], deadline)


class Inventing(Good):
    def send(self, batch, deadline):
        return super().send([*batch, AgentMetrics(model="invented")], deadline)


class Silent(Good):
    def send(self, batch, deadline):
        super().send(batch, deadline)


class RaisingInClose(Good):
    def close(self):
        raise OSError


class ClosingOnce(Good):
    def open(self):
        self.file = open(self.path, "a")  # noqa: SIM115 - as sinks do

    def close(self):
        self.file.close()
        del self.file


class RaisingInFlush(Good):
    def flush(self):
        raise OSError


class FlushingAgain(Good):
    """Each flush writes once more what came last."""

    last = ()

    def send(self, batch, deadline):
        self.last = batch
        return super().send(batch, deadline)

    def flush(self):
        super().send(self.last, 0.0)


class ShortOfLast(Good):
    """The last batch waits for a flush that never comes."""

    waiting = ()

    def send(self, batch, deadline):
        super().send(self.waiting, deadline)
        self.waiting = batch
        return Delivered()


class Choking(Good):
    def send(self, batch, deadline):
        for record in batch:
            record.model.encode("ascii")
        return super().send(batch, deadline)


class Unsafe(Good):
    """It is thrown off by line breaks, as a line protocol without escaping is."""

    def send(self, batch, deadline):
        with open(self.path, "a") as file:
            file.writelines(f"{record.id if record.model.isprintable() else 'broken'}\n" for record in batch)
        return Delivered()


class LeavingAThread(Good):
    def open(self):
        threading.Thread(target=threading.Event().wait, args=(60,), name="left-behind", daemon=True).start()


class LeavingADescriptor(Good):
    def open(self):
        self.file = open(self.path, "a")  # noqa: SIM115 - that is the fault

    def __del__(self):
        self.file.close()


class LockedInTheChild(Good):
    """The lock is held in the parent when the child is made, and nobody in the child lets go."""

    def __init__(self, path):
        super().__init__(path)
        self.process, self.never = os.getpid(), threading.Event()

    def send(self, batch, deadline):
        if os.getpid() != self.process:
            self.never.wait(60)
        return super().send(batch, deadline)


@pytest.mark.parametrize(
    ("broken", "test", "told"),
    [
        (Losing, "test_every_record_arrives_exactly_once", "of 250 records did not arrive"),
        (Losing, "test_records_of_many_threads_arrive", "did not arrive"),
        (Repeating, "test_every_record_arrives_exactly_once", "for the second time"),
        (Inventing, "test_every_record_arrives_exactly_once", "that nobody recorded"),
        (Silent, "test_every_record_arrives_exactly_once", "the sink's code raised"),
        (RaisingInClose, "test_every_record_arrives_exactly_once", "the sink's code raised 1 times"),
        (RaisingInClose, "test_close_comes_twice_or_first", "close.. raised OSError"),
        (ClosingOnce, "test_close_comes_twice_or_first", "close.. raised AttributeError"),
        (RaisingInFlush, "test_flush_and_end_can_be_repeated", "the sink's code raised"),
        (FlushingAgain, "test_flush_and_end_can_be_repeated", "for the second time"),
        (ShortOfLast, "test_flush_and_end_can_be_repeated", "did not arrive"),
        (Choking, "test_hostile_values_arrive", "within 0.5 s"),
        (Unsafe, "test_hostile_values_arrive", "did not arrive"),
        (LeavingAThread, "test_nothing_is_left_open", "left-behind"),
        (LeavingADescriptor, "test_nothing_is_left_open", "3 descriptors are left by 3 sinks"),
        (LockedInTheChild, "test_a_forked_child_records_its_own", "the forked child"),
    ],
)
def test_a_broken_sink_is_caught(broken, test, told, tmp_path, monkeypatch):
    if broken in (Choking, LockedInTheChild, LeavingAThread, LeavingADescriptor):
        monkeypatch.setattr(contract_kit, "PATIENCE", 0.5)
    contract = contract_of(broken, tmp_path)
    with pytest.raises(AssertionError, match=told):
        getattr(contract, test)()


class Swallowing(BufferedSink):
    """It catches what it cannot write, and forgets it."""

    def save(self):
        try:
            super().save()
        except OSError:
            self.buffer.clear()


class Keeping(BufferedSink):
    """It catches what it cannot write, and writes it at the next flush, as the guide's own examples do."""

    def save(self):
        try:
            super().save()
        except OSError:
            pass


def test_a_buffer_that_is_lost_is_caught_and_one_that_is_kept_is_not(tmp_path):
    test = "test_what_fails_is_retried_until_it_is_delivered"
    with pytest.raises(AssertionError, match="20 of 20 records did not arrive"):
        getattr(contract_of(Swallowing, tmp_path), test)("down")
    getattr(contract_of(Keeping, tmp_path), test)("down")


class TestGood(FileContract):
    """What the broken ones are made of passes; it raises where it cannot write, which is tried again."""

    make = Good
    faults = ("down",)


def test_who_is_not_idempotent_may_not_say_so(tmp_path):
    with pytest.raises(AssertionError, match="30 of them for the second time"):
        contract_of(Good, tmp_path, idempotent=True).test_a_replay_adds_nothing()


def test_who_keeps_fields_has_to_show_them(tmp_path):
    with pytest.raises(AssertionError, match="read_back"):
        contract_of(Good, tmp_path, keeps_fields=True).test_every_record_arrives_exactly_once()


def test_what_does_not_apply_is_skipped_with_its_reason(tmp_path):
    for attributes, test, told in (
        ({}, "test_a_replay_adds_nothing", "idempotent"),
        ({"across_processes": False}, "test_a_forked_child_records_its_own", "across_processes"),
    ):
        with pytest.raises(pytest.skip.Exception, match=told):
            getattr(contract_of(Good, tmp_path, **attributes), test)()
