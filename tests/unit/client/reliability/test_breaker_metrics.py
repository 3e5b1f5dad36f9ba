import gc
import weakref

import pytest

import tellmeter
from tellmeter import MetricsRegistry
from tellmeter.client.reliability.breaker import CircuitBreaker
from tellmeter.client.reliability.breaker_metrics import watch
from tellmeter.errors import CircuitOpenError, MetricError
from tellmeter.registry.registry import get_metrics_registry
from tellmeter.testing import FakeClock


@pytest.fixture
def registry():
    return MetricsRegistry(strict=True)


@pytest.fixture
def clock():
    return FakeClock()


def watched(registry, clock, provider="openai"):
    breaker = CircuitBreaker(provider, clock=clock.monotonic)
    watch(registry, breaker)
    return breaker


def opened(breaker):
    for _ in range(5):
        breaker.acquire().failed()
    return breaker


def page(text, provider="openai"):
    """What the page shows of a provider: state, open, trips, rejections; None for what it does not."""
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    names = ("state", "open", "trips_total", "rejections_total")
    shown = [lines.get(f'llm_circuit_breaker_{name}{{provider="{provider}"}}') for name in names]
    return [None if value is None else float(value) for value in shown]


def test_the_page_shows_a_breaker_as_it_is_when_it_is_read(registry, clock):
    breaker = watched(registry, clock)
    assert page(registry.text()) == [0, 0, 0, 0]
    opened(breaker)
    assert page(registry.text()) == [1, 1, 1, 0]
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            breaker.acquire()
    assert page(registry.text()) == [1, 1, 1, 3]
    clock.advance(60)
    assert page(registry.text()) == [2, 0, 1, 3]
    probes = [breaker.acquire() for _ in range(3)]
    assert page(registry.text()) == [2, 0, 1, 3]
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    probes.pop().failed()
    assert page(registry.text()) == [1, 1, 2, 4]
    breaker.reset()
    assert page(registry.text()) == [0, 0, 2, 4]


def test_the_worst_of_a_providers_breakers_is_shown_and_their_counts_add_up(registry, clock):
    breakers = [watched(registry, clock) for _ in range(3)]
    other = watched(registry, clock, "anthropic")
    opened(breakers[0])
    clock.advance(60)
    assert page(registry.text()) == [2, 0, 1, 0]
    opened(breakers[1])
    assert page(registry.text()) == [1, 1, 2, 0]
    assert page(registry.text(), "anthropic") == [0, 0, 0, 0]
    breakers[1].reset()
    assert page(registry.text()) == [2, 0, 2, 0]
    breakers[0].reset()
    assert page(registry.text()) == [0, 0, 2, 0]
    assert other.state == "closed"


def test_what_belongs_to_a_client_that_is_gone_counts_no_longer_but_what_it_counted_stays(registry, clock):
    breaker = opened(watched(registry, clock))
    half = opened(watched(registry, clock))
    half.reset()
    assert page(registry.text()) == [1, 1, 2, 0]
    del breaker
    gc.collect()
    assert page(registry.text()) == [0, 0, 2, 0]
    opened(half)
    assert page(registry.text()) == [1, 1, 3, 0]
    del half
    gc.collect()
    assert page(registry.text()) == [0, 0, 3, 0]
    registry.reset()
    assert page(registry.text()) == [None] * 4


def test_after_a_reset_of_the_registry_the_breakers_that_there_are_come_back(registry, clock):
    breaker = opened(watched(registry, clock))
    registry.reset()
    assert page(registry.text())[:2] == [1, 1]
    assert breaker.state == "open"


def test_watching_again_counts_once_and_two_registries_count_each(registry, clock):
    breaker = watched(registry, clock)
    watch(registry, breaker)
    second = MetricsRegistry()
    watch(second, breaker)
    opened(breaker)
    assert page(registry.text()) == page(second.text()) == [1, 1, 1, 0]


def test_a_breaker_that_nobody_watches_shows_nothing(registry, clock):
    opened(CircuitBreaker("openai", clock=clock.monotonic))
    assert registry.text() == b""


def test_a_breaker_keeps_no_registry_alive_and_is_kept_alive_by_none(clock):
    registry = MetricsRegistry()
    breaker = watched(registry, clock)
    registry.text()
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None
    opened(breaker)
    gone = weakref.ref(breaker)
    del breaker
    assert gone() is None


def test_the_process_shows_it_too(clock):
    breaker = opened(watched(get_metrics_registry(), clock, "breaker-on-the-page"))
    assert page(tellmeter.get_metrics_text(), breaker.provider) == [1, 1, 1, 0]


def test_a_programs_own_metric_of_that_name_is_said_to_be_in_the_way(clock):
    registry = MetricsRegistry()
    registry.counter("llm_circuit_breaker_state", "mine", ["provider"])
    with pytest.raises(MetricError, match="llm_circuit_breaker_state"):
        watched(registry, clock)
