"""Hooks on boto3's clients of Amazon Bedrock, by botocore's documented events; its own code stays as it is.

https://docs.aws.amazon.com/boto3/latest/guide/events.html. A call of an operation emits before-call, then for each
attempt before-send, before-parse where there is an answer, and response-received; at last after-call, or
after-call-error. They follow each other in one context, so a context variable leads from one to the next.
"""

# ruff: noqa: D102  urllib3's own methods

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import wrapt

from ..call import CallSpan, status_of
from ..context import reset
from ..guard import note
from .exchange import Chunks, Exchange, Scope, current_scope
from .stream import Watch, fold

OPERATIONS = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")

Begin = Callable[[Any], Exchange | None]

clock = time.perf_counter_ns


def meter_client(client: Any, begin: Begin) -> None:
    """Have the Bedrock calls of a boto3 client metered; the `begin` that was given last counts.

    begin: gives the attempt that a request is, or None for what is not to be metered. The request has `method`, `url`
        (`scheme`, `host`, `port`, `path`), `headers` and `content`, as one of httpx has them.
    """
    events = client.meta.events
    handlers: dict[str, Callable[..., None]] = {
        "before-call": _before_call,
        "before-send": functools.partial(_before_send, begin),
        "before-parse": _answered,
        "response-received": _received,
        "after-call": _after_call,
        "after-call-error": _after_call,
    }
    for event, handler in handlers.items():
        for operation in OPERATIONS:
            name = f"{event}.bedrock-runtime.{operation}"
            unique_id = f"tellmeter-{name}"
            events.unregister(name, unique_id=unique_id)
            # Last: other handlers may answer in the network's place, or put another body in the place of its.
            events.register_last(name, _quiet(handler), unique_id=unique_id)


# ---------------------------------------------------------------------- the events


class _Running:
    """A call of an operation: its attempts are one call, the last of them is waiting for its answer.

    `exchange.sending` is not set, as the hooks on httpx do: no event tells of a KeyboardInterrupt, and what would be
    left behind hides the calls that follow. botocore sends by urllib3, which nobody else meters.
    """

    def __init__(self, outer: _Running | None) -> None:
        self.outer = outer
        self.scope = Scope()
        self._exchange: Exchange | None = None
        self._span: CallSpan | None = None

    def sent(self, request: Any, begin: Begin) -> None:
        token = current_scope.set(self.scope)
        try:
            exchange = begin(_Request(request))
        finally:
            reset(current_scope, token)
        if exchange is None:
            return
        self._exchange = exchange
        self._span = exchange.call.span
        if self._span is not None:
            self._span.enter(exchange.call)
        weakref.finalize(request, _quiet(self._lost), exchange).atexit = False

    def waiting(self) -> Exchange | None:
        """The attempt that is not answered yet; nobody gets it twice."""
        exchange, self._exchange = self._exchange, None
        span, self._span = self._span, None
        if span is not None:
            span.leave()
        return exchange

    def _lost(self, exchange: Exchange) -> None:
        """The request is gone, and nobody told of its end: what ended it was no `Exception`."""
        if exchange is not self._exchange:
            return
        if _current.get() is self:
            _current.set(self.outer)
        else:
            self._span = None  # it cannot be left from here
        self.waiting()
        exchange.ended("cancelled")
        self.scope.returned()


_current: ContextVar[_Running | None] = ContextVar("tellmeter_botocore", default=None)


def _quiet(handler: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(handler)
    def quiet(*args: Any, **kwargs: Any) -> None:
        try:
            handler(*args, **kwargs)
        except Exception as error:
            note("wire", error)

    return quiet


def _before_call(**_: Any) -> None:
    _current.set(_Running(_current.get()))


def _before_send(begin: Begin, request: Any, **_: Any) -> None:
    running = _current.get()
    if running is not None:
        running.sent(request, begin)


def _answered(response_dict: dict[str, Any], **_: Any) -> None:
    running = _current.get()
    exchange = running.waiting() if running is not None else None
    if exchange is None:
        return
    try:
        if exchange.answered(_Response(response_dict)):
            _watch(response_dict, Watch(exchange))
    except Exception as error:
        note("wire", error)
        exchange.ended("completed")


def _received(exception: Exception | None, response_dict: dict[str, Any] | None, **_: Any) -> None:
    if exception is None:
        _answered(response_dict or {})  # before-parse came with botocore 1.35.16
        return
    running = _current.get()
    exchange = running.waiting() if running is not None else None
    if exchange is not None:
        exchange.ended(status_of(exception), exception)


def _after_call(exception: Exception | None = None, **_: Any) -> None:
    running = _current.get()
    if running is None:
        return
    _current.set(running.outer)
    if exception is None:
        running.scope.returned()
    else:
        running.scope.raised(exception)


# ---------------------------------------------------------------------- requests and responses, as those of httpx


class _Url(NamedTuple):
    scheme: str
    host: str
    port: int | None
    path: str


class _Headers:
    """Headers as pairs of bytes, made when they are asked for; botocore has texts and bytes."""

    def __init__(self, given: Any) -> None:
        self._given = given

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        return [(_bytes(name), _bytes(value)) for name, value in self._given.items()]


class _Request:
    def __init__(self, request: Any) -> None:
        parts = urlsplit(request.url)
        self.method: str = request.method
        self.url = _Url(parts.scheme, parts.hostname or "", parts.port, unquote(parts.path))
        self.headers = _Headers(request.headers)
        body = request.body
        # A file is being uploaded: its bytes are botocore's alone.
        self.content = _bytes(body) if isinstance(body, str | bytes | bytearray) else b""


class _Response:
    def __init__(self, response: dict[str, Any]) -> None:
        self.status_code: int = response["status_code"]
        self.headers = _Headers(response["headers"])
        self._body = response["body"]

    @property
    def content(self) -> bytes:
        if not isinstance(self._body, bytes):
            raise TypeError("the body is still to be read")
        return self._body


def _bytes(text: str | bytes | bytearray) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)


# ---------------------------------------------------------------------- bodies that the application reads

_Proxy: Any = wrapt.ObjectProxy  # wrapt 1 has no types, wrapt 2 a generic one


def _watch(response: dict[str, Any], watch: Watch) -> None:
    body = response["body"]
    if hasattr(body, "_raw_stream"):  # a StreamingBody, which stays the one that botocore made
        body._raw_stream = WatchedBody(body._raw_stream, watch)
    else:
        response["body"] = WatchedBody(body, watch)


class WatchedBody(_Proxy):  # type: ignore[misc]
    """urllib3's response under an EventStream or a StreamingBody: what is read of it is noted, and passes as it is."""

    def __init__(self, body: Any, watch: Watch) -> None:
        super().__init__(body)
        self._self_watch = watch
        self._self_noted: Chunks | None = None
        self._self_over = False

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        return self._self_each(self.__wrapped__.stream(*args, **kwargs))

    def __iter__(self) -> Iterator[bytes]:
        return self._self_each(iter(self.__wrapped__))

    def __enter__(self) -> WatchedBody:
        self.__wrapped__.__enter__()
        return self

    def read(self, amt: int | None = None, *args: Any, **kwargs: Any) -> Any:
        data = self._self_pull(lambda: self.__wrapped__.read(amt, *args, **kwargs), None if amt == 0 else b"")
        if amt is None or amt < 0 or getattr(self.__wrapped__, "length_remaining", None) == 0:
            self._self_exhausted()
        return data

    def readinto(self, buffer: Any) -> int:
        def pull() -> bytes:
            size: int = self.__wrapped__.readinto(buffer)
            return bytes(memoryview(buffer).cast("B")[:size])

        return len(self._self_pull(pull, b"" if len(buffer) else None))

    def readlines(self, *args: Any) -> list[bytes]:
        lines: list[bytes] = []

        def pull() -> bytes:
            lines.extend(self.__wrapped__.readlines(*args))
            return b"".join(lines)

        self._self_pull(pull, b"")
        if not args:
            self._self_exhausted()
        return lines

    def close(self) -> None:
        self._self_closed()
        self.__wrapped__.close()

    def shutdown(self) -> None:
        self._self_closed()
        self.__wrapped__.shutdown()

    def __del__(self) -> None:
        if self._self_over:
            return
        if self._self_noted is None:
            self._self_watch.dropped(False)
        else:
            self._self_watch.closed()  # it was read, maybe to the end of what it says

    def _self_each(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        while (chunk := self._self_pull(lambda: next(chunks, None), None)) is not None:
            yield chunk

    def _self_pull(self, pull: Callable[[], Any], end: bytes | None) -> Any:
        """What `pull` gives; `end` is what says that there is no more."""
        if self._self_over:
            return pull()
        noted = self._self_noted
        if noted is None:
            noted = self._self_noted = self._self_watch.chunks()
        noted.times.append(clock())
        try:
            data = pull()
        except BaseException as error:
            self._self_over = True
            self._self_watch.broke(error)
            raise
        if data == end:
            self._self_exhausted()
            return data
        noted.times.append(clock())
        noted.chunks.append(data)
        if len(noted.chunks) >= noted.limit:
            fold(noted)
        return data

    def _self_exhausted(self) -> None:
        if self._self_over:
            return
        self._self_over = True
        missing = getattr(self.__wrapped__, "length_remaining", None)
        if missing:  # urllib3 is told not to mind, and a StreamingBody raises this
            self._self_watch.broke(_incomplete(self.__wrapped__.tell(), missing))
        else:
            self._self_watch.exhausted()

    def _self_closed(self) -> None:
        self._self_over = True
        self._self_watch.closed()


def _incomplete(read: int, missing: int) -> Exception:
    from botocore.exceptions import IncompleteReadError  # type: ignore[import-untyped]  # whose client this is

    error: Exception = IncompleteReadError(actual_bytes=read, expected_bytes=read + missing)
    return error
