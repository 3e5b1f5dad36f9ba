"""The last calls, kept in memory: for development, tests and small dashboards."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConfigError
from ..records import FAILURES, AgentMetrics
from . import query
from .address import parse, positive, whole
from .asking import Asking
from .base import MetricsSink, Settle, Settles
from .checks import check_positive, check_whole

T = TypeVar("T")

_FOLD_AT = 256
# Rows from which an answer is worked out on a thread: 2,000 take about 3 ms.
_QUICK_ROWS = 2_000
# Question -> the function of `query` that answers it.
_ANSWERS = {
    "records": "newest",
    "summary": "summarise",
    "percentile": "percentile_of",
    "series": "series",
    "breakdown": "breakdown",
}


class InMemoryMetricsSink(Asking, MetricsSink):
    """Keeps the newest `max_size` records for `ttl_seconds` after they arrived, and answers questions about them.

    Writing is an append; everything else is worked out when somebody asks. A record whose id is already kept is
    ignored. A sink may join several collectors: each question first waits until what they recorded has arrived.

    Args:
        max_size: how many records at most.
        ttl_seconds: how long each is kept; None for as long as there is room.
        clock: monotonic seconds, for tests.

    Raises:
        ConfigError: a `max_size` below 1, a `ttl_seconds` that is not above 0.
    """

    def __init__(
        self,
        max_size: int = 10_000,
        ttl_seconds: float | None = 3600,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_whole("max_size", max_size)
        if ttl_seconds is not None:
            check_positive("ttl_seconds", ttl_seconds)
        self.max_size = max_size
        self.ttl_seconds = ttl_seconds
        self._clock = clock
        self._settles = Settles()
        self._fold_at = min(_FOLD_AT, max_size)
        self._fresh: deque[tuple[float, AgentMetrics]] = deque()
        self._forget()
        self._renew_lock()

    @classmethod
    def from_url(cls, url: str) -> InMemoryMetricsSink:
        """`memory:`, with the options `max_size` and `ttl_seconds`."""
        address = parse(url)
        if address.location not in ("", "//"):
            raise ConfigError(f"{address.shown}: memory: has no place; write memory: or memory:?max_size=1000")
        return cls(**address.read(max_size=whole, ttl_seconds=positive))

    # ------------------------------------------------------------------ writing

    def write(self, record: AgentMetrics) -> None:
        """Take one record. Never blocks; usable from any thread."""
        self._fresh.append((self._clock(), record))
        if len(self._fresh) >= self._fold_at:
            self._fold(wait=False)

    async def record(self, metrics: AgentMetrics) -> None:
        """Take one record, where the sink is used without a collector."""
        self.write(metrics)

    async def flush(self) -> None:
        """Nothing ever waits here."""

    def bind(self, settle: Settle) -> None:
        """Settle this way too before every answer."""
        self._settles.add(settle)

    def after_fork(self) -> None:
        """A lock that another thread held at the fork would never open again. What was recorded stays readable."""
        self._renew_lock()

    # ------------------------------------------------------------------ asking

    def get_stats(self) -> dict[str, Any]:
        """What arrived since the sink was made or cleared, and what of it is still kept.

        total_requests, total_errors, total_tokens, total_cost (US dollars), avg_latency_ms and error_rate (0..1) are
        over all that arrived, whether still kept or not; stored_metrics, unique_models and unique_providers are over
        what a question would see now.
        """
        self._settles.now()
        rows = self._rows()
        requests, errors, tokens, cost, latency = self._totals
        return {
            "total_requests": requests,
            "total_errors": errors,
            "total_tokens": tokens,
            "total_cost": cost,
            "avg_latency_ms": latency / requests if requests else 0.0,
            "error_rate": errors / requests if requests else 0.0,
            "stored_metrics": len(rows),
            "unique_models": len({record.model for record in rows}),
            "unique_providers": len({record.provider for record in rows}),
        }

    async def clear(self) -> None:
        """Forget everything that was recorded before, what is still under way included, and its totals."""
        await self._settles.wait()
        self._rows()
        with self._lock:
            self._forget()

    async def _ask(self, what: str, *arguments: Any) -> Any:
        await self._settles.wait()
        rows = self._rows()
        question, *others = arguments

        def answer() -> Any:
            found = [record for record in rows if question.matches(record)]
            return getattr(query, _ANSWERS[what])(found, *others)

        if len(rows) <= _QUICK_ROWS:
            return answer()
        import asyncio

        return await asyncio.to_thread(answer)

    # ------------------------------------------------------------------ what is kept

    def _forget(self) -> None:
        self._kept: deque[tuple[float, AgentMetrics]] = deque()
        self._ids: set[str] = set()
        self._totals: tuple[int, int, int, float, float] = (0, 0, 0, 0.0, 0.0)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()

    def _rows(self) -> list[AgentMetrics]:
        """Everything that is kept and not too old, in order of arrival."""
        if self._process != os.getpid():  # forked without a collector that would have told us
            self._renew_lock()
        self._fold(wait=True)
        with self._lock:
            oldest = self._oldest()
            return [record for arrived, record in self._kept if arrived > oldest]

    def _oldest(self) -> float:
        return float("-inf") if self.ttl_seconds is None else self._clock() - self.ttl_seconds

    def _fold(self, *, wait: bool) -> None:
        """Move what was written to what is kept. Writers do not wait for the lock: the next one, or a reader, folds."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            kept, ids, fresh = self._kept, self._ids, self._fresh
            new: list[AgentMetrics] = []
            for _ in range(len(fresh)):
                pair = fresh.popleft()
                record = pair[1]
                if record.id not in ids:
                    ids.add(record.id)
                    kept.append(pair)
                    new.append(record)
            oldest = self._oldest()
            while kept and (len(kept) > self.max_size or kept[0][0] <= oldest):
                ids.discard(kept.popleft()[1].id)
            requests, errors, tokens, cost, latency = self._totals
            self._totals = (
                requests + len(new),
                errors + sum([record.status in FAILURES for record in new]),
                tokens + sum([record.input_tokens + record.output_tokens for record in new]),
                query.total([cost, *[record.cost_usd for record in new if record.cost_usd is not None]]),
                query.total([latency, *[record.latency_ms for record in new]]),
            )
        finally:
            self._lock.release()
