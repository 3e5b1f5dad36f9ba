"""TelemetryManager: what brings a process's traces and metrics out, started by its settings and ended in time."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConfigError, MissingExtra
from ..guard import guarded, note
from ..pipeline import lifecycle
from ..process import keep_records
from ..registry.forks import write_last
from ..registry.registry import get_metrics_registry
from . import OTEL_AVAILABLE
from .libraries import instrument_fastapi_app, instrument_libraries
from .meter import get_meter
from .pages import ConsolePage, serve_page
from .resource import resource_attributes
from .settings import TelemetrySettings
from .tracing import SCOPE, TracingManager, get_tracing_manager

if TYPE_CHECKING:
    from ..serve.server import MetricsServer
    from .provider import OwnTracerProvider
    from .scopes import SpanScope

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 10.0
EXIT_SECONDS = 2.0  # as all sinks together have at the exit


class Export(Protocol):
    """What brings something out of the process."""

    def flush(self, seconds: float) -> bool:
        """Export what there is; whether that was over within `seconds`."""

    def close(self, seconds: float) -> None:
        """Flush and end, within about `seconds`."""


class TelemetryManager:
    """Exporters, the page for Prometheus and instrumentations of libraries, as the settings say.

    Each is on its own: one that is missing, or fails, is off, and one warning says why and what to do.

    Args:
        settings: see `TelemetrySettings`.
    """

    def __init__(self, settings: TelemetrySettings) -> None:
        self.settings = settings
        self.resource: Mapping[str, str | int] = resource_attributes(settings)
        """The resource's attributes, without what detectors of the SDK find."""
        self.tracing: TracingManager = get_tracing_manager()
        self.server: MetricsServer | None = None
        """The page for Prometheus, where it is served."""
        self.exports: list[Export] = []
        """What runs."""
        self._undo: list[Callable[[], object]] = []
        self._own: OwnTracerProvider | None = None
        self._page: ConsolePage | None = None

    # ------------------------------------------------------------------ starting

    def start(self) -> None:
        """Start what the settings name. Never raises."""
        settings = self.settings
        if settings.sdk_disabled:
            return
        lifecycle.join(self)
        write_last(_at_exit)
        if not settings.enable_metrics:
            keep_records(False)
            self._undo.append(partial(keep_records, True))
        names = [f"metrics {name}" for name in settings.metrics_exporters if settings.enable_metrics]
        names += [f"traces {name}" for name in settings.traces_exporters if settings.enable_tracing]
        if not OTEL_AVAILABLE and (lost := [name for name in names if name not in _WITHOUT_OPENTELEMETRY]):
            logger.warning("OpenTelemetry is not installed (%s): pip install 'tellmeter[otel]'", ", ".join(lost))
            names = [name for name in names if name not in lost]
        for name in names:
            self._alone(name, partial(_STARTS[name], self))
        if settings.enable_tracing and OTEL_AVAILABLE:
            if settings.trace_calls != "off":
                self._alone("spans of LLM calls", self._trace_calls)
            instrument_libraries(settings.instrument_libraries)

    def start_metrics_export(self) -> None:
        """Export the process's registry over OTLP from now on.

        Raises:
            ConfigError: a setting that cannot work.
            MissingExtra: the exporter is not installed.
        """
        from .metrics_out import RegistryExport
        from .resource import sdk_resource

        export = RegistryExport(get_metrics_registry(), self.settings, sdk_resource(self.settings))
        export.start()
        self.exports.append(export)

    def _serve_page(self) -> None:
        self.server = serve_page(self.settings)
        self._undo.append(self.server.close)

    def _print_page(self) -> None:
        self._page = ConsolePage(self.settings.metrics_interval_ms / 1000)
        self.exports.append(self._page)

    def _export_spans(self, name: str) -> None:
        from .provider import own_provider

        own = own_provider(self.settings)
        if own is None:
            logger.info("traces %s is off: spans go to the tracer provider that the program has set", name)
            return
        own.add(name, self.settings)
        if self._own is None:
            self._own = own
            self.exports.append(own)

    def _trace_calls(self) -> None:
        from .llm_spans import trace_llm_calls

        trace_llm_calls(mode=self.settings.trace_calls)
        self._undo.append(partial(trace_llm_calls, mode="off"))

    @staticmethod
    def _alone(what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except (ConfigError, MissingExtra) as error:  # ours: they show no secret
            logger.warning("%s is off: %s", what, error)
        except Exception as error:
            note("telemetry", error)
            logger.warning("%s is off: it raised %s", what, type(error).__name__)

    # ------------------------------------------------------------------ for code

    def get_tracer(self, name: str = SCOPE) -> Any:
        """A tracer of OpenTelemetry; without it, one whose spans record nothing."""
        return self.tracing.get_tracer(name)

    def get_meter(self, name: str = SCOPE) -> Any:
        """A meter with OpenTelemetry's methods: of the program's own meter provider, else on the process's registry."""
        return get_meter(name)

    def trace_context(self, name: str, attributes: Mapping[str, Any] | None = None) -> SpanScope:
        """A span around a block, with `with` or `async with`."""
        return self.tracing.start_span(name, attributes=attributes)

    def instrument_fastapi_app(self, app: Any) -> bool:
        """Give the requests of one FastAPI app spans; whether it has them now."""
        return not self.settings.sdk_disabled and instrument_fastapi_app(app)

    # ------------------------------------------------------------------ ending

    def flush(self, timeout: float = SHUTDOWN_SECONDS) -> bool:
        """Export what there is; whether all of it was over within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        get_metrics_registry().settle()  # calls that have ended have their spans and counts then
        done = [export.flush(max(0.0, deadline - time.monotonic())) for export in list(self.exports)]
        return all(done)

    def shutdown(self, timeout: float = SHUTDOWN_SECONDS) -> None:
        """Flush, and end what was started here, within about `timeout` seconds. Again, it does nothing.

        A tracer provider that the program has set is neither flushed nor ended.
        """
        deadline = time.monotonic() + timeout
        get_metrics_registry().settle()
        exports, self.exports, self._page = self.exports, [], None
        for export in exports:
            guarded("telemetry", export.flush, 0.0, default=False)  # none waits for the one before it
        for export in exports:
            guarded("telemetry", export.close, max(0.0, deadline - time.monotonic()), default=None)
        undo, self._undo, self.server = self._undo, [], None
        for act in undo:
            guarded("telemetry", act, default=None)

    # ------------------------------------------------------------------ forks

    def before_fork(self) -> None:
        """Wait, briefly, until no exporter of spans is at work."""
        if self._own is not None:
            self._own.before_fork()

    def after_fork_in_parent(self) -> None:
        """Let them go on."""
        if self._own is not None:
            self._own.after_fork_in_parent()

    def after_fork(self) -> None:
        """In the child: the parent exports what was there before."""
        if self._own is not None:
            self._own.after_fork()
        if self._page is not None:
            self._page.after_fork()

    def at_exit(self, started: float) -> None:
        """Nothing: calls that end at the exit are exported, too, by what comes after."""


# exporter -> what starts it
_STARTS: dict[str, Callable[[TelemetryManager], object]] = {
    "metrics prometheus": TelemetryManager._serve_page,
    "metrics console": TelemetryManager._print_page,
    "metrics otlp": TelemetryManager.start_metrics_export,
    "traces otlp": lambda manager: manager._export_spans("otlp"),
    "traces console": lambda manager: manager._export_spans("console"),
}
_WITHOUT_OPENTELEMETRY = ("metrics prometheus", "metrics console")


# ---------------------------------------------------------------------- the process's manager

_lock = threading.RLock()
_manager: TelemetryManager | None = None


def initialize_telemetry(settings: TelemetrySettings | None = None, **given: Any) -> TelemetryManager:
    """Bring traces and metrics out as the environment says, until `shutdown_telemetry()` or the end of the process.

    Nothing that is wrong in the environment, or not installed, raises: a warning says what is off. A second call
    changes nothing.

    Args:
        settings: all of them; the environment's (`TelemetrySettings.from_env()`) without any.
        given: single ones, which win over the environment, as `service_name="shop"`; see `TelemetrySettings.from_env`.

    Raises:
        ConfigError: an argument that there is not, or whose value cannot work.
    """
    global _manager
    if settings is not None and given:
        raise ConfigError("initialize_telemetry takes settings, or single ones, not both")
    with _lock:
        if _manager is None:
            _manager = TelemetryManager(_wanted(settings, given))
            _manager.start()
        elif (settings is not None or given) and _wanted(settings, given) != _manager.settings:
            logger.warning("telemetry runs with other settings, which stay: shutdown_telemetry() comes first")
        return _manager


def _wanted(settings: TelemetrySettings | None, given: Mapping[str, Any]) -> TelemetrySettings:
    return TelemetrySettings.from_env(**given) if settings is None else settings


def get_telemetry_manager() -> TelemetryManager:
    """The process's manager, started as the environment says at the first call."""
    found = _manager
    return initialize_telemetry() if found is None else found


def shutdown_telemetry(timeout: float = SHUTDOWN_SECONDS) -> None:
    """Flush and end what `initialize_telemetry()` started, within about `timeout` seconds. It may be started again."""
    global _manager
    with _lock:
        found, _manager = _manager, None
    if found is not None:
        found.shutdown(timeout)


def _at_exit() -> None:
    found = _manager
    if found is not None:
        found.shutdown(EXIT_SECONDS)


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # the thread that was starting it is not in the child
    os.register_at_fork(after_in_child=_new_lock)
