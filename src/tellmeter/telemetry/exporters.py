"""The public exporters of spans, made as the settings say. OpenTelemetry is imported here when one is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..sinks.otel.settings import GRPC
from .exporter_arguments import exporter_arguments
from .otlp_settings import OTLPSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_CREDENTIALS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)


def span_exporter(settings: OTLPSettings, see: Callable[..., object]) -> SpanExporter:
    """Spans over OTLP.

    Args:
        settings: where to, and how.
        see: gets every answer of a receiver over HTTP, which the exporter keeps to itself.

    Raises:
        ConfigError: a file of a certificate is not there, or OTLP over gRPC is not installed.
        MissingExtra: OTLP over HTTP is not installed.
    """
    arguments = exporter_arguments(settings)
    headers = {name: value.reveal() for name, value in settings.headers.items()}
    if settings.protocol == GRPC:
        module: Any = import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")  # no part of the extra
        made: SpanExporter = module.OTLPSpanExporter(headers=headers, **arguments)
        return made
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    session = None
    if not any(map(os.environ.get, _CREDENTIALS)):  # they bring a session of their own
        import requests

        session = requests.Session()
        session.max_redirects = 0  # older exporters follow them, with the headers
        session.hooks["response"].append(see)
    return OTLPSpanExporter(headers=headers, session=session, **arguments)
