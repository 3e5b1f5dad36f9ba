"""Telemetry: traces and their propagation, OpenTelemetry's set-up, spans and metrics out, spans in.

OpenTelemetry is optional and never imported before it is used: without it everything here is a no-op of the same types,
and trace contexts are passed on all the same.
"""

from __future__ import annotations

from importlib.util import find_spec


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # no parent package; blocked by None in sys.modules
        return False


OTEL_AVAILABLE = _is_installed("opentelemetry.trace") and _is_installed("opentelemetry.sdk.trace")
"""Whether OpenTelemetry and its SDK are installed."""
