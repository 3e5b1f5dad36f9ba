"""Every recorded exchange once, into every backend: all of them have the same calls, tokens, dollars and errors."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tellmeter import (
    AgentMetrics,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    instrument,
    start_metrics_server,
    uninstrument,
)
from tests.exchanges.test_sdk_replay import clients, run_sync
from tests.support.exchanges import load, need_exchanges, pairs
from tests.support.prometheus import Prometheus
from tests.support.servers import require
from tests.support.totals import WAYS, Totals, Way

pytestmark = pytest.mark.heavy

EXACT = ("calls", "tokens", "errors")
# Backend -> its totals, or why there are none; printed at the end of the run.
TABLE: dict[str, Totals | str] = {}


def replay(collector: MetricsCollector) -> int:
    """How many calls were made."""
    calls = 0
    instrument(collector=collector)
    try:
        for provider, api in pairs():
            for exchange in load(provider, api):
                run_sync(clients(exchange)[0], exchange)
                calls += 1
    finally:
        uninstrument()
    return calls


def added_up(records: list[AgentMetrics]) -> Totals:
    return {
        "calls": len(records),
        "tokens": sum(record.total_tokens for record in records),
        "dollars": math.fsum(record.cost_usd or 0.0 for record in records),
        "errors": sum(record.failed for record in records),
    }


def same(one: Totals, other: Totals) -> bool:
    return all(one[name] == other[name] for name in EXACT) and math.isclose(
        one["dollars"], other["dollars"], rel_tol=1e-9
    )


def settled(ask: Callable[[], Totals], expected: Totals) -> Totals:
    """What a backend says, once that is right, or after 30 s: some can be read only a while after they were written."""
    end = time.monotonic() + 30
    while not same(found := ask(), expected) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def scraped(registry: MetricsRegistry, folder: Path, stack: ExitStack) -> Callable[[], Totals]:
    """What a real Prometheus has of a registry."""
    require("prometheus")
    server = start_metrics_server(port=0, registry=registry)
    stack.callback(server.close)
    prometheus = Prometheus(folder, server.url.removeprefix("http://").removesuffix("/metrics"))
    stack.callback(prometheus.close)

    def ask() -> Totals:
        sums = {
            "calls": "llm_requests_total",
            "tokens": 'llm_tokens_total{type=~"input|output"}',
            "dollars": "llm_cost_dollars_total",
            "errors": "llm_errors_total",
        }
        prometheus.until(lambda: prometheus.query("up"), bool)
        return {name: prometheus.value(f"sum({metric})") or 0 for name, metric in sums.items()}

    return ask


def in_memory(sink: InMemoryMetricsSink) -> Totals:
    summary = asyncio.run(sink.get_summary(None))
    return {
        "calls": summary.count,
        "tokens": summary.total_tokens,
        "dollars": summary.total_cost,
        "errors": summary.error_count,
    }


def test_every_backend_has_the_same_totals(tmp_path: Path) -> None:
    need_exchanges()
    records: list[AgentMetrics] = []
    memory, registry = InMemoryMetricsSink(), MetricsRegistry()
    config = MetricsConfig(filters=[lambda record: records.append(record) or True])  # type: ignore[func-returns-value]
    with ExitStack() as stack:
        ways: dict[str, Way] = {}
        for name, start in WAYS.items():
            try:
                ways[name] = start(tmp_path, stack)
            except pytest.skip.Exception as missing:  # in CI it fails
                TABLE[name] = str(missing)
        collector = MetricsCollector(config, sinks=[memory, *(way.sink for way in ways.values())], registry=registry)
        stack.callback(collector.shutdown_sync)
        calls = replay(collector)
        report = collector.flush_sync(60)
        assert report.complete, report.waiting
        expected = added_up(records)
        assert expected["calls"] == calls > 500
        assert expected["tokens"] > 0 and expected["dollars"] > 0 and expected["errors"] > 0
        for name, stats in collector.stats().sinks.items():
            assert (stats.accepted, stats.delivered, stats.dropped) == (calls, calls, {}), name

        TABLE["the records"] = expected
        TABLE["in memory"] = in_memory(memory)
        for name, way in ways.items():
            TABLE[name] = settled(way.ask, expected)
        try:
            TABLE["Prometheus"] = settled(scraped(registry, tmp_path, stack), expected)
        except pytest.skip.Exception as missing:
            TABLE["Prometheus"] = str(missing)
    wrong = {name: row for name, row in TABLE.items() if not isinstance(row, str) and not same(row, expected)}
    assert wrong == {}, expected
