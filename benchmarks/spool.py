"""The spool: what it writes, reads back and costs, beside SQLite in WAL mode as a spool with 512 rows a transaction.

    python benchmarks/spool.py [ROUNDS]

Ours goes through the whole pipeline, from `collector.record()` on: the writing with a sink that is down, until everything
is on disk; the replay in another process than the one that wrote and was killed, from the start of the collector until
the sink has all. The peer encodes rows with msgspec, as ours: behind a queue and on a thread of its own, as one would
write it instead, and as a bare loop, which no caller could use. Its replay is a bare loop too.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
from _delivery import CountingSink, Run, collector, rounds, table, through_pipeline, timed
from pipeline import records

from tellmeter import AgentMetrics, BatchingMetricsSink, RetryLater, SQLiteMetricsSink
from tellmeter.pipeline.spool.files import Files

NUMBER = 100_000
SIZES = (100, 1000)
ROWS = 512
SCANNED_BYTES = 100_000_000


class Down(BatchingMetricsSink):
    """Says that it may be tried again later, as a backend does that is down."""

    def send(self, batch, deadline):
        return RetryLater(after=300.0, reason="unreachable")


class Sometimes(CountingSink):
    """A sink of the same folder and place, up in one process and down in another."""

    destination = "somewhere"

    def __init__(self, *, up, **lane):
        super().__init__(**lane)
        self.up = up

    def send(self, batch, deadline):
        return super().send(batch, deadline) if self.up else RetryLater(after=300.0)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.seg"))


def until(done) -> None:
    deadline = time.monotonic() + 300
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def write_all(sink, made, folder, size):
    """Record everything and wait until all of it is on disk; the collector, still with all of it."""
    through = collector(sink, spool=folder, spool_max_bytes=2**32, batch_size=size)
    name = type(sink).__name__

    def on_disk():
        stats = through.stats()
        account = stats.sinks[name]
        return not stats.queued and not account.queued and account.accepted == len(made)

    def work():
        record = through.record
        for one in made:
            record(one)
        until(on_disk)

    run = timed(len(made), work)
    stats = through.stats().sinks[name]
    assert stats.spooled + stats.in_flight == len(made), stats
    return run, through


def write(root: Path, made, size, sizes):
    with tempfile.TemporaryDirectory(dir=root) as folder:
        run, through = write_all(Down(), made, folder, size)
        sizes[size] = size_of(Path(folder)) / len(made)
        through.shutdown_sync(0)
    return run


def left_by_another(folder: Path, number: int, size: int) -> None:
    """Have another process write `number` records to the spool and be killed."""
    command = [sys.executable, __file__, "--leave", str(folder), str(number), str(size)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def leave(folder: str, number: str, size: str) -> None:
    logging.getLogger("tellmeter").setLevel(logging.ERROR)
    write_all(Sometimes(up=False), records(int(number)), folder, int(size))
    os.kill(os.getpid(), signal.SIGKILL)


def replay(root: Path, number: int, size: int, steps: list[float]) -> Run:
    """`steps` gets the seconds until the ledger had taken over what was left."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        left_by_another(Path(folder), number, size)
        sink = Sometimes(up=True)
        made = []

        def work():
            started = time.perf_counter()
            made.append(collector(sink, spool=folder, spool_max_bytes=2**32, batch_size=size))
            until(lambda: made[0].stats().sinks["Sometimes"].adopted)
            steps.append(time.perf_counter() - started)
            until(lambda: made[0].stats().sinks["Sometimes"].delivered == number)

        run = timed(number, work)
        assert sink.count == number
        made[0].shutdown_sync()
    return run


def scanned(root: Path, records_per_byte: float) -> None:
    """How long it takes to take over 100 MB, of which most is finding and checking frames."""
    number = int(SCANNED_BYTES * records_per_byte)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        left_by_another(Path(folder), number, 100)
        size = size_of(Path(folder))
        started = time.perf_counter()
        sink = Sometimes(up=False)
        through = collector(sink, spool=folder, spool_max_bytes=2**32)
        until(lambda: through.stats().sinks["Sometimes"].adopted)
        took = time.perf_counter() - started
        assert through.stats().sinks["Sometimes"].adopted == number
        through.shutdown_sync(0)
        files = Files()
        started = time.perf_counter()
        for path in Path(folder).rglob("*.seg"):
            descriptor = files.open(str(path))
            while_left = files.size(descriptor)
            files.read(descriptor, while_left, 0)
            files.close(descriptor)
        plain = time.perf_counter() - started
    print(
        f"taking over {size / 1e6:.0f} MB in {number:,} records: {took:.2f} s "
        f"({size / took / 1e6:.0f} MB/s; reading the files alone takes {plain:.2f} s; budget 1 s: "
        f"{'met' if took * SCANNED_BYTES / size <= 1 else 'MISSED'})"
    )


class SQLiteSpool:
    """What one would write instead."""

    def __init__(self, path: str, synchronous: str):
        self.encode = msgspec.json.Encoder().encode
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(f"PRAGMA synchronous={synchronous}")
        self.connection.execute("CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def write(self, made):
        for at in range(0, len(made), ROWS):
            self.write_some(made[at : at + ROWS])

    def write_some(self, some):
        self.connection.execute("BEGIN")
        rows = ((self.encode(record),) for record in some)
        self.connection.executemany("INSERT INTO spool (body) VALUES (?)", rows)
        self.connection.execute("COMMIT")

    def write_behind(self, made):
        """Each record through a queue to a thread that writes."""
        waiting = queue.SimpleQueue()

        def write():
            some = []
            while (record := waiting.get()) is not None:
                some.append(record)
                if len(some) == ROWS:
                    self.write_some(some)
                    some = []
            self.write_some(some)

        writer = threading.Thread(target=write)
        writer.start()
        for one in made:
            waiting.put(one)
        waiting.put(None)
        writer.join()

    def read(self):
        """As a replay must: what is delivered is deleted, a batch at a time."""
        decode = msgspec.json.Decoder(AgentMetrics).decode
        read = 0
        while rows := self.connection.execute("SELECT id, body FROM spool ORDER BY id LIMIT ?", (ROWS,)).fetchall():
            read += len([decode(body) for _, body in rows])
            self.connection.execute("DELETE FROM spool WHERE id <= ?", (rows[-1][0],))
        return read


def peer_writes(root: Path, made, synchronous, sizes, *, behind):
    with tempfile.TemporaryDirectory(dir=root) as folder:
        path = Path(folder) / "spool.db"
        spool = SQLiteSpool(str(path), synchronous)
        run = timed(len(made), lambda: (spool.write_behind if behind else spool.write)(made))
        spool.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes["SQLite"] = path.stat().st_size / len(made)
        spool.connection.close()
    return run


def peer_reads(root: Path, made):
    with tempfile.TemporaryDirectory(dir=root) as folder:
        SQLiteSpool(f"{folder}/spool.db", "NORMAL").write(made)
        read = []
        run = timed(len(made), lambda: read.append(SQLiteSpool(f"{folder}/spool.db", "NORMAL").read()))
        assert read == [len(made)]
    return run


def healthy(root: Path, made, make_sink, **config):
    with tempfile.TemporaryDirectory(dir=root) as folder:
        spool = {"spool": folder} if config.pop("spooled") else {}
        return through_pipeline(make_sink(folder), made, **config, **spool)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    logging.getLogger("tellmeter").setLevel(logging.ERROR)  # that sinks are down is no news here
    made = records(NUMBER)
    sizes: dict[object, float] = {}
    steps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subjects = {
            **{f"write, {size} a frame": lambda size=size: write(root, made, size, sizes) for size in SIZES},
            **{
                f"SQLite WAL, {synchronous}, {'behind a queue' if behind else 'bare loop'}": lambda s=synchronous, b=behind: (
                    peer_writes(root, made, s, sizes, behind=b)
                )
                for behind in (True, False)
                for synchronous in ("NORMAL", "FULL")
            },
            **{f"replay, {size} a frame": lambda size=size: replay(root, NUMBER, size, steps) for size in SIZES},
            "SQLite WAL, replay": lambda: peer_reads(root, made),
        }
        peers = {
            **{
                f"write, {size} a frame": ["SQLite WAL, NORMAL, behind a queue", "SQLite WAL, FULL, behind a queue"]
                for size in SIZES
            },
            **{f"replay, {size} a frame": ["SQLite WAL, replay"] for size in SIZES},
        }
        table(
            "the spool while its sink is down, and after a kill -9",
            rounds(number, subjects),
            peers,
            {f"write, {size} a frame": 200_000 for size in SIZES},
        )
        print(
            f"bytes a record on disk: {sizes[100]:.0f} in frames of 100, {sizes[1000]:.0f} in frames of 1000; "
            f"{sizes['SQLite']:.0f} in SQLite ({sizes['SQLite'] / sizes[100]:.2g}x)"
        )

        makers = {
            "to nothing": lambda _: CountingSink(),
            "to SQLite": lambda place: SQLiteMetricsSink(f"{place}/calls.db"),
        }
        subjects = {
            f"{name}, {'with' if spooled else 'without'} a spool": lambda maker=maker, spooled=spooled: healthy(
                root, made, maker, spooled=spooled
            )
            for name, maker in makers.items()
            for spooled in (False, True)
        }
        peers = {f"{name}, with a spool": [f"{name}, without a spool"] for name in makers}
        table("delivery while all is well", rounds(number, subjects), peers, {})
        print()
        scanned(root, 1 / sizes[100])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--leave"]:
        leave(*sys.argv[2:])
    else:
        main()
