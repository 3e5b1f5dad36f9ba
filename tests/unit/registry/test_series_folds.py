"""When a series adds up what waits in it, and what may happen meanwhile."""

import threading

import pytest

from tellmeter.registry.registry import MetricsRegistry
from tellmeter.registry.series import FOLD_AT
from tests.support.metrics import in_child


def counter():
    return MetricsRegistry().counter("c", "A counter", labels=["a"]).labels("x")


def gauge():
    return MetricsRegistry().gauge("g", "A gauge", labels=["a"]).labels("x")


def histogram(buckets=(1.0, 2.0, 5.0)):
    return MetricsRegistry().histogram("h", "A histogram", labels=["a"], buckets=buckets).labels("x")


def test_only_a_read_or_a_full_list_folds():
    series = counter()
    for _ in range(FOLD_AT):
        series.inc()
    assert series.state == 0 and len(series.pending) == FOLD_AT
    series.inc()
    assert series.state == FOLD_AT + 1 and series.pending == []


def test_what_is_recorded_within_a_fold_waits_for_the_next_one():
    """As a signal handler or a `__del__` does that hits in the midst of one."""
    series = counter()

    class Nested:
        done = False

        def __radd__(self, other):
            if not Nested.done:
                Nested.done = True
                for _ in range(FOLD_AT * 2):
                    series.inc()
                assert series.read() == 0
            return other + 1

        def __float__(self):
            return 1.0

        def __ge__(self, other):
            return True

        __lt__ = __gt__ = __ge__

    series.inc(Nested())
    series.inc(1)
    assert series.read() == 2
    assert series.read() == 2 + FOLD_AT * 2


def test_an_activity_or_gauge_counts_what_a_collection_adds_in_its_midst():
    """A list is made at the first `inc` after a `set`; making one may run the garbage collector, which may record."""
    result = in_child(
        """
        import gc, json
        from tellmeter.registry.registry import MetricsRegistry
        series = MetricsRegistry().gauge("g", "A gauge")
        series = series.labels()
        lost = hits = 0
        def record(phase, info):
            global hits
            if phase == "stop" and not busy:
                hits += 1
                series.inc()
        busy = True
        gc.callbacks.append(record)
        held = []
        for number in range(300):
            series.set(0)
            held.append([[] for _ in range(100)])  # now the interpreter has no used list at hand
            hits, busy = 0, False
            gc.set_threshold(1, 1000, 1000)
            series.inc()
            gc.set_threshold(0)
            busy = True
            lost += series.read() != 1 + hits
        print(json.dumps(lost))
        """
    )
    assert result == 0


class Slow:
    """A number whose adding takes until it is let go."""

    def __init__(self):
        self.adding, self.go_on = threading.Event(), threading.Event()

    def __radd__(self, other):
        self.adding.set()
        self.go_on.wait(20)
        return other + 1.0

    def __float__(self):
        return 1.0

    def __ge__(self, other):
        return True

    __lt__ = __gt__ = __ge__


@pytest.mark.parametrize("make", [counter, gauge, histogram])
def test_who_records_does_not_wait_for_a_fold_and_who_reads_does(make):
    series, slow = make(), Slow()
    record = series.observe if make is histogram else series.inc

    def read():
        return series.read()[1] if make is histogram else series.read()

    def record_many():
        for _ in range(FOLD_AT * 3):
            record(1)

    found = []
    record(slow)
    folding, recording = threading.Thread(target=record_many), threading.Thread(target=record_many)
    reading = threading.Thread(target=lambda: found.append(read()))
    folding.start()
    assert slow.adding.wait(20)
    recording.start()
    recording.join(20)
    assert not recording.is_alive()
    reading.start()
    reading.join(0.02)
    assert found == []
    slow.go_on.set()
    for thread in (reading, folding):
        thread.join(20)
    assert found[0] > FOLD_AT * 3 and read() == 1 + FOLD_AT * 6


@pytest.mark.parametrize("make", [counter, gauge, histogram])
def test_a_fold_that_fails_loses_nothing(make, monkeypatch):
    series = make()
    record = series.observe if hasattr(series, "observe") else series.inc
    step = "add" if hasattr(series, "add") and make is not gauge else "_sum"

    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(type(series), step, fail)
        for _ in range(FOLD_AT + 10):
            record(1)
    assert not series.family.folding
    assert (series.read()[1] if make is histogram else series.read()) == FOLD_AT + 10


def test_a_bound_series_works_at_every_depth_at_which_a_function_does():
    def probe():
        [].append(1)

    def dive(depth, action, *arguments):
        return action(*arguments) if depth == 0 else dive(depth - 1, action, *arguments)

    def deepest():
        depth = 1
        while True:
            try:
                dive(depth, probe)
            except RecursionError:
                return depth - 1
            depth += 1

    limit = deepest()
    total, level, spread = counter(), gauge(), histogram()
    made = 0
    for depth in range(limit - 12, limit + 1):
        for _ in range(FOLD_AT * 3):
            dive(depth, total.inc)
            dive(depth, level.inc)
            dive(depth, spread.observe, 1)
            made += 1
    assert total.read() == level.read() == spread.read()[1] == made
