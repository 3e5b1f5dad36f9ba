"""Threads: no recording is lost, and no reader sees half of one."""

import sys
import threading

import pytest

from tellmeter.registry.registry import MetricsRegistry
from tests.support.metrics import in_child, read_page, values_of


@pytest.fixture
def often():
    """Threads change places at every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Crew:
    """Threads that begin together; what one of them raises fails the test."""

    def __init__(self):
        self.errors = []
        self.threads = []
        self.gate = threading.Event()

    def add(self, work, *arguments):
        def run():
            self.gate.wait(60)
            try:
                work(*arguments)
            except BaseException as error:
                self.errors.append(error)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def finish(self, *, threads=None):
        self.gate.set()
        for thread in self.threads if threads is None else threads:
            thread.join(100)
            assert not thread.is_alive()
        assert self.errors == []


@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_no_recording_of_any_thread_is_lost(often, number):
    registry = MetricsRegistry()
    each = 120_000 // number

    def work(index):
        labels = {"thread": str(index % 2), "b": "x"}
        total = registry.counter("c").labels(**labels)
        level = registry.gauge("g").labels(**labels)
        spread = registry.histogram("h").labels(**labels)
        for step in range(each // 2):
            registry.increment("c", 1, labels)
            registry.increment_gauge("g", 2, labels)
            registry.observe("h", 1.0, labels)
            total.inc()
            level.dec(1)
            spread.observe(1.0)
            if step % 100 == 0:
                registry.increment(f"own_{index}_{step}", 1, {"a": str(step)})
                registry.increment("many", 1, {"a": f"{index}-{step}"})

    registry.counter("c", "C", labels=["thread", "b"])
    registry.gauge("g", "G", labels=["thread", "b"])
    registry.histogram("h", "H", labels=["thread", "b"])
    crew = Crew()
    for index in range(number):
        crew.add(work, index)
    crew.finish()
    assert sum(values_of(registry, "c").values()) == number * (each // 2) * 2
    assert sum(values_of(registry, "g").values()) == number * (each // 2)
    stats = registry.get_metric_stats("h")
    assert stats["count"] == stats["sum"] == number * (each // 2) * 2
    own = [family for family in registry.families() if family.name.startswith("own_")]
    assert (
        len(own)
        == sum(family.series.copy().popitem()[1].read() for family in own)
        == registry.get_metric_stats("many")["sum"]
    )


def test_no_reader_sees_a_torn_histogram_or_a_counter_that_falls(often):
    """Every observation is 1.0: sum and count are equal in every read, or it was torn."""
    registry = MetricsRegistry()
    registry.histogram("h", "H", labels=["a"], buckets=[0.5, 1.0, 2.0])
    registry.counter("c", "C", labels=["a"])
    reads, made = set(), [0, 0]
    enough, done = threading.Event(), threading.Event()
    labels = {"a": "x"}

    def record(index):
        spread, total = registry.histogram("h").labels("x"), registry.counter("c").labels("x")
        while not done.is_set() and (made[index] < 5000 or not enough.wait(0 if made[index] % 100 else 0.0005)):
            spread.observe(1.0)
            registry.observe("h", 1.0, labels)
            total.inc()
            made[index] += 1

    def read_text(openmetrics):
        before = 0
        while not done.is_set():
            read = read_page(registry.text(openmetrics=openmetrics), openmetrics=openmetrics, created=False)
            if not read["h"].samples:
                continue
            found = {(name, dict(key).get("le")): value for (name, key), value in read["h"].samples.items()}
            count = found["h_count", None]
            assert found["h_sum", None] == count == found["h_bucket", "+Inf"] == found["h_bucket", "1.0"]
            assert found["h_bucket", "0.5"] == 0
            (total,) = read["c"].samples.values() or (0,)
            assert total >= before
            before = total
            saw(count)

    def saw(count):
        reads.add(count)
        if len(reads) > 100:
            enough.set()

    def read_stats():
        while not done.is_set():
            stats = registry.get_metric_stats("h")
            assert stats["count"] == stats["sum"]
            assert stats["max"] in (None, 1.0)
            saw(stats["count"])

    crew = Crew()
    for index in range(2):
        crew.add(record, index)
    writers = crew.threads[:]
    for read in ((read_text, True), (read_text, False), (read_stats,)):
        crew.add(*read)
    try:
        crew.finish(threads=writers)
    finally:
        done.set()
    crew.finish()
    stats = registry.get_metric_stats("h")
    assert stats["count"] == stats["sum"] == 2 * sum(made)


def test_threads_that_first_use_the_same_names_make_the_same_metrics(often):
    """The first recording registers the metric and learns its labels: each round is a race for it."""
    crew = Crew()
    registry = MetricsRegistry()
    rounds = 150
    barrier = threading.Barrier(4)

    def work():
        for step in range(rounds):
            barrier.wait(60)
            registry.increment(f"c{step}", 1, {"a": "x", "b": "y"})
            registry.observe(f"h{step}", 2.0, {"a": "x"})
            registry.increment_gauge(f"g{step}", 3, {"a": "x"})
            with registry.timer(f"t{step}", {"a": "x"}):
                pass

    for _ in range(4):
        crew.add(work)
    crew.finish()
    assert len(registry.families()) == rounds * 4
    for step in range(rounds):
        assert values_of_series(registry, f"c{step}") == {("x", "y"): 4}
        assert values_of_series(registry, f"g{step}") == {("x",): 12}
        assert registry.get_metric_stats(f"h{step}") == {**registry.get_metric_stats(f"h{step}"), "count": 4, "sum": 8}
        assert registry.get_metric_stats(f"t{step}")["count"] == 4


def values_of_series(registry, name):
    family = next(family for family in registry.families() if family.name == name)
    return {values: series.read() for values, series in family.series.items()}


def test_settings_and_callbacks_that_change_under_load_lose_nothing(often):
    registry = MetricsRegistry(max_series=50)
    registry.counter("c", "C", labels=["a"])
    told = []
    done = threading.Event()

    def record(index):
        for step in range(4000):
            registry.increment("c", 1, {"a": str(step % 100)})

    def change():
        registry.add_callback("c", lambda *call: told.append(1))
        while not done.is_set():
            registry.max_series = 50
            registry.text()

    crew = Crew()
    for index in range(3):
        crew.add(record, index)
    writers = crew.threads[:]
    crew.add(change)
    try:
        crew.finish(threads=writers)
    finally:
        done.set()
    crew.finish()
    assert sum(values_of(registry, "c").values()) == 12_000
    assert len(registry.counter("c").series) <= 51
    assert told


def test_a_reset_and_a_fold_that_makes_a_series_do_not_wait_for_each_other():
    """The number makes a series while it is added; `reset` comes from another thread at that very moment."""
    result = in_child(
        """
        import json, threading
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry()
        adding, resetting = threading.Event(), threading.Event()

        class Number:
            def __radd__(self, other):
                adding.set()
                resetting.wait(0.3)
                registry.increment("other", 1, {"a": "new"})
                return other + 1.0
            def __float__(self): return 1.0
            def __ge__(self, other): return True
            __lt__ = __gt__ = __ge__

        def fold():
            registry.increment("c", Number())
            registry.increment("c", 2)
            registry.text()

        def reset():
            adding.wait(20)
            registry.reset()
            resetting.set()

        threads = [threading.Thread(target=work, daemon=True) for work in (fold, reset)]
        for thread in threads: thread.start()
        for thread in threads: thread.join(20)
        print(json.dumps([thread.is_alive() for thread in threads]))
        """,
        timeout=60,
    )
    assert result == [False, False]
