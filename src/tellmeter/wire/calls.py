"""A call seen on the wire: its attempts, how the last one ended, and the record made of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..call import CALL_BYTES, STREAM_STATUS, Call, Target
from ..context import suppression
from ..counts import count
from ..failures import error_category, error_class
from ..records import AgentMetrics, StreamMetrics
from ..streams.meter import StreamMeter
from ..streams.options import StreamOptions
from ..usage import Usage
from .answer import Answer, Asked, Format
from .exchange import Exchange, current_scope, sending
from .formats import SHARED, by_body, by_path, model_in_path
from .message import PlainHeaders, content_of
from .providers import provider_of

_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "x-amzn-requestid")


class WireCall(Call):
    """One logical call on the wire. `exchanges` are its attempts."""

    provider = ""
    model = ""
    method = "generate"
    known_provider = ""  # where the caller knows it better than the request tells
    finished: Callable[[AgentMetrics | None], None] | None = None  # called with the record, once it is made

    def __init__(
        self,
        target: Target,
        wire_format: Format,
        *,
        scoped: bool,
        options: StreamOptions | None = None,
    ) -> None:
        self.target = target
        self.format = wire_format
        self.operation = wire_format.operation
        self.scoped = scoped
        self.client_options = options
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

    def recorded(self, record: AgentMetrics | None) -> None:
        """As the base's, and tell who waits for this call."""
        super().recorded(record)
        if self.finished is not None:
            self.finished(record)

    def finish(self) -> AgentMetrics | None:
        """Read the bytes and make the record; None for what turns out to be no LLM call."""
        try:
            self.attempts = tuple(exchange.outcome for exchange in self.exchanges)
            if self.span is not None:
                self.span.asked(self.exchanges[-1].request)
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
            last.meter.finish(self._ended_at)  # the process ends before its stream
        answer = self._read_answer(last)
        if self.format.read_headers is not None:
            self.format.read_headers(answer, last.headers.get)
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
        named = self.format.read_path or model_in_path
        self.model = (asked.model if asked is not None else "") or named(url.path) or ""
        headers = PlainHeaders(request.headers)
        self.provider = self.known_provider or provider_of(
            url.host, url.port, headers, self.model, url.path, self.target.config.providers
        )
        return asked

    def _read_answer(self, last: Exchange) -> Answer:
        if last.kept is not None:
            last.body = b"".join(last.kept)
        if last.meter is None and last.body and self.format.begins_stream(last.body):
            # The application read a whole stream at once: one chunk, at the end.
            last.meter = StreamMeter(self.format.new_reader(), self.started, self.wall)
            self.watch(last.meter)
            if self.running is not None:
                self.running.over = True  # there is an end to tell of, and nothing before
            last.meter.take(last.body, last.sent, last.done)
            last.meter.finish()
        if last.meter is not None:
            found = last.meter.reader.answer
            assert isinstance(found, Answer)
            return found
        return self.format.read_answer(last.body or b"", last.status_code or 0) if last.body else Answer()

    def _describe(self, last: Exchange, answer: Answer, streamed: bool) -> None:
        self.operation = answer.operation or self.operation
        self.method = "stream" if streamed else "embed" if self.operation == "embeddings" else "generate"
        self.status_code = last.status_code
        self.response_model = answer.response_model
        self.response_id = answer.response_id
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
        """The provider's count; for a stream without one, or broken off before it, what has come (and say so)."""
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
            usage.output_tokens = meter.estimated_tokens
        elif meter is not None and status != "success" and meter.estimated_tokens > usage.output_tokens:
            self.tokens_estimated = True
            usage.output_tokens = meter.estimated_tokens
        return usage

    def _stream(self, last: Exchange, status: str, usage: Usage, error: str | None) -> StreamMetrics | None:
        if last.meter is None:
            return self._manual_stream(status) if self.method == "stream" and last.status_code == 200 else None
        if not last.meter.wanted:
            return None
        return last.meter.snapshot(
            now=last.done or self._ended_at,
            status=STREAM_STATUS[status],
            provider=self.provider,
            model=self.model,
            output_tokens=usage.output_tokens,
            last_error=error,
        )


def begin(
    collector_of: Callable[[], Target | None], request: Any, options: StreamOptions | None = None
) -> Exchange | None:
    """The attempt that a POST begins, or None for traffic that is no LLM call. `options` are the HTTP client's."""
    wire_format = by_path(request.url.path)
    if wire_format is None or sending.get() or suppression.get():
        return None
    collector = collector_of()
    if collector is None or not collector.config.enabled:
        return None
    if wire_format.name in SHARED:
        wire_format = by_body(wire_format, content_of(request))
    scope = current_scope.get()
    if scope is None or not scope.open:
        return WireCall(collector, wire_format, scoped=False, options=options).attempt(request)
    if scope.call is None:
        scope.call = WireCall(collector, wire_format, scoped=True, options=options)
    return scope.call.attempt(request)


def _cause(status: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """What tells the category where no exception did: an application that breaks off cancels."""
    if names or status == "error":
        return names
    return ("TimeoutError",) if status == "timeout" else ("CancelledError",)
