"""Forks under load: no hang, no duplicate, each child delivers its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORKS = 1000


def run(code: str, *arguments: str, timeout: float = 110) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.heavy
@pytest.mark.fault(12)
def test_a_thousand_forks_under_load_neither_hang_nor_repeat(tmp_path: Path) -> None:
    store = tmp_path / "calls.db"
    result = run(
        """
        import json, os, sys, threading
        from tellmeter import AgentMetrics, MetricsCollector, MetricsConfig, SQLiteMetricsSink
        collector = MetricsCollector(MetricsConfig(batch_size=50, batch_timeout_seconds=0.01), sinks=[SQLiteMetricsSink(sys.argv[1])])
        running, made = True, [0, 0]

        def load(index):
            while running:
                collector.record(AgentMetrics(model="parent"))
                made[index] += 1
                if made[index] % 50 == 0:
                    threading.Event().wait(0.002)
        threads = [threading.Thread(target=load, args=(index,), daemon=True) for index in range(2)]
        for thread in threads: thread.start()
        failed = 0
        for number in range(int(sys.argv[2])):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    if number % 10 == 0:
                        collector.record(AgentMetrics(model="child"))
                        code = 0 if collector.flush_sync(60).complete and collector.stats().recorded == 1 else 2
                    else:
                        code = 0 if collector.stats().recorded == 0 and collector.stats().balanced else 3
                finally:
                    os._exit(code)
            failed += os.waitpid(pid, 0)[1] != 0
        running = False
        for thread in threads: thread.join()
        assert collector.flush_sync(60).complete
        stats = collector.stats()
        print(json.dumps({"failed": failed, "made": sum(made), "recorded": stats.recorded, "balanced": stats.balanced,
                          "dropped": sum(stats.dropped.values()) + sum(sum(s.dropped.values()) for s in stats.sinks.values())}))
        """,
        str(store),
        str(FORKS),
    )
    assert result["failed"] == 0
    assert result["made"] == result["recorded"] and result["balanced"]
    rows = dict(sqlite3.connect(store).execute("select model, count(*) from llm_metrics group by model").fetchall())
    assert rows["child"] == FORKS // 10
    assert rows["parent"] == result["made"] - result["dropped"]


@pytest.mark.fault(12)
def test_a_call_in_progress_at_a_fork_ends_once_and_in_the_parent() -> None:
    result = run(
        """
        import json, os
        from tellmeter import InMemoryMetricsSink, MetricsCollector
        collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
        with collector.track_request("openai", "gpt-4o"):
            pid = os.fork()
        if pid == 0:
            collector.flush_sync()
            os._exit(collector.stats().recorded)
        child = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        collector.flush_sync()
        print(json.dumps([child, collector.stats().recorded]))
        """
    )
    assert result == [0, 1]


@pytest.mark.parametrize("early", ["", "tellmeter.get_metrics_collector()"], ids=["made-late", "made-at-import"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.fault(12)
def test_a_multiprocessing_workers_records_survive_its_end(tmp_path: Path, method: str, early: str) -> None:
    store = tmp_path / "calls.db"
    script = tmp_path / "workers.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, sys
            import tellmeter
            {early}
            def work(number):
                with tellmeter.meter_call(model=f"m{{number}}"): pass
            if __name__ == "__main__":
                with tellmeter.meter_call(model="parent"): pass
                workers = [multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(n,)) for n in range(3)]
                for w in workers: w.start()
                for w in workers: w.join()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), method],
        env={**os.environ, "TELLMETER_SINKS": f"sqlite:///{store}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {row[0] for row in sqlite3.connect(store).execute("select model from llm_metrics")}
    assert rows == {"parent", "m0", "m1", "m2"}


@pytest.mark.fault(12)
def test_fork_while_the_router_holds_its_lock() -> None:
    result = run(
        """
        import json, os, threading
        from tellmeter import AgentMetrics, MetricsCollector
        entered, release = threading.Event(), threading.Event()
        class Slow:
            def write(self, record):
                entered.set()
                release.wait(30)
        collector = MetricsCollector(sinks=[Slow()])
        collector.record(AgentMetrics(model="m"))
        entered.wait(10)
        pid = os.fork()
        if pid == 0:
            release.set()
            collector.record(AgentMetrics(model="m"))
            os._exit(0 if collector.flush_sync(10).complete and collector.stats().recorded == 1 else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        release.set()
        print(json.dumps(code))
        """
    )
    assert result == 0


@pytest.mark.fault(12)
def test_the_main_thread_is_not_needed_to_survive_signals() -> None:
    """A SIGALRM handler that records, while the main thread drains."""
    result = run(
        """
        import json, signal
        from tellmeter import AgentMetrics, InMemoryMetricsSink, MetricsCollector
        collector = MetricsCollector(sinks=[InMemoryMetricsSink()])
        made = 0
        def tick(*_):
            global made
            made += 1
            collector.record(AgentMetrics(model="signal"))
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        for _ in range(3000):
            collector.record(AgentMetrics(model="main"))
            made += 1
            collector.sinks[0].get_stats()
        signal.setitimer(signal.ITIMER_REAL, 0)
        collector.flush_sync()
        stats = collector.stats()
        print(json.dumps([stats.balanced, stats.recorded > 3000]))
        """
    )
    assert result == [True, True]
