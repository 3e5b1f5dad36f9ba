"""Hooks on the `request()` of SDKs that Stainless generates: the attempts that it makes are one logical call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..context import reset
from ..pipeline.guard import note
from .calls import Scope, current_scope

# Modules with `SyncAPIClient` and `AsyncAPIClient`, whose `request()` holds the retry loop.
MODULES = (
    "openai._base_client",
    "anthropic._base_client",
    "groq._base_client",
    "cerebras.cloud.sdk._base_client",
    "together._base_client",
    "writerai._base_client",
    "fireworks._base_client",
)


def request(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around the sync `request()`."""
    if current_scope.get() is not None:
        return wrapped(*args, **kwargs)
    scope = Scope()
    token = current_scope.set(scope)
    try:
        answer = wrapped(*args, **kwargs)
    except BaseException as error:
        _close(scope, error)
        raise
    finally:
        reset(current_scope, token)
    _close(scope, None)
    return answer


def request_async(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around the async `request()`."""
    if current_scope.get() is not None:
        return wrapped(*args, **kwargs)
    return _request_async(wrapped, args, kwargs)


async def _request_async(wrapped: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    scope = Scope()
    token = current_scope.set(scope)
    try:
        answer = await wrapped(*args, **kwargs)
    except BaseException as error:
        _close(scope, error)
        raise
    finally:
        reset(current_scope, token)
    _close(scope, None)
    return answer


def _close(scope: Scope, error: BaseException | None) -> None:
    try:
        if error is None:
            scope.returned()
        else:
            scope.raised(error)
    except Exception as own:
        note("wire", own)
