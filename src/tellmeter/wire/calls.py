"""A call seen on the wire: its attempts, how the last one ended, and the record made of its bytes."""

from __future__ import annotations

import contextvars
import sys
import time
from typing import Any, Protocol

from ..call import CALL_BYTES, STREAM_STATUS, Call, Target, class_names, status_of
from ..context import suppression
from ..counts import count
from ..failures import error_category, error_class
from ..records import AgentMetrics, StreamMetrics
from ..streams.meter import StreamMeter
from ..usage import Usage
from .answer import Answer, Asked, Format
from .encoding import Decode, decoder_of
from .formats import by_path, model_in_path
from .message import NO_HEADERS, PlainHeaders, begins_event_stream, content_of, is_event_stream
from .providers import provider_of

BODY_BYTES = 8 * 1024 * 1024  # of a body that the application reads itself; only embeddings come near
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "x-amzn-requestid")

clock = time.perf_counter_ns


class Scope:
    """One logical request of an SDK: the attempts inside it are one call."""

    __slots__ = ("call", "open")

    def __init__(self) -> None:
        self.call: WireCall | None = None
        self.open = True

    def returned(self) -> None:
        """The SDK's request came back: the call is over, or goes on in its stream."""
        self.open = False
        if self.call is not None:
            self.call.scope_closed()

    def raised(self, error: BaseException) -> None:
        """The SDK gave up."""
        self.open = False
        if self.call is not None:
            self.call.end(error=error)


current_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("tellmeter_scope", default=None)
# Set while a metered request is being sent: a transport that sends through another client is not a second call.
sending: contextvars.ContextVar[bool] = contextvars.ContextVar("tellmeter_sending", default=False)


class Exchange:
    """One attempt: a request, and what is known of its response."""

    __slots__ = (
        "body",
        "call",
        "decode",
        "done",
        "ending",
        "error",
        "headers",
        "kept",
        "meter",
        "request",
        "sent",
        "status_code",
    )

    def __init__(self, call: WireCall, request: Any) -> None:
        self.call = call
        self.request = request
        self.status_code: int | None = None
        self.headers = NO_HEADERS
        self.body: bytes | None = None
        self.meter: StreamMeter | None = None
        self.decode: Decode | None = None
        self.kept: list[bytes] | None = None  # the parts of a body that is no event stream
        self.ending = ""  # "" while it is open
        self.error: tuple[str, ...] = ()
        self.done = 0
        self.sent = clock()

    def answered(self, response: Any) -> bool:
        """Note the response; True when its body is still to come, and is to be watched."""
        self.status_code = response.status_code
        self.headers = PlainHeaders(response.headers)
        try:
            self.body = response.content
        except Exception:  # ResponseNotRead: the body is still on its way
            self._watch()
            return True
        self.ended("completed")
        return False

    def _watch(self) -> None:
        try:
            self.decode = decoder_of(self.headers.get("content-encoding"))
        except LookupError:
            count("undecodable_body")
            return
        if is_event_stream(self.headers):
            self._meter_it()
        else:
            self.kept = []

    def _meter_it(self) -> None:
        call = self.call
        self.kept = None
        self.meter = StreamMeter(call.format.new_reader(), call.started, call.wall)

    def chunks(self) -> Chunks:
        """Where the chunks are noted: in the meter itself where nothing stands between."""
        return OneByOne(self) if self.meter is None or self.decode is not None else self.meter

    def take(self, chunk: bytes, asked: int, arrived: int) -> None:
        """One chunk of the body as it came from the network."""
        if self.decode is not None:
            try:
                chunk = self.decode(chunk)
            except Exception:  # the HTTP library will tell the application
                self.decode, self.meter, self.kept = None, None, None
                count("undecodable_body")
        if self.kept is not None and not self.kept and begins_event_stream(chunk):
            self._meter_it()  # whatever its content type says, or where there is none
        if self.meter is not None:
            self.meter.take(chunk, asked, arrived)
        elif self.kept is not None:
            self.kept.append(chunk)
            if len(self.kept) % 64 == 0 and sum(map(len, self.kept)) > BODY_BYTES:
                self.kept = None
                count("oversize_body")

    @property
    def outcome(self) -> str:
        """What became of the attempt: its HTTP status, else how it ended."""
        return str(self.status_code) if self.status_code else self.ending or "abandoned"

    def closed(self) -> None:
        """The application closed the body: at its end, or early."""
        if self.ending:
            return
        if self.meter is not None:
            self.meter.fold()
            if self.meter.reader.done:  # type: ignore[attr-defined]  # every format's reader has it
                self.ended("completed")
                return
        kind = sys.exc_info()[0]
        cancelled = kind is not None and kind.__name__ in ("CancelledError", "Cancelled")
        self.ended("cancelled" if cancelled else "closed_early")

    def ended(self, ending: str, error: BaseException | None = None) -> None:
        """The attempt is over; the first word counts."""
        if self.ending:
            return
        self.ending = ending
        self.done = clock()
        if error is not None:
            self.error = class_names(error)
        if self.meter is not None:
            self.meter.finish()
        self.call.exchange_ended()


class Chunks(Protocol):
    """Chunks of a body and their times (asked for, came): the stream appends both, and calls `fold` at `limit`."""

    chunks: list[bytes]
    times: list[int]
    limit: int

    def fold(self) -> None:
        """Read what waits."""


class OneByOne:
    """Hands each chunk to its exchange: for bodies that are encoded, kept, or not known yet."""

    limit = 1

    def __init__(self, exchange: Exchange) -> None:
        self.chunks: list[bytes] = []
        self.times: list[int] = []
        self._exchange = exchange

    def fold(self) -> None:
        """Hand over what waits."""
        chunks, times = self.chunks[:], self.times[:]
        self.chunks.clear()
        self.times.clear()
        for chunk, asked, arrived in zip(chunks, times[::2], times[1::2], strict=False):
            self._exchange.take(chunk, asked, arrived)


class WireCall(Call):
    """One logical call on the wire. `exchanges` are its attempts."""

    provider = ""
    model = ""
    method = "generate"

    def __init__(self, target: Target, wire_format: Format, *, scoped: bool) -> None:
        self.target = target
        self.format = wire_format
        self.operation = wire_format.operation
        self.scoped = scoped
        self.exchanges: list[Exchange] = []
        self._begin()

    def attempt(self, request: Any) -> Exchange:
        """Begin another attempt."""
        exchange = Exchange(self, request)
        self.exchanges.append(exchange)
        return exchange

    def exchange_ended(self) -> None:
        """An attempt ended; without a scope around it that ends the call."""
        if not self.scoped:
            self.end()

    def scope_closed(self) -> None:
        """The SDK's request came back; a stream that is still open ends the call later."""
        self.scoped = False
        if self.exchanges[-1].ending:
            self.end()

    def size(self) -> int:
        """About how many bytes the ended call holds until it is finished."""
        last = self.exchanges[-1]
        return CALL_BYTES + len(last.body or b"") + len(content_of(last.request))

    def live(self) -> tuple[str, str, bool]:
        """Provider and model of the call in progress, read from its request, and whether its stream is running."""
        exchanges = self.exchanges
        if not exchanges:
            return super().live()
        last = exchanges[-1]
        if not self.provider:
            self._read_request(last.request)
        return (*super().live()[:2], last.meter is not None and not last.ending)

    def is_recorded(self) -> bool:
        """Whether it is an LLM call, and not traffic to a path that looks like one."""
        return self.live()[:2] != ("unknown", "unknown")

    # ------------------------------------------------------------------ on the router thread

    def finish(self) -> AgentMetrics | None:
        """Read the bytes and make the record; None for what turns out to be no LLM call."""
        try:
            self.attempts = tuple(exchange.outcome for exchange in self.exchanges)
            return self._read(self.exchanges[-1])
        finally:
            self.exchanges = []  # they refer back to the call: leave no cycle to the garbage collector

    def _read(self, last: Exchange) -> AgentMetrics | None:
        asked = self._read_request(last.request)
        if asked is None and not self.model:
            if self.provider == "unknown":
                return None
            count("request_unreadable", self.provider)
        if last.meter is not None and not last.ending:
            last.meter.finish()  # the process ends before its stream
        answer = self._read_answer(last)
        self.model = self.model or answer.response_model or ""  # a stored prompt names the model
        streamed = last.meter is not None
        self._describe(last, answer, streamed or (asked is not None and asked.stream))
        status, names = self._outcome(last, answer)
        usage = self._usage(answer, last.meter, status)
        failed = status != "success"
        name = names[0] if names else None
        if failed and name is None and status == "error":
            name = error_class(self.status_code, self.format.name)
        category = None
        if failed:
            category = error_category(self.status_code, answer.error_type, answer.error_code, _cause(status, names))
        return self._record(
            usage=usage,
            status=status,
            error_class=name,
            error_category=category,
            stream=self._stream(last, status, usage, name),
            service_tier=answer.service_tier,
        )

    def _read_request(self, request: Any) -> Asked | None:
        """Read whom and what the request asks; None where its body does not tell."""
        asked = self.format.read_request(content_of(request))
        url = request.url
        self.model = (asked.model if asked is not None else "") or model_in_path(url.path) or ""
        headers = PlainHeaders(request.headers)
        self.provider = provider_of(url.host, url.port, headers, self.model, url.path, self.target.config.providers)
        return asked

    def _read_answer(self, last: Exchange) -> Answer:
        if last.kept is not None:
            last.body = b"".join(last.kept)
        if last.meter is None and last.body and begins_event_stream(last.body):
            # The application read a whole stream at once: one chunk, at the end.
            last.meter = StreamMeter(self.format.new_reader(), self.started, self.wall)
            last.meter.take(last.body, last.sent, last.done)
            last.meter.finish()
        if last.meter is not None:
            found: Answer = last.meter.reader.answer  # type: ignore[attr-defined]
            return found
        return self.format.read_answer(last.body or b"", last.status_code or 0) if last.body else Answer()

    def _describe(self, last: Exchange, answer: Answer, streamed: bool) -> None:
        self.method = "stream" if streamed else "embed" if self.operation == "embeddings" else "generate"
        self.status_code = last.status_code
        self.response_model = answer.response_model
        self.finish_reason = answer.finish_reason
        self.tools_used = answer.tools
        self.request_id = next(filter(None, map(last.headers.get, _REQUEST_ID_HEADERS)), answer.response_id)
        self.retries = len(self.exchanges) - 1
        if self.retries:
            pairs = zip(self.exchanges, self.exchanges[1:], strict=False)
            self.retry_delay_ms = sum(max(0, later.sent - sooner.done) for sooner, later in pairs) / 1e6
        else:
            # Without the SDK's scope each attempt is a call of its own; the SDK's header tells which one it is.
            attempt = PlainHeaders(last.request.headers).get("x-stainless-retry-count")
            if attempt.isdecimal() and int(attempt):
                self.tags = {"attempt": str(int(attempt) + 1)}

    def _outcome(self, last: Exchange, answer: Answer) -> tuple[str, tuple[str, ...]]:
        """Status and the exception's class names, the strongest evidence first."""
        if self._error:
            return self._status, self._error
        if last.error:
            return last.ending, last.error
        if answer.failed or (last.status_code or 0) >= 400:
            return "error", ()
        if last.ending in ("closed_early", "cancelled", "abandoned"):
            return last.ending, ()
        return self._status or ("success" if last.ending else "abandoned"), ()

    def _usage(self, answer: Answer, meter: StreamMeter | None, status: str) -> Usage:
        """The provider's count; for a stream without one, or broken off before it, its content events (and say so)."""
        usage = answer.usage
        if usage is None:
            if (self.status_code or 0) < 400 and (meter is not None or status == "success"):
                count("usage_missing", self.provider)
            usage = Usage()
            if meter is None:
                # Nothing is billed for what was refused; what else has no usage may have cost something.
                self.refused = (self.status_code or 0) >= 400
                self.unpriced = not self.refused
                return usage
            self.tokens_estimated = True
            usage.output_tokens = meter.reader.content_events
        elif meter is not None and status != "success" and meter.reader.content_events > usage.output_tokens:
            self.tokens_estimated = True
            usage.output_tokens = meter.reader.content_events
        return usage

    def _stream(self, last: Exchange, status: str, usage: Usage, error: str | None) -> StreamMetrics | None:
        if last.meter is None:
            return self._manual_stream(status) if self.method == "stream" and last.status_code == 200 else None
        return last.meter.snapshot(
            now=last.done or self._ended_at,
            status=STREAM_STATUS[status],
            provider=self.provider,
            model=self.model,
            output_tokens=usage.output_tokens,
            last_error=error,
        )


def begin(collector: Target, request: Any) -> Exchange | None:
    """The attempt that `request` begins, or None for traffic that is no LLM call."""
    if request.method != "POST":
        return None
    wire_format = by_path(request.url.path)
    if wire_format is None or sending.get() or suppression.get() or not collector.config.enabled:
        return None
    scope = current_scope.get()
    if scope is None or not scope.open:
        return WireCall(collector, wire_format, scoped=False).attempt(request)
    if scope.call is None:
        scope.call = WireCall(collector, wire_format, scoped=True)
    return scope.call.attempt(request)


def failed(exchange: Exchange, error: BaseException) -> None:
    """An attempt that ended in an exception instead of a response."""
    exchange.ended(status_of(error), error)


def _cause(status: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """What tells the category where no exception did: an application that breaks off cancels."""
    if names or status == "error":
        return names
    return ("TimeoutError",) if status == "timeout" else ("CancelledError",)
