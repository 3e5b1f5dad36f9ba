"""Recording while recording: signal handlers, `__del__`, log handlers, a sink's own code. No deadlock, no feedback loop."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import pytest

from tellmeter import (
    AgentMetrics,
    Delivered,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    Rejected,
    RetryLater,
)
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import OracleSink
from tests.support.metrics import in_child


@pytest.mark.fault(26)
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no setitimer here")
@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
def test_a_signal_handler_that_records_flushes_and_asks_while_the_main_thread_does(tmp_path: Any, spool: bool) -> None:
    result = in_child(
        """
        import json, signal, sys
        from tellmeter import AgentMetrics, InMemoryMetricsSink, MetricsCollector, MetricsConfig
        from tellmeter.testing import OracleSink
        oracle = OracleSink(batch_timeout_seconds=0.001)
        config = MetricsConfig(max_queue=1_000_000, max_queue_bytes=2**34, spool=sys.argv[1] or None)
        collector = MetricsCollector(config, sinks=[oracle, InMemoryMetricsSink(max_size=10)])
        main = handled = 0

        def handler(*_):
            global handled
            handled += 1
            collector.record(AgentMetrics(model="handler"))
            with collector.track_request("openai", "gpt-4o"):
                pass
            if handled % 50 == 0:
                collector.stats()
                collector.flush_sync(0)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while handled < 800:
            main += 1
            collector.record(AgentMetrics(model="main"))
            with collector.track_request("openai", "gpt-4o"):
                pass
            if main % 100 == 0:
                collector.flush_sync(0.01)
                collector.stats()
        signal.setitimer(signal.ITIMER_REAL, 0)
        report = collector.shutdown_sync(60)
        stats = collector.stats()
        oracle.check(stats)
        print(json.dumps([report.complete, stats.balanced, stats.recorded - 2 * (main + handled), stats.dropped,
                          len(oracle.delivered) + sum(stats.sinks["OracleSink"].dropped.values()) - stats.passed]))
        """,
        (tmp_path / "spool") if spool else "",
        timeout=100,
    )
    assert result == [True, True, 0, {}, 0]


@pytest.mark.fault(26)
def test_objects_that_record_when_they_are_collected() -> None:
    result = in_child(
        """
        import gc, json, threading
        from tellmeter import AgentMetrics, InMemoryMetricsSink, MetricsCollector, MetricsConfig
        from tellmeter.testing import OracleSink
        oracle = OracleSink(batch_size=7)
        collector = MetricsCollector(MetricsConfig(max_queue=1_000_000), sinks=[oracle])
        deleted = []

        class Cycle:
            def __init__(self):
                self.itself = self
            def __del__(self):
                deleted.append(1)
                collector.record(AgentMetrics(model="deleted"))
                if len(deleted) % 100 == 0:
                    collector.stats()
                    collector.flush_sync(0)

        gc.set_threshold(5, 2, 2)  # anywhere: on the caller's thread, the router's, the lane's
        def work():
            for step in range(1000):
                Cycle()
                collector.record(AgentMetrics(model="m", tags={"a": str(step)}))
                if step % 100 == 0:
                    collector.flush_sync(1)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join(40)
        hung = sum(thread.is_alive() for thread in threads)
        gc.set_threshold(700, 10, 10)
        gc.collect()
        report = collector.shutdown_sync(30)
        oracle.check(collector.stats())
        print(json.dumps([hung, report.complete, len(deleted), len(oracle.delivered)]))
        """,
        timeout=100,
    )
    assert result == [0, True, 3000, 6000]


class Recording(logging.Handler):
    """A log handler that makes a record of each line, as one does that meters a program's errors."""

    def __init__(self, collector: MetricsCollector) -> None:
        super().__init__()
        self.collector = collector
        self.lines = 0

    def emit(self, line: logging.LogRecord) -> None:
        self.lines += 1
        self.collector.record(AgentMetrics(model="log"))
        self.collector.stats()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Any:
    """Puts such a handler on tellmeter's own lines, down to the least of them."""
    caplog.set_level(logging.DEBUG, "tellmeter")
    added: list[Recording] = []

    def add(collector: MetricsCollector) -> Recording:
        handler = Recording(collector)
        logging.getLogger("tellmeter").addHandler(handler)
        added.append(handler)
        return handler

    yield add
    for handler in added:
        logging.getLogger("tellmeter").removeHandler(handler)


@pytest.mark.fault(26)
@pytest.mark.parametrize("answer", [RetryLater(), Rejected("no"), ValueError("x"), None], ids=str)
def test_lines_of_our_own_that_are_recorded_make_no_loop(
    answer: Any, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line makes a record, whose trouble would make a line."""
    monkeypatch.setattr("random.SystemRandom.uniform", lambda self, low, high: 0.0)

    class Trouble:
        def __init__(self) -> None:
            self.calls = 0

        def send(self, batch: Any, deadline: float) -> Any:
            self.calls += 1
            if self.calls > 20:
                return Delivered()
            if isinstance(answer, Exception):
                raise answer
            return answer

    collector = MetricsCollector(MetricsConfig(batch_size=1), sinks=[Trouble()], registry=MetricsRegistry())
    handler = logged(collector)
    for _ in range(50):
        collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(30).complete
    assert collector.shutdown_sync(30).complete
    assert 0 < handler.lines <= 5
    assert collector.stats().recorded == 50 + handler.lines


@pytest.mark.fault(26)
def test_a_filter_that_logs_and_records_makes_no_loop(logged: Any) -> None:
    def noisy(record: AgentMetrics) -> bool:
        if record.model == "m":
            collector.record(AgentMetrics(model="from the filter"))
            raise ValueError
        return True

    memory = InMemoryMetricsSink()
    collector = MetricsCollector(MetricsConfig(filters=[noisy]), sinks=[memory], registry=MetricsRegistry())
    handler = logged(collector)
    for _ in range(50):
        collector.record(AgentMetrics(model="m"))
    for _ in range(2):  # what the filter recorded meanwhile
        assert collector.flush_sync(30).complete
    assert collector.shutdown_sync(30).complete
    assert handler.lines <= 2
    assert memory.get_stats()["stored_metrics"] == 100 + handler.lines


@pytest.mark.fault(26)
@pytest.mark.parametrize("where", ["write", "send", "record", "flush", "open", "close"])
def test_a_sinks_own_code_may_record_and_ask(where: str) -> None:
    """What it records then comes later; what it does not get done is its own."""
    done: list[str] = []

    class Own:
        def __init__(self) -> None:
            if where == "write":
                self.write = self.act
            elif where == "record":
                self.record = self.act
            else:
                self.send = lambda batch, deadline: self.act() if where == "send" else Delivered()
                if where != "send":
                    setattr(self, where, self.act)

        def act(self, *_: Any) -> Any:
            if len(done) < 3:
                done.append(threading.current_thread().name)
                collector.record(AgentMetrics(model="inner"))
                with collector.track_request("openai", "gpt-4o"):
                    pass
                collector.stats()
            return Delivered()

    oracle = OracleSink()
    collector = MetricsCollector(MetricsConfig(batch_size=1), sinks=[Own(), oracle], registry=MetricsRegistry())
    collector.record(AgentMetrics(model="outer"))
    for _ in range(4):
        assert collector.flush_sync(30).complete
    collector.shutdown_sync(30)
    assert done
    stats = collector.stats()
    assert stats.balanced and stats.recorded == 1 + 2 * len(done)
    assert len(oracle.delivered) >= 1 + 2 * (len(done) - 1)
    assert not stats.dropped
