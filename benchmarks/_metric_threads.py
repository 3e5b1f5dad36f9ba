"""What threads, tasks and readers do to a recording: what it costs then, and whether anything is lost or torn."""

import asyncio
import gc
import re
import sys
import threading
import time

from _harness import frozen, middle, ratio
from _metric_subjects import COUNTER, HISTOGRAM, LITERAL, OpenTelemetry, Ours, PrometheusClient, lognormal

THREADS = (1, 2, 4, 8)
VALUES = lognormal(500)
COUNT = f"increment({COUNTER!r}, labels={LITERAL})"
OBSERVE = f"observe({HISTOGRAM!r}, value, labels={LITERAL})"
# what, subject, statement, and in how many turns the 500 values are recorded: about as much time for each
WAYS = (
    ("counter by name", Ours, COUNT, 240),
    ("  prometheus_client", PrometheusClient, COUNT, 40),
    ("  OpenTelemetry SDK", OpenTelemetry, f"by_name[{COUNTER!r}].add(1, {LITERAL})", 16),
    ("histogram by name", Ours, OBSERVE, 200),
    ("  prometheus_client", PrometheusClient, OBSERVE, 40),
    ("  OpenTelemetry SDK", OpenTelemetry, f"by_name[{HISTOGRAM!r}].record(value, {LITERAL})", 16),
    ("counter, bound", Ours, "counter.inc()", 800),
    ("  prometheus_client", PrometheusClient, "counter.inc()", 240),
    ("histogram, bound", Ours, "histogram.observe(value)", 400),
    ("  prometheus_client", PrometheusClient, "histogram.observe(value)", 80),
)


def threads(rounds, size):
    """CPU a call while 1 to 8 threads record on one series, and the exact totals afterwards."""
    print(
        f"\n{'one series, ns of CPU a call; threads:':44}" + "".join(f"{number:>8}" for number in THREADS) + "   8 to 1"
    )
    made = []
    for what, kind, statement, turns in WAYS:
        subject = kind()
        names = subject.names()
        exec(f"def run(turns, values):\n for _ in turns:\n  for value in values: {statement}", names)
        made.append((what, subject, names["run"], max(8, turns // size), {number: [] for number in THREADS}))
    with frozen():
        for _ in range(rounds):
            for _, _, run, turns, found in made:
                for number in THREADS:
                    found[number].append(_together(run, number, turns) / (turns // number * number * len(VALUES)) * 1e9)
    wrong = []
    for (_, kind, statement, _), (what, subject, _, turns, found) in zip(WAYS, made, strict=True):
        each = {number: middle(values) for number, values in found.items()}
        told = "".join(f"{each[number]:>8.0f}" for number in THREADS)
        recorded = rounds * sum(turns // number * number for number in THREADS)
        number = recorded * len(VALUES)
        expected = (number, 0, 0) if COUNTER in statement or "inc" in statement else (0, number, recorded * sum(VALUES))
        totals = subject.totals()
        state = "nothing lost" if totals == expected else f"LOST: {totals} of {expected}"
        if kind is Ours and totals != expected:
            wrong.append(f"{what}: {state}")
        print(f"{what:44}{told}  {ratio(found[8], found[1])[0]:6.2f}x   {number / 1e6:.2f} million calls, {state}")
    return wrong


def _together(run, number, turns):
    start = threading.Barrier(number + 1)

    def work():
        mine = range(turns // number)
        start.wait()
        run(mine, VALUES)

    workers = [threading.Thread(target=work) for _ in range(number)]
    for one in workers:
        one.start()
    gc.collect()
    started = time.process_time()
    start.wait()
    for one in workers:
        one.join()
    return time.process_time() - started


def torn(seconds):
    """Pages whose histogram disagrees with itself while four threads observe 0.5, switching as often as can be."""
    print(f"\npages read while four threads observe, {seconds:g} s each, threads switching as often as they can")
    wrong = []
    for kind in (Ours, PrometheusClient):
        subject = kind()
        pages, bad = _read_while_recording(subject, seconds)
        print(f"{subject.name:44}{bad:>8} of {pages} pages have a sum that is not of their buckets")
        if kind is Ours and bad:
            wrong.append(f"torn histograms: {bad} of {pages}")
    return wrong


def _read_while_recording(subject, seconds):
    stop = threading.Event()
    bound = subject.names()["histogram"]

    def work():
        while not stop.is_set():
            for _ in range(200):
                bound.observe(0.5)

    workers = [threading.Thread(target=work) for _ in range(4)]
    pages = bad = 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for one in workers:
            one.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            page = subject.page().decode()
            whole = float(re.search(r'le="\+Inf".*} (\S+)', page)[1])
            count = float(re.search(r"_count{.*} (\S+)", page)[1])
            bad += not whole == count == 2 * float(re.search(r"_sum{.*} (\S+)", page)[1])
            pages += 1
    finally:
        stop.set()
        for one in workers:
            one.join()
        sys.setswitchinterval(interval)
    return pages, bad


def tasks(rounds, number):
    """A recording in each of 100 tasks that take turns, above what the turns cost."""
    statements = {
        "counter by name": (COUNT, COUNT, f"by_name[{COUNTER!r}].add(1, {LITERAL})"),
        "histogram by name": (
            OBSERVE.replace("value", "0.25"),
            OBSERVE.replace("value", "0.25"),
            f"by_name[{HISTOGRAM!r}].record(0.25, {LITERAL})",
        ),
    }
    kinds = (Ours, PrometheusClient, OpenTelemetry)
    made = {None: _task("pass", {})}
    for what, each in statements.items():
        for kind, statement in zip(kinds, each, strict=True):
            made[what, kind] = _task(statement, kind().names())
    found = {key: [] for key in made}
    with frozen():
        for _ in range(rounds):
            for key, task in made.items():
                gc.collect()
                started = time.process_time()
                asyncio.run(_gathered(task, number))
                found[key].append((time.process_time() - started) / (100 * number) * 1e9)
    turn = middle(found[None])
    rows = {
        what: [[one - bare for one, bare in zip(found[what, kind], found[None], strict=True)] for kind in kinds]
        for what in statements
    }
    return rows, turn


def _task(statement, names):
    names = {"sleep": asyncio.sleep, **names}
    exec(f"async def task(number):\n for _ in range(number):\n  {statement}\n  await sleep(0)", names)
    return names["task"]


async def _gathered(task, number):
    await asyncio.gather(*(task(number) for _ in range(100)))
