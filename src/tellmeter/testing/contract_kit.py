"""What SinkContract works with: records that are hard to take, a collector that is held to its ledger, what is open."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import counts
from ..collector import MetricsCollector
from ..config import MetricsConfig
from ..pipeline.clock import SYSTEM_CLOCK
from ..pipeline.ledger import SinkStats
from ..records import AgentMetrics, StreamMetrics
from ..registry.registry import MetricsRegistry
from .clock import FakeClock

PATIENCE = 30.0  # seconds: far more than anything here takes, so that a busy machine is no failure
_POLL = 0.005
_REASON = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FOLDERS_OF_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")
# Threads of the collector and of servers in this process, which do not belong to the sink.
_NOT_THE_SINKS = ("tellmeter-fault-server",)


def made(number: int, **fields: Any) -> list[AgentMetrics]:
    """So many ordinary records, no two alike."""
    return [
        AgentMetrics(
            model=f"gpt-4o-{index % 3}",
            provider="openai",
            timestamp=time.time() - number + index,
            latency_ms=100.0 + index,
            input_tokens=index,
            output_tokens=2 * index,
            cost_usd=index / 1000 or None,
            tags={"feature": f"f{index % 2}"},
            **fields,
        )
        for index in range(number)
    ]


_TEXTS = (
    "",
    "a \"b\" 'c' `d` \\e\\",
    "one\ntwo\r\nthree\tfour",
    "nul\x00escape\x1b[31m",
    "日本語 😀 é \u2028 \u202e",
    "\ud800lone",
    "'; DROP TABLE llm_metrics; --",
    '{"}],[{=,#|%s%(x)s{0}',
    "<img src=x onerror=alert(1)>",
    "a=b,c=d e",
    "x" * 1_000_000,
)
_NUMBERS: tuple[Any, ...] = (0, -0.0, 1e-300, 1e308, 2**63 - 1, 10**400, float("nan"), float("inf"), -5, True)


def hostile() -> list[AgentMetrics]:
    """Records of what nobody should hand to a meter, as `AgentMetrics` cleans it: NULs, a megabyte, infinity."""
    texts = [
        AgentMetrics(
            model=text or "m",
            provider=text,
            error_class=text,
            status="error",
            finish_reason=text,
            request_id=text,
            tools_used=(text, "tool"),
            tags={text or "empty": text, "plain": text},
        )
        for text in _TEXTS
    ]
    numbers = [
        AgentMetrics(
            model="m",
            latency_ms=number,
            input_tokens=number,
            output_tokens=number,
            cost_usd=number,
            retries=number,
            retry_delay_ms=number,
            stream=StreamMetrics(duration_ms=number, bytes_received=number, status="completed"),
        )
        for number in _NUMBERS
    ]
    return texts + numbers


def is_batch_sink(sink: Any) -> bool:
    """Whether its lane calls `send(batch, deadline)`."""
    return callable(getattr(sink, "send", None)) and not callable(getattr(sink, "write", None))


def poll(condition: Callable[[], object], told: Callable[[], str], seconds: float | None = None) -> None:
    """Wait until `condition()` holds, for `PATIENCE` seconds without others.

    Raises:
        AssertionError: it does not within so many seconds; `told()` says what is the case instead.
    """
    seconds = PATIENCE if seconds is None else seconds
    until = time.monotonic() + seconds
    waiting = threading.Event()
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"after {seconds:g} s: {told()}")
        waiting.wait(_POLL)


class Pipeline:
    """A collector with one sink, which is shut down at the end and must then have accounted for every record."""

    def __init__(self, sink: Any, clock: FakeClock | None = None, **settings: Any) -> None:
        self._clock = clock
        self._errors = _guarded_errors()
        # A registry of its own: the process's would keep what these tests count.
        self.collector = MetricsCollector(
            MetricsConfig(flush_timeout_seconds=PATIENCE),
            registry=MetricsRegistry(),
            clock=SYSTEM_CLOCK if clock is None else clock,
        )
        self.collector.add_sink(sink, **{"batch_size": 20, "batch_timeout_seconds": 0.05, **settings})

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.collector.shutdown_sync(0.0)
            return
        report = self.collector.shutdown_sync()
        assert report.complete, f"the sink did not end within {PATIENCE:g} s: {report.waiting} records wait"
        self.check()

    def record(self, records: Iterable[AgentMetrics]) -> None:
        """Record them all."""
        for record in records:
            self.collector.record(record)

    def flush(self) -> None:
        """Flush, which must be complete."""
        report = self.collector.flush_sync()
        assert report.complete, f"flush was not complete within {PATIENCE:g} s: {report.waiting} records wait"

    @property
    def ledger(self) -> SinkStats:
        """The sink's account."""
        (ledger,) = self.collector.stats().sinks.values()
        return ledger

    @property
    def errors(self) -> int:
        """How often the sink's code has raised."""
        (name,) = self.collector.stats().sinks
        return _guarded_errors().get(name, 0) - self._errors.get(name, 0)

    def check(self) -> None:
        """Whether every record is accounted for."""
        stats = self.collector.stats()
        assert stats.balanced, f"the ledger does not add up: {stats}"
        left = self.ledger
        assert not left.waiting, f"after the end records still wait: {left}"
        for reason in left.dropped:
            assert _REASON.fullmatch(reason), f"a reason is a short name, not {reason!r}"

    def is_settled(self) -> bool:
        """Whether every record was delivered or dropped."""
        stats, ledger = self.collector.stats(), self.ledger
        return stats.recorded == ledger.accepted == ledger.delivered + sum(ledger.dropped.values())

    def is_backing_off(self) -> bool:
        """Whether the lane waits to try again."""
        assert self._clock is not None
        return self.ledger.state != "ready" and self._clock.sleepers > 0

    def wait_for_attempt(self) -> None:
        """Wait until the lane has tried, and waits to try again or is done."""
        poll(lambda: self.is_backing_off() or self.is_settled(), lambda: f"no attempt has ended: {self.ledger}")

    def settle(self) -> None:
        """Let time pass until every record was delivered or dropped."""
        clock = self._clock
        assert clock is not None

        def settled() -> bool:
            if self.is_backing_off():
                clock.advance(max(0.0, (clock.next_due or 0.0) - clock.monotonic()))
            return self.is_settled()

        poll(settled, lambda: f"records still wait: {self.ledger}")


def in_time(function: Callable[[], Any], seconds: float, told: str) -> Any:
    """What `function` returns, or the exception that it raises, from a thread of its own.

    Raises:
        AssertionError: it is not done within so many seconds.
    """
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), told
    return results[0]


def ids_of(found: Iterable[str | AgentMetrics]) -> list[str]:
    """The ids of what a backend has."""
    return [one if isinstance(one, str) else one.id for one in found]


def compare(
    found: Sequence[str | AgentMetrics], records: Iterable[AgentMetrics], *, more_often: bool, exact: bool
) -> None:
    """Hold what a backend has against what was recorded.

    Args:
        found: ids, or records.
        records: what was recorded.
        more_often: whether a record may be there more than once.
        exact: whether records that were found must be equal to those that were recorded.

    Raises:
        AssertionError: it is not the same.
    """
    expected = {record.id: record for record in records}
    ids = ids_of(found)
    if missing := expected.keys() - set(ids):
        raise AssertionError(f"{len(missing)} of {len(expected)} records did not arrive")
    if foreign := set(ids) - expected.keys():
        raise AssertionError(f"{len(foreign)} records arrived that nobody recorded, as {min(foreign)!r}")
    if not more_often and len(ids) > len(expected):
        raise AssertionError(f"{len(ids)} records arrived, {len(ids) - len(expected)} of them for the second time")
    for one in found if exact else ():
        if isinstance(one, str):
            raise AssertionError("keeps_fields = True: read_back() gives AgentMetrics")  # noqa: TRY004 - a test fails
        other = expected[one.id]
        changed = [name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)]
        if changed:
            raise AssertionError(
                f"{', '.join(changed)} changed on the way: "
                f"{str(getattr(other, changed[0]))[:80]!r} became {str(getattr(one, changed[0]))[:80]!r}"
            )


def threads() -> set[threading.Thread]:
    """The threads that run, but for the collector's router and servers of the tests."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(_NOT_THE_SINKS)}


def descriptors() -> int | None:
    """How many file descriptors are open; None where the system does not say."""
    for folder in _FOLDERS_OF_DESCRIPTORS:
        if Path(folder).is_dir():
            return sum(1 for _ in Path(folder).iterdir())
    return None


def _guarded_errors() -> dict[str, int]:
    return counts.snapshot().get("guarded_errors", {})
