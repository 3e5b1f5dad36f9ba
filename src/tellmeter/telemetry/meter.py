"""A meter with OpenTelemetry's methods on our own registry: what it records is on /metrics and goes out over OTLP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import MetricError
from ..guard import note
from ..registry.registry import MetricsRegistry, get_metrics_registry
from . import OTEL_AVAILABLE

Attributes = Mapping[str, Any] | None
Record = Callable[[str, float, Attributes], object]
# Gives observations (`value`, `attributes`), or is a generator that yields lists of them each time.
Observe = Callable[[Any], Iterable[Any]]


class Instrument:
    """One metric. `add`, `record` and `set` are the same: what an instrument does with a value, its kind says."""

    def __init__(self, name: str, do: Record) -> None:
        self.name = name
        self._do = do

    def add(self, amount: float, attributes: Attributes = None, context: object = None) -> None:
        """Take a value; attributes become labels, whose names are those of the first recording. Never raises."""
        self._do(self.name, amount, attributes)

    record = set = add


class RegistryMeter:
    """Makes instruments on a registry, with the methods of OpenTelemetry's `Meter`. Nothing here raises.

    A name that the registry has as another kind of metric is counted there (`tellmeter_metric_errors_total`), and
    records nothing.
    """

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry
        self._observed: list[tuple[str, Record, Observe]] = []

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Instrument:
        """What only grows."""
        return self._made(name, self._registry.counter, self._registry.increment, unit, description)

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> Instrument:
        """What is added to and taken from."""
        return self._made(name, self._registry.gauge, self._registry.increment_gauge, unit, description)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Instrument:
        """What is set."""
        return self._made(name, self._registry.gauge, self._registry.set_gauge, unit, description)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> Instrument:
        """What is spread over buckets."""
        registry, bounds = self._registry, explicit_bucket_boundaries_advisory
        return self._made(name, registry.histogram, registry.observe, unit, description, buckets=bounds)

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Observe] | None = None, unit: str = "", description: str = ""
    ) -> Instrument:
        """What is asked for whenever somebody reads the registry."""
        return self._watched(self.create_gauge(name, unit, description), self._registry.set_gauge, callbacks)

    create_observable_up_down_counter = create_observable_gauge

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Observe] | None = None, unit: str = "", description: str = ""
    ) -> Instrument:
        """The same for what only grows; a callback gives the whole count."""
        before: dict[Any, float] = {}

        def grow(name: str, value: float, attributes: Attributes) -> None:
            key = tuple(sorted((attributes or {}).items()))
            self._registry.increment(name, max(0.0, value - before.get(key, 0.0)), attributes)
            before[key] = value

        return self._watched(self.create_counter(name, unit, description), grow, callbacks)

    def _made(
        self, name: str, register: Callable[..., object], do: Record, unit: str, description: str, **more: Any
    ) -> Instrument:
        try:
            register(name, description, unit=unit, **more)
        except MetricError as error:  # recording under it is counted from now on
            note("meter", error)
        return Instrument(name, do)

    def _watched(self, instrument: Instrument, do: Record, callbacks: Sequence[Observe] | None) -> Instrument:
        if not self._observed:
            self._registry.refresh_with(self._observe)
        self._observed += [(instrument.name, do, callback) for callback in _called(callbacks or ())]
        return instrument

    def _observe(self) -> None:
        for name, do, callback in self._observed:
            try:
                for one in callback(_options()):
                    do(name, one.value, one.attributes)
            except Exception as error:
                note("observable", error)


def _called(callbacks: Iterable[Any]) -> Iterable[Observe]:
    """Generators are asked for their next list each time."""
    for one in callbacks:
        yield one if callable(one) else partial(_next, one)


def _next(generator: Any, options: object) -> Any:
    return next(generator)


def _options() -> Any:
    if not OTEL_AVAILABLE:
        return None
    from opentelemetry.metrics import CallbackOptions

    return CallbackOptions()


_process_meter: RegistryMeter | None = None


def get_meter(name: str) -> Any:
    """A meter of the meter provider that the program has set; without one, the process's registry as a meter."""
    global _process_meter
    if OTEL_AVAILABLE:
        from ..sinks.otel.sink import global_provider

        provider = global_provider()
        if provider is not None:
            return provider.get_meter(name)
    if _process_meter is None:
        _process_meter = RegistryMeter(get_metrics_registry())
    return _process_meter
