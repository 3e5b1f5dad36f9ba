"""Streams of a test's own, metered into a collector of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tellmeter import InMemoryMetricsSink, MetricsCollector, MetricsConfig, MetricsRegistry, configure
from tellmeter import process as process_module
from tellmeter.context import enclosing


@contextmanager
def own_collector(patch: pytest.MonkeyPatch, **settings: Any) -> Iterator[MetricsCollector]:
    """The process's collector while it lasts; at its end no call is open, and all is told."""
    patch.setattr(process_module, "_process_collector", None)
    made = configure(MetricsConfig(**settings), sinks=[InMemoryMetricsSink()], registry=MetricsRegistry())
    yield made
    made.flush_sync()
    assert made.open_calls == {} and enclosing.get() is None


def records(collector: MetricsCollector) -> list[Any]:
    """In the order in which the calls began."""
    return asyncio.run(collector.sinks[0].get_metrics())[::-1]


def only(collector: MetricsCollector) -> Any:
    """The one record that there is."""
    (record,) = records(collector)
    return record
