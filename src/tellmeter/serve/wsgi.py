"""The page of metrics as a WSGI application: for Flask and Django, or by itself under any WSGI server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..registry.registry import MetricsRegistry
from .page import answer
from .places import Places

Environ = Mapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


def get_metrics_wsgi_app(registry: MetricsRegistry | None = None) -> MetricsWSGIApp:
    """A WSGI application that serves the metrics of `registry`; of the process without one.

    Beside another application, or by itself, as in `gunicorn program:metrics_app`, where it answers at `/metrics`
    and `/`:

        app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": get_metrics_wsgi_app()})     # Flask

    GET and HEAD only; at most 4 scrapes at a time, more get 503. Whoever can ask can read: protect the path as you
    protect others.
    """
    return MetricsWSGIApp(registry)


class MetricsWSGIApp:
    """What `get_metrics_wsgi_app()` gives."""

    def __init__(self, registry: MetricsRegistry | None = None) -> None:
        self._registry = registry
        self._places = Places()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        method = environ["REQUEST_METHOD"]
        answered = answer(
            method,
            environ.get("PATH_INFO", ""),
            environ.get("HTTP_ACCEPT"),
            environ.get("HTTP_ACCEPT_ENCODING"),
            places=self._places,
            registry=self._registry,
        )
        start_response(answered.status_line, list(answered.headers))
        return answered.body(method)
