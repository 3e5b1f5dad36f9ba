"""Exchange: one attempt of a call on the wire, its response watched as the application reads it."""

from __future__ import annotations

import contextvars
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from ..call import class_names
from ..counts import count
from ..streams.meter import StreamMeter
from .encoding import Decode, decoder_of
from .message import EVENT_STREAM, NO_HEADERS, PlainHeaders

if TYPE_CHECKING:
    from .calls import WireCall

BODY_BYTES = 8 * 1024 * 1024  # of a body that the application reads itself; only embeddings come near

BEGIN_BYTES = 4096  # of a body without a stream's content type; by so many it is known for a stream, however it is cut

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
        "kept_since",
        "kept_size",
        "meter",
        "noted",
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
        self.kept_size = 0
        self.kept_since = 0  # when the first of them was asked for
        self.noted: OneByOne | None = None  # what hands over the chunks where the meter does not take them itself
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
        kind = self.headers.get("content-type").partition(";")[0].strip().lower()
        failed = (self.status_code or 0) >= 400 and kind != EVENT_STREAM
        if kind in self.call.format.stream_types and not failed:
            self._meter_it()
        else:
            self.kept = []

    def _meter_it(self) -> None:
        call = self.call
        self.kept = None
        self.meter = StreamMeter(call.format.new_reader(), call.started, call.wall, clock())
        if self.noted is not None:
            self.meter.asked = self.noted.times
        call.watch(self.meter)

    def chunks(self) -> Chunks:
        """Where the chunks are noted: in the meter itself where nothing stands between."""
        if self.meter is not None and self.decode is None:
            return self.meter
        self.noted = OneByOne(self)
        if self.meter is not None:
            self.meter.asked = self.noted.times
        return self.noted

    def take(self, chunk: bytes, asked: int, arrived: int) -> None:
        """One chunk of the body as it came from the network."""
        if self.decode is not None:
            try:
                chunk = self.decode(chunk)
            except Exception:  # the HTTP library will tell the application
                self.decode, self.meter, self.kept = None, None, None
                count("undecodable_body")
        if self.kept is not None and self.kept_size < BEGIN_BYTES:
            chunk, asked = b"".join((*self.kept, chunk)), self.kept_since or asked
            self.kept, self.kept_size, self.kept_since = [], 0, asked
            if self.call.format.begins_stream(chunk):
                self._meter_it()  # whatever its content type says, or where there is none
        if self.meter is not None:
            self.meter.take(chunk, asked, arrived)
        elif self.kept is not None:
            self.kept.append(chunk)
            self.kept_size += len(chunk)
            if self.kept_size > BODY_BYTES:
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
            self.meter.catch_up()
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
            self.meter.finish(self.done)
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
