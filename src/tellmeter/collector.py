"""MetricsCollector: the front door, which owns a pipeline and counts on a registry."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from . import counts
from .block_call import BlockCall
from .call import Call
from .cleaning import clean_tags
from .config import MetricsConfig
from .errors import ConfigError
from .guard import note
from .live import in_progress, running_streams, settle_callbacks
from .pipeline import lifecycle
from .pipeline.account import Account
from .pipeline.adapt import RecordSink
from .pipeline.clock import SYSTEM_CLOCK, Clock
from .pipeline.lane import Lane, MemoryLane
from .pipeline.ledger import CollectorStats, FlushReport
from .pipeline.router import Router
from .pipeline.select import Selection
from .pipeline.thread_lane import ThreadLane
from .prices import PriceBook
from .records import AgentMetrics
from .registry.llm import LLMMetrics
from .registry.recording import Recorders, no_recorders
from .registry.registry import MetricsRegistry, get_metrics_registry

if TYPE_CHECKING:
    from .streams.report import StreamReport

logger = logging.getLogger(__name__)

RECORD_BYTES = 1024  # about what a finished record holds
STARVED_TURNS = 5
SETTLE_SECONDS = 5.0  # a reader of metrics waits at most this long for the calls that ended before it


class MetricsCollector:
    """Takes ended calls and finished records, and brings them to its sinks. Works with or without a running event loop.

    Args:
        config: the settings; `MetricsConfig()` without one.
        sinks: sink objects, or URLs as `sqlite:///calls.db`.
        registry: where calls are counted, and `increment_counter()` and the like record; the process's without one.

        clock: when batches are due and failed sinks are tried again; for tests (`tellmeter.testing.FakeClock`).

    Raises:
        ConfigError: a sink that is none, or a URL that names none.
    """

    def __init__(
        self,
        config: MetricsConfig | None = None,
        *,
        sinks: Iterable[Any] = (),
        registry: MetricsRegistry | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.config = config if config is not None else MetricsConfig()
        if not isinstance(self.config, MetricsConfig):
            raise ConfigError(f"config = {type(config).__name__}: it must be a MetricsConfig")
        self.prices = PriceBook(prices=self.config.prices, discounts=self.config.discounts)
        self.open_calls: dict[int, Call] = {}
        self._tags = clean_tags(self.config.tags)
        self._selection = Selection(self.config)
        self._lanes: tuple[Lane, ...] = ()
        self._lanes_lock = threading.RLock()
        self._router = Router(
            self._process,
            _size_of,
            max_items=self.config.max_queue,
            max_bytes=self.config.max_queue_bytes,
        )
        self._clock = clock
        self._passed = 0
        self._dropped: Counter[str] = Counter()
        self._count_on(registry)
        for sink in [sinks] if isinstance(sinks, str) else sinks:
            self.add_sink(sink)
        lifecycle.join(self)

    def _count_on(self, registry: MetricsRegistry | None) -> None:
        if registry is None:
            registry = get_metrics_registry()
            registry.max_series = self.config.max_series
        self.registry = registry
        recorders: Recorders = registry.recorders if self.config.enabled else no_recorders()
        self.increment_counter = recorders.increment
        self.record_histogram = recorders.observe
        self.set_gauge = recorders.set_gauge
        self.increment_gauge = recorders.increment_gauge
        self.decrement_gauge = recorders.decrement_gauge
        self.track_duration = recorders.timer
        self.track_active = recorders.active
        self._llm: LLMMetrics | None = None
        if self.config.enabled:
            self._llm = LLMMetrics(registry, self.config.label_tags, priced=self.config.enable_cost_tracking)
            self._account = Account(registry)
            registry.tell_about_itself()
            registry.refresh_with(self._show)
            # What was in progress when the last call let go of the collector is in progress no longer.
            weakref.finalize(self, self._llm.show_live, {}, {}).atexit = False

    # ------------------------------------------------------------------ sinks

    @property
    def sinks(self) -> list[Any]:
        """The sinks, in the order in which they were added."""
        return [getattr(lane.sink, "wrapped", lane.sink) for lane in self._lanes]

    def add_sink(self, sink: Any, **lane: Any) -> None:
        """Deliver to `sink` (an object or a URL) what is recorded from now on.

        Args:
            sink: an object or a URL.
            lane: settings of `MetricsConfig` for this sink alone, as `spool="folder"` or `batch_size=500`.

        Raises:
            ConfigError: what is no sink, a setting that is not one of a sink's, or a bad value.
        """
        if isinstance(sink, str):
            from .sinks.urls import sink_from_url

            sink = sink_from_url(sink)
        with self._lanes_lock:
            made = self._make_lane(sink, lane)
            self._lanes = (*self._lanes, made)
        if hasattr(sink, "bind"):
            sink.bind(_Settle(self, made))

    def remove_sink(self, sink: Any) -> None:
        """Flush `sink` and deliver nothing more to it; nothing happens where it is not there."""
        self._router.drain(self.config.flush_timeout_seconds)
        with self._lanes_lock:
            gone = [lane for lane in self._lanes if sink in (lane.sink, getattr(lane.sink, "wrapped", None))]
            self._lanes = tuple(lane for lane in self._lanes if lane not in gone)
        for lane in gone:
            lane.close(time.monotonic() + self.config.flush_timeout_seconds)

    def _make_lane(self, sink: Any, options: Any) -> Lane:
        taken = {lane.name for lane in self._lanes}
        base = type(sink).__name__
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        if callable(getattr(sink, "write", None)):
            return MemoryLane(name, sink)
        from .sinks.base import check_lane_options

        chosen = {**getattr(sink, "lane_options", {}), **check_lane_options(options)}
        config = msgspec.structs.replace(self.config, **chosen)
        destination = getattr(sink, "destination", "")
        if not callable(getattr(sink, "send", None)):
            if not callable(getattr(sink, "record", None)) and not callable(getattr(sink, "record_batch", None)):
                raise ConfigError(
                    f"{base} is no sink: it has no record(metrics), send(batch, deadline) or write(record)"
                )
            sink = RecordSink(sink)
        return ThreadLane(name, sink, config, destination=destination, clock=self._clock)

    # ------------------------------------------------------------------ recording

    def record(self, metrics: AgentMetrics) -> None:
        """Take a finished record. Never blocks, never raises; fit for any thread, task, signal handler or `__del__`."""
        if self.config.enabled:
            self._router.put(metrics, RECORD_BYTES)

    def submit(self, call: Call) -> None:
        """Take an ended call, whose record is made on the router thread."""
        if not self.config.enabled or not self._router.put(call, call.size()):
            call.recorded(None)

    def count_stall(self, call: Call, stream_id: str) -> None:
        """Count that the provider of a call's running stream fell silent."""
        if self._llm is not None:
            provider, model, _ = call.live()
            self._llm.count_stall(stream_id, provider, model, {**self._tags, **call.live_tags()})

    def active_streams(self) -> list[StreamReport]:
        """The streams that are running now, the oldest first, as far as they are known to be of LLM calls."""
        return running_streams(list(self.open_calls.values()), self._tags)

    def track_request(
        self,
        provider: str = "",
        model: str = "",
        method: str = "generate",
        request_id: str | None = None,
        *,
        operation: str = "chat",
    ) -> BlockCall:
        """A call that no hook sees, else it steps back: `with` or `async with`; tokens are set on what it yields."""
        names = {"provider": provider, "model": model, "operation": operation, "method": method}
        return BlockCall(self, **names, request_id=request_id)

    # ------------------------------------------------------------------ settling

    def flush_sync(self, timeout: float | None = None) -> FlushReport:
        """Bring everything recorded so far to the sinks, within `timeout` seconds (`flush_timeout_seconds`)."""
        started = time.monotonic()
        deadline = started + (self.config.flush_timeout_seconds if timeout is None else timeout)
        reached = self._router.drain(deadline - time.monotonic())
        for lane in self._lanes:
            reached = lane.flush(deadline) and reached
        settle_callbacks(deadline)
        return self._report(started, reached=reached)

    def shutdown_sync(self, timeout: float | None = None) -> FlushReport:
        """Flush, then end the sinks; what is left at the deadline is dropped and counted. Safe to call twice."""
        started = time.monotonic()
        deadline = started + (self.config.flush_timeout_seconds if timeout is None else timeout)
        self._router.drain(deadline - time.monotonic())
        lanes = self._lanes
        for lane in lanes:
            lane.flush(0.0)  # none waits for the one before it
        left = {lane.name: lane.close(deadline) for lane in lanes}
        self._router.rest()
        settle_callbacks(deadline)
        return self._report(started, left)

    async def flush(self, timeout: float | None = None) -> FlushReport:
        """As `flush_sync`, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.flush_sync, timeout)

    async def shutdown(self, timeout: float | None = None) -> FlushReport:
        """As `shutdown_sync`, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.shutdown_sync, timeout)

    def stats(self) -> CollectorStats:
        """The account: what was recorded, what each sink has, what was dropped and why. Settles nothing."""
        waiting, refused, passed = self._router.waiting, self._router.refused, self._passed
        dropped = dict(self._dropped)
        if refused:
            dropped["queue_full"] = refused
        return CollectorStats(
            recorded=passed + sum(dropped.values()) + waiting,
            passed=passed,
            dropped=dropped,
            queued=waiting,
            sinks={lane.name: lane.stats() for lane in self._lanes},
            counts=counts.snapshot(),
        )

    def _report(
        self, started: float, dropped: Mapping[str, int] | None = None, *, reached: bool = False
    ) -> FlushReport:
        stats = {lane.name: lane.stats() for lane in self._lanes}
        waiting = Counter({"": self._router.waiting} | {name: sink.waiting for name, sink in stats.items()})
        waiting.update(dropped or {})
        left = {name: number for name, number in waiting.items() if number}
        return FlushReport(
            complete=reached or not left,
            waiting=left,
            spooled={name: sink.spooled for name, sink in stats.items() if sink.spooled},
            seconds=time.monotonic() - started,
        )

    # ------------------------------------------------------------------ on the router thread

    def _process(self, items: list[Any]) -> None:
        finished: list[tuple[AgentMetrics, Sequence[str] | None]] = []
        kept: list[AgentMetrics] = []
        dropped: Counter[str] = Counter()
        for item in items:
            found = (item, None) if type(item) is AgentMetrics else self._finish(item, dropped)
            if found is None:
                continue
            record, attempts = found
            if self._tags or not self.config.enable_streaming_metrics or not self.config.enable_reliability_metrics:
                record = self._configured(record, given=record is item)
            finished.append((record, attempts))
            if not self._selection.everything and (reason := self._selection.reason_to_drop(record)):
                dropped[reason] += 1
                continue
            kept.append(record)
        if self._llm is not None:
            self._llm.count_all(finished)
        if kept:
            for lane in self._lanes:
                lane.put(kept)
        # Last: until then they count as waiting, and a filter or sink may be slow.
        self._passed += len(kept)
        self._dropped.update(dropped)

    @staticmethod
    def _finish(call: Any, dropped: Counter[str]) -> tuple[AgentMetrics, Sequence[str] | None] | None:
        try:
            record: AgentMetrics | None = None
            try:
                record = call.finish()
            finally:
                call.recorded(record)
            if record is not None:
                return record, call.attempts
        except BaseException as error:
            note("record", error)
            dropped["error"] += 1
            return None
        dropped["not_llm"] += 1
        return None

    def _configured(self, record: AgentMetrics, given: bool) -> AgentMetrics:
        changes: dict[str, Any] = {}
        if self._tags:
            changes["tags"] = {**self._tags, **record.tags}
        if given and record.stream is not None and not self.config.enable_streaming_metrics:
            changes["stream"] = None  # a call has none, unless it was asked for closer to it
        if record.retry_delay_ms and not self.config.enable_reliability_metrics:
            changes["retry_delay_ms"] = 0.0
        return msgspec.structs.replace(record, **changes) if changes else record

    # ------------------------------------------------------------------ when somebody reads the registry

    def _show(self) -> None:
        self._router.drain(SETTLE_SECONDS)
        if self._llm is not None:
            calls = list(self.open_calls.values())
            self._llm.show_live(*in_progress(calls, self._tags, self.config.label_tags))
            self._account.show(self.stats())

    # ------------------------------------------------------------------ the process's life

    def before_fork(self) -> None:
        """Wait, briefly, until no lane is inside its backend's library."""
        for lane in self._lanes:
            lane.before_fork()

    def after_fork_in_parent(self) -> None:
        """Let the lanes go on."""
        for lane in self._lanes:
            lane.after_fork_in_parent()

    def after_fork(self) -> None:
        """The child starts empty: the parent owns what waited and what was in progress."""
        self.open_calls = {}
        self._lanes_lock = threading.RLock()
        self._passed = 0
        self._dropped = Counter()
        self._router.after_fork()
        if self._llm is not None:
            self._account.begin_again()
        for lane in self._lanes:
            lane.after_fork()

    def at_exit(self, started: float) -> None:
        """End what is still open, deliver what waits within `exit_timeout_seconds`, and say what was lost."""
        for call in list(self.open_calls.values()):
            call.end("abandoned")
        limit = self.config.exit_timeout_seconds
        spent = time.monotonic() - started  # by the collectors before
        # A short program's first price is looked up here (0.4 s of CPU): that time is not taken from the sinks', and
        # where others have the processor it takes longer. What waits without working is not waited for twice.
        for _ in range(STARVED_TURNS):
            worked = time.process_time()
            if self._router.drain(limit) or time.process_time() - worked < limit / 20:
                break
        self.shutdown_sync(max(0.0, limit - spent))
        stats = self.stats()
        if kept := sum(sink.spooled for sink in stats.sinks.values()):
            logger.info("%d records wait in the spool for the next process", kept)
        if lost := stats.lost:
            told = ", ".join(f"{number} {reason}" for reason, number in sorted(lost.items()))
            logger.warning("%d records were not delivered (%s)", sum(lost.values()), told)


class _Settle:
    """What a sink calls before it answers a question: everything recorded before has arrived when it returns True."""

    def __init__(self, collector: MetricsCollector, lane: Lane) -> None:
        # Weakly: a sink that outlives its collector must not keep it.
        self._collector = weakref.ref(collector)
        self._lane = lane

    def __call__(self, timeout: float | None = None) -> bool:
        collector = self._collector()
        if collector is None:
            return True
        limit = collector.config.flush_timeout_seconds if timeout is None else timeout
        deadline = time.monotonic() + limit
        return collector._router.drain(limit) and self._lane.flush(deadline)


def _size_of(item: Any) -> int:
    return RECORD_BYTES if type(item) is AgentMetrics else item.size()
