"""Which metric a name means: what is registered, under which names, and what registers itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..counts import count
from ..errors import MetricError
from .catalogue import known
from .definition import MetricDefinition, MetricType, differences
from .family import Callback, CounterFamily, Family, GaugeFamily, HistogramFamily, Settings
from .names import NAME_LENGTH, seconds_name
from .series import Series
from .watching import watch

MAX_UNDEFINED = 2000  # metrics that registered themselves; a name made from data must not fill the memory

_KINDS: dict[MetricType, type[Family[Any]]] = {
    MetricType.COUNTER: CounterFamily,
    MetricType.GAUGE: GaugeFamily,
    MetricType.UP_DOWN_COUNTER: GaugeFamily,
    MetricType.HISTOGRAM: HistogramFamily,
}


class Table:
    """The metrics of a registry. `ready` has those that a plain append records on: kind of series -> name -> metric."""

    def __init__(self, settings: Settings, ready: Mapping[type[Series], dict[str, Family[Any]]]) -> None:
        self.settings = settings
        self.families: dict[str, Family[Any]] = {}
        self.names: dict[str, Family[Any]] = {}
        self._ready = ready
        self._taken: dict[str, Family[Any]] = {}  # names of samples
        self._undefined = 0
        self._waiting: dict[str, list[Callback]] = {}  # callbacks on names that nobody registered yet

    def register(self, definition: MetricDefinition, *, undefined: bool = False) -> None:
        """Add a metric, or find that an equal one is there. `undefined`: the definition tells no labels.

        Raises:
            MetricError: another metric has its name, or one of the names that its samples have on /metrics.
        """
        with self.settings.lock:
            found = self.names.get(definition.name) or self.add(definition, undefined=undefined)
            if found.definition != definition:
                self._reconcile(found, definition, undefined=undefined and found.undefined)

    def _reconcile(self, found: Family[Any], definition: MetricDefinition, *, undefined: bool) -> None:
        told = differences(found.definition, definition)
        if found.definition.description == "" and found.name == definition.name:
            # It registered itself before its definition came: what it counted already decides what may differ.
            labels = definition.labels if found.undefined else found.definition.labels
            same = msgspec.structs.replace(
                definition, labels=labels, description="", unit=found.definition.unit, aliases=()
            )
            as_found = msgspec.structs.replace(found.definition, labels=labels, aliases=())
            if same == as_found and definition.labels == labels:
                self._check_aliases(definition, found)
                found.redefine(definition, undefined=undefined)
                self._learn_names(found)
                return
        raise MetricError(f"metric {definition.name!r} is registered already, with another {'; another '.join(told)}")

    def add(self, definition: MetricDefinition, *, undefined: bool) -> Family[Any]:
        """Add a metric that is new; raises MetricError as `register`. `undefined`: its labels are yet to be seen."""
        for sample in definition.sample_names():
            other = self._taken.get(sample)
            if other is not None and other.name != definition.name:
                raise MetricError(f"metric {definition.name!r}: {sample} on /metrics is metric {other.name!r} already")
        self._check_aliases(definition, None)
        made = _KINDS[definition.type](definition, self.settings, undefined=undefined)
        family = self.families.setdefault(definition.name, made)  # a signal handler may have been faster
        if family is made:
            for sample in definition.sample_names():
                self._taken[sample] = family
            self._learn_names(family)
        return family

    def _check_aliases(self, definition: MetricDefinition, family: Family[Any] | None) -> None:
        for alias in definition.aliases:
            if self.names.get(alias, family) is not family:
                raise MetricError(f"metric {definition.name!r}: alias {alias!r} is a metric already")

    def _learn_names(self, family: Family[Any]) -> None:
        """Let the metric be found by each name that code may use for it."""
        exposed = family.exposed
        base = exposed.removesuffix("_total") if family.type is MetricType.COUNTER else exposed
        for name in (family.name, *family.definition.aliases, exposed, base):
            if self.names.setdefault(name, family) is family and not family.callbacks and not self.settings.strict:
                self._ready[family.series_kind][name] = family
        for name in (family.name, *family.definition.aliases, exposed, base):
            for callback in self._waiting.pop(name, []):
                self.watch(name, callback)

    def find(self, name: Any, kind: MetricType | None, *, seconds: bool = False) -> Family[Any] | None:
        """The metric that `name` means; registered if it is new. None (and a count) where that cannot be."""
        fault = "invalid_name"
        if issubclass(type(name), str) and name:
            name = str.__str__(name)
            found = self.look_up(name, seconds=seconds)
            if found is None and kind is not None and not self.settings.strict:
                found, fault = self._register_itself(name, kind, seconds=seconds)
            elif found is None:
                fault = "unknown"
            if found is not None:
                if kind is None or _fits(found.type, kind):
                    return found
                fault = "wrong_type"
        if self.settings.strict:
            raise MetricError(f"metric {name!r}: {fault.replace('_', ' ')}; register it before, as what it is used for")
        told = name[:NAME_LENGTH] if type(name) is str else type(name).__name__
        count("metric_errors", f"{told}:{fault}")
        return None

    def look_up(self, name: str, *, seconds: bool = False) -> Family[Any] | None:
        """The metric that `name` means, if there is one, here or in the catalogue; nothing registers itself.

        `seconds`: a timer asks, whose metric may be called with its unit.
        """
        found = self.names.get(name) or self._from_catalogue(name)
        if seconds and (found is None or found.type is not MetricType.HISTOGRAM):
            timed = seconds_name(name)
            found = self.names.get(timed) or self._from_catalogue(timed) or found
        return found

    def _from_catalogue(self, name: str) -> Family[Any] | None:
        """The metric of the catalogue that `name` means, registered now."""
        definition = known(name)
        if definition is None:
            return None
        with self.settings.lock:
            found = self.names.get(name)
            try:
                return found or self.add(definition, undefined=False)
            except MetricError:  # the program has metrics of its own under one of its names
                return None

    def _register_itself(self, name: str, kind: MetricType, *, seconds: bool) -> tuple[Family[Any] | None, str]:
        with self.settings.lock:
            found = self.names.get(name)
            if found is not None:
                return found, ""
            if self._undefined >= MAX_UNDEFINED:
                return None, "too_many"
            exposed = seconds_name(name) if seconds else ""
            try:
                definition = MetricDefinition(name, kind, unit="seconds" if seconds else "", exposed=exposed)
                family = self.add(definition, undefined=True)
            except MetricError:
                return None, "name_taken"
            self._undefined += 1
            return family, ""

    def watch(self, name: str, callback: Callback) -> None:
        """Call `callback` for what is recorded under `name`, now or once it is registered."""
        with self.settings.lock:
            family = self.names.get(name)
            if family is None:
                self._waiting.setdefault(name, []).append(callback)
                return
            ready = self._ready[family.series_kind]
            for known in [known for known, found in ready.items() if found is family]:
                del ready[known]
            watch(family, callback)


def _fits(found: MetricType, wanted: MetricType) -> bool:
    both = {found, wanted}
    return len(both) == 1 or (MetricType.UP_DOWN_COUNTER in both and MetricType.HISTOGRAM not in both)
