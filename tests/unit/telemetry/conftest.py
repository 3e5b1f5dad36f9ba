"""Tests of telemetry have an environment without OTEL_* variables, and leave nothing running."""

import os

import pytest

from tellmeter import process
from tellmeter.telemetry import manager, provider
from tests.support.tracing import global_provider


@pytest.fixture
def plain_environment(monkeypatch):
    guides = ("PROMETHEUS_", "ENABLE_", "DEPLOYMENT_ENV", "POD_NAME", "METRICS_", "TRACES_")
    for name in [name for name in os.environ if name.startswith(("OTEL_", *guides))]:
        monkeypatch.delenv(name)


@pytest.fixture
def fresh(plain_environment, monkeypatch):
    """A program that has set no tracer provider yet; what it starts is ended."""
    monkeypatch.setattr(provider, "_own", None)
    with global_provider(None):
        yield
        manager.shutdown_telemetry(5)
    process.keep_records(True)
