"""What a sink is: three shapes, from the user's simplest to a batch writer; and what a store can be asked.

A sink has one of:
- `write(record)`: called on the router thread; for memory only, it must not block;
- `send(batch, deadline)`: called on the sink's own thread, returns an `Outcome`; `BatchingMetricsSink` is its base;
- `record(metrics)` and `flush()`, async or sync: called on the sink's own thread (on an event loop there where async).
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict, Unpack, cast, runtime_checkable

from ..config import MetricsConfig
from ..errors import ConfigError
from ..guard import note
from ..pipeline.outcome import Delivered, Outcome
from ..records import AgentMetrics, MetricsSummary
from .query import SeriesPoint

# Drains the way to one sink within so many seconds and says whether all has arrived. 0 only looks and never blocks,
# None is the collector's own `flush_timeout_seconds`.
Settle = Callable[[float | None], bool]


class MetricsSink:
    """The simplest sink: override `record` (async or sync); `flush`, `start` and `aclose` where there is need.

    Structural and not abstract: any object with a `record` is a sink, derived from this or not. `initialize` and
    `cleanup` stand for `start` and `aclose`. Neither is called of a sink that the program itself has entered, by
    `async with` or `with`.
    """

    entered: bool = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in ("__enter__", "__aenter__"):
            if name in cls.__dict__:
                setattr(cls, name, _noting(cls.__dict__[name]))

    async def record(self, metrics: AgentMetrics) -> None:
        """Take one record."""

    async def flush(self) -> None:
        """Send what is buffered."""


def _noting(enter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`enter`, which leaves a note that the program looks after the sink's beginning and end itself."""

    @functools.wraps(enter)
    def noted(self: Any) -> Any:
        self.entered = True
        return enter(self)

    return noted


class LaneOptions(TypedDict, total=False):
    """What one sink may have otherwise than `MetricsConfig` says; see there for each."""

    batch_size: int
    batch_timeout_seconds: float
    max_queue: int
    max_queue_bytes: int
    when_full: str
    spool: str | os.PathLike[str]
    spool_max_bytes: int
    dead_letters: str | os.PathLike[str]


class BatchingMetricsSink:
    """The base of sinks that do I/O: override `send`. Batching, retries, bounds, spool and counting are the lane's.

    `send` runs on the sink's own thread and is never called twice at a time.

    Args:
        lane: settings of `MetricsConfig` for this sink alone, as `spool="folder"`; see `LaneOptions`.

    Raises:
        ConfigError: a setting that is not one of those, or a bad value.
    """

    lane_options: LaneOptions
    destination: str = ""
    """Where the records go, without secrets: what an earlier process left in the spool for the same place is taken
    over. Sinks without one go by their names."""
    spools: bool = True
    """Whether a spool that is set for the whole process is this sink's too."""

    def __init__(self, **lane: Unpack[LaneOptions]) -> None:
        self.lane_options = check_lane_options(lane)

    def open(self) -> None:
        """Called on the sink's thread before its first `send`."""

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Deliver `batch` before `deadline` (of `time.monotonic`), say what became of it. Raising is a retry."""
        return Delivered()

    def close(self) -> None:
        """Called on the sink's thread after its last `send`."""

    def after_fork(self) -> None:
        """Called in a forked child: forget connections without closing them, make locks anew."""


def check_lane_options(options: LaneOptions) -> LaneOptions:
    """The options, checked as `MetricsConfig` checks them.

    Raises:
        ConfigError: one that is not known, or a bad value.
    """
    for name in options:
        if name not in LaneOptions.__annotations__:
            raise ConfigError(f"{name} is no option of a sink; there are {', '.join(LaneOptions.__annotations__)}")
    given: dict[str, Any] = dict(options)
    if given.get("when_full") == "spool":
        given.setdefault("spool", ".")  # it may be the process's, which only the collector knows
    MetricsConfig(**given)
    return options


def lane_options_in(options: Mapping[str, Any], given: LaneOptions) -> LaneOptions:
    """Those of a URL's options that are the lane's, under those that were given beside the URL."""
    found: Any = {name: value for name, value in options.items() if name in LaneOptions.__annotations__}
    return cast(LaneOptions, {**found, **given})


class MetricsStore(Protocol):
    """A sink that can also be asked. Times are Unix seconds; every question settles first.

    Filters: `start_time <= timestamp < end_time`; `provider`, `model`, `request_id` and `status` are equalities, `tags`
    too, on all of the tags given. `window_seconds` stands for the time before `end_time` (before now without one) and
    gives way to `start_time`. An unknown filter is a `ConfigError`, a store that cannot be read a `StoreError`.
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
        """At most `limit` records, newest first by `timestamp`, what came later first among equals."""

    async def get_summary(
        self, window_seconds: float | None = 300, provider: str | None = None, **filters: Any
    ) -> MetricsSummary:
        """One view over the last `window_seconds` (None: over all). An id that was recorded twice counts once."""

    async def get_series(self, step: float, **filters: Any) -> list[SeriesPoint]:
        """One summary per `step` seconds that has calls, oldest first. More than 20,000 points are a `ConfigError`."""

    async def get_breakdown(self, by: str, *, limit: int = 1000, **filters: Any) -> dict[str, MetricsSummary]:
        """One summary per value of `by`, for the `limit` values with the most calls, most calls first.

        `by`: model, provider, status, operation, method, error_class or `tag:<name>`. Calls without it are left out.
        """


@runtime_checkable
class SupportsSettle(Protocol):
    """A sink whose questions wait until what was recorded before has arrived."""

    def bind(self, settle: Settle) -> None:
        """Called when the sink joins a collector; `settle(timeout)` drains the way to this sink."""


class Settles:
    """The ways to one sink, for sinks that answer questions: one for each collector that the sink joined.

    A settle that raises is counted and logged once: a question is answered with what is there.
    """

    def __init__(self) -> None:
        self._settles: list[Settle] = []

    def add(self, settle: Settle) -> None:
        """Settle this way too from now on. It is kept for good, so it should hold its collector weakly."""
        self._settles.append(settle)

    def now(self, timeout: float | None = None) -> bool:
        """Settle all ways, each within `timeout` seconds; whether everything has arrived."""
        return not self._unsettled(list(self._settles), timeout)

    async def wait(self) -> None:
        """Settle all ways without blocking the event loop."""
        late = self._unsettled(list(self._settles), 0)
        if late:
            import asyncio

            await asyncio.to_thread(self._unsettled, late, None)

    @staticmethod
    def _unsettled(settles: list[Settle], timeout: float | None) -> list[Settle]:
        late = []
        for settle in settles:
            try:
                if not settle(timeout):
                    late.append(settle)
            except Exception as error:
                note("settle", error)
        return late


_FILE_REASONS = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "file_too_big",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.EROFS: "read_only",
    errno.EISDIR: "is_a_directory",
    errno.ENOTDIR: "no_such_folder",
    errno.EEXIST: "no_such_folder",  # a file stands where a folder is to be made
    errno.ENOENT: "no_such_folder",
}


def file_reason(error: OSError) -> str:
    """A short name for why a file could not be written."""
    return _FILE_REASONS.get(error.errno or 0, "io_error")
