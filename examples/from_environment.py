"""Metering set up by the environment: in one line, and as a client with sinks that the program chooses itself.

It calls OpenAI once (`OPENAI_API_KEY`), and says what became of the record:

    TELLMETER_SINKS=sqlite:///calls.db METRICS_BATCH_SIZE=500 python from_environment.py
    ENVIRONMENT=development python from_environment.py chosen
"""

import os
import sys
from typing import Any

import openai

import tellmeter
from tellmeter import LLMClient


def from_environment() -> tellmeter.MetricsCollector:
    """`MetricsConfig.from_env()`, and the sinks that `TELLMETER_SINKS` names by their URLs."""
    return tellmeter.configure()


def create_metrics_config() -> tellmeter.MetricsConfig:
    """METRICS_ENABLED, METRICS_BATCH_SIZE, REQUEST_SAMPLING_RATE and the rest; what has no variable, as given here."""
    return tellmeter.MetricsConfig.from_env(tags={"service": os.environ.get("SERVICE_NAME", "llm-service")})


def create_metrics_sinks() -> list[Any]:
    """OTLP where there is an endpoint for it, memory for development; none of them leaves it to `TELLMETER_SINKS`."""
    sinks: list[Any] = []
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from tellmeter.sinks import OTelMetricsSink  # pip install 'tellmeter[otel]'

        sinks.append(
            OTelMetricsSink(
                service_name=os.environ.get("SERVICE_NAME", "llm-service"),
                namespace=os.environ.get("METRICS_NAMESPACE", "default"),
            )
        )
    if os.environ.get("ENVIRONMENT") == "development":
        sinks.append(tellmeter.InMemoryMetricsSink())
    return sinks


def sdk_call() -> tellmeter.MetricsCollector:
    """A call of the SDK, metered as the environment says."""
    collector = from_environment()
    tellmeter.instrument()
    with openai.OpenAI() as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello!"}])
    collector.flush_sync()
    return collector


def client_call() -> tellmeter.MetricsCollector:
    """A call of a client with settings and sinks of its own."""
    with LLMClient(
        metrics_config=create_metrics_config(),
        metrics_sinks=create_metrics_sinks() or None,
    ) as client:
        client.generate_sync("Hello!", model="gpt-4o-mini")
    return client.metrics_collector


def main() -> None:
    """One call, and what became of its record."""
    collector = client_call() if sys.argv[1:] == ["chosen"] else sdk_call()
    for name, sink in collector.stats().sinks.items():
        print(f"{name}: {sink.delivered} of {sink.accepted} delivered")  # noqa: T201 - an example


if __name__ == "__main__":
    main()
