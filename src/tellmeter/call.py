"""Call: one call in progress, and the guarantee that it ends in exactly one record."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from .config import MetricsConfig
from .context import NO_TRACE, current_trace, enclosing, options_in_force, propagated, tags_in_force
from .failures import error_category
from .guard import note
from .pipeline import lifecycle
from .prices import PriceBook
from .records import AgentMetrics, StreamMetrics, uuid7
from .usage import Usage

if TYPE_CHECKING:
    from .streams.meter import StreamMeter
    from .streams.options import StreamOptions
    from .streams.running import Running

CALL_BYTES = 2048  # about what a call in progress holds beside the bodies it refers to


class Target(Protocol):
    """Where a call goes when it ended: a collector."""

    config: MetricsConfig
    prices: PriceBook
    open_calls: dict[int, Call]

    def submit(self, call: Call) -> None:
        """Take an ended call; never blocks, never raises."""

    def count_stall(self, call: Call, stream_id: str) -> None:
        """Count that the provider of a call's running stream fell silent; never raises."""


class CallSpan(Protocol):
    """The span of a call in a trace. Nothing in it raises."""

    def enter(self, call: Call) -> None:
        """What runs from here on sends a request of the call."""

    def leave(self) -> None:
        """The request is answered, in the same context; more may follow."""

    def asked(self, request: Any) -> None:
        """Take note of the HTTP request whose answer counts, on the router thread."""

    def end(self, call: Call, record: AgentMetrics | None) -> None:
        """The record is made; None where none is."""


new_span: Callable[[], CallSpan] | None = None
"""Makes the span of a call that begins, where calls are traced (`telemetry.llm_spans`); never raises."""


class CallSighting(Protocol):
    """What is known of a call, for whoever else is told of calls and must not count it twice. Nothing in it raises."""

    def end(self, call: Call, record: AgentMetrics | None) -> None:
        """The record is made; None where none is."""


see_call: Callable[[Call], CallSighting] | None = None
"""Notes a call that begins, where spans of others become calls (`telemetry.span_processor`); never raises."""

# Exceptions by the names in their MRO: no HTTP or async library is imported to recognise its own.
_CANCELLED = frozenset({"CancelledError", "Cancelled", "GeneratorExit", "KeyboardInterrupt", "SystemExit"})
_TIMEOUT = frozenset({"TimeoutError", "TimeoutException", "APITimeoutError", "Timeout"})


def class_names(error: BaseException) -> tuple[str, ...]:
    """The names of an exception's class and its bases, the class first."""
    return tuple(kind.__name__ for kind in type(error).__mro__)


def status_of(error: BaseException) -> str:
    """The status of a call that `error` ended."""
    names = set(class_names(error))
    if names & _CANCELLED:
        return "cancelled"
    return "timeout" if names & _TIMEOUT else "error"


class Call:
    """One call in progress. As a context manager (sync or async) it ends with its block, by its exception if any.

    What the caller learns may be set on it while it runs: `model`, `response_model`, `provider`, `operation`,
    `input_tokens`, `output_tokens`, `cached_tokens`, `cache_write_tokens`, `reasoning_tokens`, `tokens_estimated`,
    `cost_usd`, `finish_reason`, `tools_used`, `request_id`, `retries`, `retry_delay_ms`, `status_code`, `tags`.
    A failure in setting, pricing or recording never reaches the block.
    """

    # On the class, so that a call in progress costs no more than what is known of it.
    response_model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    tokens_estimated: bool = False
    cost_usd: float | None = None
    finish_reason: str | None = None
    tools_used: Iterable[str] = ()
    retries: int = 0
    retry_delay_ms: float = 0.0
    status_code: int | None = None
    tags: Mapping[str, str] = {}
    response_id: str | None = None
    span: CallSpan | None = None
    sighting: CallSighting | None = None
    attempts: tuple[str, ...] | None = (
        None  # the HTTP status or outcome of each, once the record is made; None: unknown
    )
    unpriced: bool = False  # the usage is unknown, and so is what it cost
    refused: bool = False  # the provider did nothing, and bills nothing, whatever the model costs
    meter: StreamMeter | None = None  # of the stream that is its answer
    running: Running | None = None  # where that stream is watched
    stream_id: str = ""  # the stream's name, where it has one before it begins
    client_options: StreamOptions | None = None  # what the client that makes the call says of its streams
    call_options: StreamOptions | None = None  # what is said of this call's

    def __init__(
        self,
        target: Target,
        *,
        provider: str = "",
        model: str = "",
        operation: str = "chat",
        method: str = "generate",
        request_id: str | None = None,
    ) -> None:
        self.target = target
        self.provider = provider
        self.model = model
        self.operation = operation
        self.method = method
        self.request_id = request_id
        self._begin()

    def _begin(self) -> None:
        # Every function that is called here costs a microsecond between two SDK calls, whose code has driven ours from
        # the processor's caches; hence the context variable itself, and no look at a trace where nobody traces.
        self._context_tags = tags_in_force.get()
        self._options = options_in_force.get()
        traced = "opentelemetry.trace" in sys.modules or propagated.get() is not None
        self._trace = current_trace() if traced else NO_TRACE
        if new_span is not None:
            self.span = new_span()
        if see_call is not None:
            self.sighting = see_call(self)
        self._generation = lifecycle.forks
        self._first_token_at = 0
        self._ended_at = 0
        self._status = ""
        self._error: tuple[str, ...] = ()  # class names only: an exception holds frames, and its message holds prompts
        self._not_ended = [None]  # whoever pops it ends the call
        self.target.open_calls[id(self)] = self
        outer = enclosing.get()
        if outer is not None:
            outer.contain(self)
        self.wall = time.time()
        self.started = time.perf_counter_ns()

    def first_token(self) -> None:
        """Note that the first content arrived, for a stream that no hook sees. Later calls change nothing."""
        self._first_token_at = self._first_token_at or time.perf_counter_ns()

    def end(self, status: str = "", error: BaseException | None = None) -> None:
        """End the call; only the first end counts. `status` is derived from `error` where it is not given."""
        try:
            self._not_ended.pop()
        except IndexError:
            return
        self._ended_at = time.perf_counter_ns()
        self.target.open_calls.pop(id(self), None)
        if error is not None:
            self._error = class_names(error)
            status = status or status_of(error)
        self._status = status
        if self.running is not None:
            self.running.over = True
        if self._generation == lifecycle.forks:  # the copy in a forked child belongs to the parent
            self._submit()

    def _submit(self) -> None:
        self.target.submit(self)

    def discard(self) -> None:
        """End the call without a record, for what is counted elsewhere; nothing happens once it has ended."""
        try:
            self._not_ended.pop()
        except IndexError:
            return
        self.target.open_calls.pop(id(self), None)
        self.sighting = None
        running, self.running = self.running, None
        if running is not None:
            running.leave()

    def is_recorded(self) -> bool:
        """Whether a record comes of it, as far as that can be told while it is in progress."""
        return True

    def live(self) -> tuple[str, str, bool]:
        """Provider and model of the call in progress as far as they are known, and whether it is a running stream."""
        return self.provider or "unknown", self.model or "unknown", self.method == "stream"

    def live_tags(self) -> Mapping[str, str]:
        """The tags of the call in progress."""
        return {**self._context_tags, **self.tags}

    def watch(self, meter: StreamMeter) -> None:
        """Watch the stream that begins, as the process, the client, the code around and the call say; never raises."""
        self.meter = meter
        meter.stream_id = self.stream_id
        if self.running is not None:  # another attempt, after one that broke off
            self.running.follow(meter)
            return
        try:
            from .streams.watching import watch  # with the first stream

            self.running = watch(self, meter, self.target.config, self.client_options, self._options, self.call_options)
        except Exception as error:
            note("stream", error)

    def stalled(self, stream_id: str) -> None:
        """Count that the provider fell silent."""
        self.target.count_stall(self, stream_id)

    def recorded(self, record: AgentMetrics | None) -> None:
        """Tell of the end of a call and its stream, now that its record is made; None where none is made."""
        span, self.span = self.span, None
        if span is not None:
            span.end(self, record)
        sighting, self.sighting = self.sighting, None
        if sighting is not None:
            sighting.end(self, record)
        running, self.running = self.running, None
        if running is None:
            return
        if record is not None:
            running.end(record.stream, STREAM_STATUS[record.status], record.error_class)
        else:
            running.end(None, STREAM_STATUS[self._status or "success"], self._error[0] if self._error else None)

    @property
    def ended(self) -> bool:
        """Whether the call is over."""
        return not self._not_ended

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error=error)

    async def __aenter__(self) -> Call:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error=error)

    # ------------------------------------------------------------------ on the router thread

    def size(self) -> int:
        """About how many bytes the ended call holds until it is finished."""
        return CALL_BYTES

    def finish(self) -> AgentMetrics | None:
        """Make the record; None for what turns out to be no LLM call."""
        status = self._status or "success"
        usage = Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            cache_write_tokens=self.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens,
            cost_usd=self.cost_usd,
        )
        return self._record(
            usage=usage,
            status=status,
            error_class=self._error[0] if self._error else None,
            error_category=error_category(self.status_code, None, None, self._error) if self._error else None,
            stream=self._manual_stream(status),
        )

    def _record(
        self,
        *,
        usage: Usage,
        status: str,
        error_class: str | None,
        error_category: str | None,
        stream: StreamMetrics | None,
        service_tier: str | None = None,
    ) -> AgentMetrics:
        config = self.target.config
        provider = self.provider or "unknown"
        cost: float | None = None
        version: str | None = None
        if config.enable_cost_tracking and self.refused:
            cost = 0.0
        elif config.enable_cost_tracking and not self.unpriced:
            cost, version = self.target.prices.cost(
                provider, self.model, self.response_model, usage, at=self.wall, service_tier=service_tier
            )
        return AgentMetrics(
            model=self.model or "unknown",
            timestamp=self.wall,
            response_model=self.response_model,
            provider=provider,
            operation=self.operation,
            method=self.method,
            latency_ms=(self._ended_at - self.started) / 1e6,
            status=status,
            error_class=error_class,
            error_category=error_category,
            status_code=self.status_code,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            tokens_estimated=self.tokens_estimated,
            cost_usd=cost,
            price_version=version,
            retries=self.retries,
            retry_delay_ms=self.retry_delay_ms,
            finish_reason=self.finish_reason,
            tools_used=self.tools_used,  # type: ignore[arg-type]  # any iterable of names is made a tuple there
            request_id=self.request_id,
            trace_id=self._trace.trace_id,
            span_id=self._trace.span_id,
            parent_id=self._trace.parent_id,
            stream=stream,
            tags={**self._context_tags, **self.tags},
        )

    def _manual_stream(self, status: str) -> StreamMetrics | None:
        if self.method != "stream" or not self.target.config.enable_streaming_metrics:
            return None
        duration = (self._ended_at - self.started) / 1e6
        first = (self._first_token_at - self.started) / 1e6 if self._first_token_at else None
        return StreamMetrics(
            stream_id=self.stream_id or uuid7(),
            provider=self.provider or "unknown",
            model=self.model,
            start_time=self.wall * 1000.0,
            current_time=self.wall * 1000.0 + duration,
            duration_ms=duration,
            time_to_first_chunk_ms=first,
            time_to_first_token_ms=first,
            output_tokens=self.output_tokens,
            tokens_per_second=self.output_tokens / duration * 1000.0 if duration else 0.0,
            last_error=self._error[0] if self._error else None,
            error_count=1 if self._error else 0,
            status=STREAM_STATUS[status],
        )


# How a call's status reads as its stream's: a timeout of the HTTP client is an error of the stream.
STREAM_STATUS = {
    "success": "completed",
    "error": "error",
    "timeout": "error",
    "cancelled": "cancelled",
    "closed_early": "closed_early",
    "abandoned": "abandoned",
    "rejected": "error",
}
