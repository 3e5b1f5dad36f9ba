"""kill -9 at any moment: what was written, and what was recorded a second before, is delivered by the next process."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tellmeter import AgentMetrics, MetricsCollector, MetricsConfig
from tellmeter.pipeline.spool.left import look
from tellmeter.registry.registry import MetricsRegistry
from tests.support import postgresql

KILLS = 25
LONG = 5  # of them live for more than a second, so that the promise about what is a second old says something
CHAINS = 4

# Forks children that record and kills them. A fork has imported what it needs: a hundred starts take a second. Prints, by child, how many of its
# records were a second old, and how many were written.
CHAIN = """
import json, os, random, signal, sys, time
from tellmeter import AgentMetrics, MetricsCollector, MetricsConfig
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.sinks.urls import sink_from_url

url, spool, name, kills, long = *sys.argv[1:4], *map(int, sys.argv[4:])
chance = random.Random(name)
sink_from_url(url)  # imports what it needs

def child(name, pipe):
    config = MetricsConfig(spool=spool, enable_cost_tracking=False, batch_size=20, batch_timeout_seconds=0.05)
    collector = MetricsCollector(config, sinks=[url], registry=MetricsRegistry())
    number = 0
    while True:
        for _ in range(10):
            collector.record(AgentMetrics(model="m", id=f"{name}-{number:06}"))
            number += 1
        (sink,) = collector.stats().sinks.values()
        assert not sink.dropped
        # Records come in order: those that do not wait in memory are the first.
        written = sink.accepted - sink.adopted - sink.queued
        os.write(pipe, b"%d %f %d\\n" % (number, time.monotonic(), written))
        time.sleep(0.002)

must = {}
for kill in range(kills):
    one = f"{name}-{kill}"
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reader)
            child(one, writer)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(chance.uniform(1.2, 1.6) if kill < long else chance.uniform(0.05, 0.3))
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    with open(reader) as said:
        lines = [line.split() for line in said.read().splitlines(keepends=True) if line.endswith("\\n")]
    old = max((int(number) for number, at, _ in lines if float(at) <= killed - 1.0), default=0)
    written = max((int(written) for _, _, written in lines), default=0)
    must[one] = old, written
print(json.dumps(must))
"""


def kill_and_deliver(url: str, spool: Path) -> dict[str, int]:
    """Kill children in some chains at a time, deliver what they left; how many records of each child must be there."""
    chains = [
        subprocess.Popen(
            [sys.executable, "-c", CHAIN, url, str(spool / str(chain)), f"chain{chain}", str(KILLS), str(LONG)],
            stdout=subprocess.PIPE,
        )
        for chain in range(CHAINS)
    ]
    promised: dict[str, tuple[int, int]] = {}
    for chain in chains:
        told, _ = chain.communicate(timeout=100)
        assert chain.returncode == 0
        promised |= json.loads(told)
    assert len(promised) == KILLS * CHAINS
    assert any(old for old, _ in promised.values()) and any(written for _, written in promised.values())
    for chain in range(CHAINS):
        config = MetricsConfig(spool=spool / str(chain), enable_cost_tracking=False)
        collector = MetricsCollector(config, sinks=[url], registry=MetricsRegistry())
        collector.record(AgentMetrics(model="m", id=f"last-{chain}"))
        until(lambda collector=collector, root=config.spool: collector.flush_sync() and not others(root))
        stats = collector.stats()
        collector.shutdown_sync()
        assert stats.balanced and not next(iter(stats.sinks.values())).dropped
        assert look(str(config.spool)) == []  # nothing is left, no empty folder either
    return {name: max(numbers) for name, numbers in promised.items()}


def others(root: Any) -> bool:
    return any(not one.in_use for one in look(str(root)))


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def missing(must: dict[str, int], ids: list[str]) -> list[str]:
    assert len(ids) == len(set(ids))
    there = set(ids)
    return [one for name, number in must.items() for i in range(number) if (one := f"{name}-{i:06}") not in there]


@pytest.mark.heavy
@pytest.mark.fault(8)
def test_a_hundred_kills_lose_nothing_and_double_nothing_in_sqlite(tmp_path: Path) -> None:
    must = kill_and_deliver(f"sqlite:///{tmp_path}/calls.db", tmp_path / "spool")
    rows = sqlite3.connect(tmp_path / "calls.db").execute("select id from llm_metrics").fetchall()
    assert missing(must, [row[0] for row in rows]) == []


@pytest.mark.heavy
@pytest.mark.fault(8)
def test_a_hundred_kills_lose_nothing_and_double_nothing_in_postgresql(tmp_path: Path) -> None:
    server, table = postgresql.shared(), postgresql.table()
    must = kill_and_deliver(server.url(query=f"?table={table}"), tmp_path / "spool")
    assert missing(must, [row[0] for row in server.run(f"select id::text from {table}")]) == []
