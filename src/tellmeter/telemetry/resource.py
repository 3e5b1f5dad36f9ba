"""What a process says of itself in all that it exports, by https://opentelemetry.io/docs/specs/semconv/resource/."""

from __future__ import annotations

import os
import platform
import socket
import sys
import uuid
from typing import TYPE_CHECKING

from .settings import ATTRIBUTES, TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

NAMELESS = "unknown_service"  # the specification's default


def resource_attributes(settings: TelemetrySettings) -> dict[str, str | int]:
    """The attributes of this process, with or without OpenTelemetry.

    The environment is `deployment.environment.name` alone: the convention deprecates `deployment.environment`, which
    OTEL_RESOURCE_ATTRIBUTES can add. No command line, which may hold keys.
    """
    return {**_found(), **_told(settings)}


def sdk_resource(settings: TelemetrySettings) -> Resource:
    """The same as the SDK's Resource, with what the detectors in OTEL_EXPERIMENTAL_RESOURCE_DETECTORS find."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    told = _told(settings)
    try:
        detected = Resource.create(told)
    except RuntimeError:  # the SDK's detectors want threads, of which there are no more at the exit
        detected = OTELResourceDetector().detect().merge(Resource(told))
    return Resource(_found()).merge(detected)


def _found() -> dict[str, str | int]:
    return {
        "service.name": NAMELESS,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": platform.python_version(),
    }


def _told(settings: TelemetrySettings) -> dict[str, str]:
    named = {attribute: getattr(settings, name) for name, attribute in ATTRIBUTES.items()}
    return {**settings.resource_attributes, **{attribute: value for attribute, value in named.items() if value}}
