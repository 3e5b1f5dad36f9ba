"""What delivery.py and spool.py measure with: one way through the whole pipeline, and tables of rounds.

Records a second are by the wall clock, since others (a server, the disk) work too. Every subject takes its turn in each
round, ratios are taken within a round, and what is printed is their median: a machine that others use moves it little.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import NamedTuple

from tellmeter import AgentMetrics, BatchingMetricsSink, Delivered, MetricsCollector, MetricsConfig, MetricsRegistry

BATCH_SIZE = 100  # the default


class Run(NamedTuple):
    """One measurement: records a second, and microseconds of CPU that this process spent on one."""

    rate: float
    cpu: float


class CountingSink(BatchingMetricsSink):
    """The cheapest sink there can be: what is left is the pipeline."""

    def __init__(self, **lane):
        super().__init__(**lane)
        self.count = 0

    def send(self, batch, deadline):
        self.count += len(batch)
        return Delivered()


def collector(sink, **config) -> MetricsCollector:
    """One with room for all records of a run, so that what is measured is delivery and not dropping."""
    return MetricsCollector(
        MetricsConfig(**{"max_queue": 2_000_000, "max_queue_bytes": 2**34, **config}),
        sinks=[sink],
        registry=MetricsRegistry(),
    )


def timed(number: int, work) -> Run:
    """`work()` brings `number` records to where they go."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Run(number / (time.perf_counter() - wall), (time.process_time() - cpu) / number * 1e6)


def through_pipeline(sink, made: list[AgentMetrics], **config) -> Run:
    """From the first `record()` until the sink has all."""
    through = collector(sink, **config)

    def work():
        record = through.record
        for one in made:
            record(one)
        assert through.flush_sync(300).complete

    run = timed(len(made), work)
    stats = through.stats()
    (account,) = stats.sinks.values()
    assert stats.balanced and account.delivered == len(made), stats
    through.shutdown_sync()
    return run


def rounds(number: int, subjects) -> dict[str, list[Run]]:
    """Every subject (name -> function that returns a Run) in turn, `number` times."""
    found = {name: [] for name in subjects}
    for _ in range(number):
        for name, subject in subjects.items():
            found[name].append(subject())
    return found


def table(title: str, found: dict[str, list[Run]], peers: dict[str, list[str]], budgets: dict[str, float]) -> None:
    """Print one line a subject; behind ours, how many times faster than each peer, and whether it is in its budget."""
    print(f"\n{title:52}{'records/s':>11}{'lowest':>10}{'highest':>10}{'CPU us':>8}")
    for name, runs in found.items():
        rates = [run.rate for run in runs]
        cpu = statistics.median(run.cpu for run in runs)
        line = f"{name:52}{statistics.median(rates):11,.0f}{min(rates):10,.0f}{max(rates):10,.0f}{cpu:8.1f}"
        for peer in peers.get(name, ()):
            times = statistics.median(ours.rate / theirs.rate for ours, theirs in zip(runs, found[peer], strict=True))
            line += f"  {times:.3g}x {peer};"
        if name in budgets:
            line += f"  budget {budgets[name]:,.0f}: {'met' if statistics.median(rates) >= budgets[name] else 'MISSED'}"
        print(line, flush=True)
