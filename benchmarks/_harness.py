"""Rounds in which every subject takes its turn, in CPU time: what metrics_core.py measures with.

Ratios are taken within a round, between neighbours in time, so that a machine that others use moves them little. What is
printed is their median and, behind it, the quartiles.
"""

import contextlib
import gc
import os
import statistics
import time
from pathlib import Path


class Case:
    """A statement in a loop over `values`, as user code has it; `value` is the value of the turn."""

    def __init__(self, statement, names, values):
        self.names = {"perf_counter": time.perf_counter, **names}
        exec(f"def run(turns, values):\n for _ in range(turns):\n  for value in values: {statement}", self.names)
        self.run = self.names["run"]
        self.values = values
        self.turns = 1

    def seconds(self):
        started = time.process_time()
        self.run(self.turns, self.values)
        return time.process_time() - started

    def calibrate(self, budget):
        """As many turns as fit in `budget` seconds; warms the interpreter up as well."""
        while self.seconds() < budget / 8:
            self.turns *= 2
        self.turns = max(1, round(self.turns * budget / self.seconds()))


def per_call(cases, rounds, budget):
    """Nanoseconds a call of each case, a list of one figure a round; the loop itself is taken off."""
    some = next(iter(cases.values()))
    cases = {None: Case("pass", {}, some.values), **cases}
    for case in cases.values():
        case.calibrate(budget)
    found = {key: [] for key in cases}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for key, case in cases.items():
                found[key].append(case.seconds() / case.turns / len(case.values) * 1e9)
    finally:
        gc.enable()
    loop = statistics.median(found.pop(None))
    return {key: [one - loop for one in values] for key, values in found.items()}


@contextlib.contextmanager
def frozen():
    """Garbage is collected as ever, but nobody pays for what the others keep."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def per_act(acts, rounds):
    """Milliseconds of each act, a list of one figure a round."""
    found = {key: [] for key in acts}
    for act in acts.values():
        act()
    with frozen():
        for _ in range(rounds):
            for key, act in acts.items():
                gc.collect()
                started = time.process_time()
                act()
                found[key].append((time.process_time() - started) * 1e3)
    return found


def resident():
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def middle(values):
    return statistics.median(values)


def ratio(theirs, ours):
    """How many times ours theirs is: the median, and the quartiles where there are rounds enough."""
    each = [one / other for one, other in zip(theirs, ours, strict=True)]
    if len(each) < 4:
        return statistics.median(each), ""
    low, _, high = statistics.quantiles(each, n=4)
    return statistics.median(each), f"({low:.3g}-{high:.3g})"


PEERS = ("prometheus_client", "OpenTelemetry SDK")
missed = []


def head(what, unit):
    print(f"\n{what + ', ' + unit:44}{'tellmeter':>11}" + "".join(f"{peer:>24}{'gate':>14}" for peer in PEERS))


def line(what, found, gates=(None, None)):
    """A row of the table: `found` has the rounds of ours and, where there are any, of each peer's."""
    ours = found[0]
    text = f"{what:44}{_figure(middle(ours)):>11}"
    for peer, theirs, gate in zip(PEERS, found[1:], gates, strict=True):
        if theirs is None:
            text += f"{'-':>24}{'':14}"
            continue
        times, spread = ratio(theirs, ours)
        text += f"{_figure(middle(theirs)):>8} {f'{times:.3g}x':>5} {spread:>9}{_judged(what, peer, times, gate):>14}"
    print(text, flush=True)


def _figure(value):
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _judged(what, peer, times, gate):
    if gate is None:
        return ""
    if times >= gate:
        return f"{gate}x met"
    missed.append(f"{what}: {times:.3g}x of {gate}x ({peer})")
    return f"{gate}x MISSED"
