"""StreamingResponse: an answer while it arrives, and whole once it has."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any

from ..errors import ConfigError, LLMError
from ..guard import note
from .background import run
from .calls import ClientCall
from .providers.base import Delta
from .response import GenerationResponse, TokenUsage, ToolCall, json_in, response_of
from .stream_events import Callbacks, StreamCompleted, StreamDelta, StreamFailed, StreamStarted, StreamUsage

Deltas = AsyncGenerator[Delta | None, None]


class StreamingResponse:
    """An answer as it arrives: `async for text in response`, once; or `await response.get_response()` for all of it.

    `await response` waits until the answer begins, `async with response` closes it whatever happens. A response that
    is not read to its end is closed with its iterator, and recorded as `closed_early`.
    """

    def __init__(self, deltas_of: Callable[[Callable[[ClientCall], None]], Deltas], callbacks: Callbacks) -> None:
        self._deltas = deltas_of(self._opened)
        self._callbacks = callbacks
        self._call: ClientCall | None = None
        self._begun = self._over = self._taken = False
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._tools: dict[int, list[ToolCall]] = {}
        self._response: GenerationResponse | None = None
        self._started = time.perf_counter()

    # ------------------------------------------------------------------ as it arrives

    def __aiter__(self) -> AsyncIterator[str]:
        if self._taken:
            raise ConfigError("the stream is read already; get_text() has what came of it")
        self._taken = True
        return self._read()

    def __await__(self) -> Generator[Any, None, StreamingResponse]:
        return self._begin().__await__()

    async def __aenter__(self) -> StreamingResponse:
        return await self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream here; what has come stays."""
        self._over = True
        await self._deltas.aclose()

    async def get_response(self) -> GenerationResponse:
        """The whole answer, read to its end.

        Raises:
            LLMError: it broke off; `get_text()` has what came before.
            ConfigError: it was closed before its end.
        """
        if self._response is None and not self._over and not self._taken:
            async for _ in self:
                pass
        if self._response is None:
            raise ConfigError("the stream was not read to its end; get_text() has what came of it")
        return self._response

    async def _begin(self) -> StreamingResponse:
        if not self._begun:
            self._begun = True
            try:
                await anext(self._deltas, None)
            except BaseException as error:
                await self._failed(error)
                raise
            if self._over:
                return self
            await self._tell(self._callbacks.on_start, lambda: StreamStarted(**self._who()))
        return self

    async def _read(self) -> AsyncGenerator[str, None]:
        await self._begin()
        if self._over:
            raise ConfigError("the stream is over; get_text() has what came of it")
        on_delta = self._callbacks.on_delta
        async with aclosing(self._deltas) as deltas:
            try:
                async for delta in deltas:
                    text = self._take(delta)
                    if not text:
                        continue
                    if on_delta is not None:
                        made = StreamDelta(**self._who(), delta=text, chunk_index=len(self._texts) - 1)
                        await self._tell(on_delta, lambda made=made: made)  # type: ignore[misc]
                    yield text
            except Exception as error:
                await self._failed(error)
                raise
        if not self._over:  # it was closed meanwhile
            await self._completed()

    def _take(self, delta: Delta | None) -> str:
        if delta is None:
            return ""
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        if delta.tool_index is not None and delta.tool is not None:
            self._tools.setdefault(delta.tool_index, []).append(delta.tool)
        if delta.text:
            self._texts.append(delta.text)
        return delta.text

    def _opened(self, call: ClientCall) -> None:
        self._call = call

    # ------------------------------------------------------------------ what came

    def get_text(self) -> str:
        """The text so far; all of it once the stream has been read."""
        return "".join(self._texts)

    def get_reasoning(self) -> str:
        """What the model thought aloud so far, where its provider tells."""
        return "".join(self._reasoning)

    def get_usage(self) -> TokenUsage | None:
        """The tokens, as soon as the stream is over; None before."""
        record = None if self._call is None else self._call.record
        return None if record is None else TokenUsage(record)

    def get_json(self) -> Any:
        """The text as JSON, with or without a Markdown fence around it.

        Raises:
            ValueError: it is none, or not whole yet.
        """
        return json_in(self.get_text())

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far; their arguments are whole once the stream has been read."""
        return tuple(map(ToolCall.joined, self._tools.values()))

    # ------------------------------------------------------------------ its end

    async def _completed(self) -> None:
        self._over = True
        call = self._call
        assert call is not None
        reply = (self.get_text(), self.tool_calls, None)
        self._response = response = response_of(call, *reply)
        estimated = call.record is not None and call.record.tokens_estimated
        usage = {"usage": response.usage, "cost_usd": response.cost_usd, "is_estimated": estimated}
        await self._tell(self._callbacks.on_usage, lambda: StreamUsage(**self._who(), **usage))  # type: ignore[arg-type]
        await self._tell(
            self._callbacks.on_complete,
            lambda: StreamCompleted(
                **self._who(),
                total_chunks=len(self._texts),
                duration_ms=(time.perf_counter() - self._started) * 1000.0,
                final_usage=response.usage,
                response=response,
            ),
        )

    async def _failed(self, error: BaseException) -> None:
        self._over = True
        if not isinstance(error, Exception):
            return
        retryable = isinstance(error, LLMError) and error.is_retryable
        who = self._who()
        if isinstance(error, LLMError):
            who |= {"provider": error.provider, "model": error.model, "request_id": error.request_id or ""}
        await self._tell(
            self._callbacks.on_error,
            lambda: StreamFailed(**who, error=error, error_type=type(error).__name__, is_retryable=retryable),
        )

    def _who(self) -> dict[str, Any]:
        call = self._call
        known = ("", "", "") if call is None else (call.provider, call.model, call.request_id)
        return dict(zip(("provider", "model", "request_id"), known, strict=True)) | {"timestamp": time.time()}

    @staticmethod
    async def _tell(callback: Callable[[Any], object] | None, event: Callable[[], Any]) -> None:
        """Call back in the order of the stream: who does not return holds it up, as its consumer would."""
        if callback is None:
            return
        try:
            found = callback(event())
            if inspect.isawaitable(found):
                await found
        except Exception as error:
            note("client_callback", error)


class SyncStreamingResponse:
    """A `StreamingResponse` for code without an event loop: `for text in response`, `with response`.

    Its callbacks run on the thread of the client's own event loop.
    """

    def __init__(self, made: Callable[[], StreamingResponse]) -> None:
        self._response = made()
        try:
            run(self._response._begin())
        except BaseException:  # an interrupt may come when it has just begun
            self.close()
            raise

    def __iter__(self) -> Iterator[str]:
        texts = aiter(self._response)
        try:
            while (text := run(_next(texts))) is not None:
                yield text
        finally:
            run(texts.aclose())  # type: ignore[attr-defined]  # it is a generator

    def __enter__(self) -> SyncStreamingResponse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream here; what has come stays."""
        run(self._response.aclose())

    def get_response(self) -> GenerationResponse:
        """The whole answer, read to its end; see `StreamingResponse.get_response`."""
        return run(self._response.get_response())

    def get_text(self) -> str:
        """The text so far."""
        return self._response.get_text()

    def get_reasoning(self) -> str:
        """What the model thought aloud so far, where its provider tells."""
        return self._response.get_reasoning()

    def get_usage(self) -> TokenUsage | None:
        """The tokens, as soon as the stream is over; None before."""
        return self._response.get_usage()

    def get_json(self) -> Any:
        """The text as JSON; see `StreamingResponse.get_json`."""
        return self._response.get_json()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far."""
        return self._response.tool_calls


async def _next(texts: AsyncIterator[str]) -> str | None:
    return await anext(texts, None)
