"""Hooks on `Client.send` and `AsyncClient.send` of httpx and httpx2: public methods, which every request passes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..call import Target
from ..context import reset
from ..pipeline.guard import note
from .calls import Exchange, begin, failed, sending
from .stream import Watch, stream_classes

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]


def send_wrappers(module: ModuleType, collector_of: Callable[[], Target | None]) -> tuple[Wrapper, Wrapper]:
    """Wrappers (as wrapt calls them) for the sync and the async `send` of an HTTP library."""
    watched, watched_async = stream_classes(module)

    def started(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exchange | None:
        try:
            request = args[0] if args else kwargs["request"]
            if request.method != "POST":  # the first test of begin(), before anything is looked up
                return None
            collector = collector_of()
            return None if collector is None else begin(collector, request)
        except Exception as error:
            note("wire", error)
            return None

    def answered(exchange: Exchange, response: Any, stream_class: type) -> None:
        try:
            if exchange.answered(response):
                response.stream = stream_class(response.stream, Watch(exchange))
        except Exception as error:
            note("wire", error)
            exchange.ended("completed")

    def raised(exchange: Exchange, error: BaseException) -> None:
        try:
            failed(exchange, error)
        except Exception as own:
            note("wire", own)

    def send(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        exchange = started(args, kwargs)
        if exchange is None:
            return wrapped(*args, **kwargs)
        token = sending.set(True)
        try:
            response = wrapped(*args, **kwargs)
        except BaseException as error:
            raised(exchange, error)
            raise
        finally:
            reset(sending, token)
        answered(exchange, response, watched)
        return response

    async def send_metered(
        exchange: Exchange, wrapped: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        token = sending.set(True)
        try:
            response = await wrapped(*args, **kwargs)
        except BaseException as error:
            raised(exchange, error)
            raise
        finally:
            reset(sending, token)
        answered(exchange, response, watched_async)
        return response

    def send_async(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        exchange = started(args, kwargs)
        if exchange is None:
            return wrapped(*args, **kwargs)
        return send_metered(exchange, wrapped, args, kwargs)

    return send, send_async


def module_of(client: Any) -> ModuleType | None:
    """The HTTP library whose client this is: `httpx`, `httpx2`, or None."""
    for name in ("httpx", "httpx2"):
        module = sys.modules.get(name)
        if module is not None and isinstance(client, module.Client | module.AsyncClient):
            return module
    return None
