"""Calling: what a client's calls share. What they do under faults: tests/faults/test_client*.py."""

from tellmeter import CircuitBreakerConfig, MetricsCollector
from tellmeter.client.calling import Calling
from tellmeter.registry.registry import MetricsRegistry

ONE = CircuitBreakerConfig(failure_threshold=1, failure_rate_threshold=0.0)


def calling(collector, breaker=ONE):
    return Calling(collector, None, breaker, None, [])


def test_breakers_are_one_a_provider_and_one_a_client():
    collector = MetricsCollector(registry=MetricsRegistry())
    one, other = calling(collector), calling(collector)
    assert one.breaker("openai") is one.breaker("openai")
    assert one.breaker("openai") is not one.breaker("anthropic")
    assert one.breaker("openai") is not other.breaker("openai")
    assert calling(collector, None).breaker("openai") is None
    one.breaker("openai").acquire().failed()
    text = collector.registry.text().decode()
    assert 'llm_circuit_breaker_open{provider="openai"} 1.0' in text
    assert 'llm_circuit_breaker_open{provider="anthropic"} 0.0' in text
    collector.shutdown_sync()
