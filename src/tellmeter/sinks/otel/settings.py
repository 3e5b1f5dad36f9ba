"""Where OTLP goes and how: what code and the OTEL_* environment variables say together, checked before anything starts.

What is not here (timeout, compression, certificates, temporality, headers of the environment) the exporters read
themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError, MissingExtra
from ...secret import Secret
from ..address import positive
from ..checks import check_positive

HTTP, GRPC = "http/protobuf", "grpc"
# OTLP's own ports: https://opentelemetry.io/docs/specs/otlp/
HTTP_PORT, GRPC_PORT = 4318, 4317
INTERVAL_SECONDS = 60.0  # the specification's default of OTEL_METRIC_EXPORT_INTERVAL
_EXPORTERS = {
    HTTP: "opentelemetry.exporter.otlp.proto.http",
    GRPC: "opentelemetry.exporter.otlp.proto.grpc",
}
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_CHOICES = {
    _TEMPORALITY: ("cumulative", "delta", "lowmemory"),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("gzip", "deflate", "none"),
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": ("gzip", "deflate", "none"),
    "OTEL_METRICS_EXEMPLAR_FILTER": ("trace_based", "always_on", "always_off"),
}
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How metrics leave the process.

    `endpoint` is the base URL that code gave, None where the environment's counts; `delta` whether an export holds only
    what came since the one before it; `arguments` are the exporter's own, and come before all the others.
    """

    protocol: str = HTTP
    endpoint: str | None = None
    headers: Mapping[str, Secret] = field(default_factory=dict)
    interval_seconds: float = INTERVAL_SECONDS
    delta: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> str | None:
        """The endpoint that code gave, in whichever way."""
        given: str | None = self.arguments.get("endpoint", self.endpoint)
        return given

    @property
    def destination(self) -> str:
        """Where metrics go: the same text for the same place."""
        default = f"http://localhost:{GRPC_PORT if self.protocol == GRPC else HTTP_PORT}"
        url = self.place or _endpoint_of_the_environment() or default
        return url.rstrip("/").removesuffix("/v1/metrics").rstrip("/")


def export_settings(
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str | Secret] | None = None,
    protocol: str | None = None,
    interval_seconds: float | None = None,
) -> ExportSettings:
    """What was given in code, and the environment for the rest.

    Raises:
        ConfigError: a value that cannot work, in code or in a variable; no header is in the message.
        MissingExtra: the exporter over HTTP is not installed.
    """
    if endpoint is not None:
        check_url("endpoint", endpoint)
    chosen = _protocol(protocol, endpoint)
    if chosen == HTTP:
        if not has_exporter(HTTP):
            raise MissingExtra("opentelemetry-exporter-otlp-proto-http", "otel")
        for variable in ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            if endpoint is None and (given := _environment(variable)):
                check_url(variable, given)
                break
    for word in _FILES:
        for variable in (f"OTEL_EXPORTER_OTLP_METRICS_{word}", f"OTEL_EXPORTER_OTLP_{word}"):
            if (file := _environment(variable)) and not Path(file).is_file():
                raise ConfigError(f"{variable} = {file!r}: there is no such file")
    for variable in ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        _number(variable, _environment(variable) or "10", "seconds")
    for variable, allowed in _CHOICES.items():
        given = _environment(variable)
        # The SDK reads that of exemplars as it is written.
        if given and (given if variable.endswith("_FILTER") else given.lower()) not in allowed:
            raise ConfigError(f"{variable} = {given[:40]!r}: it must be one of {', '.join(allowed)}")
    return ExportSettings(
        protocol=chosen,
        endpoint=endpoint,
        headers=checked_headers(headers or {}),
        interval_seconds=_interval(interval_seconds),
        delta=_environment(_TEMPORALITY).lower() in ("delta", "lowmemory"),
    )


def has_exemplars() -> bool:
    """Whether OTEL_METRICS_EXEMPLAR_FILTER lets exemplars through; all that a registry has lead to traces."""
    return _environment("OTEL_METRICS_EXEMPLAR_FILTER") != "always_off"


def is_switched_off() -> bool:
    """Whether OTEL_SDK_DISABLED says that OpenTelemetry does nothing in this process."""
    return _environment("OTEL_SDK_DISABLED").lower() == "true"


def checked_headers(headers: Mapping[str, str | Secret]) -> dict[str, Secret]:
    """Headers by their names in lower case, as gRPC wants them.

    Raises:
        ConfigError: a name or value that cannot be sent; values are not shown.
    """
    checked: dict[str, Secret] = {}
    for name, given in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name.lower()):
            raise ConfigError(f"headers: {str(name)[:40]!r} is no name of a header")
        value = Secret.of(f"the header {name}", given)
        if value is None or not _HEADER_VALUE.fullmatch(value.reveal()):
            raise ConfigError(f"the header {name}: its value must be printable ASCII")
        checked[name.lower()] = value
    return checked


def headers_in(text: Secret) -> dict[str, Secret]:
    """The headers in a text like that of OTEL_EXPORTER_OTLP_HEADERS: `name=value,name=value`, percent-encoded.

    Raises:
        ConfigError: a part without `=`, or a header that cannot be sent; the text is not shown.
    """
    found: dict[str, str | Secret] = {}
    for part in text.reveal().split(","):
        name, mark, value = part.strip().partition("=")
        if not part.strip():
            continue
        if not mark or not value.strip():
            raise ConfigError("headers: they are written name=value, with commas between them")
        found[unquote(name.strip())] = Secret(unquote(value.strip()))
    return checked_headers(found)


def _protocol(given: str | None, endpoint: str | None) -> str:
    sources = (
        ("protocol", given or ""),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", _environment("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", _environment("OTEL_EXPORTER_OTLP_PROTOCOL")),
    )
    source, chosen = next(((name, value) for name, value in sources if value), ("", ""))
    if not chosen:
        # The guides give 4317, which is gRPC's port, without saying so.
        return GRPC if port_of(endpoint) == GRPC_PORT and has_exporter(GRPC) else HTTP
    if chosen not in _EXPORTERS:
        raise ConfigError(f"{source} = {chosen!r}: it must be {HTTP} or {GRPC}")
    if chosen == GRPC and not has_exporter(GRPC):
        raise ConfigError(
            f"{source} = {GRPC}: this needs the package opentelemetry-exporter-otlp-proto-grpc; "
            f"or say {HTTP}, to port {HTTP_PORT}"
        )
    return chosen


def has_exporter(protocol: str) -> bool:
    """Whether the exporter of a protocol is installed."""
    try:
        return find_spec(_EXPORTERS[protocol]) is not None
    except ModuleNotFoundError:  # not even its parents are there
        return False


def _interval(given: float | None) -> float:
    if given is not None:
        return check_positive("export_interval_seconds", given)
    variable = "OTEL_METRIC_EXPORT_INTERVAL"
    return _number(variable, _environment(variable) or str(INTERVAL_SECONDS * 1000), "milliseconds") / 1000


def _number(variable: str, text: str, unit: str) -> float:
    try:
        return positive(text)
    except ValueError:
        raise ConfigError(f"{variable} = {text[:40]!r}: it must be {unit} above 0") from None


def check_url(source: str, url: object) -> None:
    """An endpoint over HTTP.

    Raises:
        ConfigError: what is none, or has a password in it.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{source}: it must be a URL like http://localhost:{HTTP_PORT}")
    if "@" in parts.netloc or parts.query:
        raise ConfigError(f"{source}: a user or a query has no place in it; keys go in OTEL_EXPORTER_OTLP_HEADERS")


def port_of(endpoint: str | None) -> int | None:
    """The port of an endpoint, or of the environment's; None where it has none."""
    url = endpoint or _endpoint_of_the_environment()
    try:
        return urlsplit(url if "://" in url else f"//{url}").port
    except ValueError:
        return None


def _endpoint_of_the_environment() -> str:
    return _environment("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or _environment("OTEL_EXPORTER_OTLP_ENDPOINT")


def _environment(variable: str) -> str:
    return os.environ.get(variable, "").strip()
