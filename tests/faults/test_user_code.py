"""Code of the user's that raises anything, or is slow: the caller never sees it, it is counted, the others go on."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest

from tellmeter import (
    AgentMetrics,
    Delivered,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    Partial,
    RetryLater,
    counts,
)
from tellmeter.instruments.http import MetricsMiddleware
from tellmeter.instruments.llm import track_llm_usage
from tellmeter.pipeline.thread_lane import FORK_SECONDS
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import FakeClock, OracleSink
from tellmeter.testing.contract_kit import poll

CANARY = "canary-7f3a"


class Unspeakable(Exception):
    """What logs and reprs cannot show."""

    def __str__(self) -> str:
        raise RuntimeError(CANARY)

    __repr__ = __str__


class Worst(BaseException):
    def __str__(self) -> str:
        raise SystemExit(CANARY)

    __repr__ = __str__


class Unprintable(type):
    def __repr__(cls) -> str:
        raise RuntimeError(CANARY)


class OfNoName(Exception, metaclass=Unprintable):
    pass


def endless() -> None:
    endless()


def recurse() -> None:
    """A real RecursionError, during which no garbage is collected: finalizers of other tests' objects cannot run there."""
    gc.disable()
    try:
        endless()
    finally:
        gc.enable()


def throws(error: Any) -> Any:
    def throw(*_: Any, **__: Any) -> Any:
        if error is RecursionError:
            recurse()
        raise error if isinstance(error, BaseException) else error(CANARY)

    return throw


ORDINARY = [ValueError, RecursionError, MemoryError, Unspeakable, OfNoName, StopIteration, StopAsyncIteration, OSError]
UNUSUAL = [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Worst]
ANY = [*ORDINARY, *UNUSUAL]
named = {"ids": lambda error: error.__name__ if isinstance(error, type) else str(error)}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """What is counted begins at zero; no message of the user's is in any log."""
    monkeypatch.setattr(counts, "_counters", {})
    caplog.set_level(logging.DEBUG, "tellmeter")
    yield
    assert CANARY not in caplog.text


def errors() -> dict[str, int]:
    return counts.snapshot().get("guarded_errors", {})


# ---------------------------------------------------------------------- filters


class Filter:
    def __init__(self, throw: Any) -> None:
        self.should_collect = throw


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ANY, **named)
@pytest.mark.parametrize("shape", ["callable", "should_collect", "an answer that is no truth"])
def test_a_filter_that_raises_keeps_the_record(error: Any, shape: str) -> None:
    throw = throws(error)
    if shape == "callable":
        broken: Any = throw
    elif shape == "should_collect":
        broken = Filter(throw)
    else:
        broken = lambda record: type("Answer", (), {"__bool__": throw})()  # noqa: E731
    memory = InMemoryMetricsSink()
    collector = MetricsCollector(MetricsConfig(filters=[broken]), sinks=[memory], registry=MetricsRegistry())
    for _ in range(3):
        collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(20).complete
    assert memory.get_stats()["stored_metrics"] == 3
    assert errors() == {"filter": 3}


# ---------------------------------------------------------------------- sinks


class Batch:
    """A batch sink of which one method raises."""

    def __init__(self, method: str, error: Any) -> None:
        self.delivered = 0
        if method == "send":
            throw, self.failing = throws(error), 2

            def send(batch: Any, deadline: float) -> Any:
                self.failing -= 1
                if self.failing >= 0:
                    throw()
                self.delivered += len(batch)
                return Delivered()

            self.send = send  # type: ignore[method-assign]
        else:
            setattr(self, method, throws(error))

    def send(self, batch: Any, deadline: float) -> Any:
        self.delivered += len(batch)
        return Delivered()


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ANY, **named)
@pytest.mark.parametrize("method", ["open", "send", "flush", "close"])
def test_a_batch_sink_that_raises_loses_nothing(method: str, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.SystemRandom.uniform", lambda self, low, high: 0.0)
    sink, other = Batch(method, error), OracleSink()
    collector = MetricsCollector(sinks=[sink, other], registry=MetricsRegistry())
    for _ in range(3):
        collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(20).complete
    assert collector.shutdown_sync(20).complete
    stats = collector.stats()
    assert sink.delivered == stats.sinks["Batch"].delivered == 3
    assert stats.sinks["Batch"].failures == ({"exception": 2} if method == "send" else {})
    assert len(other.delivered) == 3
    assert set(errors()) == {"Batch"}


class OfOneRecord:
    """The guides' shape of a sink, of which one method raises, at once or in its coroutine."""

    def __init__(self, method: str, error: Any, kind: str) -> None:
        self.kept: list[str] = []
        throw = throws(error)

        async def throw_later(*given: Any) -> None:
            await asyncio.sleep(0)
            throw()

        setattr(self, method, throw if kind == "sync" else throw_later)

    async def record(self, metrics: AgentMetrics) -> None:
        self.kept.append(metrics.id)


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ANY, **named)
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("method", ["start", "initialize", "flush", "aclose", "cleanup", "record"])
def test_a_sink_of_the_guides_that_raises_is_counted(method: str, kind: str, error: Any) -> None:
    sink, other = OfOneRecord(method, error, kind), OracleSink()
    collector = MetricsCollector(sinks=[sink, other], registry=MetricsRegistry())
    for _ in range(3):
        collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(20).complete
    assert collector.shutdown_sync(20).complete
    ledger = collector.stats().sinks["OfOneRecord"]
    assert len(sink.kept) == ledger.delivered == (0 if method == "record" else 3)
    assert ledger.dropped == ({"sink_error": 3} if method == "record" else {})
    assert len(other.delivered) == 3
    assert set(errors()) == {"OfOneRecord"}


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ANY, **named)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_record_batch_that_raises_is_tried_again(kind: str, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.SystemRandom.uniform", lambda self, low, high: 0.0)
    throw, tries, kept = throws(error), [], []

    class Batches:
        def record_batch(self, batch: list[AgentMetrics]) -> Any:
            tries.append(len(batch))

            async def later() -> None:
                await asyncio.sleep(0)
                self.take(batch)

            return later() if kind == "async" else self.take(batch)

        def take(self, batch: list[AgentMetrics]) -> None:
            if len(tries) < 3:
                throw()
            kept.extend(batch)

    collector = MetricsCollector(sinks=[Batches()], registry=MetricsRegistry())
    for _ in range(3):
        collector.record(AgentMetrics(model="m"))
    assert collector.shutdown_sync(20).complete
    assert (len(kept), len(tries)) == (3, 3)
    assert collector.stats().sinks["Batches"].failures == {"exception": 2}


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ANY, **named)
def test_a_memory_sink_that_raises_is_counted_per_record(error: Any) -> None:
    class Memory:
        write = throws(error)

    healthy = InMemoryMetricsSink()
    collector = MetricsCollector(sinks=[Memory(), healthy], registry=MetricsRegistry())
    for _ in range(3):
        collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(20).complete
    assert collector.stats().sinks["Memory"].dropped == {"sink_error": 3}
    assert healthy.get_stats()["stored_metrics"] == 3


@pytest.mark.fault(12, 16)
@pytest.mark.parametrize("error", ANY, **named)
def test_an_after_fork_that_raises_leaves_a_collector_that_works(error: Any) -> None:
    sink = Batch("after_fork", error)
    collector = MetricsCollector(sinks=[sink], registry=MetricsRegistry())
    collector.before_fork()
    collector.after_fork()  # what the child does
    collector.record(AgentMetrics(model="m"))
    assert collector.shutdown_sync(20).complete
    assert sink.delivered == 1
    assert set(errors()) == {"Batch"}


ODD = [
    None,
    True,
    "delivered",
    Delivered,
    object(),
    Partial(retry=("x",)),
    RetryLater(after="soon"),
    RetryLater(reason=Worst()),
]  # type: ignore[arg-type]


@pytest.mark.fault(16)
@pytest.mark.parametrize("outcome", ODD, ids=[str(number) for number in range(len(ODD))])
def test_a_send_that_answers_nonsense_holds_up_nobody(outcome: Any) -> None:
    class Odd:
        def __init__(self) -> None:
            self.calls = 0

        def send(self, batch: Any, deadline: float) -> Any:
            self.calls += 1
            return outcome if self.calls == 1 else Delivered()

    clock, odd, other = FakeClock(), Odd(), OracleSink(batch_size=1)
    collector = MetricsCollector(
        MetricsConfig(batch_size=3), sinks=[odd, other], registry=MetricsRegistry(), clock=clock
    )
    for _ in range(3):
        collector.record(AgentMetrics(model="m"))
    other.wait_for(3)

    def settled() -> bool:
        if clock.sleepers:
            clock.advance(30)
        return not collector.stats().sinks["Odd"].waiting

    poll(settled, lambda: str(collector.stats()))
    for _ in range(3):
        collector.record(AgentMetrics(model="m"))
    assert collector.flush_sync(20).complete
    ledger = collector.stats().sinks["Odd"]
    assert ledger.balanced and ledger.delivered + sum(ledger.dropped.values()) == 6 and ledger.delivered >= 3
    assert collector.shutdown_sync(20).complete


# ---------------------------------------------------------------------- in the caller's own thread


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ORDINARY, **named)
def test_a_callback_of_a_metric_that_raises_leaves_the_recording_and_the_other_callbacks(error: Any) -> None:
    registry, told = MetricsRegistry(), []
    registry.add_callback("c", throws(error))
    registry.add_callback("c", lambda name, value, labels: told.append(value))
    registry.increment("c", 2)
    registry.counter("c").labels().inc(3)
    assert told == [2, 3]
    assert registry.get_metric_stats("c")["sum"] == 5
    assert errors() == {"metric_callback": 2}


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ORDINARY, **named)
@pytest.mark.parametrize("hook", ["label_extractor", "labels", "result"])
def test_what_a_decorator_is_given_that_raises_costs_its_own_part_alone(hook: str, error: Any) -> None:
    memory, throw = InMemoryMetricsSink(), throws(error)

    class Liar(dict):  # type: ignore[type-arg]
        __getitem__ = get = items = keys = __iter__ = __len__ = __bool__ = throw  # type: ignore[assignment]

    result = Liar(usage={}) if hook == "result" else {"usage": {"prompt_tokens": 1}}
    options: dict[str, Any] = {}
    if hook == "label_extractor":
        options["label_extractor"] = throw
    elif hook == "labels":
        options["label_extractor"] = lambda *given: Liar(a="b")
    from tellmeter import process

    collector = MetricsCollector(sinks=[memory], registry=MetricsRegistry())
    former, process._process_collector = process._process_collector, collector
    try:
        assert track_llm_usage("openai", "gpt-4o", **options)(lambda: result)() is result
    finally:
        process._process_collector = former
    assert collector.flush_sync(20).complete
    assert memory.get_stats()["stored_metrics"] == 1


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ORDINARY, **named)
@pytest.mark.parametrize(
    "part",
    ["__str__", "__float__", "__int__", "__index__", "__bool__", "__len__", "__eq__"],
)
def test_values_that_raise_when_they_are_looked_at(part: str, error: Any) -> None:
    hostile = type("Hostile", (), {part: throws(error), "__hash__": object.__hash__})()
    record = AgentMetrics(
        model=hostile,
        provider=hostile,
        latency_ms=hostile,
        input_tokens=hostile,
        cost_usd=hostile,
        status=hostile,
        tools_used=[hostile],
        tags={"a": hostile, hostile: "b"},
        error_class=hostile,
    )
    assert CANARY not in repr(record)
    memory, registry = InMemoryMetricsSink(), MetricsRegistry()
    collector = MetricsCollector(sinks=[memory], registry=registry)
    collector.record(record)
    with collector.track_request("openai", "gpt-4o") as call:
        call.output_tokens = hostile
        call.tags = {"a": hostile}
    collector.increment_counter("c", hostile, {"a": hostile})
    collector.record_histogram("h", hostile)
    assert collector.flush_sync(20).complete
    assert memory.get_stats()["stored_metrics"] == 2
    assert CANARY.encode() not in registry.text()


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", ANY, **named)
def test_the_applications_own_exception_passes_the_middleware_as_it_is(error: Any) -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            throws(error)()
        except BaseException as problem:
            raised.append(problem)
            raise

    middleware = MetricsMiddleware(app, registry=MetricsRegistry())
    call = middleware({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None)  # type: ignore[arg-type]
    try:
        call.send(None)
    except BaseException as caught:
        # A coroutine cannot raise StopIteration: Python makes it a RuntimeError.
        assert caught is raised[0] or caught.__cause__ is raised[0]
    else:
        raise AssertionError


# ---------------------------------------------------------------------- slow code


@pytest.mark.fault(17)
@pytest.mark.parametrize("where", ["filter", "write", "record", "send", "open"])
def test_slow_code_of_the_users_is_not_run_by_who_records(where: str) -> None:
    """It stands still for good, and whoever records goes on: it runs on tellmeter's threads."""
    entered, release = threading.Event(), threading.Event()
    ran_on: set[str] = set()

    def slow(*_: Any) -> bool:
        ran_on.add(threading.current_thread().name)
        entered.set()
        return release.wait(60)

    class Slow:
        def __init__(self) -> None:
            if where != "filter":
                setattr(self, where, slow)
            if where == "open":
                self.send = lambda batch, deadline: Delivered()

    filters = [slow] if where == "filter" else []
    sinks = [InMemoryMetricsSink()] if where == "filter" else [Slow()]
    collector = MetricsCollector(MetricsConfig(filters=filters), sinks=sinks, registry=MetricsRegistry())
    collector.record(AgentMetrics(model="m"))
    assert entered.wait(20)
    for _ in range(2000):
        collector.record(AgentMetrics(model="m"))  # would the filter run here, this would never end
    assert threading.current_thread().name not in ran_on
    assert collector.stats().recorded == 2001
    assert not collector.flush_sync(0.05).complete  # a reader waits no longer than it wants to
    release.set()
    assert collector.shutdown_sync(30).complete
    assert all(name.startswith("tellmeter-") for name in ran_on - {threading.current_thread().name})


@pytest.mark.fault(17)
@pytest.mark.parametrize("where", ["filter", "write"])
def test_what_a_slow_filter_does_not_get_through_is_dropped_and_counted(where: str) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(*_: Any) -> bool:
        entered.set()
        return release.wait(60)

    class Slow:
        write = slow

    collector = MetricsCollector(
        MetricsConfig(filters=[slow] if where == "filter" else [], max_queue=500),
        sinks=[Slow() if where == "write" else InMemoryMetricsSink()],
        registry=MetricsRegistry(),
    )
    collector.record(AgentMetrics(model="m"))
    assert entered.wait(20)
    for _ in range(2000):
        collector.record(AgentMetrics(model="m"))
    stats = collector.stats()
    assert stats.dropped == {"queue_full": 1500} and stats.recorded == 2001
    release.set()
    assert collector.shutdown_sync(30).complete
    assert collector.stats().balanced


@pytest.mark.fault(12, 17)
def test_a_sink_that_hangs_holds_up_a_fork_briefly() -> None:
    entered, release = threading.Event(), threading.Event()

    class Stuck:
        def send(self, batch: Any, deadline: float) -> Any:
            entered.set()
            release.wait(60)
            return Delivered()

    collector = MetricsCollector(MetricsConfig(batch_size=1), sinks=[Stuck()], registry=MetricsRegistry())
    collector.record(AgentMetrics(model="m"))
    assert entered.wait(20)
    assert FORK_SECONDS < 1
    collector.before_fork()  # comes back although the sink does not
    collector.after_fork_in_parent()
    release.set()
    assert collector.shutdown_sync(30).complete
