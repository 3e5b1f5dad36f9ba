"""Tracing without OpenTelemetry: spans that record nothing, in a trace that is passed on as it came.

The span that runs is always the caller's (the remote parent's), so that no ids are made up. `api` has the same names.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from ..context import NO_TRACE, Trace, propagated, reset
from .w3c import FIELDS, Member, TraceParent

_NOTHING: Mapping[str, Any] = {}


class Span(Protocol):
    """A span as everybody has it, with OpenTelemetry or without."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one attribute."""

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes."""

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Add an event, at `timestamp` in nanoseconds since the epoch, else now."""

    def add_link(self, context: Any, attributes: Mapping[str, Any] | None = None) -> None:
        """Link another span, by its span context."""

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception as an event. OpenTelemetry's own spans write down its message and stack."""

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Set the status."""

    def update_name(self, name: str) -> None:
        """Name it anew."""

    def end(self, end_time: int | None = None) -> None:
        """End it."""

    def is_recording(self) -> bool:
        """Whether anything of it is kept."""
        raise NotImplementedError

    def get_span_context(self) -> Any:
        """Its ids: `trace_id`, `span_id`, `is_remote`, `trace_flags`, `trace_state`, `is_valid`."""
        raise NotImplementedError


class SpanContext(NamedTuple):
    """The ids of a span, as OpenTelemetry's: numbers of 128 and 64 bits, 0 where there is no trace."""

    trace_id: int = 0
    span_id: int = 0
    is_remote: bool = False
    trace_flags: int = 0
    trace_state: Mapping[str, str] = _NOTHING

    @property
    def is_valid(self) -> bool:
        """Whether it is in a trace."""
        return self.trace_id != 0 and self.span_id != 0


class NoopSpan:
    """A span that records nothing and has the ids of the remote parent, if any."""

    __slots__ = ("_ids",)

    def __init__(self, ids: SpanContext = SpanContext()) -> None:  # noqa: B008 - immutable
        self._ids = ids

    def _ignore(self, *arguments: object, **more: object) -> None:
        return

    set_attribute = set_attributes = add_event = add_link = record_exception = _ignore
    set_status = update_name = end = _ignore

    def is_recording(self) -> bool:
        """No."""
        return False

    def get_span_context(self) -> SpanContext:
        """The remote parent's ids; invalid ones where there is none."""
        return self._ids

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Context(NamedTuple):
    """What the running code passes on."""

    span: NoopSpan = NoopSpan()
    baggage: Mapping[str, Member] = _NOTHING

    @property
    def trace(self) -> Trace:
        """Its ids in hex, as records and logs have them."""
        ids = self.span.get_span_context()
        return Trace(f"{ids.trace_id:032x}", f"{ids.span_id:016x}") if ids.is_valid else NO_TRACE


_EMPTY = Context()


class NoopTracer:
    """A tracer whose spans record nothing."""

    def start_span(self, name: str, context: Context | None = None, *arguments: object, **more: object) -> NoopSpan:
        """The span that is running in `context`."""
        return span_in(current() if context is None else context)

    def start_as_current_span(
        self, name: str, context: Context | None = None, *arguments: object, **more: object
    ) -> NoopSpan:
        """As `start_span`: it is a context manager."""
        return self.start_span(name, context)


_TRACER = NoopTracer()


# ---------------------------------------------------------------------- what `api` has too


def provider() -> None:
    """There is none."""


def get_tracer(provider: Any, name: str) -> NoopTracer:
    """The only one."""
    return _TRACER


def start(tracer: Any, name: str, context: Context, kind: object, attributes: object, links: object) -> NoopSpan:
    """The span that is running in `context`."""
    return context.span


def record(span: Any, error: BaseException) -> str:
    """Nothing is kept."""
    return ""


def fail(span: Any, error: BaseException) -> None:
    """Nothing is kept."""


def status_of(status: object, description: str | None) -> Any:
    """Nothing is kept."""
    return None


def empty() -> Context:
    """A context with nothing in it."""
    return _EMPTY


def current() -> Context:
    """The context of the running code."""
    found: Context | None = propagated.get()
    return _EMPTY if found is None else found


def attach(context: Context) -> contextvars.Token[Any]:
    """Make it the running code's until `detach`."""
    return propagated.set(context)


def detach(token: contextvars.Token[Any]) -> None:
    """Undo an `attach`; in another context there is nothing to undo."""
    reset(propagated, token)


def span_in(context: Context) -> NoopSpan:
    """Its span."""
    return context.span


def with_span(span: NoopSpan, context: Context) -> Context:
    """`context` with that span running."""
    return context._replace(span=span)


def baggage_in(context: Context) -> dict[str, Member]:
    """Its baggage."""
    return dict(context.baggage)


def with_baggage(members: Mapping[str, Member], context: Context) -> Context:
    """`context` with those members beside those that it has."""
    return context._replace(baggage={**context.baggage, **members})


def with_parent(parent: TraceParent, states: Mapping[str, str], context: Context) -> Context:
    """`context` inside a span of another process."""
    ids = SpanContext(int(parent.trace_id, 16), int(parent.parent_id, 16), True, parent.flags, dict(states))
    return with_span(NoopSpan(ids), context)


def fields() -> frozenset[str]:
    """The headers that are passed on."""
    return FIELDS


def extract_others(headers: Mapping[str, list[str]], context: Context) -> Context:
    """There are no other formats."""
    return context


def inject_others(headers: Any, context: Context) -> None:
    """As above."""
