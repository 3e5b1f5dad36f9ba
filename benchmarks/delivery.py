"""Delivery: records a second from `collector.record()` until each kind of sink has them all, beside how else it is done.

    python benchmarks/delivery.py [ROUNDS]

Peers, in the same run and with the same records: the standard library's logging (QueueHandler, QueueListener) to memory
and to lines of JSON; `executemany` into SQLite and PostgreSQL; psycopg's COPY into the same table as ours, which is not
idempotent; one INSERT a record with asyncpg, as seed 001 has it; httpx2 by hand. Peers that write batches get them cut
beforehand, and pay for neither queue, thread, counting nor retry. PostgreSQL runs with its default durability.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import json
import logging
import logging.handlers
import multiprocessing
import queue
import sqlite3
import sys
import tempfile
from collections import deque
from pathlib import Path

import _postgresql
import httpx2
import msgspec
from _delivery import BATCH_SIZE, rounds, table, through_pipeline, timed
from pipeline import records

from tellmeter import (
    HTTPMetricsSink,
    InMemoryMetricsSink,
    JSONLMetricsSink,
    PostgreSQLMetricsSink,
    SQLiteMetricsSink,
)

NUMBER = 50_000
SEED_NUMBER = 1_000
SIZES = (BATCH_SIZE, 1000)


def batches(made, size):
    return [made[at : at + size] for at in range(0, len(made), size)]


# ---------------------------------------------------------------------- memory and files


class Keeping(logging.Handler):
    def __init__(self):
        super().__init__()
        self.kept = deque(maxlen=NUMBER)

    def emit(self, record):
        self.kept.append(record.call)


class Lines(logging.Formatter):
    def format(self, record):
        return json.dumps(msgspec.structs.asdict(record.call))


@contextlib.contextmanager
def logging_to(handler):
    """What a program has that logs each call with the standard library: what logs one. At the end, all are written."""
    waiting = queue.SimpleQueue()
    entrance = logging.handlers.QueueHandler(waiting)
    listener = logging.handlers.QueueListener(waiting, handler)
    logger = logging.getLogger("calls")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(entrance)
    handler.setFormatter(Lines())
    listener.start()
    try:
        yield lambda call: logger.info("call", extra={"call": call})
        listener.stop()
    finally:
        logger.removeHandler(entrance)
        handler.close()


def by_logging(handler, made):
    def work():
        with logging_to(handler) as log:
            for one in made:
                log(one)

    return timed(len(made), work)


def local_subjects(folder, made):
    numbers = iter(range(10**6))

    def path(kind):
        return str(folder / f"{next(numbers)}.{kind}")

    def sqlite_by_hand(size):
        connection = sqlite3.connect(path("db"), isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        names = made[0].__struct_fields__
        connection.execute(f"CREATE TABLE calls (id TEXT PRIMARY KEY, {', '.join(n for n in names if n != 'id')})")
        connection.execute("CREATE INDEX by_time ON calls (timestamp)")
        insert = f"INSERT OR IGNORE INTO calls ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"

        def row(record):
            return [json.dumps(value) if isinstance(value, dict | tuple) else value for value in as_values(record)]

        def as_values(record):
            return [getattr(record, name) for name in names]

        def work():
            for batch in batches(made, size):
                connection.execute("BEGIN")
                connection.executemany(insert, map(row, batch))
                connection.execute("COMMIT")

        run = timed(len(made), work)
        connection.close()
        return run

    subjects = {
        "memory": lambda: through_pipeline(InMemoryMetricsSink(max_size=NUMBER), made),
        "logging to memory": lambda: by_logging(Keeping(), made),
        "JSON lines": lambda: through_pipeline(JSONLMetricsSink(path("jsonl")), made),
        "logging to JSON lines": lambda: by_logging(logging.FileHandler(path("log"), encoding="utf-8"), made),
    }
    for size in SIZES:
        subjects[f"SQLite, {size} a batch"] = lambda size=size: through_pipeline(
            SQLiteMetricsSink(path("db")), made, batch_size=size
        )
        subjects[f"sqlite3 executemany, {size}"] = functools.partial(sqlite_by_hand, size)
    peers = {"memory": ["logging to memory"], "JSON lines": ["logging to JSON lines"]}
    return subjects, peers | {f"SQLite, {size} a batch": [f"sqlite3 executemany, {size}"] for size in SIZES}


# ---------------------------------------------------------------------- HTTP


class Taking(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def serve(tell):
    """In a process of its own, so that it shares no interpreter with what is measured."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taking) as server:
        tell.send(server.server_address[1])
        server.serve_forever()


def http_subjects(url, made):
    def by_hand(size):
        with httpx2.Client() as client:

            def work():
                for batch in batches(made, size):
                    body = {"metrics": [msgspec.structs.asdict(record) for record in batch]}
                    client.post(url, json=body).raise_for_status()

            return timed(len(made), work)

    subjects = {}
    for size in SIZES:
        subjects[f"HTTP, {size} a batch"] = lambda size=size: through_pipeline(
            HTTPMetricsSink(url), made, batch_size=size
        )
        subjects[f"HTTP without gzip, {size} a batch"] = lambda size=size: through_pipeline(
            HTTPMetricsSink(url, compress=None), made, batch_size=size
        )
        subjects[f"httpx2 by hand, {size}"] = functools.partial(by_hand, size)
    ours = [(name, size) for name in ("HTTP", "HTTP without gzip") for size in SIZES]
    return subjects, {f"{name}, {size} a batch": [f"httpx2 by hand, {size}"] for name, size in ours}


# ---------------------------------------------------------------------- PostgreSQL

# The columns and indexes of seed 001's table.
SEED_TABLE = """
CREATE TABLE seed_calls (
    id serial PRIMARY KEY, timestamp timestamptz DEFAULT now(), request_id text, model text NOT NULL,
    provider text NOT NULL, method text, latency_ms integer NOT NULL, prompt_tokens integer, completion_tokens integer,
    cached_tokens integer, total_cost decimal(10, 6), error_class text, retries integer, metadata jsonb);
CREATE INDEX ON seed_calls (timestamp); CREATE INDEX ON seed_calls (model); CREATE INDEX ON seed_calls (provider);
CREATE INDEX ON seed_calls (error_class);
"""
SEED_INSERT = """
INSERT INTO seed_calls (request_id, model, provider, latency_ms, prompt_tokens, completion_tokens, cached_tokens,
    total_cost, error_class, retries, metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


def seed_shape(url, made):
    import asyncpg

    async def all_of_them():
        pool = await asyncpg.create_pool(url, min_size=1)
        async with pool.acquire() as connection:
            await connection.execute("DROP TABLE IF EXISTS seed_calls;" + SEED_TABLE)

        async def record(one):
            async with pool.acquire() as connection:
                metadata = json.dumps({"tools_used": one.tools_used, "trace_id": one.trace_id})
                counts = one.input_tokens, one.output_tokens, one.cached_tokens
                who = one.request_id, one.model, one.provider, round(one.latency_ms)
                await connection.execute(
                    SEED_INSERT, *who, *counts, one.cost_usd, one.error_class, one.retries, metadata
                )

        started = asyncio.get_running_loop().time()
        for one in made:
            await record(one)
        taken = asyncio.get_running_loop().time() - started
        await pool.close()
        return taken

    taken = []
    run = timed(len(made), lambda: taken.append(asyncio.run(all_of_them())))
    return run._replace(rate=len(made) / taken[0])


def postgresql_subjects(url, made):
    import psycopg
    from psycopg.types.json import Jsonb

    PostgreSQLMetricsSink(url).check()  # makes the table
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'llm_metrics' "
            "AND is_generated = 'NEVER' AND is_identity = 'NO' ORDER BY ordinal_position"
        ).fetchall()
    fields = {"unix_seconds": "timestamp"}  # by column, where they differ
    columns = [name for (name,) in found if hasattr(made[0], fields.get(name, name)) and name != "stream"]
    names = [fields.get(name, name) for name in columns]
    listed = ", ".join(columns)
    insert = f"INSERT INTO peer_calls ({listed}) VALUES ({', '.join(['%s'] * len(columns))}) ON CONFLICT DO NOTHING"

    def row(record):
        values = [getattr(record, name) for name in names]
        values[names.index("tags")] = Jsonb(record.tags)
        values[names.index("tools_used")] = list(record.tools_used)
        return values

    def drop(name):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {name}")

    def ours(size, **options):
        drop("llm_metrics")
        sink = PostgreSQLMetricsSink(url)
        sink.check()
        return through_pipeline(sink, made, batch_size=size, **options)

    def by_hand(write, size):
        drop("peer_calls")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE peer_calls (LIKE llm_metrics INCLUDING ALL)")
            connection.commit()

            def work():
                for batch in batches(made, size):
                    write(connection, batch)
                    connection.commit()

            return timed(len(made), work)

    def copy(connection, batch):
        with connection.cursor().copy(f"COPY peer_calls ({listed}) FROM STDIN") as into:
            for record in batch:
                into.write_row(row(record))

    def executemany(connection, batch):
        connection.cursor().executemany(insert, map(row, batch))

    seed = "asyncpg, one INSERT a record (seed 001)"
    subjects, peers = {}, {}
    for size in SIZES:
        name = f"PostgreSQL, {size} a batch"
        subjects[name] = functools.partial(ours, size)
        subjects[f"psycopg executemany, {size}"] = functools.partial(by_hand, executemany, size)
        subjects[f"psycopg COPY, {size}"] = functools.partial(by_hand, copy, size)
        peers[name] = [seed, f"psycopg executemany, {size}", f"psycopg COPY, {size}"]
    subjects[seed] = lambda: seed_shape(url, made[:SEED_NUMBER])
    return subjects, peers


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    made = records(NUMBER)
    with tempfile.TemporaryDirectory() as folder:
        subjects, peers = local_subjects(Path(folder), made)
        table("memory and files", rounds(number, subjects), peers, {"memory": 150_000})

    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    subjects, peers = http_subjects(f"http://127.0.0.1:{here.recv()}/", made)
    table("HTTP, a server of the standard library", rounds(number, subjects), peers, {})
    process.terminate()

    programs = _postgresql.program()
    if programs is None:
        print("\nPostgreSQL is not installed: not measured")
        return
    with _postgresql.server(programs) as url:
        subjects, peers = postgresql_subjects(url, made)
        budgets = {f"PostgreSQL, {size} a batch": 40_000 for size in SIZES}
        table("PostgreSQL, default durability", rounds(number, subjects), peers, budgets)


if __name__ == "__main__":
    main()
