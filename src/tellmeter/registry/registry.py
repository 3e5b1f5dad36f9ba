"""MetricsRegistry: metrics by name, the process's own and as many more as a program wants."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..config import MULTIPROC_VARIABLE
from ..errors import MetricError
from ..guard import note
from .about_itself import AboutItself
from .definition import MetricDefinition, MetricType
from .family import Callback, CounterFamily, Family, GaugeFamily, HistogramFamily, Settings
from .forks import Forked, tell_of_forks
from .nowhere import NO_GAUGE, NO_HISTOGRAM
from .recording import Labels, Recorders, fast_recorders
from .series import Counter, Gauge, Histogram
from .stats import MetricStats, stats_of
from .table import Table
from .values import fault_of

if TYPE_CHECKING:
    from prometheus_client import Metric

    from ..records import AgentMetrics

F = TypeVar("F", bound="Family[Any]")

MAX_SERIES = 2000


class Source(Protocol):
    """Whatever has metrics of its own to show: any registry or collector of prometheus_client."""

    def collect(self) -> Any:
        """An iterable of prometheus_client's `Metric`s."""


class MetricsRegistry:
    """Named counters, gauges and histograms. Recording never raises, blocks or waits for a reader.

    Names are registered with `register_metric`, or register themselves when they are first recorded: their labels are
    then those of that first time. What a name is called on /metrics is in `MetricDefinition`.

    Args:
        max_series: label sets a metric keeps. What comes after them is one series whose labels are `__overflow__`.
        strict: raise MetricError for what is otherwise counted (unknown names, label and value faults): for tests.
    """

    def __init__(self, *, max_series: int = MAX_SERIES, strict: bool = False) -> None:
        if isinstance(max_series, bool) or not isinstance(max_series, int) or max_series < 0:
            raise MetricError(f"max_series = {max_series!r}: it must be a whole number from 0")
        self._settings = Settings(max_series, strict=strict)
        self._refreshers: list[weakref.WeakMethod[Callable[[], object]]] = []
        self._local = threading.local()
        self.sources: list[Source] = []
        self.resets = 0
        self.shared: Forked | None = None  # the process's part in a folder that several processes share
        # Who hears of the calls that the LLM metrics have counted: (records, names of the tags that are labels).
        self.on_calls: tuple[Callable[[Sequence[AgentMetrics], tuple[str, ...]], object], ...] = ()
        self.exported_to: set[str] = set()  # the receivers that an export of this registry is on its way to
        self._about_itself: AboutItself | None = None
        counters: dict[str, Family[Counter]] = {}
        gauges: dict[str, Family[Gauge]] = {}
        histograms: dict[str, Family[Histogram]] = {}
        self._table = Table(self._settings, {Counter: counters, Gauge: gauges, Histogram: histograms})
        self.recorders: Recorders = fast_recorders(self, counters, gauges, histograms)
        self.increment = self.recorders.increment
        self.observe = self.recorders.observe
        self.set_gauge = self.recorders.set_gauge
        self.increment_gauge = self.recorders.increment_gauge
        self.decrement_gauge = self.recorders.decrement_gauge
        self.timer = self.recorders.timer
        tell_of_forks(self)

    @property
    def max_series(self) -> int:
        """Label sets that a metric keeps; changing it acts on what is new."""
        return self._settings.max_series

    @max_series.setter
    def max_series(self, number: int) -> None:
        self._settings.max_series = number

    # ------------------------------------------------------------------ registering

    def register_metric(self, definition: MetricDefinition) -> bool:
        """Register a metric; an equal one again changes nothing. True, as the metric is there.

        Raises:
            MetricError: another metric has this name, or one of the names that its samples have on /metrics.
        """
        if not isinstance(definition, MetricDefinition):
            raise MetricError(f"register_metric takes a MetricDefinition, not {type(definition).__name__}")
        self._table.register(definition)
        return True

    def family(self, definition: MetricDefinition) -> Family[Any]:
        """The metric of `definition`, registered if need be; one that has more labels by now is the same.

        Raises:
            MetricError: as `register_metric`.
        """
        with self._settings.lock:
            known = self._table.names.get(definition.name)
            if known is None or known.definition.labels[: len(definition.labels)] != definition.labels:
                self.register_metric(definition)
            return self._table.names[definition.name]

    def counter(
        self, name: str, description: str = "", labels: Sequence[str] | None = None, unit: str = ""
    ) -> CounterFamily:
        """The counter `name`, registered if need be; without `labels`, its first recording says which it has."""
        return self._of_type(name, MetricType.COUNTER, description, labels, unit, None, CounterFamily)

    def gauge(
        self, name: str, description: str = "", labels: Sequence[str] | None = None, unit: str = ""
    ) -> GaugeFamily:
        """The gauge `name`, as `counter`."""
        return self._of_type(name, MetricType.GAUGE, description, labels, unit, None, GaugeFamily)

    def histogram(
        self,
        name: str,
        description: str = "",
        labels: Sequence[str] | None = None,
        unit: str = "",
        buckets: Sequence[float] | None = None,
    ) -> HistogramFamily:
        """The histogram `name`, as `counter`."""
        return self._of_type(name, MetricType.HISTOGRAM, description, labels, unit, buckets, HistogramFamily)

    def _of_type(
        self,
        name: str,
        kind: MetricType,
        description: str,
        labels: Sequence[str] | None,
        unit: str,
        buckets: Sequence[float] | None,
        wanted: type[F],
    ) -> F:
        with self._settings.lock:
            given = labels is not None or description or buckets is not None
            table = self._table
            known: Family[Any] | None = table.names.get(name) if given else table.look_up(name)
            if known is None or given:
                definition = MetricDefinition(name, kind, description, unit, labels or (), buckets)
                if known is None:
                    known = table.add(definition, undefined=labels is None)
                elif labels is not None or not known.definition.labels:
                    table.register(definition, undefined=labels is None)
            if not isinstance(known, wanted):
                raise MetricError(f"metric {name!r} is a {known.type.value}, not a {kind.value}")
            return known

    # ------------------------------------------------------------------ recording that is not plain

    def record(self, name: str, value: float, labels: Labels = None) -> None:
        """Record as the metric's type does: counters and up_down_counters add, gauges set, histograms observe."""
        family = self._table.find(name, None)
        if family is not None:
            _RECORD[family.type](self, name, value, labels)

    def slow_increment(self, name: str, value: float, labels: Labels) -> None:
        """Add to a counter (or an up_down_counter) that is unknown, watched, strict or wrongly labelled."""
        self._record(MetricType.COUNTER, "inc", name, value, labels)

    def slow_observe(self, name: str, value: float, labels: Labels) -> None:
        """As `slow_increment`, for a histogram."""
        self._record(MetricType.HISTOGRAM, "observe", name, value, labels)

    def slow_set(self, name: str, value: float, labels: Labels) -> None:
        """As `slow_increment`, for a gauge that is set."""
        self._record(MetricType.GAUGE, "set", name, value, labels)

    def slow_add(self, name: str, value: float, labels: Labels) -> None:
        """As `slow_increment`, for a gauge that is added to."""
        self._record(MetricType.GAUGE, "inc", name, value, labels)

    def _record(self, kind: MetricType, method: str, name: str, value: float, labels: Labels) -> None:
        family = self._table.find(name, kind)
        if family is None:
            return
        if self._settings.strict:  # elsewhere the series counts what it cannot record
            fault = fault_of(value, negative=family.type is not MetricType.COUNTER)
            if fault is not None:
                raise MetricError(f"{family.name}: a value is {fault.replace('_', ' ')}")
        series = family.find(labels)
        if family.callbacks:
            getattr(series, method)(value, name=name)
        else:
            getattr(series, method)(value)

    def timed(self, name: str, labels: Labels) -> Histogram:
        """The series that a timer records in; one that nobody reads where there can be none."""
        family = self._table.find(name, MetricType.HISTOGRAM, seconds=True)
        found: Histogram = NO_HISTOGRAM if family is None else family.find(labels)
        return found

    def gauged(self, name: str, labels: Labels) -> Gauge:
        """The series of a gauge; one that nobody reads where there can be none."""
        family = self._table.find(name, MetricType.GAUGE)
        found: Gauge = NO_GAUGE if family is None else family.find(labels)
        return found

    # ------------------------------------------------------------------ callbacks, sources, refreshers

    def add_callback(self, name: str, callback: Callback) -> None:
        """Call `callback(name, value, labels)` in the recording thread for every recording of `name` from now on.

        `name` is the one recorded under; `value` is what was recorded, for a gauge its new value. What the callback
        raises is counted. It may record, but does not cause callbacks then. Costs nothing on other metrics.
        """
        if not callable(callback):
            raise MetricError(f"add_callback({name!r}): the callback is not callable")
        self._table.watch(name, callback)

    def add_source(self, source: Source) -> None:
        """Show on this registry's page what a prometheus_client registry or collector has, after our own metrics.

        A metric whose name is taken here is left out and counted.
        """
        if not callable(getattr(source, "collect", None)):
            raise MetricError("add_source takes a prometheus_client registry or collector: something with collect()")
        if source is not self and source not in self.sources:
            from .interop import load_writers

            load_writers()
            self.sources = [*self.sources, source]

    def refresh_with(self, method: Callable[[], object]) -> None:
        """Call a bound method before anything is read, for as long as its object lives."""
        self._refreshers = [*(one for one in self._refreshers if one() is not None), weakref.WeakMethod(method)]

    def tell_about_itself(self) -> None:
        """Show from now on what tellmeter notices about itself in this process, as `tellmeter_*`."""
        if self._about_itself is None:
            self._about_itself = AboutItself(self)

    def settle(self) -> None:
        """Bring up to date what is only looked at when somebody reads. Reading does it by itself."""
        if getattr(self._local, "settling", False):
            return
        self._local.settling = True
        try:
            for weak in self._refreshers:
                refresh = weak()
                if refresh is not None:
                    try:
                        refresh()
                    except Exception as error:
                        note("metrics_refresh", error)
            if self._about_itself is not None:
                self._about_itself.update()
        finally:
            self._local.settling = False

    # ------------------------------------------------------------------ reading

    def families(self) -> list[Family[Any]]:
        """The metrics, in the order in which they were registered. Settles nothing."""
        return list(self._table.families.values())

    def get_metric_stats(self, name: str, labels: Labels = None) -> MetricStats:
        """The figures of a metric's series whose labels include `labels`; {} for an unknown name."""
        self.settle()
        family = self._table.names.get(name)
        return {} if family is None else stats_of(family, labels)

    def get_all_metrics(self) -> dict[str, dict[str, Any]]:
        """Every metric by name: type, description, unit, labels, the name on /metrics as exposed, and stats."""
        self.settle()
        return {
            family.name: {
                "type": family.type.value,
                "description": family.definition.description,
                "unit": family.definition.unit,
                "labels": list(family.definition.labels),
                "exposed": family.exposed,
                "stats": stats_of(family, None),
            }
            for family in self.families()
        }

    def text(self, *, openmetrics: bool = False) -> bytes:
        """This registry alone in text format 0.0.4, or OpenMetrics 1.0; `get_metrics_text()` merges processes."""
        return b"".join(page.own_page(self, openmetrics=openmetrics))

    def collect(self) -> Iterator[Metric]:
        """The metrics as prometheus_client's: `prometheus_client.REGISTRY.register(registry)`.

        Raises:
            MissingExtra: prometheus_client is not installed.
        """
        from .interop import metrics_of

        return metrics_of(self)

    def describe(self) -> Iterator[Metric]:
        """For prometheus_client: the metrics without samples."""
        from .interop import metrics_of

        return metrics_of(self, samples=False)

    def reset(self) -> None:
        """Set every series to zero and off the page; definitions, callbacks and bound series stay. For tests."""
        self.resets += 1
        for family in self.families():  # with no lock held: whoever folds may be about to make a series
            for series in list(family.series.values()):
                series.reset()

    # ------------------------------------------------------------------ fork

    def locks(self) -> list[Any]:
        """Every lock that a fork must not catch held by another thread."""
        before = [] if self.shared is None else self.shared.locks()  # whoever writes takes ours after its own
        return [*before, self._settings.lock, *(family.lock for family in self.families())]

    def after_fork(self) -> None:
        """In the child: no thread holds anything any more."""
        self._settings.lock = threading.RLock()
        self._local = threading.local()
        for family in self.families():
            family.lock = threading.RLock()
            family.folding = False
        if self.shared is not None:
            self.shared.after_fork()


_RECORD: dict[MetricType, Callable[..., None]] = {
    MetricType.COUNTER: MetricsRegistry.slow_increment,
    MetricType.UP_DOWN_COUNTER: MetricsRegistry.slow_add,
    MetricType.GAUGE: MetricsRegistry.slow_set,
    MetricType.HISTOGRAM: MetricsRegistry.slow_observe,
}


# ---------------------------------------------------------------------- the process's registry

_process_lock = threading.RLock()
_process_registry: MetricsRegistry | None = None


def get_metrics_registry() -> MetricsRegistry:
    """The process's registry, made at the first call. It stays, whatever `configure()` is told later."""
    global _process_registry
    if _process_registry is None:
        with _process_lock:
            if _process_registry is None:
                made = MetricsRegistry()
                if os.environ.get(MULTIPROC_VARIABLE, "").strip():
                    from .shared.processes import share

                    share(made)
                _process_registry = made
    return _process_registry


def _new_lock() -> None:
    global _process_lock
    _process_lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # the thread that was making the registry is not in the child
    os.register_at_fork(after_in_child=_new_lock)


# Here, as it needs what is above; and not when the first page is read: who forks while a thread imports a module has a
# child that waits for ever when it imports it, too.
from . import page  # noqa: E402
