"""Several processes: a scrape beside prometheus_client's multiprocess mode, and what a process pays for it.

    python benchmarks/multiprocess.py

CPU milliseconds of a scrape over 4, 40 and 200 processes with 50 counters and 50 histograms each: prometheus_client's over
the files of dead ones, which it keeps; ours while all of them live, and once they are dead and added up. Then what a
recording and a snapshot cost.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from _harness import Case, middle, per_act, per_call, ratio

from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.shared.processes import Member
from tellmeter.registry.text import write

LABELS = ("endpoint", "method", "status")
SERIES = 50
ROUNDS = 7


def record(counter, histogram):
    for index in range(SERIES):
        counter.labels(f"/q{index}", "POST", "200").inc()
        histogram.labels(f"/q{index}", "POST", "200").observe(0.3)


def metrics(registry):
    return registry.counter("c", "d", LABELS), registry.histogram("h", "d", LABELS)


def join(folder):
    """A process of ours, as far as its folder can tell."""
    member = Member(MetricsRegistry(), str(folder))
    record(*metrics(member.registry))
    member.write()
    return member


def page(member):
    return b"".join(write(member.metrics()))


def scrapes(folder, prometheus_client, counter, histogram):
    from prometheus_client import multiprocess

    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    living = []
    print(f"{'a scrape, ms of CPU':24}{'prometheus_client':>20}{'all live':>12}{'':>8}{'all dead':>12}")
    for number in (4, 40, 200):
        while len(living) < number:
            pid = os.fork()
            if pid == 0:
                record(counter, histogram)
                os._exit(0)
            os.waitpid(pid, 0)
            living.append(join(folder / "living"))
            join(folder / "dead").stop()
        # Who is asked has nothing of its own, so that nothing is left of it either.
        asked, heir = (Member(MetricsRegistry(), str(folder / name)) for name in ("living", "dead"))
        for one in (asked, heir):
            assert f'c_total{{endpoint="/q1",method="POST",status="200"}} {number}.0\n'.encode() in page(one)
        found = per_act(
            {
                "theirs": lambda: prometheus_client.generate_latest(registry),
                "living": lambda asked=asked: page(asked),
                "dead": lambda heir=heir: page(heir),
            },
            ROUNDS,
        )
        print(
            f"{number:4} processes{'':10}{middle(found['theirs']):20.1f}"
            f"{middle(found['living']):12.2f}{ratio(found['theirs'], found['living'])[0]:7.1f}x"
            f"{middle(found['dead']):12.2f}{ratio(found['theirs'], found['dead'])[0]:7.1f}x"
        )


def recordings(counter, histogram):
    mine = metrics(MetricsRegistry())
    print(f"\n{'a recording, ns':24}{'prometheus_client':>20}{'tellmeter':>12}")
    for name, peer, own, act in (
        ("bound counter", counter, mine[0], "inc()"),
        ("bound histogram", histogram, mine[1], "observe(value)"),
    ):
        found = per_call(
            {
                key: Case(f"series.{act}", {"series": one.labels("/q", "POST", "200")}, [0.3, 0.7, 1.1, 0.02])
                for key, one in (("theirs", peer), ("ours", own))
            },
            ROUNDS,
            0.02,
        )
        times = ratio(found["theirs"], found["ours"])[0]
        print(f"{name:24}{middle(found['theirs']):20.0f}{middle(found['ours']):12.0f}{times:7.1f}x")


def snapshots(folder):
    member = join(folder)
    counter, histogram = metrics(member.registry)
    print(f"\n{'a snapshot (once a second), ms of CPU':44}{'tellmeter':>12}")
    for what, act in (
        ("100 series changed", lambda: record(counter, histogram)),
        ("1 series changed", lambda: counter.labels("/q1", "POST", "200").inc()),
        ("nothing changed", lambda: None),
    ):
        took = []
        for _ in range(200):
            act()
            started = time.process_time()
            member.write()
            took.append((time.process_time() - started) * 1e3)
        print(f"{what:44}{middle(took):12.3f}")


def main():
    folder = Path(tempfile.mkdtemp())
    theirs = folder / "theirs"
    theirs.mkdir()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(theirs)  # which it looks at when it is imported
    try:
        import prometheus_client

        counter = prometheus_client.Counter("c", "d", LABELS)
        histogram = prometheus_client.Histogram("h", "d", LABELS)
        scrapes(folder, prometheus_client, counter, histogram)
        recordings(counter, histogram)
        snapshots(folder / "writing")
    finally:
        shutil.rmtree(folder)
    print(f"Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
