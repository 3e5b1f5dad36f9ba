"""What is in progress, and the circuit breakers: gauges of a registry, observed whenever OpenTelemetry collects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from ...registry.catalogue import known
from .instruments import naming

if TYPE_CHECKING:
    from ...registry.registry import MetricsRegistry

# Those that add up over processes, and those that do not.
SUMS = ("llm_active_requests", "llm_active_streams")
STATES = ("llm_circuit_breaker_state", "llm_circuit_breaker_open")

Callback = Callable[[CallbackOptions], Iterable[Observation]]


class LiveGauges:
    """The gauges of one meter: of all registries that are shown on it, added up by their labels.

    An instrument keeps the callback of whoever made it first, for good. So there is one of these a meter, whatever
    number of sinks come and go.
    """

    def __init__(self, meter: Meter) -> None:
        self._registries: Counter[MetricsRegistry] = Counter()
        for names, create in (
            (SUMS, meter.create_observable_up_down_counter),
            (STATES, meter.create_observable_gauge),
        ):
            for metric in names:
                definition = known(metric)
                assert definition is not None
                name, unit, description = naming(definition)
                create(name, [self._observer(metric)], unit, description)

    def show(self, registry: MetricsRegistry) -> None:
        """Show a registry's gauges; each time needs a `hide` of its own."""
        self._registries = self._registries + Counter([registry])

    def hide(self, registry: MetricsRegistry) -> None:
        """Show them no longer."""
        self._registries = self._registries - Counter([registry])

    def _observer(self, metric: str) -> Callback:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            totals: dict[tuple[tuple[str, str], ...], float] = {}
            for registry in self._registries:
                registry.settle()
                for family in registry.families():
                    if family.name != metric:
                        continue
                    names = family.definition.exposed_labels
                    for series in family.shown():
                        attributes = tuple(zip(names, series.values, strict=False))
                        totals[attributes] = totals.get(attributes, 0.0) + float(series.read())
            return [Observation(value, dict(attributes)) for attributes, value in totals.items()]

        return observe


_by_meter: WeakKeyDictionary[Meter, LiveGauges] = WeakKeyDictionary()


def live_gauges(meter: Meter) -> LiveGauges:
    """The gauges of a meter, made at the first call."""
    found = _by_meter.get(meter)
    if found is None:
        found = _by_meter[meter] = LiveGauges(meter)
    return found
