"""What a decorator adds to a call, beside prometheus_client's.

    python benchmarks/decorators.py [--quick]

CPU time, subjects in turn, medians of the rounds (`_harness.py`), what the bare function costs taken off. A ratio is how
many times ours theirs is. Beside each of ours stands what comes nearest: `time()`, `count_exceptions()`,
`track_inprogress()`, one inside the other where ours does several things. Their decorators see of a coroutine only how
it is made, so beside our coroutines stand their blocks, inside the function.
"""

from __future__ import annotations

import argparse

from _harness import Case, middle, per_call, ratio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tellmeter import MetricsRegistry
from tellmeter.instruments.activity import monitor_resource, track_active
from tellmeter.instruments.caches import cache_metrics
from tellmeter.instruments.counting import count_calls
from tellmeter.instruments.durations import measure_latency, time_operation, track_duration
from tellmeter.instruments.error_counts import track_errors
from tellmeter.instruments.tracking import track_metrics

OURS = MetricsRegistry()
THEIRS = CollectorRegistry()
LABELS = {"model_id": "claude-3"}

seconds = Histogram("seconds", "Theirs.", ["model_id"], registry=THEIRS)
total = Counter("calls", "Theirs.", ["model_id"], registry=THEIRS)
active = Gauge("active", "Theirs.", ["model_id"], registry=THEIRS)
bound_seconds, bound_total, bound_active = (metric.labels("claude-3") for metric in (seconds, total, active))


def work(value):
    return value, True


async def slow_work(value):
    return value, True


def counted(function):
    def call(value):
        bound_total.inc()
        return function(value)

    return call


def counted_by_argument(function):
    def call(value):
        total.labels(str(value % 2)).inc()
        return function(value)

    return call


async def timed(value):
    with bound_seconds.time():
        return value, True


async def slowly_counted(value):
    bound_total.inc()
    return value, True


async def counted_by_argument_slowly(value):
    total.labels(str(value % 2)).inc()
    return value, True


async def failing(value):
    with bound_total.count_exceptions():
        return value, True


async def in_progress(value):
    with bound_active.track_inprogress():
        return value, True


async def used(value):
    with bound_active.track_inprogress(), bound_seconds.time():
        return value, True


async def tracked(value):
    bound_total.inc()
    with bound_seconds.time(), bound_total.count_exceptions():
        return value, True


def by_argument(value):
    return {"parity": str(value % 2)}


# ours; prometheus_client's decorator; prometheus_client's block
CASES = {
    "track_duration": (track_duration("t_seconds", LABELS, registry=OURS), bound_seconds.time(), timed),
    "measure_latency": (measure_latency("l_seconds", LABELS, registry=OURS), bound_seconds.time(), timed),
    "time_operation": (time_operation("o_seconds", LABELS, registry=OURS), bound_seconds.time(), timed),
    "count_calls": (count_calls("c_total", LABELS, registry=OURS), counted, slowly_counted),
    "count_calls, label_extractor": (
        count_calls("x_total", label_extractor=by_argument, registry=OURS),
        counted_by_argument,
        counted_by_argument_slowly,
    ),
    "track_errors": (track_errors("e_total", LABELS, registry=OURS), bound_total.count_exceptions(), failing),
    "track_active": (track_active("active", LABELS, registry=OURS), bound_active.track_inprogress(), in_progress),
    "monitor_resource, usage": (
        monitor_resource("db", track_usage=True, registry=OURS),
        lambda function: bound_active.track_inprogress()(bound_seconds.time()(function)),
        used,
    ),
    "cache_metrics": (cache_metrics("cache", registry=OURS), counted, slowly_counted),
    "track_metrics": (
        track_metrics("op", LABELS, registry=OURS),
        lambda function: counted(bound_seconds.time()(bound_total.count_exceptions()(function))),
        tracked,
    ),
}  # fmt: skip


def drive(coroutine):
    try:
        coroutine.send(None)
    except StopIteration:
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: for a look, not for a figure")
    quick = parser.parse_args().quick
    rounds, budget = (5, 0.01) if quick else (25, 0.03)
    values = list(range(100))
    for kind, bare, statement in (
        ("function", work, "call(value)"),
        ("coroutine function", slow_work, "drive(call(value))"),
    ):
        cases = {"bare": Case(statement, {"call": bare, "drive": drive}, values)}
        for name, (ours, decorator, block) in CASES.items():
            theirs = decorator(bare) if bare is work else block
            for who, call in (("ours", ours(bare)), ("theirs", theirs)):
                cases[name, who] = Case(statement, {"call": call, "drive": drive}, values)
        found = per_call(cases, rounds, budget)
        bare_cost = found["bare"]
        print(
            f"\n{kind}, ns added ({middle(bare_cost):.0f} bare)".ljust(45)
            + f"{'tellmeter':>11}{'prometheus_client':>20}"
        )
        for name in CASES:
            ours, theirs = (
                [one - other for one, other in zip(found[name, who], bare_cost, strict=True)]
                for who in ("ours", "theirs")
            )
            times, spread = ratio(theirs, ours)
            print(f"{name:44}{middle(ours):>11.0f}{middle(theirs):>10.0f} {times:>5.2f}x {spread:>13}", flush=True)


if __name__ == "__main__":
    main()
