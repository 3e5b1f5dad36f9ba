"""OTLPSettings: where one signal goes over OTLP, and how.

The variables: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from ..secret import Secret
from ..sinks.otel.settings import (
    GRPC,
    GRPC_PORT,
    HTTP,
    HTTP_PORT,
    check_url,
    checked_headers,
    has_exporter,
    headers_in,
    port_of,
)
from .variables import Field, Parser, Reader, check, choice, number, strict_flag, text

_PLACE = re.compile(r"(https?://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?/?")


class OTLPSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where one signal goes, and how.

    endpoint: for http/protobuf the whole URL, as http://localhost:4318/v1/traces; for gRPC scheme, host and port.
    insecure: whether gRPC goes without TLS where its endpoint has no scheme.
    """

    protocol: str = HTTP
    endpoint: str = ""
    headers: Mapping[str, Secret] = {}
    timeout_seconds: float = 10.0
    compression: str = "none"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool = False


def _url(value: object) -> str:
    """An endpoint over HTTP."""
    given = text(value)
    try:
        check_url("endpoint", given)
    except ConfigError:
        allowed = f"a URL like http://localhost:{HTTP_PORT}, without a user or a query; keys go in headers"
        raise ValueError(allowed) from None
    return given


def _place(value: object) -> str:
    """An endpoint of gRPC."""
    given = text(value)
    if not _PLACE.fullmatch(given):
        raise ValueError(f"a place like http://localhost:{GRPC_PORT}, without a user or a path; keys go in headers")
    return given


def _headers(value: object) -> dict[str, Secret]:
    """Headers in a mapping, or in a text as `name=value,name=value`, percent-encoded."""
    try:
        return checked_headers(value) if isinstance(value, Mapping) else headers_in(Secret(text(value)))
    except ConfigError as error:  # it shows no value
        raise ValueError(f"name=value,name=value, percent-encoded ({error})") from None


def _path(value: object) -> str:
    """The path of a file, which is looked for when an exporter needs it."""
    return text(str(value) if isinstance(value, Path) else value)


# kind -> the last word of its variables, and what they may hold
_KINDS: dict[str, tuple[str, Parser]] = {
    "protocol": ("PROTOCOL", choice(HTTP, GRPC)),
    "endpoint": ("ENDPOINT", text),
    "headers": ("HEADERS", _headers),
    "timeout_seconds": ("TIMEOUT", number(0.001, 3600)),
    "compression": ("COMPRESSION", choice("gzip", "deflate", "none")),
    "certificate": ("CERTIFICATE", _path),
    "client_key": ("CLIENT_KEY", _path),
    "client_certificate": ("CLIENT_CERTIFICATE", _path),
    "insecure": ("INSECURE", strict_flag),
}
_ENDPOINTS: dict[str, tuple[Parser, str]] = {
    HTTP: (_url, f"http://localhost:{HTTP_PORT}"),
    GRPC: (_place, f"http://localhost:{GRPC_PORT}"),
}
# argument -> what it may be
ARGUMENTS = {f"otlp_{kind}": Field((), parse, secret=kind == "headers") for kind, (_, parse) in _KINDS.items()}


def otlp_settings(signal: str, reader: Reader, given: Mapping[str, Any]) -> OTLPSettings:
    """Those of "traces" or "metrics": the arguments, else the signal's own variables, else those of both.

    Raises:
        ConfigError: an `otlp_endpoint` that does not suit its protocol.
    """
    found: dict[str, Any] = {}
    for kind, (word, parse) in _KINDS.items():
        value = given.get(f"otlp_{kind}")
        field = Field(_variables(signal, word), parse, secret=kind == "headers")
        found[kind] = reader.read(field) if value is None else value
    if found["protocol"] is None:
        # The guides give 4317, which is gRPC's port, without saying so.
        meant = found["endpoint"] and port_of(found["endpoint"]) == GRPC_PORT and has_exporter(GRPC)
        found["protocol"] = GRPC if meant else HTTP
    found["endpoint"] = _endpoint(signal, found["protocol"], reader, given.get("otlp_endpoint"))
    return OTLPSettings(**{kind: value for kind, value in found.items() if value is not None})


def _endpoint(signal: str, protocol: str, reader: Reader, base: str | None) -> str:
    parse, default = _ENDPOINTS[protocol]
    if base is None:
        own, both = _variables(signal, "ENDPOINT")
        if (whole := reader.read(Field((own,), parse))) is not None:
            return str(whole)
        base = reader.read(Field((both,), parse)) or default
    else:
        check("otlp_endpoint", base, Field((), parse))
    return base if protocol == GRPC else f"{base.rstrip('/')}/v1/{signal}"


def _variables(signal: str, word: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{word}", f"OTEL_EXPORTER_OTLP_{word}"
