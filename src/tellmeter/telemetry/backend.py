"""What tracing is made of: OpenTelemetry's API (`api`) where it is installed, else `noop`; the same names in both."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol, cast

from ..guard import note
from .w3c import Member, TraceParent


class Backend(Protocol):
    """What `api` and `noop` have in common. A context is opaque: what the running code passes on, span and baggage."""

    def provider(self) -> Any: ...  # noqa: D102 - each says what it does
    def get_tracer(self, provider: Any, name: str) -> Any: ...  # noqa: D102
    def start(self, tracer: Any, name: str, context: Any, kind: Any, attributes: Any, links: Any) -> Any: ...  # noqa: D102
    def record(self, span: Any, error: BaseException) -> str: ...  # noqa: D102
    def fail(self, span: Any, error: BaseException) -> None: ...  # noqa: D102
    def status_of(self, status: object, description: str | None) -> Any: ...  # noqa: D102
    def empty(self) -> Any: ...  # noqa: D102
    def current(self) -> Any: ...  # noqa: D102
    def attach(self, context: Any) -> Any: ...  # noqa: D102
    def detach(self, token: Any) -> None: ...  # noqa: D102
    def span_in(self, context: Any) -> Any: ...  # noqa: D102
    def with_span(self, span: Any, context: Any) -> Any: ...  # noqa: D102
    def baggage_in(self, context: Any) -> dict[str, Member]: ...  # noqa: D102
    def with_baggage(self, members: Mapping[str, Member], context: Any) -> Any: ...  # noqa: D102
    def with_parent(self, parent: TraceParent, states: Mapping[str, str], context: Any) -> Any: ...  # noqa: D102
    def fields(self) -> frozenset[str]: ...  # noqa: D102
    def extract_others(self, headers: Mapping[str, list[str]], context: Any) -> Any: ...  # noqa: D102
    def inject_others(self, headers: Any, context: Any) -> None: ...  # noqa: D102


@functools.cache
def backend() -> Backend:
    """OpenTelemetry's API where it is installed, with or without the SDK, else `noop`."""
    try:
        from . import api

        return cast("Backend", api)
    except ImportError:
        pass
    except Exception as error:  # a half-installed one
        note("opentelemetry", error)
    from . import noop

    return cast("Backend", noop)
