"""OTelMetricsSink: LLM calls as metrics of OpenTelemetry."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Unpack

from ...errors import ConfigError, MissingExtra
from ...pipeline.outcome import Delivered, Outcome, Partial, Rejected
from ...records import AgentMetrics
from ...registry.registry import MetricsRegistry, get_metrics_registry
from ...secret import Secret
from ..address import LANE_PARSERS, Parser, parse, positive
from ..base import BatchingMetricsSink, LaneOptions, lane_options_in
from .settings import HTTP_PORT, ExportSettings, export_settings, headers_in, is_switched_off

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from .exporting import OwnMeterProvider
    from .instruments import Recorder

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0  # as an exporter's own limit, OTEL_EXPORTER_OTLP_TIMEOUT
_SCOPE = "tellmeter"
_PARSERS: dict[str, Parser] = {
    "service_name": str,
    "namespace": str,
    "protocol": str,
    "headers_env": str,
    "export_interval_seconds": positive,
    "tag_names": lambda text: [name for name in text.split(",") if name],
    **LANE_PARSERS,
}


class OTelMetricsSink(BatchingMetricsSink):
    """Measures records on an OpenTelemetry MeterProvider, whose exporters bring the numbers to wherever they go.

    The provider is `meter_provider`, else the global one where the application has set one, else one of the sink's own,
    which exports over OTLP as the OTEL_* environment variables say. One of its own is neither made global nor shared:
    it exports on `flush` and ends with the sink. The application's is never flushed or shut down here.

    A record is delivered when it is measured, in memory; see docs/opentelemetry.md for what that means. Nothing is
    spooled. Where the registry itself is exported to the same place (`initialize_telemetry()`), nothing is measured
    here, so that no call counts twice.

    Args:
        service_name: `service.name` of the sink's own provider; `OTEL_SERVICE_NAME` without one.
        namespace: `service.namespace` of the sink's own provider. It is no part of the metrics' names.
        meter_provider: the application's MeterProvider.
        endpoint: the base URL of an OTLP receiver, as http://localhost:4318: for a provider of the sink's own, whatever
            the application has set.
        headers: headers for that receiver; their values are never shown.
        protocol: "http/protobuf" or "grpc"; `OTEL_EXPORTER_OTLP_PROTOCOL` without one. grpc needs the package
            opentelemetry-exporter-otlp-proto-grpc.
        export_interval_seconds: how often the own provider exports; `OTEL_METRIC_EXPORT_INTERVAL`, 60 s, without one.
        tag_names: tags of records that become attributes. Each of their values is a series of every metric.
        registry: whose calls in progress and circuit breakers are shown; the process's without one.
        lane: settings for this sink alone, as `batch_size=500`; see `LaneOptions`.

    Raises:
        ConfigError: an argument or a variable that cannot work.
        MissingExtra: OpenTelemetry's SDK is not installed.
    """

    spools = False  # what is measured is in memory at once

    def __init__(
        self,
        service_name: str | None = None,
        namespace: str | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        endpoint: str | None = None,
        headers: Mapping[str, str | Secret] | None = None,
        protocol: str | None = None,
        export_interval_seconds: float | None = None,
        tag_names: Iterable[str] = (),
        registry: MetricsRegistry | None = None,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        if "spool" in lane:
            raise ConfigError("spool: OTelMetricsSink has none: a record is measured in memory, not sent")
        self._names = {"service_name": service_name, "namespace": namespace}
        for name, value in self._names.items():
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"{name}: it must be a text that is not empty")
        if registry is not None and not isinstance(registry, MetricsRegistry):
            raise ConfigError("registry: it must be a MetricsRegistry")
        self._provider = meter_provider
        self._registry = registry
        self._tags = _checked_tags(tag_names)
        of_ours: dict[str, object] = {
            "endpoint": endpoint,
            "headers": headers,
            "protocol": protocol,
            "export_interval_seconds": export_interval_seconds,
        }
        self._of_ours = any(value is not None for value in of_ours.values())
        if find_spec("opentelemetry") is None:
            raise MissingExtra("opentelemetry-sdk", "otel")
        if meter_provider is not None:
            given = [name for name, value in {**self._names, **of_ours}.items() if value is not None]
            if given:
                raise ConfigError(f"{given[0]}: a MeterProvider is given, and this is its own affair")
            if not callable(getattr(meter_provider, "get_meter", None)):
                raise ConfigError("meter_provider: it must be a MeterProvider of OpenTelemetry")
        elif find_spec("opentelemetry.sdk") is None:
            raise MissingExtra("opentelemetry-sdk", "otel")
        self._settings: ExportSettings | None = None
        if meter_provider is None and (self._of_ours or global_provider() is None):
            self._settings = export_settings(
                endpoint=endpoint, headers=headers, protocol=protocol, interval_seconds=export_interval_seconds
            )
            import_module(f"{__package__}.exporting")  # now: it takes longer than a short program has at its end
        self._recorder: Recorder | None = None
        self._shown: MetricsRegistry | None = None
        self._own: OwnMeterProvider | None = None
        self._used: MeterProvider | None = None
        self._gave_way = False

    @classmethod
    def from_url(cls, url: str, **lane: Unpack[LaneOptions]) -> OTelMetricsSink:
        """The sink that an `otlp:` or `otlps:` URL names; `otlp:` alone is what the environment says.

        `otlp://host:4318` is OTLP over http, `otlps://host` over https; a path is kept before `/v1/metrics`. Options:
        `service_name`, `namespace`, `protocol`, `export_interval_seconds`, `tag_names` (with commas between them),
        `headers_env`, the name of an environment variable with headers as in OTEL_EXPORTER_OTLP_HEADERS, and the
        lane's.
        """
        address = parse(url)
        options = address.read(**_PARSERS)
        place = address.location.removeprefix("//")
        if "@" in place:
            raise ConfigError(f"{address.shown}: keys have no place in it; headers_env names a variable that has them")
        if not place and (address.location or address.scheme == "otlps"):
            raise ConfigError(f"{address.shown}: a host is needed, as {address.scheme}://localhost:{HTTP_PORT}")
        given: dict[str, Any] = {name: value for name, value in options.items() if name not in LANE_PARSERS}
        variable = given.pop("headers_env", None)
        if variable is not None:
            try:
                given["headers"] = headers_in(Secret.from_env(variable))
            except ConfigError as error:
                raise ConfigError(f"headers_env in {address.shown}: {error}") from None
        if place:
            host, slash, path = place.partition("/")
            default_port = f":{HTTP_PORT}" if host.rpartition("]")[2].find(":") < 0 else ""
            scheme = "https" if address.scheme == "otlps" else "http"
            given["endpoint"] = f"{scheme}://{host}{default_port}{slash}{path}"
        return cls(**given, **lane_options_in(options, lane))

    def open(self) -> None:
        """Find the provider, or make one, and the instruments on it."""
        if self._recorder is not None:
            return
        from opentelemetry.metrics import NoOpMeter

        from .instruments import Recorder
        from .live import live_gauges

        provider = self._provider
        if provider is None and not self._of_ours:
            provider = global_provider()
            if provider is not None and any(self._names.values()):
                logger.info("OTelMetricsSink: the application's MeterProvider names its service itself")
        if provider is None and not is_switched_off():
            from .exporting import OwnMeterProvider

            self._own = OwnMeterProvider(self._settings or export_settings(), **self._names)
            self._own.start()
            provider = self._own.provider
        if provider is None:
            return
        # Not imported: the package's own file stands above all floors.
        meter = provider.get_meter(_SCOPE, sys.modules[_SCOPE].__version__)
        if isinstance(meter, NoOpMeter):
            return
        recorder = Recorder(meter, self._tags)
        self._shown = get_metrics_registry() if self._registry is None else self._registry
        live_gauges(meter).show(self._shown)
        self._recorder, self._used = recorder, provider

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Measure the batch."""
        if self._gives_way():
            return Delivered()
        self.open()
        recorder = self._recorder
        # The SDK has no public way to see that a provider was shut down, and measures on into nothing.
        if recorder is None or getattr(self._used, "_shutdown", False):
            return Rejected("otel_is_off")
        if self._own is not None:
            self._own.measured = True
        failed = recorder.record(batch)
        return Partial(rejected=failed, reason="not_measured") if failed else Delivered()

    def _gives_way(self) -> bool:
        """Whether the registry's own export brings every call to the same place: twice would be double."""
        exported_to = (self._registry or get_metrics_registry()).exported_to
        if not exported_to or self._provider is not None:
            return False
        if self._settings is not None and self._settings.destination not in exported_to:
            return False
        if self._recorder is not None:
            self.close()
        if not self._gave_way:
            self._gave_way = True
            logger.info("OTelMetricsSink: the metrics registry itself is exported over OTLP: nothing is measured here")
        return True

    def flush(self) -> None:
        """Let the sink's own provider export, and wait for that for 10 s."""
        if self._own is not None:
            self._own.flush(FLUSH_SECONDS)

    def close(self) -> None:
        """End the sink's own provider. A second call does nothing; a later `send` begins anew."""
        own = self._own
        try:
            if own is not None:
                own.close(FLUSH_SECONDS)
        finally:
            self._let_go()

    def after_fork(self) -> None:
        """The parent exports what was measured before; the child has a provider of its own."""
        self._let_go()

    def _let_go(self) -> None:
        if self._recorder is not None and self._shown is not None:
            from .live import live_gauges

            live_gauges(self._recorder.meter).hide(self._shown)
        self._recorder = self._shown = self._own = self._used = None


def global_provider() -> MeterProvider | None:
    """The provider that the application has set, if it has."""
    from opentelemetry.metrics import NoOpMeterProvider, get_meter_provider

    found = get_meter_provider()
    # What stands for a provider that may be set later has no public name.
    is_set = not isinstance(found, NoOpMeterProvider) and type(found).__name__ != "_ProxyMeterProvider"
    return found if is_set else None


def _checked_tags(names: Iterable[str]) -> tuple[str, ...]:
    chosen = () if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in chosen):
        raise ConfigError("tag_names: it must be a list of names")
    from .instruments import llm_metrics

    llm_metrics(None, chosen)
    return tuple(dict.fromkeys(chosen))
