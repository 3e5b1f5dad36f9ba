from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tellmeter import (
    AgentMetrics,
    ConfigError,
    InMemoryMetricsSink,
    MetricsConfig,
    MetricsRegistry,
    configure,
    get_metrics_collector,
    get_metrics_registry,
    meter_call,
)
from tellmeter import process as process_module


@pytest.fixture(autouse=True)
def own_process_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(process_module, "_process_collector", None)
    monkeypatch.delenv("TELLMETER_SINKS", raising=False)
    yield


def stored(sink: InMemoryMetricsSink) -> list[AgentMetrics]:
    return asyncio.run(sink.get_metrics())


def test_configure_replaces_the_processs_collector_and_flushes_the_former() -> None:
    sink = InMemoryMetricsSink()
    former = configure(sinks=[sink])
    assert get_metrics_collector() is former
    with meter_call(model="llama3", provider="ollama") as call:
        call.output_tokens = 3
    latter = configure(sinks=[InMemoryMetricsSink()])
    assert get_metrics_collector() is latter is not former
    assert former.stats().passed == 1


def test_without_configuration_the_newest_calls_are_kept_in_memory() -> None:
    with meter_call(model="llama3", provider="ollama"):
        pass
    (sink,) = get_metrics_collector().sinks
    assert isinstance(sink, InMemoryMetricsSink) and len(stored(sink)) == 1


def test_the_environment_names_sinks(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TELLMETER_SINKS", f"sqlite:///{tmp_path}/calls.db, memory:")
    assert [type(sink).__name__ for sink in get_metrics_collector().sinks] == [
        "SQLiteMetricsSink",
        "InMemoryMetricsSink",
    ]
    get_metrics_collector().shutdown_sync()


def test_a_bad_environment_raises_in_configure_but_never_into_a_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TELLMETER_SINKS", "nonsense://user:secret@host/x")
    with pytest.raises(ConfigError):
        configure()
    with caplog.at_level("WARNING", "tellmeter"), meter_call(model="m"):
        pass
    assert "nothing is metered" in caplog.text
    assert "secret" not in caplog.text
    assert not get_metrics_collector().config.enabled


def test_the_processs_registry_survives_another_configuration() -> None:
    registry = get_metrics_registry()
    assert configure().registry is registry
    own = MetricsRegistry()
    assert configure(registry=own).registry is own
    assert configure().registry is registry is get_metrics_registry()


@pytest.mark.parametrize("variable", ["TELLMETER_ENABLED", "METRICS_ENABLED"])
@pytest.mark.parametrize(("value", "off"), [("", False), ("true", False), ("0", True), ("nonsense", True)])
def test_without_a_collector_the_environment_says_whether_metering_is_off(
    variable: str, value: str, off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("TELLMETER_ENABLED", "METRICS_ENABLED"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(variable, value)
    process_module._is_off_in_the_environment.cache_clear()
    try:
        assert process_module.is_switched_off() is off
        assert process_module._process_collector is None
    finally:
        process_module._is_off_in_the_environment.cache_clear()


def test_a_collector_says_whether_metering_is_off() -> None:
    assert not process_module.is_switched_off()
    configure(MetricsConfig(enabled=False))
    assert process_module.is_switched_off()


def test_who_watches_sees_every_record_and_leaves_the_collector_as_it_was() -> None:
    former = configure(MetricsConfig(tags={"team": "a"}, filters=[lambda _: False]), sinks=[InMemoryMetricsSink()])
    seen: list[AgentMetrics] = []

    def see(record: AgentMetrics) -> bool:
        seen.append(record)
        return True

    with process_module.watched(see):
        with meter_call(model="before"):
            pass
        inner = configure(MetricsConfig(request_sampling_rate=0.0), sinks=[InMemoryMetricsSink()])
        with meter_call(model="after"):
            pass
        assert get_metrics_collector() is inner
    assert [(record.model, record.tags) for record in seen] == [("before", {"team": "a"}), ("after", {})]
    assert get_metrics_collector() is former and former.stats().recorded == 0
    configure(sinks=[InMemoryMetricsSink()])
    with meter_call(model="later"):
        pass
    get_metrics_collector().flush_sync()
    assert len(seen) == 2
