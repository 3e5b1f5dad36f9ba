"""MetricsMiddleware: what an ASGI application answers, by the templates of its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from time import perf_counter
from typing import Any

from ..guard import note
from ..registry.registry import MetricsRegistry, get_metrics_registry
from ..registry.series import Counter, Gauge, Histogram
from .routes import Templates

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[Any]]
Application = Callable[[Message, Receive, Send], Awaitable[Any]]

# Whoever calls chooses the method, and must not choose how many series there are.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"})
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})
_METERED = "tellmeter.metered"  # in the scope: the registries that count this request
_BOUND = 4096  # series at hand
_FAILED, _GONE = 500, 499


class MetricsMiddleware:
    """Count and time the requests of an ASGI application: `app.add_middleware(MetricsMiddleware)`, or around any.

    `http_requests_total{method,endpoint,status}`, `http_request_duration_seconds{method,endpoint}` to the last byte
    sent, `http_requests_active{method}`, and `errors_total{component="http",error_type}` for an exception that leaves
    the application.

    endpoint: the template of the route (`/api/v1/items/{item_id}`), mounts and included routers in it; "unmatched"
        where no route was reached, as for 404s and what a middleware answered. Never the path itself.
    method: "OTHER" for what is no method of HTTP.
    status: as sent; 500 where an exception, or no answer, came before the end of the response; 499 where the client was
        gone, or the request was cancelled, before it.

    Messages, exceptions and what the application returns pass as they are, websockets and lifespan untouched. A request
    that passes two of these middlewares with one registry is counted by the outer one.

    Args:
        app: the application.
        registry: where to count; the process's without one.
        exclude: paths and templates that are not counted, with or without a slash at their end.
    """

    def __init__(
        self, app: Application, *, registry: MetricsRegistry | None = None, exclude: Iterable[str] = ("/metrics",)
    ) -> None:
        self.app = app
        self._registry = registry
        given = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self._exclude = frozenset(path for one in given for path in (one, one.rstrip("/"), one.rstrip("/") + "/"))
        self._templates = Templates()
        self._active: dict[str, Gauge] = {}
        self._series: dict[tuple[str, str, Any], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> Any:
        """Pass one connection on to the application."""
        if scope["type"] != "http" or scope.get("path") in self._exclude:
            return await self.app(scope, receive, send)
        try:
            request = self._begin(scope, receive, send)
        except Exception as error:
            note("http_middleware", error)
            request = None
        if request is None:
            return await self.app(scope, receive, send)
        try:
            result = await self.app(scope, request.receive, request.send)
        except BaseException as error:
            request.fail(error)
            raise
        request.end()
        return result

    def _begin(self, scope: Message, receive: Receive, send: Send) -> _Request | None:
        registry = self._registry
        if registry is None:
            registry = self._registry = get_metrics_registry()
        metered = scope.get(_METERED, ())
        if registry in metered:
            return None
        method = scope["method"]
        if method not in _METHODS:
            method = "OTHER"
        active = self._active.get(method)
        if active is None:
            active = self._active[method] = registry.gauge("http_requests_active").labels(method=method)
        scope[_METERED] = (*metered, registry)
        made = _Request(self, scope, method, active, receive, send)
        active.inc()
        return made

    def count(self, scope: Message, method: str, status: Any, seconds: float) -> None:
        """Count a request that ended."""
        endpoint = self._templates.find(scope)
        if endpoint in self._exclude:
            return
        key = (method, endpoint, status)
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= _BOUND:
                self._series.clear()
            found = self._series[key] = self._bind(method, endpoint, status)
        found[0].inc()
        found[1].observe(seconds)

    def _bind(self, method: str, endpoint: str, status: Any) -> tuple[Counter, Histogram]:
        registry = self._registry
        assert registry is not None
        shown = str(int(status)) if isinstance(status, int) else "invalid"
        return (
            registry.counter("http_requests_total").labels(method=method, endpoint=endpoint, status=shown),
            registry.histogram("http_request_duration_seconds").labels(method=method, endpoint=endpoint),
        )

    def count_error(self, scope: Message, error: BaseException) -> None:
        """Count an exception that left the application, by its class."""
        registry = self._registry
        if registry is not None and self._templates.find(scope) not in self._exclude:
            registry.increment("errors_total", 1, {"component": "http", "error_type": type(error).__name__})


class _Request:
    """One request in progress, counted at its last byte; what the application still does then is not its time."""

    __slots__ = (
        "_active",
        "_method",
        "_middleware",
        "_receive",
        "_scope",
        "_send",
        "_started",
        "ended",
        "gone",
        "status",
    )

    def __init__(
        self, middleware: MetricsMiddleware, scope: Message, method: str, active: Gauge, receive: Receive, send: Send
    ) -> None:
        self._middleware = middleware
        self._scope = scope
        self._method = method
        self._active = active
        self._receive = receive
        self._send = send
        self.status: Any = None
        self.gone = False
        self.ended = False
        self._started = perf_counter()

    async def receive(self) -> Message:
        """The server's message; a client that is gone before the end is noted."""
        message = await self._receive()
        try:
            if message["type"] == "http.disconnect":
                self.gone = True
        except Exception as error:
            note("http_middleware", error)
        return message

    async def send(self, message: Message) -> Any:
        """Hand a message to the server."""
        last = False
        try:
            kind = message["type"]
            if kind == "http.response.start":
                self.status = message["status"]
            else:
                last = kind in _BODIES and not message.get("more_body")
        except Exception as error:
            note("http_middleware", error)
        try:
            result = await self._send(message)
        except OSError:  # how servers say that the client is gone
            self.gone = True
            raise
        if last and not self.ended:
            self._finish(self.status)
        return result

    def end(self) -> None:
        """The application returned."""
        if not self.ended:
            self._finish(_GONE if self.gone else _FAILED)

    def fail(self, error: BaseException) -> None:
        """The application raised: an error, unless it was told to stop or its client is gone."""
        ended, stopped = self.ended, not isinstance(error, Exception)
        if not ended:
            self._finish(_GONE if self.gone or stopped else _FAILED)
        if not stopped and (ended or not self.gone):
            try:
                self._middleware.count_error(self._scope, error)
            except Exception as fault:
                note("http_middleware", fault)

    def _finish(self, status: Any) -> None:
        self.ended = True
        seconds = perf_counter() - self._started
        self._active.dec()
        try:
            self._middleware.count(self._scope, self._method, status, seconds)
        except Exception as error:
            note("http_middleware", error)
