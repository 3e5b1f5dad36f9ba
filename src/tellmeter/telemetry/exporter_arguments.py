"""What the public exporters over OTLP are made with, the same for every signal."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingExtra
from ..sinks.otel.settings import GRPC, HTTP, has_exporter
from .otlp_settings import OTLPSettings

GRPC_PACKAGE = "opentelemetry-exporter-otlp-proto-grpc"


def exporter_arguments(settings: OTLPSettings) -> dict[str, Any]:
    """All but the headers, which are secret, and the session.

    Raises:
        MissingExtra: the exporter over HTTP is not installed.
        ConfigError: nor is gRPC's, or a file of a certificate is not there.
    """
    for file in (settings.certificate, settings.client_key, settings.client_certificate):
        if file is not None and not Path(file).is_file():
            # Without it the receiver would be one that nobody vouches for.
            raise ConfigError(f"there is no file {file!r} with a certificate or key")
    if not has_exporter(settings.protocol):
        if settings.protocol == GRPC:
            raise ConfigError(f"OTLP over gRPC is not installed: pip install {GRPC_PACKAGE}")
        raise MissingExtra("opentelemetry-exporter-otlp-proto-http", "otel")
    return {
        "endpoint": settings.endpoint,
        "timeout": settings.timeout_seconds,
        **_OF_PROTOCOL[settings.protocol](settings),
    }


def _http(settings: OTLPSettings) -> dict[str, Any]:
    from opentelemetry.exporter.otlp.proto.http import Compression

    return {
        "certificate_file": settings.certificate,
        "client_key_file": settings.client_key,
        "client_certificate_file": settings.client_certificate,
        "compression": Compression(settings.compression),
    }


def _grpc(settings: OTLPSettings) -> dict[str, Any]:
    grpc: Any = import_module("grpc")  # no part of the extra
    endpoint = settings.endpoint
    return {
        "insecure": not endpoint.startswith("https:") and ("://" in endpoint or settings.insecure),
        "credentials": grpc.ssl_channel_credentials(
            *(
                None if file is None else Path(file).read_bytes()
                for file in (settings.certificate, settings.client_key, settings.client_certificate)
            )
        ),
        "compression": grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression,
    }


_OF_PROTOCOL: dict[str, Callable[[OTLPSettings], dict[str, Any]]] = {HTTP: _http, GRPC: _grpc}
