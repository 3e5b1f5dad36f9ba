"""TelemetrySettings: what the OTEL_* variables, the setup guide's own ones and arguments say together.

The variables and their meaning: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from ..errors import ConfigError
from ..secret import Secret
from .libraries import LIBRARIES
from .otlp_settings import ARGUMENTS, OTLPSettings, otlp_settings
from .variables import Field, PartlyGood, Reader, check, choice, choices, flag, number, secret, strict_flag, text

_ROOT_SAMPLERS = ("always_on", "always_off", "traceidratio")
SAMPLERS = (*_ROOT_SAMPLERS, *(f"parentbased_{name}" for name in _ROOT_SAMPLERS))


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a process's traces and metrics go out. `from_env` makes it.

    sdk_disabled: OTEL_SDK_DISABLED: nothing is started; what the program records and counts goes on.
    enable_tracing: ENABLE_TRACING: False starts no exporter of traces.
    enable_metrics: ENABLE_METRICS: False starts no exporter of metrics, and no record reaches a sink; counts go on.
    service_name, service_version, service_namespace: OTEL_SERVICE_NAME and the guide's OTEL_SERVICE_VERSION,
        OTEL_SERVICE_NAMESPACE.
    deployment_environment: DEPLOYMENT_ENV, as `production`.
    pod_name, pod_namespace: POD_NAME, POD_NAMESPACE, which a pod's manifest sets.
    resource_attributes: OTEL_RESOURCE_ATTRIBUTES. It wins over the guide's variables of the same meaning.
    traces_exporters: OTEL_TRACES_EXPORTER: otlp (the specification's default), console, none; several with commas.
    metrics_exporters: OTEL_METRICS_EXPORTER: otlp (the default), prometheus, console, none.
    traces, metrics: OTLP for each; OTEL_EXPORTER_OTLP_*, and OTEL_EXPORTER_OTLP_TRACES_*, _METRICS_* before it.
    sampler, sampler_ratio: OTEL_TRACES_SAMPLER, and the share 0..1 in OTEL_TRACES_SAMPLER_ARG.
    max_spans: spans that wait for an exporter at most (OTEL_BSP_MAX_QUEUE_SIZE).
    span_batch_size: spans in one export (OTEL_BSP_MAX_EXPORT_BATCH_SIZE, the guide's TRACES_EXPORT_BATCH_SIZE).
    span_delay_ms: milliseconds between two exports of spans (OTEL_BSP_SCHEDULE_DELAY).
    metrics_interval_ms: milliseconds between two exports of metrics (OTEL_METRIC_EXPORT_INTERVAL, the guide's
        METRICS_EXPORT_INTERVAL_MS).
    metrics_temporality: OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: cumulative, delta or lowmemory.
    prometheus_host, prometheus_port: PROMETHEUS_HOST, PROMETHEUS_PORT: where the exporter `prometheus` serves.
    prometheus_token: PROMETHEUS_TOKEN: what whoever asks there must send as `Authorization: Bearer`. Without it only
        this machine is served.
    instrument_libraries: libraries whose OpenTelemetry instrumentation is switched on, of fastapi, httpx, sqlalchemy.
    trace_calls: how LLM calls become spans: "finished", "live" or "off"; see `trace_llm_calls`. As arguments, True is
        "finished" and False is "off".

    The guide's METRICS_SAMPLE_RATE is no setting here: it is the default of `MetricsConfig.request_sampling_rate`.
    """

    sdk_disabled: bool = False
    enable_tracing: bool = True
    enable_metrics: bool = True
    service_name: str = ""
    service_version: str = ""
    service_namespace: str = ""
    deployment_environment: str = ""
    pod_name: str = ""
    pod_namespace: str = ""
    resource_attributes: Mapping[str, str] = {}
    traces_exporters: tuple[str, ...] = ("otlp",)
    metrics_exporters: tuple[str, ...] = ("otlp",)
    traces: OTLPSettings = OTLPSettings()
    metrics: OTLPSettings = OTLPSettings()
    sampler: str = "parentbased_always_on"
    sampler_ratio: float = 1.0
    max_spans: int = 2048
    span_batch_size: int = 512
    span_delay_ms: float = 5000.0
    metrics_interval_ms: float = 60_000.0
    metrics_temporality: str = "cumulative"
    prometheus_host: str | None = None
    prometheus_port: int | None = None
    prometheus_token: Secret | None = None
    instrument_libraries: tuple[str, ...] = ()
    trace_calls: str = "finished"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> TelemetrySettings:
        """The settings of the environment (of `environ`); `given` wins over it.

        `given` are fields, and for OTLP of both signals `otlp_endpoint` (a base URL), `otlp_protocol`, `otlp_headers`,
        `otlp_timeout_seconds`, `otlp_compression`, `otlp_certificate`, `otlp_client_key`, `otlp_client_certificate`,
        `otlp_insecure`. A bad value in a variable is one warning, and the default.

        Raises:
            ConfigError: an argument that there is not, or whose value cannot work.
        """
        reader = Reader(os.environ if environ is None else environ)
        known = {name: _argument(name) for name in given}
        arguments = {name: check(name, value, known[name]) for name, value in given.items() if value is not None}
        chosen = {name: value for name, value in arguments.items() if name in _FIELDS}
        for name, field in _FIELDS.items():
            if name not in chosen and (found := reader.read(field)) is not None:
                chosen[name] = found
        for name, attribute in ATTRIBUTES.items():
            standard = name in arguments or (name == "service_name" and name in chosen)
            if not standard and (value := chosen.get("resource_attributes", {}).get(attribute)):
                chosen[name] = value
        for signal in ("traces", "metrics"):
            chosen[signal] = otlp_settings(signal, reader, arguments)
        made = cls(**chosen)
        return msgspec.structs.replace(made, span_batch_size=min(made.span_batch_size, made.max_spans))


# field -> the resource's attribute that says the same: https://opentelemetry.io/docs/specs/semconv/resource/
ATTRIBUTES = {
    "service_name": "service.name",
    "service_version": "service.version",
    "service_namespace": "service.namespace",
    "deployment_environment": "deployment.environment.name",
    "pod_name": "k8s.pod.name",
    "pod_namespace": "k8s.namespace.name",
}


def _attributes(value: object) -> dict[str, str]:
    """As in the specification, https://opentelemetry.io/docs/specs/otel/resource/sdk/: a bad part is no attribute."""
    if isinstance(value, Mapping):
        return {text(name): str(one) for name, one in value.items()}
    pairs = [pair.partition("=") for pair in text(value).split(",") if pair.strip()]
    good = {name.strip(): unquote(one.strip()) for name, sign, one in pairs if sign and name.strip()}
    if len(good) < len(pairs):
        raise PartlyGood("name=value,name=value, percent-encoded, each name once", good or None)
    return good


def _trace_calls(value: object) -> str:
    named = {True: "finished", False: "off"}.get(value, value) if isinstance(value, bool) else value
    chosen: str = choice("finished", "live", "off")(named)
    return chosen


def _libraries(value: object) -> tuple[str, ...]:
    known = tuple(LIBRARIES)
    chosen: tuple[str, ...] = known if value is True else () if value is False else choices(*known)(value)
    return chosen


def _argument(name: str) -> Field:
    field = _FIELDS.get(name) or ARGUMENTS.get(name)
    if field is None:
        raise ConfigError(f"{name[:40]} is no setting of telemetry; see TelemetrySettings for the names")
    return field


_FIELDS: dict[str, Field] = {
    "sdk_disabled": Field(("OTEL_SDK_DISABLED",), strict_flag),
    "enable_tracing": Field(("ENABLE_TRACING",), flag),
    "enable_metrics": Field(("ENABLE_METRICS",), flag),
    "service_name": Field(("OTEL_SERVICE_NAME",), text),
    "service_version": Field(("OTEL_SERVICE_VERSION",), text),
    "service_namespace": Field(("OTEL_SERVICE_NAMESPACE",), text),
    "deployment_environment": Field(("DEPLOYMENT_ENV",), text),
    "pod_name": Field(("POD_NAME",), text),
    "pod_namespace": Field(("POD_NAMESPACE",), text),
    "resource_attributes": Field(("OTEL_RESOURCE_ATTRIBUTES",), _attributes, secret=True),
    "traces_exporters": Field(("OTEL_TRACES_EXPORTER",), choices("otlp", "console")),
    "metrics_exporters": Field(("OTEL_METRICS_EXPORTER",), choices("otlp", "prometheus", "console")),
    "sampler": Field(("OTEL_TRACES_SAMPLER",), choice(*SAMPLERS)),
    "sampler_ratio": Field(("OTEL_TRACES_SAMPLER_ARG",), number(0, 1)),
    "max_spans": Field(("OTEL_BSP_MAX_QUEUE_SIZE",), number(1, 1_000_000, whole=True)),
    "span_batch_size": Field(
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "TRACES_EXPORT_BATCH_SIZE"), number(1, 100_000, whole=True)
    ),
    "span_delay_ms": Field(("OTEL_BSP_SCHEDULE_DELAY",), number(1, 3_600_000)),
    "metrics_interval_ms": Field(("OTEL_METRIC_EXPORT_INTERVAL", "METRICS_EXPORT_INTERVAL_MS"), number(1, 86_400_000)),
    "metrics_temporality": Field(
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",), choice("cumulative", "delta", "lowmemory")
    ),
    "prometheus_host": Field(("PROMETHEUS_HOST",), text),
    "prometheus_port": Field(("PROMETHEUS_PORT",), number(0, 65_535, whole=True)),
    "prometheus_token": Field(("PROMETHEUS_TOKEN",), secret, secret=True),
    "instrument_libraries": Field((), _libraries),
    "trace_calls": Field((), _trace_calls),
}
