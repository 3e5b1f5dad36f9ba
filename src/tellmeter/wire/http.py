"""Hooks on `Client.send` and `AsyncClient.send` of httpx and httpx2: public methods, which every request passes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..call import status_of
from ..context import reset
from ..guard import note
from .exchange import Exchange, sending
from .stream import Watch, stream_classes

Send = Callable[..., Any]
Begin = Callable[[Any], Exchange | None]


def metered_send(original: Send, module: ModuleType, begin: Begin) -> Send:
    """`original`, a sync `send` of the HTTP library `module` (bound or not), with its LLM calls metered.

    `begin(request)` gives the attempt that a POST is, or None for what is no LLM call.
    A plain function: a wrapt wrapper costs every request of the program 1.5 us more.
    """
    watched, _ = stream_classes(module)

    @functools.wraps(original)
    def send(*args: Any, **kwargs: Any) -> Any:
        exchange = _started(begin, args, kwargs)
        if exchange is None:
            return original(*args, **kwargs)
        span = exchange.call.span
        token = sending.set(True)
        try:
            if span is not None:
                span.enter(exchange.call)
            response = original(*args, **kwargs)
        except BaseException as error:
            _raised(exchange, error)
            raise
        finally:
            if span is not None:
                span.leave()
            reset(sending, token)
        _answered(exchange, response, watched)
        return response

    return send


def metered_async_send(original: Send, module: ModuleType, begin: Begin) -> Send:
    """As `metered_send` for an async `send`. Other traffic gets the original's own coroutine."""
    _, watched = stream_classes(module)

    async def metered(exchange: Exchange, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        span = exchange.call.span
        token = sending.set(True)
        try:
            if span is not None:
                span.enter(exchange.call)
            response = await original(*args, **kwargs)
        except BaseException as error:
            _raised(exchange, error)
            raise
        finally:
            if span is not None:
                span.leave()
            reset(sending, token)
        _answered(exchange, response, watched)
        return response

    @functools.wraps(original)
    def send(*args: Any, **kwargs: Any) -> Any:
        exchange = _started(begin, args, kwargs)
        return original(*args, **kwargs) if exchange is None else metered(exchange, args, kwargs)

    return send


def module_of(client: Any) -> ModuleType | None:
    """The HTTP library whose client this is: `httpx`, `httpx2`, or None."""
    for name in ("httpx", "httpx2"):
        module = sys.modules.get(name)
        if module is not None and isinstance(client, module.Client | module.AsyncClient):
            return module
    return None


def _started(begin: Begin, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exchange | None:
    try:
        request = kwargs["request"] if "request" in kwargs else args[-1]
        # Before anything is looked up.
        return begin(request) if request.method == "POST" else None
    except Exception as error:
        note("wire", error)
        return None


def _answered(exchange: Exchange, response: Any, stream_class: type) -> None:
    try:
        if exchange.answered(response):
            response.stream = stream_class(response.stream, Watch(exchange))
    except Exception as error:
        note("wire", error)
        exchange.ended("completed")


def _raised(exchange: Exchange, error: BaseException) -> None:
    try:
        exchange.ended(status_of(error), error)
    except Exception as own:
        note("wire", own)
