"""Sinks that are down, hang, refuse or are too slow: the others go on, nothing is lost without a count, memory is bounded."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from pathlib import Path

import pytest

from tellmeter import (
    AgentMetrics,
    Delivered,
    HTTPMetricsSink,
    MetricsCollector,
    MetricsConfig,
    Partial,
    Rejected,
    RetryLater,
    TooLarge,
)
from tellmeter.testing import Answer, Dribble, FakeClock, FaultServer, Hang, OracleSink, Reset
from tellmeter.testing.contract_kit import poll

STATM = Path("/proc/self/statm")


class Healthy(OracleSink):
    """A second one, which has its own name in the account."""


def records(number: int) -> list[AgentMetrics]:
    return [AgentMetrics(model="m") for _ in range(number)]


def record_all(collector: MetricsCollector, mine: list[AgentMetrics]) -> None:
    """Record them and have them on their lanes now, not at the router's next look."""
    for record in mine:
        collector.record(record)
    assert collector._router.drain(30)


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * 4096


def settle(collector: MetricsCollector, clock: FakeClock, name: str = "OracleSink", step: float = 30.0) -> None:
    """Let time pass until the sink is done with everything."""

    def settled() -> bool:
        if clock.sleepers:
            clock.advance(step)
        stats = collector.stats()
        return not stats.queued and not stats.sinks[name].waiting

    poll(settled, lambda: str(collector.stats()))


@pytest.mark.fault(1)
@pytest.mark.parametrize("spool", [True, False])
def test_ten_minutes_without_the_sink(tmp_path: Path, spool: bool, caplog: pytest.LogCaptureFixture) -> None:
    clock, seconds, each = FakeClock(), 600, 10
    down, healthy = OracleSink(default=RetryLater(reason="refused")), Healthy()
    config = MetricsConfig(
        batch_size=each, max_queue=1000, spool=tmp_path / "spool" if spool else None, flush_timeout_seconds=30
    )
    collector = MetricsCollector(config, sinks=[down, healthy], clock=clock)
    recorded = []
    for second in range(1, seconds + 1):
        mine = records(each)
        recorded += [record.id for record in mine]
        record_all(collector, mine)
        healthy.wait_for(second * each, 30)  # who is well has every record before the next second begins
        ledger = collector.stats().sinks["OracleSink"]
        assert ledger.balanced and ledger.queued <= config.max_queue
        clock.advance(1)
    ledger = collector.stats().sinks["OracleSink"]
    attempts = len(down.batches)
    assert ledger.state == "open" and ledger.delivered == 0
    assert 10 <= attempts <= seconds / 2  # of full jitter up to 30 s about 40
    assert sum("does not take records (refused)" in line for line in caplog.messages) <= seconds / 60 + 1

    down.default = Delivered()
    settle(collector, clock)
    assert collector.shutdown_sync(30).complete
    down.check(collector.stats().sinks["OracleSink"], recorded)
    healthy.check(collector.stats().sinks["Healthy"], recorded)
    lost = collector.stats().sinks["OracleSink"].dropped
    assert len(down.delivered) == len(recorded) - sum(lost.values())
    if spool:
        assert not lost and set(down.delivered) == set(recorded)
    else:  # the queue holds 1000; one batch of ten minutes' age may have been given up
        assert set(lost) <= {"lane_full", "refused"}
        assert len(down.delivered) >= config.max_queue


@pytest.mark.fault(1, 25)
def test_an_overload_is_dropped_and_counted_or_waits_on_disk(tmp_path: Path) -> None:
    """Ten times more than a sink takes: with a spool of a bounded size the oldest goes, counted; memory stays bounded."""
    gate = threading.Semaphore(0)

    def slow(batch, deadline):
        gate.acquire(timeout=60)
        return Delivered()

    slow_sink, healthy = OracleSink(default=slow), Healthy()
    config = MetricsConfig(batch_size=20, max_queue=100, spool_max_bytes=64 * 1024)
    collector = MetricsCollector(config, sinks=[healthy])
    collector.add_sink(slow_sink, spool=tmp_path / "spool")
    recorded: list[str] = []
    for turn in range(100):
        mine = records(20)
        recorded += [record.id for record in mine]
        record_all(collector, mine)
        healthy.wait_for(len(recorded), 30)
        if turn % 10 == 0:
            gate.release()
        ledger = collector.stats().sinks["OracleSink"]
        assert ledger.balanced and ledger.queued <= 100 + 20  # and the frame that is being written
        assert sum(file.stat().st_size for file in (tmp_path / "spool").rglob("*.seg") if file.exists()) <= 96 * 1024
    for _ in range(200):
        gate.release()
    assert collector.shutdown_sync(60).complete
    ledger = collector.stats().sinks["OracleSink"]
    slow_sink.check(ledger, recorded)
    assert ledger.delivered + sum(ledger.dropped.values()) == len(recorded)
    assert set(ledger.dropped) <= {"spool_full", "lane_full"} and ledger.dropped
    assert not collector.stats().sinks["Healthy"].dropped


@pytest.mark.fault(25)
@pytest.mark.skipif(not STATM.exists(), reason="reads the resident size from /proc")
@pytest.mark.parametrize("when_full", ["drop_newest", "drop_oldest"])
def test_an_overload_does_not_grow(when_full: str) -> None:
    release = threading.Event()

    def stuck(batch, deadline):
        release.wait(60)
        return Delivered()

    slow, healthy = OracleSink(default=stuck), Healthy()
    collector = MetricsCollector(MetricsConfig(max_queue=1000), sinks=[healthy])
    collector.add_sink(slow, when_full=when_full)
    before, sent = 0, 0
    for turn in range(100):
        record_all(collector, records(500))
        sent += 500
        healthy.wait_for(sent, 60)
        healthy._batches.clear()
        if turn == 10:
            before = resident_bytes()
    grown = resident_bytes() - before
    ledger = collector.stats().sinks["OracleSink"]
    assert ledger.balanced and ledger.queued <= 1000
    assert sum(ledger.dropped.values()) == sent - ledger.queued - ledger.in_flight
    assert grown < 32 * 1024 * 1024  # of 45,000 records, which would be about 40 MiB, and their ids in `healthy`
    release.set()
    assert collector.shutdown_sync(60).complete
    slow.check(collector.stats().sinks["OracleSink"])


@pytest.mark.fault(1)
@pytest.mark.heavy
@pytest.mark.skipif(not STATM.exists(), reason="reads the resident size from /proc")
def test_a_real_minute_without_the_sink(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the clock on the wall, over a socket: a moment before, a minute without, then it comes back."""
    times: dict[str, list[int]] = {"before": [], "outage": [], "after": []}
    lags: list[float] = []
    healthy = Healthy(batch_timeout_seconds=0.1)
    with FaultServer() as server:
        sink = HTTPMetricsSink(server.url, batch_timeout_seconds=0.1)
        config = MetricsConfig(max_queue=2000, spool=tmp_path / "spool")
        collector = MetricsCollector(config, sinks=[sink, healthy])
        recorded: list[str] = []

        def run(phase: str, seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for record in records(20):
                    begin = time.perf_counter_ns()
                    collector.record(record)
                    times[phase].append(time.perf_counter_ns() - begin)
                    recorded.append(record.id)
                begin_wait = time.monotonic()
                healthy.wait_for(len(recorded), 30)
                lags.append(time.monotonic() - begin_wait)

        run("before", 3)
        memory = resident_bytes()
        server.stop_listening()
        run("outage", 60)
        grown = resident_bytes() - memory
        ledger = collector.stats().sinks["HTTPMetricsSink"]
        assert ledger.spooled and not ledger.dropped and ledger.failures and ledger.balanced
        assert ledger.queued + ledger.in_flight <= config.max_queue + config.batch_size
        server.start_listening()
        run("after", 1)
        poll(lambda: not collector.stats().sinks["HTTPMetricsSink"].waiting, lambda: str(collector.stats()), 60)
        assert collector.shutdown_sync(30).complete
        ledger = collector.stats().sinks["HTTPMetricsSink"]
        assert ledger.delivered == len(recorded) and not ledger.dropped
        arrived = [one["id"] for request in server.requests for one in request.json()["metrics"]]
    assert set(arrived) == set(recorded)
    p99 = {phase: statistics.quantiles(one, n=100)[98] for phase, one in times.items()}
    with capsys.disabled():
        print(
            f"\none minute without a sink: {len(recorded)} records, 0 lost; record() p99 {p99['before'] / 1e3:.1f} us "
            f"before, {p99['outage'] / 1e3:.1f} us during ({p99['outage'] / p99['before']:.2f} x), worst "
            f"{max(times['outage']) / 1e6:.1f} ms; the other sink was {max(lags):.2f} s behind at most; "
            f"{grown / 2**20:+.1f} MiB"
        )
    assert p99["outage"] < 250e6  # no call waits for a socket or a disk; a busy machine is no fault
    assert grown < 32 * 1024 * 1024 + 200 * len(recorded)  # what the test itself remembers of each


@pytest.mark.fault(2)
@pytest.mark.parametrize("fault", [Hang(), Dribble(1.0), Dribble(1.0, Answer(200, b"x" * 99), body_only=True)], ids=str)
def test_a_sink_that_hangs_holds_up_no_other(fault) -> None:
    healthy = Healthy(batch_timeout_seconds=0.01)
    with FaultServer(fault) as server:
        sink = HTTPMetricsSink(server.url, batch_timeout_seconds=0.01)
        collector = MetricsCollector(sinks=[sink, healthy])
        collector.record(AgentMetrics(model="m"))
        server.wait_for(1)
        for number in range(2, 200):
            record_all(collector, records(1))
            healthy.wait_for(number, 9)  # each arrives while the other one's first attempt goes on
        assert server.received == 1
        ledger = collector.stats().sinks["HTTPMetricsSink"]
        assert ledger.in_flight and not ledger.dropped and ledger.balanced
        server.default = Answer()
        server.drop_connections()
        poll(lambda: not collector.stats().sinks["HTTPMetricsSink"].waiting, lambda: str(collector.stats()))
        assert collector.shutdown_sync(30).complete


@pytest.mark.fault(2)
def test_a_users_sink_that_never_returns_holds_up_no_other_and_no_shutdown(tmp_path: Path) -> None:
    release = threading.Event()

    class Stuck:
        spools = True

        def send(self, batch, deadline):
            release.wait(60)

    healthy = Healthy(batch_timeout_seconds=0.01)
    collector = MetricsCollector(sinks=[Stuck(), healthy])
    for number in range(1, 100):
        record_all(collector, records(1))
        healthy.wait_for(number, 10)
    report = collector.shutdown_sync(0.2)
    stats = collector.stats()
    assert not report.complete and report.waiting == {"Stuck": 99}
    assert stats.sinks["Stuck"].dropped == {"shutdown": 99} and stats.balanced
    assert stats.sinks["Healthy"].delivered == 99
    release.set()


@pytest.mark.fault(3)
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_too_large_loses_but_the_record_that_is_too_large_alone(limit: int) -> None:
    clock = FakeClock()
    giant = AgentMetrics(model="giant")

    def limited(batch, deadline):
        return TooLarge() if len(batch) > limit or giant in batch else Delivered()

    oracle = OracleSink(default=limited, batch_size=64, batch_timeout_seconds=3600.0)
    collector = MetricsCollector(sinks=[oracle], clock=clock)
    mine = [*records(40), giant, *records(23)]
    record_all(collector, mine)
    settle(collector, clock)
    ledger = collector.stats().sinks["OracleSink"]
    assert set(oracle.delivered) == {record.id for record in mine} - {giant.id}
    assert ledger.dropped == {"too_large": 1}
    first = len(oracle.batches)
    more = records(2 * limit)
    record_all(collector, more)
    collector.flush_sync(30)
    assert {len(batch) for batch in oracle.batches[first:]} <= set(range(1, limit + 1))  # the limit was learned
    assert collector.shutdown_sync(30).complete


RETRY_AFTER = [
    (2.0, 2.0, 30.0),
    (100.0, 100.0, 100.0),
    (1e9, 300.0, 300.0),
    (-5.0, 0.0, 0.5),
    (0.0, 0.0, 0.5),
    (math.nan, 0.0, 0.5),
    (math.inf, 0.0, 0.5),
    (None, 0.0, 0.5),
]


@pytest.mark.fault(4)
@pytest.mark.parametrize(("after", "earliest", "latest"), RETRY_AFTER)
def test_never_before_the_time_that_the_backend_asks_for(after, earliest: float, latest: float) -> None:
    clock = FakeClock()
    oracle = OracleSink(script=[RetryLater(after=after, reason="http_429")], batch_size=1)
    collector = MetricsCollector(sinks=[oracle], clock=clock)
    mine = AgentMetrics(model="m")
    collector.record(mine)
    oracle.wait_for_batches(1)
    poll(lambda: collector.stats().sinks["OracleSink"].failures and clock.sleepers, lambda: str(collector.stats()))
    assert oracle.batches == [(mine.id,)]
    due = collector._lanes[0]._sender.pacing.not_before - clock.monotonic()
    assert earliest <= due <= latest
    if earliest:
        clock.advance(earliest - 0.001)
        assert not collector.flush_sync(0.05).complete
        assert len(oracle.batches) == 1
    clock.advance(latest)
    oracle.wait_for(1)
    assert collector.shutdown_sync(30).complete


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "faults",
    [[Answer(500)], [Answer(502)], [Answer(504)], [Answer(408)], [Reset()] * 2],
    ids=str,
)
def test_what_a_server_did_not_take_is_sent_again_as_it_was(faults) -> None:
    clock = FakeClock()
    with FaultServer() as server:
        server.script(*faults)
        sink = HTTPMetricsSink(server.url, batch_size=10)
        collector = MetricsCollector(sinks=[sink], clock=clock)
        for record in records(10):
            collector.record(record)
        server.wait_for(1)
        settle(collector, clock, "HTTPMetricsSink")
        assert collector.stats().sinks["HTTPMetricsSink"].delivered == 10
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
        assert len({request.body for request in server.requests}) == 1
        assert collector.shutdown_sync(30).complete


@pytest.mark.fault(6)
@pytest.mark.parametrize(("status", "reason"), [(401, "unauthorized"), (403, "forbidden")])
def test_a_wrong_key_pauses_the_sink_for_a_minute_and_is_told_once(
    status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, key = FakeClock(), "canary-7f3a"
    with FaultServer(Answer(status)) as server, caplog.at_level(logging.DEBUG, "tellmeter"):
        sink = HTTPMetricsSink(server.url, key, batch_size=1)
        collector = MetricsCollector(sinks=[sink], clock=clock)
        for record in records(5):
            collector.record(record)
        for minute in range(1, 4):
            server.wait_for(minute)
            poll(
                lambda minute=minute: (
                    collector.stats().sinks["HTTPMetricsSink"].failures == {reason: minute} and clock.sleepers
                ),
                lambda: str(collector.stats()),
            )
            clock.advance(59.9)
            assert not collector.flush_sync(0.05).complete
            assert server.received == minute
            clock.advance(0.1)
        server.wait_for(4)
        server.default = Answer()
        settle(collector, clock, "HTTPMetricsSink", 60.0)
        assert collector.stats().sinks["HTTPMetricsSink"].delivered == 5
        assert collector.shutdown_sync(30).complete
    assert key not in caplog.text
    told = [line for line in caplog.messages if str(status) in line]
    assert len(told) == 1 and "key" in told[0]  # what a person has to do; that it is tried again is told once a minute


@pytest.mark.fault(6)
@pytest.mark.parametrize("reason", ["http_400", "http_404", "schema"])
def test_what_is_refused_for_good_is_not_sent_again(reason: str) -> None:
    oracle = OracleSink(default=Rejected(reason), batch_size=10)
    collector = MetricsCollector(sinks=[oracle])
    for record in records(10):
        collector.record(record)
    assert collector.shutdown_sync(30).complete
    assert len(oracle.batches) == 1
    assert collector.stats().sinks["OracleSink"].dropped == {reason: 10}


@pytest.mark.fault(7)
@pytest.mark.parametrize("spool", [True, False])
def test_of_a_batch_that_was_taken_in_part_only_the_rest_is_sent_again(tmp_path: Path, spool: bool) -> None:
    clock = FakeClock()
    options = {"spool": tmp_path / "spool"} if spool else {}
    oracle = OracleSink(
        script=[Partial(retry=(1, 2, 3), rejected=(0, 0, 99, -1), reason="field"), Partial(retry=(2,))],
        batch_size=10,
        batch_timeout_seconds=3600.0,
        **options,
    )
    collector = MetricsCollector(sinks=[oracle], clock=clock)
    mine = records(10)
    record_all(collector, mine)
    settle(collector, clock)
    ids = [record.id for record in mine]
    assert oracle.batches[1:] == [tuple(ids[1:4]), (ids[3],)]
    assert sorted(oracle.delivered) == sorted(ids[1:])
    assert collector.stats().sinks["OracleSink"].dropped == {"field": 1}
    assert collector.shutdown_sync(30).complete
    oracle.check(collector.stats(), ids)
