"""Forks while threads record and scrape: every child can do both, and none hangs."""

import os

import pytest

from tests.support.metrics import in_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORKS = 60


def test_children_of_a_busy_process_record_create_and_scrape():
    result = in_child(
        """
        import json, os, signal, sys, threading
        from tellmeter.registry.registry import MetricsRegistry, get_metrics_registry
        registry = get_metrics_registry()
        registry.counter("c", "C", labels=["a"])
        registry.histogram("h", "H", labels=["a"])
        running = True
        sys.setswitchinterval(1e-4)

        def record(index):
            bound = registry.histogram("h").labels(str(index))
            number = 0
            while running:
                number += 1
                registry.increment("c", 1, {"a": str(index)})
                registry.increment("churn", 1, {"a": str(number)})
                registry.increment_gauge("g", 1, {"a": str(index)})
                bound.observe(1.0)

        def scrape():
            while running:
                registry.text(openmetrics=True)

        threads = [threading.Thread(target=record, args=(index,), daemon=True) for index in range(3)]
        threads.append(threading.Thread(target=scrape, daemon=True))
        for thread in threads: thread.start()
        failed = []
        for number in range(int(sys.argv[1])):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.alarm(10)
                    before = registry.get_metric_stats("c", {"a": "0"})["sum"]
                    for _ in range(200):
                        registry.increment("c", 1, {"a": "0"})
                        registry.increment("c", 1, {"a": f"child-{number}"})
                        registry.observe("h", 1.0, {"a": f"child-{number}"})
                        registry.increment(f"new_{number}", 1, {"b": "x"})
                    page = registry.text().decode()
                    grown = registry.get_metric_stats("c", {"a": "0"})["sum"] - before
                    stats = registry.get_metric_stats("h")
                    good = grown == 200 and stats["count"] == stats["sum"] and f"new_{number}_total" in page
                    MetricsRegistry().increment("own")
                    code = 0 if good else 3
                finally:
                    os._exit(code)
            status = os.waitpid(pid, 0)[1]
            if status:
                failed.append(status)
        running = False
        for thread in threads: thread.join(20)
        print(json.dumps([failed, registry.get_metric_stats("c")["count"] > 0]))
        """,
        FORKS,
        timeout=110,
    )
    assert result == [[], True]


def test_threads_that_fork_at_the_same_time_keep_their_locks_apart():
    result = in_child(
        """
        import json, os, signal, sys, threading
        from tellmeter.registry.registry import MetricsRegistry
        registries = [MetricsRegistry() for _ in range(3)]
        for registry in registries:
            for name in range(20):
                registry.increment(f"c{name}", 1, {"a": "x"})
        failed = []
        sys.setswitchinterval(1e-5)

        def fork():
            for _ in range(12):
                pid = os.fork()
                if pid == 0:
                    signal.alarm(10)
                    for registry in registries:
                        registry.increment("new", 1, {"a": "x"})
                        registry.text()
                    os._exit(0)
                failed.append(os.waitpid(pid, 0)[1])
                registries[0].increment("c1", 1, {"a": "y"})

        threads = [threading.Thread(target=fork, daemon=True) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join(60)
        done = []
        last = threading.Thread(target=lambda: done.append([registry.text() for registry in registries]), daemon=True)
        last.start()
        last.join(20)
        print(json.dumps([sorted(set(failed)), len(failed), len(done)]))
        """,
        timeout=100,
    )
    assert result == [[0], 48, 1]


def test_the_values_of_the_parent_are_all_there_after_many_forks():
    result = in_child(
        """
        import json, os, threading
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry()
        registry.histogram("h", "H", labels=["a"])
        made = [0, 0]
        forking = True

        def record(index):
            while forking or made[index] < 1000:
                registry.observe("h", 1.0, {"a": str(index)})
                registry.increment("c", 1, {"a": "x"})
                made[index] += 1
        threads = [threading.Thread(target=record, args=(index,)) for index in range(2)]
        for thread in threads: thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        forking = False
        for thread in threads: thread.join()
        stats = registry.get_metric_stats("h")
        print(json.dumps([stats["count"] - sum(made), stats["sum"] - sum(made), registry.get_metric_stats("c")["sum"] - sum(made)]))
        """,
        timeout=60,
    )
    assert result == [0, 0, 0]


def test_a_child_makes_its_registry_and_collector_though_a_thread_was_making_them_at_the_fork():
    assert (
        in_child(
            """
        import json, os, signal, threading
        import tellmeter
        from tellmeter import process
        from tellmeter.registry import registry

        held, enough = threading.Event(), threading.Event()

        def hold():
            with registry._process_lock, process._process_lock:
                held.set()
                enough.wait(30)

        threading.Thread(target=hold, daemon=True).start()
        held.wait(30)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            tellmeter.get_metrics_registry().increment("c")
            os._exit(0 if tellmeter.get_metrics_collector().registry is tellmeter.get_metrics_registry() else 1)
        print(json.dumps(os.waitpid(pid, 0)[1]))
        enough.set()
        """
        )
        == 0
    )
