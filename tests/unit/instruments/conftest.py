import pytest

from tellmeter import MetricsRegistry, counts, process
from tellmeter.registry import registry as registry_module


@pytest.fixture
def own_counts(monkeypatch):
    monkeypatch.setattr(counts, "_counters", {})
    return counts.snapshot


@pytest.fixture
def registry(own_counts):
    return MetricsRegistry()


@pytest.fixture
def own_process(monkeypatch, own_counts):
    """A process without a collector, and with a registry of its own."""
    for variable in ("TELLMETER_ENABLED", "METRICS_ENABLED"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(process, "_process_collector", None)
    monkeypatch.setattr(registry_module, "_process_registry", None)
    process._is_off_in_the_environment.cache_clear()
    yield registry_module
    process._is_off_in_the_environment.cache_clear()
