"""meter_stream: a stream that no hook sees, metered as one LLM call, and otherwise what it was."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable, Mapping
from contextvars import Token
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypedDict, TypeVar, Unpack, overload

from ..cleaning import MODEL_LENGTH, SHORT_LENGTH, clean_text
from ..context import enclosing, reset
from ..errors import ConfigError
from ..process import get_metrics_collector
from ..streams.options import Callback, read_options
from .items import TextOf, text_finder
from .own_call import provider_by
from .stream_call import StreamCall
from .wrapping import kind_of

T = TypeVar("T")

clock = time.perf_counter_ns


class _Metered:
    """A stream, or who gets one, with its call. What is not told apart here is the source's own."""

    __slots__ = ("__weakref__", "_advance", "_source", "_within", "call")

    def __init__(self, source: Any, call: StreamCall) -> None:
        self._source = source
        self._advance: Callable[..., Any] | None = None
        self._within: Any = call  # what the steps run inside of
        self.call = call

    def __getattr__(self, name: str) -> Any:
        if name in ("_source", "call"):  # not there yet
            raise AttributeError(name)
        return getattr(self._source, name)

    def _return(self, token: Token[Any]) -> None:
        """What runs from here on is outside of the source again."""
        self._within = enclosing.get()
        reset(enclosing, token)

    def __del__(self) -> None:
        # The source is closed outside of the call, then: setting a context variable in a finalizer, which the garbage
        # collector may run while another is being set, crashes Python 3.11 and before (python/cpython#148891).
        try:
            self.call.dropped()
        except AttributeError:  # it was never made
            return


class MeteredStream(_Metered, Generic[T]):
    """An iterator, and a block that closes it. `call` is its `Call`, to say what the items do not state."""

    __slots__ = ()

    def __iter__(self) -> Self:
        if not hasattr(self._source, "__next__"):  # it gives another iterator each time
            self._advance = iter(self._source).__next__
        return self

    def __next__(self) -> T:
        return self._step(self._advance or self._first())  # type: ignore[no-any-return]

    def _first(self) -> Callable[..., Any]:
        source = self._source
        self._advance = source.__next__ if hasattr(source, "__next__") else iter(source).__next__
        return self._advance

    def _step(self, advance: Callable[[], Any]) -> Any:
        call = self.call
        token = enclosing.set(self._within)
        if call._not_ended:
            call.asked_at(clock())
        try:
            item = advance()
        except BaseException as error:
            call.raised(error)
            raise
        finally:
            self._within = enclosing.get()
            enclosing.reset(token)
        call.came(item)
        return item

    def close(self) -> Any:
        """Close the source, where it can be closed, and end the call."""
        return self._leave("close")

    def __enter__(self) -> Self:
        if hasattr(self._source, "__enter__"):
            self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        if hasattr(self._source, "__exit__"):
            return self._leave("__exit__", kind, error, trace)
        self.close()
        return None

    def _leave(self, name: str, *given: Any) -> Any:
        token = enclosing.set(self._within)
        try:
            leave = getattr(self._source, name, None)
            return None if leave is None else leave(*given)
        finally:
            self._return(token)
            self.call.closed()


class MeteredGenerator(MeteredStream[T]):
    """A generator."""

    __slots__ = ()

    def send(self, value: Any) -> T:
        """As the generator's own."""
        return self._step(partial(self._source.send, value))  # type: ignore[no-any-return]

    def throw(self, *error: Any) -> T:
        """As the generator's own."""
        return self._step(partial(self._source.throw, *error))  # type: ignore[no-any-return]


class MeteredAsyncStream(_Metered, Generic[T]):
    """An async iterator, and a block that closes it. `call` is its `Call`, to say what the items do not state."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        if not hasattr(self._source, "__anext__"):
            self._advance = aiter(self._source).__anext__
        return self

    def __anext__(self) -> Awaitable[T]:
        return self._async_step(self._advance or self._async_first())

    def _async_first(self) -> Callable[..., Any]:
        source = self._source
        self._advance = source.__anext__ if hasattr(source, "__anext__") else aiter(source).__anext__
        return self._advance

    async def _async_step(self, advance: Callable[..., Any], *given: Any) -> Any:
        call = self.call
        token = enclosing.set(self._within)
        if call._not_ended:
            call.asked_at(clock())
        try:
            item = await advance(*given)
        except BaseException as error:
            call.raised(error)
            raise
        finally:
            self._return(token)
        call.came(item)
        return item

    async def aclose(self) -> Any:
        """Close the source, where it can be closed, and end the call."""
        return await self._async_leave("aclose" if hasattr(self._source, "aclose") else "close")

    async def __aenter__(self) -> Self:
        if hasattr(self._source, "__aenter__"):
            await self._source.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        if hasattr(self._source, "__aexit__"):
            return await self._async_leave("__aexit__", kind, error, trace)
        await self.aclose()
        return None

    async def _async_leave(self, name: str, *given: Any) -> Any:
        token = enclosing.set(self._within)
        try:
            leave = getattr(self._source, name, None)
            left = None if leave is None else leave(*given)
            return await left if inspect.isawaitable(left) else left
        finally:
            self._return(token)
            self.call.closed()


class MeteredAsyncGenerator(MeteredAsyncStream[T]):
    """An async generator."""

    __slots__ = ()

    def asend(self, value: Any) -> Awaitable[T]:
        """As the generator's own."""
        return self._async_step(self._source.asend, value)

    def athrow(self, *error: Any) -> Awaitable[T]:
        """As the generator's own."""
        return self._async_step(self._source.athrow, *error)


class MeteredEither(MeteredStream[T], MeteredAsyncStream[T]):
    """What is both, as LiteLLM's streams are."""

    __slots__ = ()


class MeteredCallback(_Metered):
    """A function that gets the chunks, and the block in which they are produced."""

    __slots__ = ()

    @property
    def __wrapped__(self) -> Any:
        return self._source

    def __call__(self, *given: Any, **named: Any) -> Any:
        """As the function's own; the first argument is a chunk."""
        self.call.came_to(given, named)
        try:
            return self._source(*given, **named)
        finally:
            self.call.goes_on()

    def __enter__(self) -> Self:
        self.call.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call.leave()
        self.call.over("" if error is not None else "success", error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class MeteredAsyncCallback(MeteredCallback):
    """A coroutine function that gets the chunks, and the block in which they are produced."""

    __slots__ = ()

    async def __call__(self, *given: Any, **named: Any) -> Any:
        """As the coroutine function's own; the first argument is a chunk."""
        self.call.came_to(given, named)
        try:
            return await self._source(*given, **named)
        finally:
            self.call.goes_on()


class _Said(TypedDict, total=False):
    provider: str
    model: str
    operation: str
    request_id: str | None
    text: str | TextOf | None
    callback: Callback | None
    interval: float | None
    interval_ms: float | None
    enabled: bool | None
    include_raw_chunks: bool | None
    stall_after_ms: float | None


@overload
def meter_stream(source: AsyncGenerator[T, Any], **said: Unpack[_Said]) -> MeteredAsyncGenerator[T]: ...
@overload
def meter_stream(source: AsyncIterable[T], **said: Unpack[_Said]) -> MeteredAsyncStream[T]: ...
@overload
def meter_stream(source: Generator[T, Any, Any], **said: Unpack[_Said]) -> MeteredGenerator[T]: ...
@overload
def meter_stream(source: Iterable[T], **said: Unpack[_Said]) -> MeteredStream[T]: ...
@overload
def meter_stream(source: Callable[..., Any], **said: Unpack[_Said]) -> MeteredCallback: ...
def meter_stream(
    source: Any,
    *,
    provider: str = "",
    model: str = "",
    operation: str = "chat",
    request_id: str | None = None,
    text: str | TextOf | None = None,
    **options: Any,
) -> Any:
    """Meter a stream of one's own, or a stream that no hook sees, as one LLM call.

        for token in meter_stream(llm(prompt), provider="local", model="llama-3"): ...
        with meter_stream(show, provider="local", model="llama-3") as on_token: llm(prompt, on_token)

    The call begins here and ends with the stream: exhausted it is a success, closed or dropped before it is
    closed_early, dropped before its first item abandoned. An item is one chunk of the record: a text of so many bytes
    of UTF-8, bytes, or an object of as many bytes as its text. What items state of tokens, model, finish reason and
    tools is recorded, as is what is set on the `call` of what comes back; else output tokens are estimated. Where
    `instrument()` sees the provider call inside, that one is recorded instead of this one.

    Args:
        source: an iterator, an iterable or a generator, sync or async; what comes back is one, too, and has the
            source's other attributes. Or a function, sync or async, that gets the chunks; what comes back is called in
            its place, in a `with` block that ends with the stream.
        provider: who answers; by the model's name where it is not given.
        model: what is asked for; what the items state where it is not given.
        operation: `chat`, or what else the call does.
        request_id: the provider's; what the items state where it is not given.
        text: where an item has its text, as a function or a path as `choices.0.delta.content`; where the usual SDKs
            have it, if it is not given.
        options: how the stream is watched, under the names of `StreamOptions`; `interval` is `interval_ms`.

    Raises:
        ConfigError: nothing that can be metered; a `text` that is no function or path; wrong options.
    """
    made = _kind(source)
    finder = text_finder(text)
    watching = read_options(options)
    named = clean_text(model or "", "model", MODEL_LENGTH)
    call = StreamCall(
        get_metrics_collector(),
        provider=clean_text(provider or "", "provider", SHORT_LENGTH) or provider_by(named),
        model=named,
        operation=clean_text(operation or "chat", "operation", SHORT_LENGTH),
        method="stream",
        request_id=request_id,
    )
    call.call_options = watching if options else None
    call.begin(source, finder)
    return made(source, call)


def _kind(source: Any) -> type[_Metered]:
    """What a source is metered by."""
    problem = "it must be an iterator or an iterable, sync or async, or a function that gets the chunks"
    has = partial(hasattr, type(source))
    if inspect.isroutine(source) or isinstance(source, partial):
        kind = kind_of(source)
        if kind not in _CALLBACKS:
            raise ConfigError("meter_stream() of a generator function: call it, and meter what it gives")
        return _CALLBACKS[kind]
    is_sync = has("__next__") or has("__iter__")
    if has("__anext__") or has("__aiter__"):
        return MeteredEither if is_sync else MeteredAsyncGenerator if has("asend") else MeteredAsyncStream
    if inspect.isawaitable(source):
        problem = "await it first, and meter what it gives"
    elif isinstance(source, (str, bytes, bytearray, Mapping)):
        problem = "its parts are no chunks of a stream"
    elif is_sync:
        return MeteredGenerator if has("send") else MeteredStream
    elif callable(source) and not isinstance(source, type):
        return _CALLBACKS.get(kind_of(source), MeteredCallback)
    raise ConfigError(f"meter_stream() of a {type(source).__name__}: {problem}")


_CALLBACKS = {"plain": MeteredCallback, "coroutine": MeteredAsyncCallback}
