"""Recording in the midst of recording: signal handlers, `__del__`, KeyboardInterrupt, a stack that ends."""

import signal

import pytest

from tests.support.metrics import in_child

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no setitimer here")


@pytest.mark.fault(26)
def test_a_signal_handler_may_record_create_and_scrape_while_the_main_thread_does():
    result = in_child(
        """
        import json, signal
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry(max_series=100_000)
        main = handled = torn = 0

        def use(who, number):
            global torn
            labels = {"who": who}
            registry.increment("c", 1, labels)
            registry.observe("h", 1.0, labels)
            registry.increment_gauge("g", 1, labels)
            registry.increment("unfolded", 1, {"who": who, "number": str(number)})
            registry.increment(f"new_{number}", 1, {"who": who})
            if number % 7 == 0:
                registry.text()
                stats = registry.get_metric_stats("h")
                torn += stats["count"] != stats["sum"]

        def handler(*_):
            global handled
            handled += 1
            use("handler", handled)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        while handled < 150 or main < 150:
            main += 1
            use("main", main)
        signal.setitimer(signal.ITIMER_REAL, 0)
        both = {"main": main, "handler": handled}
        wrong = []
        for who, number in both.items():
            for name in ("c", "h", "g", "unfolded"):
                if registry.get_metric_stats(name, {"who": who})["sum"] != number:
                    wrong.append([who, name, number, registry.get_metric_stats(name, {"who": who})])
        new = sum(registry.get_metric_stats(f"new_{number}")["sum"] for number in range(1, max(main, handled) + 1))
        print(json.dumps([torn, wrong, new - min(main + handled, new), registry.get_metric_stats("h")["count"] - main - handled]))
        """,
        timeout=60,
    )
    assert result == [0, [], 0, 0]


@pytest.mark.fault(26)
def test_a_del_in_a_cycle_may_record_create_and_scrape():
    result = in_child(
        """
        import gc, json
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry(max_series=100_000)
        level = registry.gauge("g", "G", labels=[]).labels()
        deleted = made = 0

        class Cycle:
            def __init__(self):
                self.itself = self
            def __del__(self):
                global deleted
                deleted += 1
                registry.increment("c", 1, {"who": "del"})
                registry.observe("h", 1.0, {"who": "del"})
                level.inc()
                registry.increment("series", 1, {"number": str(deleted)})
                if deleted % 20 == 0:
                    registry.text()

        gc.set_threshold(5, 2, 2)
        while made < 3000:
            made += 1
            Cycle()
            registry.increment("c", 1, {"who": "main"})
            registry.observe("h", 1.0, {"who": "main"})
            level.inc()
            registry.increment("made", 1, {"number": str(made % 500)})
            if made % 100 == 0:
                registry.text(openmetrics=True)
        gc.set_threshold(700, 10, 10)
        gc.collect()
        print(json.dumps([
            deleted,
            registry.get_metric_stats("c", {"who": "del"})["sum"], registry.get_metric_stats("c", {"who": "main"})["sum"],
            registry.get_metric_stats("h")["count"], registry.get_metric_stats("g")["sum"],
            registry.get_metric_stats("series")["sum"], registry.get_metric_stats("made")["sum"],
        ]))
        """,
        timeout=60,
    )
    assert result == [3000, 3000, 3000, 6000, 6000, 3000, 3000]


@pytest.mark.fault(26)
def test_threads_whose_garbage_records_neither_hang_nor_lose():
    result = in_child(
        """
        import gc, json, sys, threading
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry(max_series=100_000)
        sys.setswitchinterval(1e-5)
        deleted = []

        class Cycle:
            def __init__(self):
                self.itself = self
            def __del__(self):
                deleted.append(1)
                registry.increment("c", 1, {"who": "del"})
                registry.increment("series", 1, {"number": str(len(deleted))})
                if len(deleted) % 50 == 0:
                    registry.text()

        def work(index):
            for step in range(600):
                Cycle()
                registry.increment("c", 1, {"who": str(index)})
                registry.increment("own", 1, {"number": f"{index}-{step}"})
                if step % 50 == 0:
                    registry.text()

        gc.set_threshold(5, 2, 2)
        threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join(40)
        hung = sum(thread.is_alive() for thread in threads)
        gc.set_threshold(700, 10, 10)
        gc.collect()
        print(json.dumps([hung, len(deleted)] + [registry.get_metric_stats(name)["sum"] for name in ("c", "series", "own")]))
        """,
        timeout=60,
    )
    assert result == [0, 1800, 3600, 1800, 1800]


@pytest.mark.fault(26)
def test_a_storm_of_interrupts_leaves_a_registry_that_works():
    """KeyboardInterrupt may hit anywhere, also in a fold: at most one batch is counted twice, and no lock is kept."""
    result = in_child(
        """
        import json, signal, threading
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry(max_series=1_000_000)
        total = registry.counter("c", "C", labels=["a"]).labels("x")
        interrupts = made = 0
        storm = True

        def interrupt(signal, frame):
            if storm and "tellmeter" in frame.f_code.co_filename:
                raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
        while interrupts < 400:
            try:
                while True:
                    made += 1
                    total.inc()
                    registry.observe("h", 1.0, {"a": "x"})
                    registry.increment("series", 1, {"number": str(made % 5000)})
                    registry.increment_gauge("g", 1, {"a": "x"})
                    if made % 50 == 0:
                        registry.text()
            except KeyboardInterrupt:
                interrupts += 1
        storm = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        found = []

        def read():
            registry.increment("after", 1, {"a": "new"})
            registry.reset()
            registry.increment("c", 1, {"a": "x"})
            found.append(registry.text().decode())

        counted = total.read()
        folding = [family.name for family in registry.families() if family.folding]
        other = threading.Thread(target=read, daemon=True)
        other.start()
        other.join(20)
        print(json.dumps([len(found), folding, 'c_total{a="x"} 1.0' in found[0], abs(counted - made) <= 66 * interrupts]))
        """,
        timeout=60,
    )
    assert result == [1, [], True, True]


@pytest.mark.fault(26)
def test_recording_at_the_end_of_the_stack_leaves_a_registry_that_works():
    """By name, a recording may raise RecursionError there, as any function does; nothing is broken by it."""
    result = in_child(
        """
        import json, threading
        from tellmeter.registry.registry import MetricsRegistry
        registry = MetricsRegistry()
        registry.counter("c", "C", labels=["a"])

        def dive(depth):
            try:
                registry.increment("c", 1, {"a": "x"})
                registry.increment("c", 1, {"a": str(depth)})
                registry.observe("h", 1.0, {"a": "x"})
                registry.increment(f"new_{depth % 50}", 1, {"a": "x"})
                if depth % 10 == 0:
                    registry.text()
            except RecursionError:
                pass
            dive(depth + 1)

        for _ in range(3):
            try:
                dive(0)
            except RecursionError:
                pass
        found = []
        def read():
            registry.increment("after", 1, {"a": "new"})
            found.append(registry.text())
        other = threading.Thread(target=read, daemon=True)
        other.start()
        other.join(20)
        before = registry.get_metric_stats("c", {"a": "x"})["sum"]
        for _ in range(200):
            registry.increment("c", 1, {"a": "x"})
        stats = registry.get_metric_stats("h")
        print(json.dumps([
            len(found), registry.get_metric_stats("c", {"a": "x"})["sum"] - before,
            stats["count"] == stats["sum"], [family.name for family in registry.families() if family.folding],
        ]))
        """,
        timeout=60,
    )
    assert result == [1, 200, True, []]
