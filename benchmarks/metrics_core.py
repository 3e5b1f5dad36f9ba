"""The metrics core beside prometheus_client and the OpenTelemetry SDK: recording, pages, memory, threads, tasks.

    python benchmarks/metrics_core.py [--quick]

CPU time, subjects in turn, medians of the rounds (`_harness.py`); three labels, a histogram of 15 buckets. A gate is how
many times ours the peer's cost has to be. The OpenTelemetry SDK has neither bound series nor timers: beside ours stand a
call with labels that are ready, and one with perf_counter() around the block. Memory is RSS of a child process.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import _metric_threads
from _harness import Case, head, line, middle, missed, per_act, per_call, resident
from _metric_subjects import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    LITERAL,
    SUBJECTS,
    OpenTelemetry,
    Ours,
    PrometheusClient,
    PrometheusMetricReader,
    lognormal,
    many_labels,
)
from prometheus_client.parser import text_string_to_metric_families

from tellmeter import MetricsCollector, MetricsConfig
from tellmeter.registry.series import FOLD_AT

VALUES = lognormal(4000)
# what: ours and prometheus_client's statement, the OpenTelemetry SDK's, the gates
CALLS = {
    "counter by name": (
        f"increment({COUNTER!r}, labels={LITERAL})",
        f"by_name[{COUNTER!r}].add(1, {LITERAL})",
        (4, 12),
    ),
    "histogram by name, lognormal values": (
        f"observe({HISTOGRAM!r}, value, labels={LITERAL})",
        f"by_name[{HISTOGRAM!r}].record(value, {LITERAL})",
        (4, 11),
    ),
    "gauge by name": (
        f"set_gauge({GAUGE!r}, 3, labels={LITERAL})",
        f"by_name[{GAUGE!r}].set(3, {LITERAL})",
        (4.5, 14),
    ),
    "gauge by name, lognormal values": (
        f"set_gauge({GAUGE!r}, value, labels={LITERAL})",
        f"by_name[{GAUGE!r}].set(value, {LITERAL})",
        (4.5, 14),
    ),
    "counter, bound": ("counter.inc()", f"by_name[{COUNTER!r}].add(1, LABELS)", (2.7, None)),
    "histogram, bound, lognormal values": (
        "histogram.observe(value)",
        f"by_name[{HISTOGRAM!r}].record(value, LABELS)",
        (3.5, None),
    ),
    "gauge, bound": ("gauge.set(3)", f"by_name[{GAUGE!r}].set(3, LABELS)", (8, None)),
    "gauge, bound, lognormal values": ("gauge.set(value)", f"by_name[{GAUGE!r}].set(value, LABELS)", (8, None)),
    "timer by name": (
        f"\n   with timer({HISTOGRAM!r}, labels={LITERAL}): pass",
        f"\n   start = perf_counter()\n   by_name[{HISTOGRAM!r}].record(perf_counter() - start, {LITERAL})",
        (2.5, None),
    ),
}


def calls(rounds, budget):
    cases = {}
    for what, (ours, otel, _) in CALLS.items():
        for kind, statement in zip(SUBJECTS, (ours, ours, otel), strict=True):
            cases[what, kind] = Case(statement, kind().names(), VALUES)
    found = per_call(cases, rounds, budget)
    head("a recording", "ns")
    for what, (_, _, gates) in CALLS.items():
        line(what, [found[what, kind] for kind in SUBJECTS], gates)


def filled(kind, metric, number, times=1, **more):
    """A subject with `number` series, recorded on `times` times."""
    subject = kind((metric,), **more)
    for labels in many_labels(number):
        for turn in range(times):
            subject.record(metric, 1 if metric == COUNTER else 0.3 + turn / 64, labels)
    return subject


def pages(rounds, size):
    head("a page", "ms")
    for what, metric, number, gates in (
        ("counters", COUNTER, 10_000, (8, 12)),
        ("histograms", HISTOGRAM, 600, (15, 15)),
    ):
        number //= size
        ours, client = filled(Ours, metric, number), filled(PrometheusClient, metric, number)
        otel = filled(OpenTelemetry, metric, number, exporter=True)
        assert samples(ours.page()) == samples(client.page()) and len(samples(ours.page())) >= number
        acts = {"ours": ours.page, "client": client.page, "otel": otel.page}
        acts |= {"ours, OpenMetrics": ours.openmetrics, "client, OpenMetrics": client.openmetrics}
        found = per_act(acts, rounds)
        line(f"{number} {what}, text", [found[key] for key in ("ours", "client", "otel")], gates)
        line(f"{number} {what}, OpenMetrics", [found["ours, OpenMetrics"], found["client, OpenMetrics"], None])
    if PrometheusMetricReader is None:
        print("  opentelemetry-exporter-prometheus is not installed: its SDK's collection alone, without a page")


def samples(page):
    families = text_string_to_metric_families(page.decode())
    return {(one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples}


def memory(number, pool):
    """Bytes of RSS a series, in child processes: with nothing in our lists, as much as on average, and at most."""
    waits = (0, FOLD_AT // 2, FOLD_AT)

    def child(kind, metric, waiting):
        command = [sys.executable, __file__, "--memory", kind.__name__, metric, str(number), str(waiting)]
        return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    metrics = {COUNTER: (None, None), HISTOGRAM: (2, 1)}
    asked = [(kind, metric, 0) for metric in metrics for kind in SUBJECTS]
    asked += [(Ours, metric, waiting) for metric in metrics for waiting in waits[1:]]
    found = {one: [size] for one, size in zip(asked, pool.map(lambda one: child(*one), asked), strict=True)}
    head(f"memory of a series (of {number})", "bytes")
    for metric, gates in metrics.items():
        peers = [found[kind, metric, 0] for kind in SUBJECTS[1:]]
        for waiting in waits:
            told = "nothing waits" if not waiting else f"{waiting} values wait"
            line(
                f"{'counter' if metric == COUNTER else 'histogram'}, {told}",
                [found[Ours, metric, waiting], *peers],
                gates,
            )


def memory_child(kind, metric, number, waiting):
    (kind,) = (one for one in SUBJECTS if one.__name__ == kind)
    filled(kind, metric, 10).page()
    gc.collect()
    before = resident()
    kept = filled(kind, metric, int(number), int(waiting) or 1)
    if kind is Ours and waiting == "0":
        kept.page()
    gc.collect()
    print((resident() - before) / int(number))


def callbacks(rounds, budget):
    watched, beside, plain = Ours(), Ours(), Ours()
    watched.registry.add_callback(COUNTER, lambda name, value, labels: None)
    watched.registry.add_callback(HISTOGRAM, lambda name, value, labels: None)
    beside.registry.add_callback(GAUGE, lambda name, value, labels: None)
    cases = {}
    subjects = {"without a callback": plain, "with one on another metric": beside, "with a callback": watched}
    for what in ("counter by name", "histogram by name, lognormal values", "counter, bound"):
        for told, subject in subjects.items():
            cases[what, told] = Case(CALLS[what][0], subject.names(), VALUES)
    found = per_call(cases, rounds, budget)
    print(f"\n{'callbacks, ns a recording':44}" + "".join(f"{told:>30}" for told in subjects))
    for what in dict.fromkeys(what for what, _ in cases):
        print(f"{what:44}" + "".join(f"{middle(found[what, told]):>30.0f}" for told in subjects))


def switched_off(rounds, budget):
    """MetricsConfig(enabled=False): a call's own cost; the dict of labels is the caller's and stands beside it."""
    collector = MetricsCollector(MetricsConfig(enabled=False))
    arguments = {
        "increment_counter": f"({COUNTER!r}, labels=LABELS)",
        "set_gauge": f"({GAUGE!r}, value, labels=LABELS)",
        "record_histogram": f"({HISTOGRAM!r}, value, labels=LABELS)",
        "track_duration": f"({HISTOGRAM!r}, labels=LABELS)",
    }
    names = {**Ours().names(), "collector": collector}
    cases = {
        f"collector.{method}": Case(f"collector.{method}{given}", names, VALUES)
        for method, given in arguments.items()
        if getattr(collector, method, None) is not None
    }
    print("\na collector that is switched off, ns a call")
    if not cases:
        print("  it has no increment_counter yet")
    cases["(a dict of three labels)"] = Case(LITERAL, {}, VALUES)
    for what, values in per_call(cases, rounds, budget).items():
        cost = middle(values)
        told = "" if "dict" in what else "  gate 100 ns: " + ("met" if cost <= 100 else "MISSED")
        print(f"{what:44}{cost:>11.1f}{told}")
        if "MISSED" in told:
            missed.append(f"{what}: {cost:.0f} ns of 100 ns")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds: for a first look, not for figures")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory_child(*options.memory)
        return
    rounds, budget, size = (3, 0.002, 10) if options.quick else (15, 0.02, 1)
    calls(rounds, budget)
    pages(2 if options.quick else 7, size)
    with ThreadPoolExecutor(2) as pool:
        memory(10_000 // size, pool)
    wrong = _metric_threads.threads(2 if options.quick else 5, size)
    wrong += _metric_threads.torn(0.2 if options.quick else 2)
    rows, turn = _metric_threads.tasks(3 if options.quick else 9, 20 if options.quick else 200)
    head("100 asyncio tasks, a recording each turn", "ns")
    for what, found in rows.items():
        line(f"{what} (a turn alone: {turn:.0f})", found)
    callbacks(rounds, budget)
    switched_off(rounds, budget)
    print("\nmissed: " + "; ".join(missed) if missed else "\nevery gate is met")
    if wrong:
        sys.exit("WRONG: " + "; ".join(wrong))
    print(f"Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
