"""Processes that fork with a spool: each delivers its own, nothing twice, nobody hangs. gunicorn, os.fork, and gevent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tellmeter.pipeline.spool.left import look
from tellmeter.testing import FaultServer
from tests.support.metrics import in_child
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
SECONDS = 60
WORKERS = 4

APP = """
import os
import tellmeter
collector = tellmeter.configure(
    tellmeter.MetricsConfig(spool={spool!r}, batch_timeout_seconds=0.05), sinks=[{url!r}]
)
{preloaded}

def wsgi(environ, start):
    collector.record(tellmeter.AgentMetrics(model=str(os.getpid()), request_id=environ["PATH_INFO"]))
    start("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def arrived(server: FaultServer) -> list[dict[str, str]]:
    return [one for request in server.requests for one in request.json()["metrics"]]


@pytest.mark.fault(12)
@pytest.mark.heavy
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "each loads"])
def test_gunicorn_with_four_workers_and_a_spool(tmp_path: Path, preload: bool) -> None:
    """The parent has recorded, has threads, a connection and a spool of its own before it forks."""
    requests = 400
    preloaded = 'collector.record(tellmeter.AgentMetrics(model="preloaded")); collector.flush_sync()' if preload else ""
    with FaultServer() as server:
        code = APP.format(spool=str(tmp_path / "spool"), url=server.url, preloaded=preloaded)
        (tmp_path / "app.py").write_text(textwrap.dedent(code))
        port = free_port()
        options = ["-w", str(WORKERS), "-b", f"127.0.0.1:{port}", "--log-level", "warning", "--timeout", "60"]
        with (tmp_path / "log").open("wb") as log:
            gunicorn = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "gunicorn", *options, *["--preload"] * preload, "app:wsgi"],
                cwd=tmp_path,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            url, until = f"http://127.0.0.1:{port}", time.monotonic() + SECONDS
            asked = 1

            client = httpx.Client(timeout=SECONDS, headers={"connection": "close"})

            def ask(path: str) -> str:
                return client.get(f"{url}/{path}").text

            workers: set[str] = set()
            while not workers:
                assert gunicorn.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
                try:
                    workers.add(ask("first"))
                except httpx.TransportError:
                    pass
            with ThreadPoolExecutor(8) as connections:
                while len(workers) < WORKERS:
                    assert time.monotonic() < until, workers
                    workers |= set(connections.map(ask, ["more"] * 40))
                    asked += 40
                assert set(connections.map(ask, map(str, range(requests)))) <= workers
            client.close()
            gunicorn.send_signal(signal.SIGTERM)
            assert gunicorn.wait(SECONDS) == 0, (tmp_path / "log").read_text()
        finally:
            try:
                os.killpg(gunicorn.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            gunicorn.wait(SECONDS)
        found = arrived(server)
    ids = Counter(one["id"] for one in found)
    assert max(ids.values()) == 1
    models = Counter(one["model"] for one in found)
    assert models.pop("preloaded", 0) == preload  # the parent's own, once
    assert set(models) == workers
    # Who asked while no worker listened yet has no answer, and may still have been counted.
    assert requests + asked <= sum(models.values()) <= requests + asked + WORKERS
    assert {one["request_id"] for one in found if "request_id" in one} >= {f"/{number}" for number in range(requests)}
    assert sum(one.records for one in look(str(tmp_path / "spool"))) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.fault(12)
@pytest.mark.heavy
def test_a_thousand_forks_under_load_with_a_spool(tmp_path: Path) -> None:
    """While threads record and the lane writes and sends; every tenth child records, one of these dies with it waiting."""
    with FaultServer() as server:
        result = in_child(
            """
            import json, os, sys, threading
            from tellmeter import AgentMetrics, HTTPMetricsSink, MetricsCollector, MetricsConfig
            config = MetricsConfig(batch_size=50, batch_timeout_seconds=0.01, spool=sys.argv[1])
            collector = MetricsCollector(config, sinks=[HTTPMetricsSink(sys.argv[2])])
            running, made = True, 0

            def load():
                global made
                while running:
                    collector.record(AgentMetrics(model="parent"))
                    made += 1
                    threading.Event().wait(0.0005)
            thread = threading.Thread(target=load, daemon=True)
            thread.start()
            failed, pids = 0, []
            for number in range(1000):
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        if number % 10 == 0:
                            collector.record(AgentMetrics(model="child"))
                            code = 0 if collector.shutdown_sync(60).complete and collector.stats().recorded == 1 else 2
                        else:
                            stats = collector.stats()
                            code = 0 if stats.recorded == 0 and stats.balanced else 3
                    finally:
                        os._exit(code)
                failed += os.waitpid(pid, 0)[1] != 0
            running = False
            thread.join()
            complete = collector.shutdown_sync(60).complete
            stats = collector.stats()
            dropped = sum(stats.dropped.values()) + sum(sum(s.dropped.values()) for s in stats.sinks.values())
            print(json.dumps([failed, complete, stats.recorded - made, stats.balanced, dropped, made]))
            """,
            tmp_path / "spool",
            server.url,
            timeout=110,
        )
        found = arrived(server)
    assert result[:-1] == [0, True, 0, True, 0]
    ids = Counter(one["id"] for one in found)
    assert max(ids.values()) == 1
    assert Counter(one["model"] for one in found) == {"parent": result[-1], "child": 100}
    assert sum(one.records for one in look(str(tmp_path / "spool"))) == 0


@pytest.mark.fault(8, 12)
def test_a_child_that_dies_leaves_its_own_in_the_spool_and_the_parent_delivers_it(tmp_path: Path) -> None:
    result = in_child(
        """
        import json, os, sys, signal
        from tellmeter import AgentMetrics, Delivered, MetricsCollector, MetricsConfig, RetryLater
        from tellmeter.testing import FakeClock, OracleSink
        from tellmeter.testing.contract_kit import poll
        class Named(OracleSink):
            destination = "somewhere"
        oracle, clock = Named(batch_size=10), FakeClock()
        collector = MetricsCollector(MetricsConfig(spool=sys.argv[1]), sinks=[oracle], clock=clock)
        collector.record(AgentMetrics(model="parent"))
        collector.flush_sync()
        pid = os.fork()
        if pid == 0:
            oracle.default = RetryLater()
            for _ in range(100):
                collector.record(AgentMetrics(model="child"))
            poll(lambda: collector.stats().sinks["Named"].spooled + collector.stats().sinks["Named"].in_flight == 100, lambda: "")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        poll(lambda: clock.advance(1) or len(oracle.delivered) == 101, lambda: str(collector.stats()))  # while it runs
        stats = collector.stats()
        oracle.check(stats)
        collector.shutdown_sync()
        print(json.dumps([stats.recorded, stats.sinks["Named"].adopted, len(set(oracle.delivered))]))
        """,
        tmp_path / "spool",
    )
    assert result == [1, 100, 101]


GEVENT = """
    import json, sys
    {before}
    import gevent.monkey
    gevent.monkey.patch_all()
    {after}
    import gevent, os, time
    from tellmeter.testing import OracleSink
    oracle = OracleSink(batch_timeout_seconds=0.01)
    config = MetricsConfig(spool=sys.argv[1] or None)
    collector = MetricsCollector(config, sinks=[oracle, InMemoryMetricsSink()])
    def work(number):
        for step in range(20):
            collector.record(AgentMetrics(model="m"))
            gevent.sleep(0)
            if step == 10:
                with collector.track_request("openai", "gpt-4o"):
                    gevent.sleep(0.001)
        if number % 5 == 0:
            assert collector.flush_sync(30).complete
    gevent.joinall([gevent.spawn(work, number) for number in range(20)], raise_error=True)
    pid = os.fork()
    if pid == 0:
        collector.record(AgentMetrics(model="child"))
        os._exit(0 if collector.shutdown_sync(10).complete and len(oracle.delivered) == 1 else 1)
    child = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    report = collector.shutdown_sync(30)
    stats = collector.stats()
    oracle.check(stats)
    print(json.dumps([child, report.complete, stats.balanced, stats.recorded, len(oracle.delivered)]))
"""
IMPORT = "from tellmeter import AgentMetrics, InMemoryMetricsSink, MetricsCollector, MetricsConfig"


@pytest.mark.fault(12, 13)
@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("order", ["patched before", "patched after"])
def test_gevent(tmp_path: Path, order: str, spool: bool) -> None:
    pytest.importorskip("gevent")
    before, after = ("", IMPORT) if order == "patched before" else (IMPORT, "")
    result = in_child(GEVENT.format(before=before, after=after), (tmp_path / "spool") if spool else "", timeout=30)
    assert result == [0, True, True, 20 * 21, 20 * 21]


@pytest.mark.fault(12, 14)
@pytest.mark.parametrize("order", ["patched before", "patched after"])
def test_the_end_of_a_program_with_gevent(tmp_path: Path, order: str) -> None:
    pytest.importorskip("gevent")
    patch = "import gevent.monkey; gevent.monkey.patch_all()"
    lines = [patch, "import tellmeter"] if order == "patched before" else ["import tellmeter", patch]
    code = "\n".join(
        [
            *lines,
            f"config = tellmeter.MetricsConfig(spool={str(tmp_path / 'spool')!r})",
            f"collector = tellmeter.configure(config, sinks=['jsonl:///{tmp_path}/calls.jsonl'])",
            "for _ in range(100): collector.record(tellmeter.AgentMetrics(model='m'))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "not delivered" not in done.stderr, done.stderr
    assert (tmp_path / "calls.jsonl").read_text().count('"model":"m"') == 100
    assert sum(one.records for one in look(str(tmp_path / "spool"))) == 0
