"""The questions of a store, the same for every backend: checked here, answered there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..records import AgentMetrics, MetricsSummary
from . import query
from .checks import check_positive, check_whole
from .query import SeriesPoint, make_query


class Asking:
    """A `MetricsStore` whose backend answers by functions `records`, `summary`, `percentile`, `series`, `breakdown`."""

    async def _ask(self, what: str, *arguments: Any) -> Any:
        """Settle, and answer: `what` is the name of such a function, `arguments` follow its source."""
        raise NotImplementedError

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
        """At most `limit` records, newest first by `timestamp`. See `MetricsStore` for the filters."""
        question = make_query(
            start_time=start_time,
            end_time=end_time,
            provider=provider,
            model=model,
            request_id=request_id,
            status=status,
            tags=tags,
        )
        check_whole("limit", limit, 0)
        found: list[AgentMetrics] = await self._ask("records", question, limit)
        return found

    async def get_summary(
        self, window_seconds: float | None = 300, provider: str | None = None, **filters: Any
    ) -> MetricsSummary:
        """One view over the last `window_seconds` (None: over all)."""
        question = make_query(window_seconds=window_seconds, provider=provider, **filters)
        found: MetricsSummary = await self._ask("summary", question)
        return found

    async def get_summary_stats(self, hours: float = 24) -> dict[str, float]:
        """The last `hours` in six numbers.

        `total_requests`, `avg_latency` and `p95_latency` (milliseconds), `total_tokens`, `total_cost` (US dollars) and
        `error_count`. `get_summary` tells more.
        """
        summary = await self.get_summary(check_positive("hours", hours) * 3600)
        return {
            "total_requests": summary.count,
            "avg_latency": summary.avg_latency_ms,
            "p95_latency": summary.p95_latency_ms,
            "total_tokens": summary.total_tokens,
            "total_cost": summary.total_cost,
            "error_count": summary.error_count,
        }

    async def get_percentile(
        self, percentile: float, metric: str = "latency_ms", window_seconds: float | None = 300, **filters: Any
    ) -> float:
        """The `percentile` (0..100) of a metric, 0.0 where no call has it.

        `metric`: latency_ms, ttft_ms, tokens, input_tokens, output_tokens or cost_usd.
        """
        question = make_query(window_seconds=window_seconds, **filters)
        query.check_metric(metric)
        query.check_percentile(percentile)
        found: float = await self._ask("percentile", question, metric, percentile)
        return found

    async def get_series(self, step: float, **filters: Any) -> list[SeriesPoint]:
        """One summary per `step` seconds that has calls, oldest first."""
        question = make_query(**filters)
        found: list[SeriesPoint] = await self._ask("series", question, check_positive("step", step))
        return found

    async def get_breakdown(self, by: str, *, limit: int = 1000, **filters: Any) -> dict[str, MetricsSummary]:
        """One summary per value of `by` (see `MetricsStore`), most calls first."""
        question = make_query(**filters)
        query.check_breakdown(by)
        check_whole("limit", limit, 0)
        found: dict[str, MetricsSummary] = await self._ask("breakdown", question, by, limit)
        return found
