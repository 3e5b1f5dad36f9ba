"""What the code around a call says of it: tags, and the trace it belongs to (contextvars)."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from .cleaning import clean_tags

T = TypeVar("T")
_NO_TAGS: Mapping[str, str] = {}
# The tags of the running code, to be treated as read-only, and whether its HTTP traffic is never metered.
tags_in_force: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("tellmeter_tags", default=_NO_TAGS)
suppression: contextvars.ContextVar[bool] = contextvars.ContextVar("tellmeter_suppressed", default=False)

# What is said of the streams that begin in the running code: a `streams.options.StreamOptions`.
options_in_force: contextvars.ContextVar[Any] = contextvars.ContextVar("tellmeter_stream_options", default=None)

# What a caller sent along, where there is no OpenTelemetry to keep it: a `telemetry.noop.Context`.
propagated: contextvars.ContextVar[Any] = contextvars.ContextVar("tellmeter_propagated", default=None)


class Enclosing(Protocol):
    """What the running code is inside of, and what is not to be counted beside the calls in it."""

    def contain(self, call: object) -> None:
        """A call began in it; never raises."""


enclosing: contextvars.ContextVar[Enclosing | None] = contextvars.ContextVar("tellmeter_enclosing", default=None)


class tags:  # noqa: N801 - reads as a word in a with statement
    """Name the feature, tenant or experiment that the calls in a block belong to.

    Works with `with` and `async with`, nests (inner values win), follows tasks, and follows threads that run in a
    copied context (`asyncio.to_thread`, `contextvars.copy_context().run`). Values become strings; at most 32 tags of
    64 + 256 characters are kept, the rest is counted.
    """

    __slots__ = ("_own", "_tokens")

    def __init__(self, **own: object) -> None:
        self._own = clean_tags(own)
        self._tokens: list[contextvars.Token[Mapping[str, str]]] = []

    def __enter__(self) -> tags:
        self._tokens.append(tags_in_force.set({**tags_in_force.get(), **self._own}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reset(tags_in_force, self._tokens.pop())

    async def __aenter__(self) -> tags:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class suppressed:  # noqa: N801
    """A block whose HTTP traffic is never metered: what sinks send is not a call of the user's."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = suppression.set(True)

    def __exit__(self, *error: object) -> None:
        reset(suppression, self._token)


def reset(variable: contextvars.ContextVar[T], token: contextvars.Token[T]) -> None:
    """Undo a `set`; a generator finalised in another context has nothing left to undo."""
    try:
        variable.reset(token)
    except ValueError:
        pass


class Trace(NamedTuple):
    """W3C ids in lower-case hex: 32, 16 and 16 digits."""

    trace_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None


NO_TRACE = Trace()


def current_trace() -> Trace:
    """The ids of the current OpenTelemetry span; without OpenTelemetry, those that a caller sent along, if any."""
    api = sys.modules.get("opentelemetry.trace")  # never import it for the user
    if api is None:
        sent = propagated.get()
        return NO_TRACE if sent is None else cast("Trace", sent.trace)
    span = api.get_current_span()
    known = span.get_span_context()
    if not known.is_valid:
        return NO_TRACE
    parent = getattr(span, "parent", None)
    parent_id = f"{parent.span_id:016x}" if parent is not None else None
    return Trace(f"{known.trace_id:032x}", f"{known.span_id:016x}", parent_id)
