from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from tellmeter import (
    AgentMetrics,
    ConfigError,
    Delivered,
    InMemoryMetricsSink,
    MetricsCollector,
    MetricsConfig,
    MetricsRegistry,
    StreamMetrics,
)


def stored(sink: InMemoryMetricsSink) -> list[AgentMetrics]:
    return asyncio.run(sink.get_metrics())


def test_every_sink_gets_every_record_and_the_account_adds_up() -> None:
    sinks = [InMemoryMetricsSink(), InMemoryMetricsSink()]
    collector = MetricsCollector(sinks=sinks)
    for _ in range(300):
        collector.record(AgentMetrics(model="m"))
    assert [len(stored(sink)) for sink in sinks] == [300, 300]
    stats = collector.stats()
    assert list(stats.sinks) == ["InMemoryMetricsSink", "InMemoryMetricsSink-2"]
    assert stats.recorded == stats.passed == 300
    assert all(sink.accepted == sink.delivered == 300 for sink in stats.sinks.values())
    assert stats.balanced


def test_a_question_contains_every_call_that_ended_before_it() -> None:
    sink = InMemoryMetricsSink()
    collector = MetricsCollector(sinks=[sink])
    for number in range(1, 50):
        collector.record(AgentMetrics(model="m"))
        assert sink.get_stats()["total_requests"] == number


def test_a_removed_sink_receives_nothing_more() -> None:
    sink, other = InMemoryMetricsSink(), InMemoryMetricsSink()
    collector = MetricsCollector(sinks=[sink, other])
    collector.record(AgentMetrics(model="m"))
    collector.remove_sink(sink)
    collector.remove_sink(sink)
    collector.record(AgentMetrics(model="m"))
    assert len(stored(other)) == 2
    assert len(stored(sink)) == 1
    assert collector.sinks == [other]


def test_disabled_means_no_record_and_no_count() -> None:
    sink = InMemoryMetricsSink()
    collector = MetricsCollector(MetricsConfig(enabled=False), sinks=[sink])
    collector.record(AgentMetrics(model="m"))
    with collector.track_request("openai", "gpt-4o"):
        pass
    assert stored(sink) == []
    assert collector.stats().recorded == 0


def test_what_is_filtered_and_sampled_out_is_counted_by_reason() -> None:
    collector = MetricsCollector(
        MetricsConfig(filters=[lambda record: record.model != "no"], request_sampling_rate=0.0),
        sinks=[InMemoryMetricsSink()],
    )
    collector.record(AgentMetrics(model="no"))
    collector.record(AgentMetrics(model="yes"))
    collector.record(AgentMetrics(model="yes", status="error"))
    collector.flush_sync()
    stats = collector.stats()
    assert stats.dropped == {"filtered": 1, "sampled_out": 1} and stats.passed == 1 and stats.balanced


def test_the_configured_tags_are_under_the_records_own() -> None:
    sink = InMemoryMetricsSink()
    collector = MetricsCollector(MetricsConfig(tags={"env": "prod", "service": "api"}), sinks=[sink])
    collector.record(AgentMetrics(model="m", tags={"env": "test"}))
    assert stored(sink)[0].tags == {"env": "test", "service": "api"}


def test_streaming_and_reliability_fields_can_be_left_out() -> None:
    sink = InMemoryMetricsSink()
    collector = MetricsCollector(
        MetricsConfig(enable_streaming_metrics=False, enable_reliability_metrics=False), sinks=[sink]
    )
    collector.record(AgentMetrics(model="m", stream=StreamMetrics(), retries=2, retry_delay_ms=5.0))
    record = stored(sink)[0]
    assert (record.stream, record.retry_delay_ms, record.retries) == (None, 0.0, 2)


def test_two_collectors_never_share() -> None:
    first, second = InMemoryMetricsSink(), InMemoryMetricsSink()
    one, two = MetricsCollector(sinks=[first]), MetricsCollector(sinks=[second])
    one.record(AgentMetrics(model="m"))
    assert (len(stored(first)), len(stored(second))) == (1, 0)
    assert two.sinks == [second]


def test_flush_and_shutdown_are_idempotent_and_work_from_any_thread() -> None:
    sink = InMemoryMetricsSink()
    collector = MetricsCollector(sinks=[sink])
    collector.record(AgentMetrics(model="m"))
    threads = [threading.Thread(target=method) for method in [collector.flush_sync, collector.shutdown_sync] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()

    async def twice() -> None:
        assert (await collector.flush()).complete
        assert (await collector.shutdown()).complete
        assert (await collector.shutdown()).complete

    asyncio.run(twice())
    assert len(stored(sink)) == 1


def test_flush_says_what_still_waits() -> None:
    gate = threading.Event()

    class Stuck:
        def send(self, batch: Any, deadline: float) -> Delivered:
            gate.wait(30)
            return Delivered()

    collector = MetricsCollector(sinks=[Stuck()])
    collector.record(AgentMetrics(model="m"))
    report = collector.flush_sync(0.2)
    assert not report.complete and report.waiting == {"Stuck": 1}
    gate.set()
    assert collector.flush_sync(20).complete


def test_one_sinks_trouble_is_nobody_elses() -> None:
    gate = threading.Event()

    class Stuck:
        def send(self, batch: Any, deadline: float) -> Delivered:
            gate.wait(30)
            return Delivered()

    good = InMemoryMetricsSink()
    collector = MetricsCollector(MetricsConfig(batch_size=1, max_queue=50), sinks=[Stuck(), good])
    for _ in range(200):
        collector.record(AgentMetrics(model="m"))
        collector._router.drain()
    assert len(stored_now(good)) == 200
    gate.set()
    assert collector.flush_sync(20).complete
    assert collector.stats().balanced


def stored_now(sink: InMemoryMetricsSink) -> list[AgentMetrics]:
    return asyncio.run(sink.get_metrics())


def test_a_config_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="MetricsConfig"):
        MetricsCollector({"enabled": True})  # type: ignore[arg-type]


def total(registry: MetricsRegistry, name: str, **labels: str) -> float:
    return registry.get_metric_stats(name, labels)["sum"]


def test_the_metrics_contain_every_call_that_ended_before_the_question() -> None:
    registry = MetricsRegistry()
    collector = MetricsCollector(registry=registry)
    for number in range(1, 200):
        collector.record(AgentMetrics(model="m", input_tokens=2))
        assert total(registry, "llm_tokens_total", type="input") == 2 * number


def test_filters_and_sampling_thin_out_records_but_no_count() -> None:
    registry = MetricsRegistry()
    config = MetricsConfig(filters=[lambda record: record.model == "kept"], request_sampling_rate=0.0)
    collector = MetricsCollector(config, sinks=[InMemoryMetricsSink()], registry=registry)
    for model in ("kept", "filtered") * 50:
        collector.record(AgentMetrics(model=model))
    assert total(registry, "llm_requests_total") == 100
    assert total(registry, "tellmeter_dropped_total", reason="sampled_out") == 50
    assert total(registry, "tellmeter_dropped_total", reason="filtered") == 50


def test_calls_in_progress_are_shown_while_they_are() -> None:
    registry = MetricsRegistry()
    collector = MetricsCollector(MetricsConfig(label_tags=["team"]), registry=registry)
    with collector.track_request("openai", "gpt-4o", method="stream") as call:
        call.tags = {"team": "red"}
        with collector.track_request("openai", "gpt-4o"):
            assert total(registry, "llm_active_requests", provider="openai", model="gpt-4o") == 2
            assert total(registry, "llm_active_streams", team="red") == 1
    assert total(registry, "llm_active_requests") == total(registry, "llm_active_streams") == 0


def test_a_collector_that_is_gone_has_nothing_in_progress() -> None:
    registry = MetricsRegistry()
    collector = MetricsCollector(registry=registry)
    call = collector.track_request("openai", "gpt-4o")
    assert total(registry, "llm_active_requests") == 1
    collector.shutdown_sync()
    call.end()
    del collector, call
    gc.collect()
    assert total(registry, "llm_active_requests") == 0


def test_a_collector_records_by_name_on_its_registry() -> None:
    registry = MetricsRegistry()
    collector = MetricsCollector(registry=registry)
    collector.increment_counter("jobs", labels={"kind": "a"})
    collector.increment_counter("jobs", value=4, labels={"kind": "a"})
    collector.record_histogram("size", 3.0)
    collector.set_gauge("queue", 5)
    collector.increment_gauge("queue")
    collector.decrement_gauge("queue", 2)
    with collector.track_duration("work"), collector.track_active("queue"):
        assert total(registry, "queue") == 5
    assert [total(registry, name) for name in ("jobs", "size", "queue")] == [5, 3, 4]
    assert registry.get_metric_stats("work_seconds")["count"] == 1


def test_a_disabled_collector_counts_nothing_anywhere() -> None:
    registry = MetricsRegistry()
    collector = MetricsCollector(MetricsConfig(enabled=False), registry=registry)
    collector.increment_counter("jobs", labels={"kind": "a"})
    collector.record_histogram("size", 3.0)
    collector.set_gauge("queue", 5)
    with collector.track_duration("work"), collector.track_active("queue"):
        collector.record(AgentMetrics(model="m"))
    assert registry.get_all_metrics() == {} and registry.text() == b""


def test_a_bad_label_tag_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"label_tags.*model"):
        MetricsCollector(MetricsConfig(label_tags=["model"]), registry=MetricsRegistry())
