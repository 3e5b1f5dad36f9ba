"""What a sink is: three shapes, from the user's simplest to a batch writer; and what a store can be asked.

A sink has one of:
- `write(record)`: called on the router thread; for memory only, it must not block;
- `send(batch, deadline)`: called on the sink's own thread, returns an `Outcome`; `BatchingMetricsSink` is its base;
- `record(metrics)` and `flush()`, async or sync: called on the sink's own thread (on an event loop there where async).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ..pipeline.outcome import Delivered, Outcome
from ..records import AgentMetrics, MetricsSummary
from .query import SeriesPoint

Settle = Callable[[float | None], bool]


class MetricsSink:
    """The simplest sink: override `record` (async or sync); `flush`, `start` and `aclose` where there is something to do.

    Structural and not abstract: any object with a `record` is a sink, derived from this or not.
    """

    async def record(self, metrics: AgentMetrics) -> None:
        """Take one record."""

    async def flush(self) -> None:
        """Send what is buffered."""


class BatchingMetricsSink:
    """The base of sinks that do I/O: override `send`. Batching, retries, bounds and counting are the lane's.

    `send` runs on the sink's own thread and is never called twice at a time.
    """

    def open(self) -> None:
        """Called on the sink's thread before its first `send`."""

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Deliver `batch` before `deadline` (of `time.monotonic`) and say what became of it. May raise: that is a retry."""
        return Delivered()

    def close(self) -> None:
        """Called on the sink's thread after its last `send`."""

    def after_fork(self) -> None:
        """Called in a forked child: forget connections without closing them, make locks anew."""


class MetricsStore(Protocol):
    """A sink that can also be asked. Times are Unix seconds; every question settles first.

    Filters: `start_time <= timestamp < end_time`; the other ones are equalities, `tags` on all of the tags given.
    """

    async def get_metrics(
        self,
        start_time: float | None = None,
        end_time: float | None = None,
        provider: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
        limit: int = 1000,
        *,
        status: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[AgentMetrics]:
        """Records, newest first."""

    async def get_summary(
        self, window_seconds: float | None = 300, provider: str | None = None, **filters: Any
    ) -> MetricsSummary:
        """One view over the last `window_seconds` (None: over all)."""

    async def get_series(self, step: float, **filters: Any) -> list[SeriesPoint]:
        """One summary per `step` seconds that has calls, oldest first."""

    async def get_breakdown(self, by: str, **filters: Any) -> dict[str, MetricsSummary]:
        """One summary per value of `by`: model, provider, status, operation, error_class or `tag:<name>`; most calls first."""


@runtime_checkable
class SupportsSettle(Protocol):
    """A sink whose questions wait until what was recorded before has arrived."""

    def bind(self, settle: Settle) -> None:
        """Called when the sink joins a collector; `settle(timeout)` drains the way to this sink."""
