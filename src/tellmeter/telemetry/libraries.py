"""OpenTelemetry's own instrumentations of libraries, switched on for who asks: each alone, and never twice."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

logger = logging.getLogger(__name__)

# library -> the class of its instrumentor in opentelemetry.instrumentation, and the packages that it is for
LIBRARIES = {
    "fastapi": ("FastAPIInstrumentor", ("fastapi",)),
    "httpx": ("HTTPXClientInstrumentor", ("httpx", "httpx2")),
    "sqlalchemy": ("SQLAlchemyInstrumentor", ("sqlalchemy",)),
}


def instrument_libraries(names: Iterable[str]) -> list[str]:
    """Switch the instrumentations of libraries on, before the program makes apps, clients and engines of them.

    A library that is not installed is passed over. What else fails is one warning of its own.

    Args:
        names: of `LIBRARIES`.

    Returns:
        Those that are on now.
    """
    return [name for name in names if _instrument(name)]


def instrument_fastapi_app(app: Any) -> bool:
    """Switch the spans of one FastAPI app on; again, it does nothing. Whether they are on now."""
    found = _instrumentor("fastapi")
    if found is None:
        return False
    if not getattr(app, "_is_instrumented_by_opentelemetry", False):
        try:
            found.instrument_app(app)
        except Exception as error:
            logger.warning("this app of FastAPI has no spans: its instrumentation raised %s", type(error).__name__)
            return False
    return True


def _instrument(name: str) -> bool:
    if not any(map(find_spec, LIBRARIES[name][1])):
        return False
    instrumentor = _instrumentor(name)
    if instrumentor is None:
        return False
    try:
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()
        # Where versions do not fit, it has said so and done nothing.
        return bool(instrumentor.is_instrumented_by_opentelemetry)
    except Exception as error:
        logger.warning("%s has no spans: its instrumentation raised %s", name, type(error).__name__)
        return False


def _instrumentor(name: str) -> Any:
    try:
        return getattr(import_module(f"opentelemetry.instrumentation.{name}"), LIBRARIES[name][0])()
    except ImportError:
        logger.warning("%s has no spans: pip install opentelemetry-instrumentation-%s", name, name)
    except Exception as error:
        logger.warning("%s has no spans: its instrumentation raised %s", name, type(error).__name__)
    return None
