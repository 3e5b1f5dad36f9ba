"""TracingManager: spans around one's own code, and traces that go on in other processes.

Spans come from the tracer provider that the program has. None of it raises into the program, or writes down what an
exception says: its class is all that a span gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from ..counts import count
from ..guard import note
from .backend import backend
from .fitting import fit_attributes, fit_text, fit_value
from .noop import NoopSpan, Span
from .propagation import extract, inject
from .scopes import BaggageScope, OpenSpan, SpanScope
from .w3c import Member, is_baggage_name

H = TypeVar("H")
Attributes = Mapping[str, Any] | None
SCOPE = "tellmeter"


class TracingManager:
    """Spans, baggage and propagation, with whatever OpenTelemetry the program has, or none.

    Args:
        tracer_provider: where spans come from; the global provider, also one that is set later, without it.
    """

    def __init__(self, tracer_provider: Any = None) -> None:
        self._provider = tracer_provider
        self._own: tuple[Any, Any] = (self, None)  # a provider, and our tracer of it: making one costs more than a span

    def get_tracer(self, name: str = SCOPE) -> Any:
        """An OpenTelemetry tracer, or a `NoopTracer`."""
        provider = backend().provider() if self._provider is None else self._provider
        known, tracer = self._own
        if known is provider and name == SCOPE:
            return tracer
        tracer = backend().get_tracer(provider, name)
        if name == SCOPE:
            self._own = provider, tracer
        return tracer

    def begin(
        self,
        name: str,
        context: Any = None,
        kind: Any = None,
        attributes: Attributes = None,
        links: Iterable[Any] | None = None,
    ) -> OpenSpan:
        """A new span, not yet entered; arguments as of `start_span`. Never raises."""
        api = backend()
        around = api.empty()
        try:
            around = api.current()
            if context is not None:
                if isinstance(context, type(api.empty())):
                    around = context
                else:
                    count("tracing_faults", "context")
            title = fit_text(name if isinstance(name, str) else type(name).__name__)
            span = api.start(self.get_tracer(), title, around, kind, fit_attributes(attributes), links or ())
            return OpenSpan(span, api.with_span(span, around))
        except Exception as error:
            note("tracing", error)
            return OpenSpan(NoopSpan(), around)

    def start_span(
        self,
        name: str,
        *,
        context: Any = None,
        kind: Any = None,
        attributes: Attributes = None,
        links: Iterable[Any] | None = None,
    ) -> SpanScope:
        """A span around a block, with `with` or `async with`; it begins with the block, which yields it.

        An exception that leaves the block is recorded by its class, and makes the status an error; a cancellation does
        neither.

        Args:
            name: of the operation, with no values in it: `search`, not `search for cats`.
            context: the parent, as `extract_context` gives it; without one, or None, the running code's.
            kind: internal, server, client, producer or consumer, or a SpanKind; internal without one.
            attributes: see `set_attributes`.
            links: extracted contexts, spans or span contexts; each alone, or in a pair with attributes.
        """
        return SpanScope(lambda: self.begin(name, context, kind, attributes, links))

    span = async_span = start_span

    def get_current_span(self) -> Span:
        """The span that the running code is in; one that records nothing where there is none."""
        try:
            return cast("Span", backend().span_in(backend().current()))
        except Exception as error:
            note("tracing", error)
            return NoopSpan()

    # ------------------------------------------------------------------ on the current span

    def add_event(self, name: str, attributes: Attributes = None) -> None:
        """Add an event to the current span."""
        self._on_span(lambda span: span.add_event(fit_text(name), fit_attributes(attributes)))

    def set_attribute(self, key: str, value: object) -> None:
        """Set an attribute of the current span; see `set_attributes`."""
        self._on_span(lambda span: span.set_attributes(fit_attributes({key: value})))

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the current span.

        Texts, numbers, bools and sequences of them are kept, bounded; of anything else the name of its type. None is
        left out.
        """
        self._on_span(lambda span: span.set_attributes(fit_attributes(attributes)))

    def record_exception(self, exception: BaseException, escaped: bool = True) -> None:
        """Record an exception's class in the current span; `escaped` makes its status an error, too."""
        api = backend()
        self._on_span(lambda span: (api.fail if escaped else api.record)(span, exception))

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Set the current span's status: ok, error or unset, a StatusCode, or a Status. Only an error is described."""

        def change(span: Span) -> None:
            known = backend().status_of(status, description)
            if known is not None:
                span.set_status(known)

        self._on_span(change)

    def _on_span(self, change: Callable[[Span], object]) -> None:
        try:
            span = self.get_current_span()
            if span.is_recording():
                change(span)
        except Exception as error:
            note("tracing", error)

    # ------------------------------------------------------------------ baggage

    def set_baggage(self, name: str, value: object) -> BaggageScope:
        """A block, with `with` or `async with`, whose outgoing requests carry a value, in the header `baggage`.

        Everybody on the way can read it: no secrets. A name that HTTP does not allow is counted, and sets nothing.
        """
        if is_baggage_name(name):
            return BaggageScope({name: Member(str(fit_value(value)))})
        count("tracing_faults", "baggage")
        return BaggageScope({})

    def get_baggage(self, name: str) -> str | None:
        """A value that was set around the running code, or by a caller of this process."""
        try:
            member = backend().baggage_in(backend().current()).get(name)
        except Exception as error:
            note("tracing", error)
            return None
        return None if member is None else member.value

    # ------------------------------------------------------------------ propagation

    def extract_context(self, headers: Any) -> Any:
        """What a request's headers say of its trace and baggage, as `start_span(context=)` takes it; None for nothing.

        W3C's headers, and those of other propagators that the program has. Attaches nothing, never raises.

        Args:
            headers: see `w3c.headers_of`; names in any case, bytes or str.
        """
        return extract(headers)

    def inject_context(self, headers: H, *, context: Any = None) -> H:
        """Write the current span and baggage into the headers of a request, and give them back. Never raises.

        Args:
            headers: any mutable mapping. What it had under the same names, in any case, is replaced.
            context: what to write instead of the running code's, as `extract_context` gives it.
        """
        inject(headers, context)
        return headers


_manager = TracingManager()


def get_tracing_manager() -> TracingManager:
    """The process's manager, on the global tracer provider."""
    return _manager


start_span = start_async_span = _manager.start_span
add_span_event = _manager.add_event
set_span_attribute = _manager.set_attribute
set_span_attributes = _manager.set_attributes
record_span_exception = _manager.record_exception
set_span_status = _manager.set_status
get_current_span = _manager.get_current_span
