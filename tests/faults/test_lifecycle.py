"""flush, shutdown, stats and record in any order, from anywhere, at once: no deadlock, no wait without end, none lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tellmeter import (
    AgentMetrics,
    Delivered,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    Partial,
    Rejected,
    RetryLater,
    TooLarge,
)
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import FakeClock, OracleSink
from tellmeter.testing.contract_kit import poll

ACTS: dict[str, Callable[[MetricsCollector], Any]] = {
    "record": lambda collector: collector.record(AgentMetrics(model="m")),
    "flush": lambda collector: collector.flush_sync(0.01),
    "async flush": lambda collector: asyncio.run(collector.flush(0.01)),
    "shutdown": lambda collector: collector.shutdown_sync(),
    "async shutdown": lambda collector: asyncio.run(collector.shutdown()),
    "stats": lambda collector: collector.stats(),
    "exit": lambda collector: collector.at_exit(time.monotonic()),
    "remove": lambda collector: collector.remove_sink(collector.sinks[0]) if collector.sinks else None,
}


def collecting(*sinks: Any, **settings: Any) -> MetricsCollector:
    return MetricsCollector(MetricsConfig(**settings), sinks=sinks, registry=MetricsRegistry())


def in_threads(acts: list[Callable[[], Any]]) -> list[BaseException]:
    """Run all at once, each on a thread of its own, which all must end; what they raised."""
    raised: list[BaseException] = []
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> None:
        try:
            barrier.wait(30)
            act()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


@pytest.mark.fault(27)
@pytest.mark.parametrize("second", ACTS)
@pytest.mark.parametrize("first", ACTS)
def test_one_after_another_before_anything_was_recorded(first: str, second: str) -> None:
    collector = collecting(OracleSink())
    for act in (first, second, first):
        ACTS[act](collector)
    assert collector.stats().balanced
    collector.shutdown_sync(5)


@pytest.mark.fault(27)
@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("act", [*ACTS, "any"])
def test_at_once_from_many_threads(act: str, spool: bool, tmp_path: Path) -> None:
    oracle = OracleSink()
    collector = collecting(oracle, spool=tmp_path / "spool" if spool else None)
    for _ in range(100):
        collector.record(AgentMetrics(model="m"))
    chosen = list(ACTS.values()) if act == "any" else [ACTS[act]]
    raised = in_threads([lambda one=one: one(collector) for one in (chosen * 12)[:12]])
    assert not raised
    collector.shutdown_sync(30)
    stats = collector.stats()
    assert stats.balanced
    assert len(oracle.delivered) == len(set(oracle.delivered)) >= 100


@pytest.mark.fault(27)
def test_a_flush_while_others_record_is_complete_when_what_came_before_it_is_there() -> None:
    oracle, stop = OracleSink(), threading.Event()
    collector = collecting(oracle, max_queue=1_000_000, max_queue_bytes=2**34)

    def load() -> None:
        while not stop.is_set():
            collector.record(AgentMetrics(model="load"))

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        for _ in range(20):
            mine = AgentMetrics(model="mine")
            collector.record(mine)
            assert collector.flush_sync(30).complete
            assert mine.id in set(oracle.delivered)
    finally:
        stop.set()
        thread.join(30)
    assert collector.shutdown_sync(60).complete


@pytest.mark.fault(27)
@pytest.mark.parametrize("act", ["flush", "shutdown", "async flush", "async shutdown", "stats", "exit"])
@pytest.mark.parametrize("where", ["filter", "write", "send", "flush", "open", "close", "record"])
def test_inside_code_of_the_users(where: str, act: str) -> None:
    """It may not wait for itself for ever; what cannot be done from there is said, not waited for."""
    done: list[Any] = []

    def inside(*_: Any) -> Any:
        if not done:
            done.append(None)
            done.append(ACTS[act](collector))
        return Delivered()

    class Sink:
        def __init__(self) -> None:
            if where in ("write", "record", "send"):
                setattr(self, where, inside)
            else:
                self.send = lambda batch, deadline: Delivered()
                if where != "filter":
                    setattr(self, where, inside)

    oracle = OracleSink()
    config = MetricsConfig(
        filters=[inside] if where == "filter" else [], flush_timeout_seconds=0.2, exit_timeout_seconds=0.2
    )
    collector = MetricsCollector(config, sinks=[Sink(), oracle], registry=MetricsRegistry())
    ended = in_threads(
        [
            lambda: (
                collector.record(AgentMetrics(model="m")),
                collector.flush_sync(10),
                collector.record(AgentMetrics(model="m")),
                collector.shutdown_sync(10),
            )
        ]
    )
    assert not ended
    poll(lambda: len(done) == 2, lambda: f"{act} in {where} did not return")
    stats = collector.stats()
    assert stats.balanced
    assert stats.recorded == 2


@pytest.mark.fault(27)
def test_after_the_end_records_are_counted_and_nothing_waits() -> None:
    oracle = OracleSink()
    collector = collecting(oracle, InMemoryMetricsSink())
    collector.record(AgentMetrics(model="m"))
    for _ in range(3):
        assert collector.shutdown_sync(10).complete
    collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(10).complete
    assert asyncio.run(collector.flush(10)).complete
    ledger = collector.stats().sinks["OracleSink"]
    assert (ledger.delivered, ledger.dropped, ledger.waiting) == (1, {"closed": 1}, 0)
    oracle.check(collector.stats())


@pytest.mark.fault(27)
@pytest.mark.parametrize("timeout", [0.0, 0.001, -1.0, 1e9])
def test_any_time_to_wait_is_obeyed(timeout: float) -> None:
    release = threading.Event()

    class Stuck:
        def send(self, batch: Any, deadline: float) -> Any:
            release.wait(60)
            return Delivered()

    collector = collecting(Stuck())
    collector.record(AgentMetrics(model="m"))
    if timeout == 1e9:  # more than a lock can wait for is no error
        release.set()
        assert collector.flush_sync(timeout).complete
    else:
        assert not collector.flush_sync(timeout).complete
    report = collector.shutdown_sync(timeout)
    release.set()
    assert report.complete == (timeout == 1e9)
    assert collector.stats().balanced


class Life(RuleBasedStateMachine):
    """Whatever is called in whatever order, on a clock that is told what time it is."""

    @initialize(number=st.integers(1, 3))
    def start(self, number: int) -> None:
        self.clock = FakeClock()
        self.oracles = [OracleSink(batch_size=3) for _ in range(number)]
        self.collector = MetricsCollector(
            MetricsConfig(max_queue=50, flush_timeout_seconds=20),
            sinks=self.oracles,
            registry=MetricsRegistry(),
            clock=self.clock,
        )
        self.recorded: set[str] = set()
        self.lanes: dict[str, OracleSink] = dict(zip(self.collector.stats().sinks, self.oracles, strict=True))

    @rule(number=st.integers(1, 20))
    def record(self, number: int) -> None:
        for _ in range(number):
            one = AgentMetrics(model="m")
            self.recorded.add(one.id)
            self.collector.record(one)

    @rule(which=st.integers(0, 2), answers=st.lists(st.sampled_from(["retry", "reject", "large", "part", "raise"])))
    def trouble(self, which: int, answers: list[str]) -> None:
        made = {
            "retry": RetryLater(after=7.0),
            "reject": Rejected("no"),
            "large": TooLarge(),
            "part": Partial(retry=(0,), rejected=(1,)),
            "raise": ValueError(),
        }
        self.oracles[which % len(self.oracles)].script(*(made[answer] for answer in answers))

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 30.0, 600.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(act=st.sampled_from(["flush", "async flush", "stats"]))
    def ask(self, act: str) -> None:
        ACTS[act](self.collector)

    @rule(act=st.sampled_from(["shutdown", "async shutdown", "exit"]))
    def end(self, act: str) -> None:
        for _ in range(20):  # those who wait for their time would else be waited for
            self.clock.advance(300)
        ACTS[act](self.collector)

    @rule(which=st.integers(0, 2))
    def remove(self, which: int) -> None:
        if len(self.collector.sinks) > 1:
            gone = self.collector.sinks[which % len(self.collector.sinks)]
            for oracle in self.oracles:
                if oracle is gone:
                    oracle.script()
            for _ in range(20):
                self.clock.advance(300)
            self.collector.remove_sink(gone)

    @invariant()
    def it_adds_up(self) -> None:
        if not hasattr(self, "collector"):
            return
        stats = self.collector.stats()
        assert stats.balanced, stats
        assert stats.recorded == len(self.recorded)

    def teardown(self) -> None:
        if not hasattr(self, "collector"):
            return
        for oracle in self.oracles:
            oracle.script()
        report = threading.Thread(target=self.collector.shutdown_sync, args=(20,), daemon=True)
        report.start()
        until = time.monotonic() + 30
        while report.is_alive() and time.monotonic() < until:
            self.clock.advance(30)
            report.join(0.001)
        assert not report.is_alive()
        stats = self.collector.stats()
        for name, ledger in stats.sinks.items():
            assert not ledger.waiting
            self.lanes[name].check(ledger, self.recorded)


@pytest.mark.fault(27)
class TestLife(Life.TestCase):
    settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
