"""Circuit breakers on a registry's page, as they are at the moment when somebody reads it."""

from __future__ import annotations

import weakref

from ...registry.registry import MetricsRegistry
from .breaker import CLOSED, HALF_OPEN, OPEN, CircuitBreaker

_STATE, _OPEN = "llm_circuit_breaker_state", "llm_circuit_breaker_open"
_TRIPS, _REJECTIONS = "llm_circuit_breaker_trips_total", "llm_circuit_breaker_rejections_total"
_NUMBER = {CLOSED: 0, OPEN: 1, HALF_OPEN: 2}
_WORSE = (CLOSED, HALF_OPEN, OPEN)

_shown: weakref.WeakKeyDictionary[MetricsRegistry, _Breakers] = weakref.WeakKeyDictionary()


def watch(registry: MetricsRegistry, breaker: CircuitBreaker) -> None:
    """Show a breaker on `registry` from now on; again, it changes nothing. A breaker nobody watches is not shown.

    Raises:
        MetricError: the program has a metric of another type under one of the names.
    """
    with registry._settings.lock:
        known = _shown.get(registry)
        if known is None:
            known = _shown[registry] = _Breakers(registry)
            registry.refresh_with(known.show)
        known.add(breaker)


class _Breakers:
    """The breakers on one registry; those of one provider are shown as one, which is as bad as the worst of them."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._state = registry.gauge(_STATE)
        self._open = registry.gauge(_OPEN)
        self._trips = registry.counter(_TRIPS)
        self._rejections = registry.counter(_REJECTIONS)
        self._watched: tuple[weakref.ref[CircuitBreaker], ...] = ()
        self._providers: set[str] = set()  # whose breakers were there when somebody looked last

    def add(self, breaker: CircuitBreaker) -> None:
        """Show a breaker, under the registry's lock."""
        watched = [one for one in self._watched if one() is not None]
        if not any(one() is breaker for one in watched):
            self._watched = (*watched, weakref.ref(breaker))
            breaker.count_trip += (self._trips.labels(provider=breaker.provider).inc,)
            breaker.count_rejection += (self._rejections.labels(provider=breaker.provider).inc,)

    def show(self) -> None:
        """Bring the gauges to what the breakers say. One that is gone is closed."""
        worst: dict[str, str] = {}
        for one in self._watched:
            breaker = one()
            if breaker is not None:
                states = (breaker.state, worst.get(breaker.provider, CLOSED))
                worst[breaker.provider] = max(states, key=_WORSE.index)
        gone = dict.fromkeys(self._providers - worst.keys(), CLOSED)
        self._providers = set(worst)
        for provider, state in {**gone, **worst}.items():
            self._state.labels(provider=provider).set(_NUMBER[state])
            self._open.labels(provider=provider).set(int(state == OPEN))
