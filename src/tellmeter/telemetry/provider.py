"""The process's tracer provider, made where the program has set none; and the exporters on it, which may change."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

from ..registry.forks import write_last
from .exporters import span_exporter
from .resource import sdk_resource
from .settings import TelemetrySettings
from .span_export import SpanExport

logger = logging.getLogger(__name__)

_ROOTS: dict[str, Any] = {
    "always_on": lambda ratio: sampling.ALWAYS_ON,
    "always_off": lambda ratio: sampling.ALWAYS_OFF,
    "traceidratio": sampling.TraceIdRatioBased,
}
_own: OwnTracerProvider | None = None


class OwnTracerProvider(SpanProcessor):
    """A global TracerProvider of ours, and the processor that hands its ended spans to the exporters of the moment.

    OpenTelemetry lets a process set its provider once. So it stays when telemetry is shut down, with the processors
    that the program may have added; what is started later has its resource and sampler.
    """

    def __init__(self, settings: TelemetrySettings) -> None:
        self.exports: tuple[SpanExport, ...] = ()
        self.provider = TracerProvider(_sampler(settings), sdk_resource(settings), shutdown_on_exit=False)
        self.provider.add_span_processor(self)

    def add(self, name: str, settings: TelemetrySettings) -> None:
        """Bring spans to `otlp` or `console` from now on.

        Raises:
            ConfigError: as `span_exporter`.
            MissingExtra: as `span_exporter`.
        """

        def make(see: Any) -> SpanExporter:
            return ConsoleSpanExporter(out=sys.stdout) if name == "console" else span_exporter(settings.traces, see)

        delay = settings.span_delay_ms / 1000
        made = SpanExport(make, settings.max_spans, settings.span_batch_size, delay)
        self.exports = (*self.exports, made)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand it on."""
        for export in self.exports:
            export.take(span)

    def flush(self, seconds: float) -> bool:
        """Whether all exporters were done within `seconds`."""
        deadline = time.monotonic() + seconds
        done = [export.flush(max(0.0, deadline - time.monotonic())) for export in self.exports]
        return all(done)

    def close(self, seconds: float) -> None:
        """End the exporters, within about `seconds`."""
        deadline = time.monotonic() + seconds
        exports, self.exports = self.exports, ()
        for export in exports:
            export.close(max(0.0, deadline - time.monotonic()))

    def before_fork(self) -> None:
        """Wait, briefly, until no exporter is at work."""
        for export in self.exports:
            export.before_fork()

    def after_fork_in_parent(self) -> None:
        """Let them go on."""
        for export in self.exports:
            export.after_fork_in_parent()

    def after_fork(self) -> None:
        """In the child: the parent exports what ended before."""
        for export in self.exports:
            export.after_fork()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As `flush`, for the provider."""
        return self.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Nothing: what was started is ended by whoever started it."""


def own_provider(settings: TelemetrySettings) -> OwnTracerProvider | None:
    """The process's own provider, made global if need be; None where the program has set another."""
    global _own
    found = trace.get_tracer_provider()
    if _own is not None and found is _own.provider:
        return _own
    if not isinstance(found, trace.ProxyTracerProvider):
        return None
    made = OwnTracerProvider(settings)
    trace.set_tracer_provider(made.provider)
    if trace.get_tracer_provider() is not made.provider:  # another thread was faster
        return None
    _own = made
    write_last(made.provider.shutdown)  # for the processors that the program may have added
    return made


def _sampler(settings: TelemetrySettings) -> sampling.Sampler:
    root: sampling.Sampler = _ROOTS[settings.sampler.removeprefix("parentbased_")](settings.sampler_ratio)
    return sampling.ParentBased(root) if settings.sampler.startswith("parentbased_") else root
