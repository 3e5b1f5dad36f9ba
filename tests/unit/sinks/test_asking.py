from __future__ import annotations

import inspect
from typing import Any

import pytest

from tellmeter import ConfigError, InMemoryMetricsSink, MetricsStore, MetricsSummary
from tellmeter.sinks.asking import Asking
from tellmeter.sinks.urls import SCHEMES, STORES
from tests.unit.sinks.made import recent, run


class Echo(Asking):
    """Says what it was asked."""

    async def _ask(self, what: str, *arguments: Any) -> Any:
        return what, *arguments


def test_each_question_reaches_the_backend_checked() -> None:
    echo = Echo()
    what, question, limit = run(echo.get_metrics(model="m", tags={"team": "a"}, limit=3))
    assert (what, question.model, question.tags, limit) == ("records", "m", {"team": "a"}, 3)
    assert run(echo.get_summary(None))[0] == "summary"
    assert run(echo.get_percentile(95, "ttft_ms", None))[2:] == ("ttft_ms", 95)
    assert run(echo.get_series(60, provider="p"))[2] == 60.0
    assert run(echo.get_breakdown("tag:team", limit=5))[2:] == ("tag:team", 5)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.get_metrics(limit=-1),
        lambda store: store.get_summary(300, nonsense=1),
        lambda store: store.get_percentile(101),
        lambda store: store.get_percentile(50, "nonsense"),
        lambda store: store.get_series(0),
        lambda store: store.get_breakdown("nonsense"),
        lambda store: store.get_summary_stats(0),
    ],
)
def test_a_question_that_cannot_be_is_one_error_before_the_backend_hears_of_it(ask: Any) -> None:
    with pytest.raises(ConfigError):
        run(ask(Echo()))


def test_the_guides_six_numbers() -> None:
    sink = InMemoryMetricsSink()
    for latency, fields in ((100.0, {}), (300.0, {"status": "error", "error_class": "E"})):
        sink.write(recent(latency_ms=latency, input_tokens=10, output_tokens=5, cost_usd=0.25, **fields))
    assert run(sink.get_summary_stats(hours=1)) == {
        "total_requests": 2,
        "avg_latency": 200.0,
        "p95_latency": 290.0,
        "total_tokens": 30,
        "total_cost": 0.5,
        "error_count": 1,
    }
    assert run(InMemoryMetricsSink().get_summary()) == MetricsSummary()


def test_every_store_is_asked_in_the_same_words() -> None:
    questions = [name for name in vars(MetricsStore) if name.startswith("get_")]
    assert questions
    for name in questions:
        ours, protocol = (inspect.signature(getattr(one, name)) for one in (Asking, MetricsStore))
        assert ours == protocol, name
    from importlib import import_module

    for scheme in STORES:
        module, _, kind = SCHEMES[scheme].partition(":")
        assert issubclass(getattr(import_module(f"tellmeter.sinks.{module}"), kind), Asking)
