"""Hooks on the `request()` of SDKs that Stainless generates: the attempts that it makes are one logical call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..context import reset
from ..guard import note
from .exchange import Scope, current_scope

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


def joined_request(original: Callable[..., Any]) -> Callable[..., Any]:
    """The sync `request()`, with a scope around it."""

    @functools.wraps(original)
    def request(*args: Any, **kwargs: Any) -> Any:
        if current_scope.get() is not None:
            return original(*args, **kwargs)
        scope = Scope()
        token = current_scope.set(scope)
        try:
            answer = original(*args, **kwargs)
        except BaseException as error:
            _close(scope, error)
            raise
        finally:
            reset(current_scope, token)
        _close(scope, None)
        return answer

    return request


def joined_async_request(original: Callable[..., Any]) -> Callable[..., Any]:
    """The async `request()`, with a scope around it."""

    @functools.wraps(original)
    async def request(*args: Any, **kwargs: Any) -> Any:
        if current_scope.get() is not None:
            return await original(*args, **kwargs)
        scope = Scope()
        token = current_scope.set(scope)
        try:
            answer = await original(*args, **kwargs)
        except BaseException as error:
            _close(scope, error)
            raise
        finally:
            reset(current_scope, token)
        _close(scope, None)
        return answer

    return request


def _close(scope: Scope, error: BaseException | None) -> None:
    try:
        if error is None:
            scope.returned()
        else:
            scope.raised(error)
    except Exception as own:
        note("wire", own)
