"""A program under constant load, watched for growth: memory, threads, descriptors, and the ledger.

    python tools/soak.py [--seconds 600] [--rate 2000] [--json]

Records with tags and streams, and calls from several threads, go to memory, SQLite, a rotated file of JSON lines, and a
spooled sink that fails at random and is down for 2 of every 10 seconds. Prints samples and, over those of the second
half, the slope of the resident memory (least squares, KiB a minute). `--json` prints one JSON object: `samples`,
`end` and `sound`. The exit code is 1 where a ledger does not add up, or a record was lost that no sink refused. Reads
/proc (Linux).
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Unpack

from tellmeter import (
    AgentMetrics,
    BatchingMetricsSink,
    Delivered,
    InMemoryMetricsSink,
    JSONLMetricsSink,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    Partial,
    Rejected,
    RetryLater,
    SQLiteMetricsSink,
    StreamMetrics,
    TooLarge,
)
from tellmeter.pipeline.outcome import Outcome
from tellmeter.sinks.base import LaneOptions

THREADS = 4
TICK = 0.02  # seconds between two bursts of one thread
CALLS_IN = 10  # one of so many is a call in progress, the others are finished records
STREAMS_IN = 3
OUTAGE_EVERY, OUTAGE_LASTS = 10.0, 2.0
WARM_UP = 0.5  # of the time
KEPT = 2_000  # records in memory
MODELS = ("gpt-4o-mini", "claude-sonnet-4", "gemini-2.5-flash", "llama-3.3-70b")


class FlakySink(BatchingMetricsSink):
    """Fails at random in every way that a backend can, and is down now and then."""

    destination = "soak"

    def __init__(self, **lane: Unpack[LaneOptions]) -> None:
        super().__init__(**lane)
        self._random = random.Random(7)
        self._started = time.monotonic()
        self._recovered = False
        self.taken = 0

    def recover(self) -> None:
        """Fail no more."""
        self._recovered = True

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Answer by chance."""
        if not self._recovered and (time.monotonic() - self._started) % OUTAGE_EVERY > OUTAGE_EVERY - OUTAGE_LASTS:
            return RetryLater(reason="unreachable")
        chance = 1.0 if self._recovered else self._random.random()
        if chance < 0.02:
            raise ConnectionResetError
        if chance < 0.04:
            return RetryLater(after=0.2, reason="rate_limited")
        if chance < 0.05:
            return Rejected("refused")
        if chance < 0.06:
            return TooLarge()
        if chance < 0.08 and len(batch) > 2:
            self.taken += len(batch) - 2
            return Partial(retry=(0,), rejected=(1,), reason="partly")
        self.taken += len(batch)
        return Delivered()


@dataclass(frozen=True)
class Sample:
    """What there was at a moment; memory in bytes, `waiting` and `dropped` records of all sinks."""

    seconds: float
    resident: int
    threads: int
    descriptors: int
    recorded: int
    delivered: int
    waiting: int
    dropped: int
    balanced: bool


@dataclass(frozen=True)
class End:
    """How it came out: `slope` in bytes a minute, `dropped` by sink and reason, `waiting` after the shutdown."""

    recorded: int
    balanced: bool
    hand_off: dict[str, int]
    dropped: dict[str, dict[str, int]]
    waiting: int
    taken: int
    told: int
    slope: float


def record(number: int) -> AgentMetrics:
    """A record as an application has them."""
    model = MODELS[number % len(MODELS)]
    stream = None
    if number % STREAMS_IN == 0:
        stream = StreamMetrics(
            stream_id=f"stream_{number}",
            model=model,
            duration_ms=900.0,
            chunks_received=200,
            bytes_received=40_000,
            time_to_first_chunk_ms=200.0,
            time_to_first_token_ms=210.0,
            output_tokens=200,
            status="completed",
        )
    return AgentMetrics(
        model=model,
        latency_ms=500.0 + number % 977,
        input_tokens=1200,
        output_tokens=200,
        request_id=f"req_{number}",
        status="error" if number % 50 == 0 else "success",
        error_class="RateLimitError" if number % 50 == 0 else None,
        tags={"feature": f"feature {number % 20}", "tenant": f"tenant {number % 200}"},
        stream=stream,
    )


def drive(collector: MetricsCollector, rate: float, until: float, first: int) -> None:
    """`rate` records a second from this thread until a time of `time.monotonic`."""
    made = 0
    started = time.monotonic()
    while (now := time.monotonic()) < until:
        while made < (now - started) * rate:
            number = first + made * THREADS
            if number % CALLS_IN == 0:
                with collector.track_request("openai", MODELS[0]) as call:
                    call.input_tokens, call.output_tokens = 1200, 200
            else:
                collector.record(record(number))
            made += 1
        time.sleep(TICK)


def sample(collector: MetricsCollector, started: float) -> Sample:
    """What there is now."""
    stats = collector.stats()
    sinks = stats.sinks.values()
    return Sample(
        seconds=round(time.monotonic() - started, 1),
        resident=int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        threads=threading.active_count(),
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        recorded=stats.recorded,
        delivered=sum(sink.delivered for sink in sinks),
        waiting=sum(sink.waiting for sink in sinks),
        dropped=sum(sum(sink.dropped.values()) for sink in sinks),
        # While others record, the hand-off's own numbers are read one after the other: only the lanes' are exact.
        balanced=all(sink.balanced for sink in sinks),
    )


def slope(samples: Sequence[Sample]) -> float:
    """Bytes a minute that the resident memory grew, by least squares."""
    return statistics.linear_regression([one.seconds / 60 for one in samples], [one.resident for one in samples]).slope


def soak(folder: Path, seconds: float, rate: float, tell: Callable[[Sample], None]) -> tuple[list[Sample], End]:
    """Run it in `folder`; `tell` gets each sample as it is taken."""
    memory = InMemoryMetricsSink(max_size=KEPT)
    flaky = FlakySink(spool=folder / "spool", batch_size=500, max_queue=10_000)
    sinks = [
        memory,
        SQLiteMetricsSink(folder / "calls.db", retention_rows=20_000),
        JSONLMetricsSink(folder / "calls.jsonl", max_bytes=1_000_000, backups=2),
        flaky,
    ]
    # Room for a machine that stalls for a while: what is dropped for want of it would be no fault of the pipeline.
    config = MetricsConfig(label_tags=["feature"], max_queue=50_000, max_queue_bytes=2**26)
    collector = MetricsCollector(config, sinks=sinks, registry=MetricsRegistry())
    started = time.monotonic()
    threads = [
        threading.Thread(target=drive, args=(collector, rate / THREADS, started + seconds, first), daemon=True)
        for first in range(THREADS)
    ]
    samples = []
    for thread in threads:
        thread.start()
    every = max(0.5, seconds / 600)
    while time.monotonic() + every < started + seconds:
        time.sleep(every)
        if time.monotonic() > started + seconds - TICK:  # a late sample would see threads that are about to end
            break
        gc.collect()
        samples.append(sample(collector, started))
        memory.get_stats()
        collector.registry.collect()
        tell(samples[-1])
    for thread in threads:
        thread.join()
    flaky.recover()
    collector.flush_sync(60)  # a shutdown would not wait for a sink that was down a moment ago
    collector.shutdown_sync(10)
    stats = collector.stats()
    warm = [one for one in samples if one.seconds >= seconds * WARM_UP]
    end = End(
        recorded=stats.recorded,
        balanced=stats.balanced and all(one.balanced for one in samples),
        hand_off=stats.dropped,
        dropped={name: sink.dropped for name, sink in stats.sinks.items()},
        waiting=sum(sink.waiting for sink in stats.sinks.values()),
        taken=flaky.taken,
        told=stats.sinks["FlakySink"].delivered,
        slope=slope(warm),
    )
    return samples, end


def is_sound(end: End) -> bool:
    """Whether every record is accounted for, and only what a sink refused is lost."""
    refused = {"FlakySink": {"refused", "partly", "too_large"}}
    return (
        end.balanced
        and not end.hand_off
        and not end.waiting
        and end.taken == end.told
        and all(set(reasons) <= refused.get(name, set()) for name, reasons in end.dropped.items())
    )


def main() -> int:
    """Run it and print what it found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="records a second")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("tellmeter").setLevel(logging.CRITICAL)  # that a sink fails is no news here
    due = 0.0

    def tell(one: Sample) -> None:
        nonlocal due
        if not options.json and one.seconds >= due:
            due = one.seconds + options.seconds / 40
            say(line(one))

    with tempfile.TemporaryDirectory(prefix="tellmeter-soak-") as folder:
        samples, end = soak(Path(folder), options.seconds, options.rate, tell)
    sound = is_sound(end)
    if options.json:
        say(json.dumps({"samples": [asdict(one) for one in samples], "end": asdict(end), "sound": sound}))
    else:
        warm = [one for one in samples if one.seconds >= options.seconds * WARM_UP]
        say(f"after the first {WARM_UP:.0%}: slope {end.slope / 1024:+.1f} KiB a minute")
        for name in ("resident", "threads", "descriptors"):
            values = [getattr(one, name) for one in warm]
            say(f"{name} {min(values):,} to {max(values):,}, median {statistics.median(values):,.0f}")
        say(f"{end}\n{'sound' if sound else 'NOT SOUND'}")
    return 0 if sound else 1


def line(one: Sample) -> str:
    """A sample as a line of the table."""
    return (
        f"{one.seconds:8.1f} s {one.resident / 2**20:8.2f} MiB {one.threads:3} threads {one.descriptors:3} descriptors "
        f"{one.recorded:10,} recorded {one.waiting:7,} waiting {one.dropped:6,} dropped "
        f"{'' if one.balanced else 'NOT BALANCED'}"
    )


def say(text: str) -> None:
    """Print at once, also where the output is a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
