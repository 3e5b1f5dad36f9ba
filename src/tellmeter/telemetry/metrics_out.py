"""RegistryExport: a metrics registry over OTLP, by a timer of our own. Loaded only where OpenTelemetry's SDK is."""

from __future__ import annotations

import os
import sys
import time
import uuid
import weakref
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..guard import guarded
from ..registry.forks import write_last
from ..registry.registry import MetricsRegistry
from ..sinks.otel.exporting import CountingExporter, own_resource
from ..sinks.otel.settings import ExportSettings, has_exemplars
from ..sinks.otel.timer import ExportTimer
from .exporter_arguments import exporter_arguments
from .gen_ai_metrics import GenAISeries
from .points import Points, is_counted
from .settings import TelemetrySettings

EXIT_SECONDS = 2.0  # as all sinks together have at the exit
_SCOPE = "tellmeter"
_INSTANCE = "service.instance.id"


class RegistryExport:
    """Exports a registry over OTLP, once per interval and on demand: its metrics, and the GenAI convention's.

    Counters, gauges and histograms become points without an instrument in between, so an export holds what /metrics
    shows at that moment: every call (not only those that sampling kept), the same series, under names that become the
    same on Prometheus. What prometheus_client's registries have (`add_source`) stays on /metrics.

    Cumulative points are told again by every export. Where OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE asks for
    delta points, those of an export that failed are sent again before anything new is collected: an outage of any
    length costs one export's memory and loses nothing. What the receiver refused for good is not sent again.
    `otlp_exports` counts what became of them.

    Each process is an instance of its own (`service.instance.id`), and so is a forked child: it exports what it counted
    itself, whether or not /metrics is shared by several processes (`TELLMETER_MULTIPROC_DIR`). At the exit there is one
    more export, of 2 s at most.

    While it runs, an OTelMetricsSink to the same place gives way, so that no call counts twice.

    Args:
        registry: whose metrics.
        settings: `metrics` and `metrics_interval_ms` say where to, how and how often; the environment's without any.
        resource: what the process says of itself, as attributes or a Resource; the environment's without one.

    Raises:
        ConfigError: a setting that cannot work.
        MissingExtra: the exporter is not installed.
    """

    def __init__(
        self,
        registry: MetricsRegistry,
        settings: TelemetrySettings | None = None,
        resource: Mapping[str, Any] | Resource | None = None,
    ) -> None:
        chosen = TelemetrySettings.from_env() if settings is None else settings
        self._switched_off = chosen.sdk_disabled
        self._settings = _export_settings(chosen)
        self._registry = registry
        given = own_resource() if resource is None else resource
        self._attributes = dict(given.attributes if isinstance(given, Resource) else given)
        self._resource = _resource(self._attributes, forked=False)
        self._gen_ai = GenAISeries()
        registries = (registry, self._gen_ai.registry)
        self._points = Points(registries, delta=self._settings.delta, exemplars=has_exemplars())
        # Now, and not at a short program's exit: that takes longer than there is time.
        self._exporter: CountingExporter | None = self._made_exporter()
        self._timer = self._made_timer()
        self._running = False
        self._arrived = False

    def start(self) -> None:
        """Export once per interval from now on. Nothing happens the second time, and under OTEL_SDK_DISABLED."""
        if self._running or self._switched_off:
            return
        self._running = True
        self._registry.on_calls = (*self._registry.on_calls, self._gen_ai.count)
        self._registry.exported_to.add(self._settings.destination)
        _alive.add(self)
        write_last(_at_exit)
        self._timer.start()

    def flush(self, seconds: float) -> bool:
        """Export what was counted so far; whether the receiver took it within `seconds`."""
        return self._running and self._timer.flush(seconds) and self._arrived

    def close(self, seconds: float) -> None:
        """Export once more and end, within about `seconds`. Again, it does nothing."""
        if not self._running:
            return
        deadline = time.monotonic() + seconds
        done = self._timer.flush(seconds)
        self._running = False
        _alive.discard(self)
        self._registry.exported_to.discard(self._settings.destination)
        self._registry.on_calls = tuple(one for one in self._registry.on_calls if one != self._gen_ai.count)
        self._timer.stop(deadline if done else 0.0)
        if self._exporter is not None:
            self._exporter.shutdown()  # ends one that waits to try again, too

    def _export(self) -> None:
        arrived = False
        try:
            arrived = self._deliver()
        finally:
            self._arrived = arrived

    def _deliver(self) -> bool:
        exporter = self._exporter
        if exporter is not None and exporter.has_unsent and self._settings.delta:
            exporter.resend()
            if exporter.has_unsent:
                return False
            self._points.delivered()
        self._registry.settle()
        metrics = self._points.collect()
        if exporter is None:
            if not any(map(is_counted, metrics)):
                return True  # a forked child is an instance of its own once it has counted something
            exporter = self._exporter = self._made_exporter()
        # Not imported: the package's own file stands above all floors.
        scope = InstrumentationScope(_SCOPE, sys.modules[_SCOPE].__version__)
        data = MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(scope, metrics, "")], "")])
        result = exporter.export(data)
        if not exporter.has_unsent:
            self._points.delivered()
        return result is MetricExportResult.SUCCESS

    def _made_exporter(self) -> CountingExporter:
        return CountingExporter(self._settings, "metrics export")

    def _made_timer(self) -> ExportTimer:
        return ExportTimer(self._export, self._settings.interval_seconds)

    def after_fork(self) -> None:
        """In the child: the parent exports what was counted before."""
        self._timer = self._made_timer()
        self._exporter = None  # made by the first export: most children end before
        self._resource = _resource(self._attributes, forked=True)
        if self._registry._about_itself is not None:
            self._registry._about_itself.update()  # what the parent noticed is the parent's to tell
        self._points.begin_again()
        self._timer.start()


def _export_settings(settings: TelemetrySettings) -> ExportSettings:
    return ExportSettings(
        protocol=settings.metrics.protocol,
        headers=settings.metrics.headers,
        interval_seconds=settings.metrics_interval_ms / 1000,
        delta=settings.metrics_temporality != "cumulative",
        arguments=exporter_arguments(settings.metrics),
    )


def _resource(given: Mapping[str, Any], *, forked: bool) -> Resource:
    """`given`, as an instance of its own: two that are one would overwrite each other's cumulative counts."""
    attributes = dict(given)
    if "process.pid" in attributes:
        attributes["process.pid"] = os.getpid()
    named = f"{_INSTANCE}=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if _INSTANCE not in attributes or (forked and not named):
        attributes[_INSTANCE] = str(uuid.uuid4())
    return Resource(attributes)


_alive: weakref.WeakSet[RegistryExport] = weakref.WeakSet()


def _at_exit() -> None:
    for one in list(_alive):
        one.close(EXIT_SECONDS)


def _after_fork() -> None:
    for one in list(_alive):
        guarded("fork", one.after_fork, default=None)


if hasattr(os, "register_at_fork"):  # after the registries', whose locks are new then
    os.register_at_fork(after_in_child=_after_fork)
