import os
import threading

import pytest

from tellmeter.registry import forks
from tellmeter.registry.registry import MetricsRegistry
from tests.support.metrics import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


class Locked:
    """Something with locks that remembers what happened to it."""

    def __init__(self, number=2):
        self.own = [threading.RLock() for _ in range(number)]
        self.forked = 0
        forks.tell_of_forks(self)

    def locks(self):
        return self.own

    def after_fork(self):
        self.forked += 1

    def free(self):
        """Whether another thread can take every lock."""
        found = []
        thread = threading.Thread(target=lambda: found.extend(one.acquire(blocking=False) for one in self.own))
        thread.start()
        thread.join()
        return all(found)


@pytest.fixture
def few(monkeypatch):
    """Only what a test tells of is held: the other registries of this process are not at issue."""
    monkeypatch.setattr(forks, "_told", forks.weakref.WeakSet())
    monkeypatch.setattr(forks, "_SECONDS", 0.01)


def test_every_lock_is_held_from_before_a_fork_until_after_it(few):
    one, other = Locked(), Locked()
    forks._before()
    assert not one.free() and not other.free()
    forks._after_in_parent()
    assert one.free() and other.free()
    assert one.forked == other.forked == 0


def test_a_child_frees_the_locks_and_tells_everybody(few):
    one = Locked()
    forks._before()
    forks._after_in_child()
    assert one.free() and one.forked == 1


def test_a_lock_that_somebody_keeps_does_not_stop_the_fork(few):
    one = Locked()
    kept, release = threading.Event(), threading.Event()

    def keep():
        with one.own[0]:
            kept.set()
            release.wait(20)

    thread = threading.Thread(target=keep)
    thread.start()
    assert kept.wait(20)
    forks._before()
    forks._after_in_parent()
    release.set()
    thread.join()
    assert one.free()


def test_two_threads_that_fork_at_the_same_time_free_their_own_locks_only(few, monkeypatch):
    monkeypatch.setattr(forks, "_SECONDS", 20)
    one = Locked()
    failures = []
    ready = threading.Event()

    def fork_too():
        forks._before()  # waits until the first has forked
        ready.set()
        try:
            forks._after_in_parent()
        except RuntimeError as error:
            failures.append(error)

    forks._before()
    second = threading.Thread(target=fork_too)
    second.start()
    first = one.own[0]

    class LetTheOtherIn:
        """The last lock that is freed here: the other thread takes its own meanwhile."""

        def release(self):
            first.release()
            assert ready.wait(20)

    held = forks._held[threading.get_ident()]
    held[held.index(first)] = LetTheOtherIn()
    forks._after_in_parent()
    second.join(20)
    assert failures == [] and one.free()


def test_what_nobody_holds_is_told_of_nothing(few):
    one = Locked()
    assert list(forks._told) == [one]
    del one
    assert list(forks._told) == []


def test_a_registrys_locks_are_new_in_a_child():
    registry = MetricsRegistry()
    family = registry.counter("c", "C", labels=["a"])
    before = registry.locks()
    assert len(before) >= 2
    family.folding = True  # another thread was at it when the child was made
    registry.after_fork()
    assert not set(map(id, registry.locks())) & set(map(id, before))
    family.labels("x").inc(5)
    assert family.labels("x").read() == 5


def test_a_child_counts_on_from_where_its_parent_was_and_alone():
    result = in_child(
        """
        import json, os
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry()
        bound = registry.counter("c", "C", labels=["a"]).labels("x")
        bound.inc(5)
        pid = os.fork()
        if pid == 0:
            bound.inc(2)
            registry.increment("c", 1, {"a": "y"})
            os._exit(int(registry.get_metric_stats("c")["sum"]))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([code, registry.get_metric_stats("c")["sum"]]))
        """
    )
    assert result == [8, 5]


def test_a_fork_inside_a_callback_or_a_read_hangs_nobody():
    result = in_child(
        """
        import json, os
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry()
        codes = []

        def fork(*_):
            pid = os.fork()
            if pid == 0:
                registry.increment("other", 1, {"a": "new"})
                registry.text()
                os._exit(0)
            codes.append(os.waitpid(pid, 0)[1])

        class Number:
            "A number whose adding forks: the metric's lock is held there."
            def __radd__(self, other):
                fork()
                return other + 1.0
            def __float__(self): return 1.0
            def __ge__(self, other): return True
            __lt__ = __gt__ = __ge__

        registry.add_callback("c", fork)
        registry.increment("c", 1, {"a": "x"})
        registry.increment("d", Number())
        registry.increment("d", 2)
        registry.text()
        print(json.dumps([codes, registry.get_metric_stats("d")["sum"]]))
        """,
        timeout=30,
    )
    assert result == [[0, 0], 3.0]
