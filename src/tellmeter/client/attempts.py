"""One stream of the engine: sent, sent again while nothing has come of it, and read event by event."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import ModuleType
from typing import Any, Protocol

from ..context import suppressed
from ..counts import count
from ..errors import StreamEngineError
from ..pipeline.pacing import Pacing
from ..sinks.sending.answers import retry_after
from ..wire.exchange import Exchange
from ..wire.http import metered_async_send
from .chunks import ERROR_BYTES, REPORTED, said
from .framing import EventDecoder, StreamEvent

Parse = Callable[[str], Any]

DRAIN_SECONDS = 1.0
"""How long a stream that said it is over may stay open, so that its connection can be used again."""

# What another attempt may cure. A read timeout is none: the provider may be at work, and bill for it.
_AGAIN_STATUSES = frozenset({408, 425, 429})
_AGAIN_ERRORS = ("NetworkError", "RemoteProtocolError", "ConnectTimeout")


class Metering(Protocol):
    """What meters the attempts of a stream."""

    def attempt(self, request: Any) -> Exchange | None:
        """The attempt that a request begins."""

    def completed(self) -> None:
        """The attempt's stream said that it is over."""


class Attempts:
    """Sends one request until an answer begins, and gives what its events are parsed to.

    Args:
        client: an `AsyncClient` of `module`, which is httpx or httpx2.
        new_request: makes the request of an attempt.
        metering: what meters them; None for nothing, whatever else meters this program's traffic.
        parse: `parse_chunk` of the engine's caller.
        retries: attempts after the first.
        patience: seconds; a provider that wants a longer pause is not asked again.
        opened: called when an answer begins.
    """

    def __init__(
        self,
        client: Any,
        module: ModuleType,
        new_request: Callable[[], Any],
        metering: Metering | None,
        parse: Parse,
        retries: int,
        patience: float,
        opened: Callable[[], None],
    ) -> None:
        self._client = client
        self._metering = metering
        self._module = module
        self._new_request = new_request
        self._parse = parse
        self._retries = retries
        self._patience = patience
        self._opened = opened
        self._delivered = False

    async def chunks(self) -> AsyncGenerator[Any, None]:
        """What `parse` makes of each event, without None.

        Raises:
            StreamEngineError: the provider or the network failed, and no attempt is left, or part of the answer was
                given away already: nothing is ever said twice.
        """
        pacing = Pacing()
        while True:
            try:
                async with aclosing(self._events()) as events:
                    async for event in events:
                        chunk = await self._parsed(event)
                        if chunk is not None:
                            self._delivered = True
                            yield chunk
                return
            except _Again as again:
                if self._delivered or pacing.failures >= self._retries or (again.after or 0.0) > self._patience:
                    raise again.error from again.error.__cause__
                now = time.monotonic()
                pacing.failed(now, again.after)
                count("stream_reconnects")
            await asyncio.sleep(pacing.not_before - now)

    async def _parsed(self, event: StreamEvent) -> Any:
        if event.failed:
            raise StreamEngineError(REPORTED, body=said(event.data))
        found = self._parse(event.data)
        return await found if inspect.isawaitable(found) else found

    async def _events(self) -> AsyncGenerator[StreamEvent, None]:
        """The events of one attempt. The socket is read when the next one is asked for, and not before."""
        response = None
        try:
            response = await self._answer()
            self._opened()
            decoder = EventDecoder(response.headers.get("content-type", ""))
            async with aclosing(response.aiter_bytes()) as body:
                async for data in body:
                    for event in decoder.feed(data):
                        yield event
                    if decoder.done:
                        await self._drain(body)
                        return
            for event in decoder.finish():
                yield event
        except self._module.HTTPError as error:
            raise self._broken(error) from error
        finally:
            if response is not None:
                await response.aclose()

    async def _answer(self) -> Any:
        """The answer whose body is the stream."""
        if self._metering is None:
            with suppressed():
                response = await self._client.send(self._new_request(), stream=True)
        else:
            send = metered_async_send(self._client.send, self._module, self._metering.attempt)
            response = await send(self._new_request(), stream=True)
        status = response.status_code
        if 200 <= status < 300:
            return response
        try:
            body = await _beginning(response)
        finally:
            await response.aclose()
        error = StreamEngineError(f"the provider answered with status {status}", status_code=status, body=body)
        if status in _AGAIN_STATUSES or status >= 500:
            raise _Again(error, retry_after(response.headers.get("retry-after"), time.time()))
        raise error

    async def _drain(self, body: Any) -> None:
        """Read to the end of a stream that said it is over, so that its connection can be used again."""
        if self._metering is not None:
            self._metering.completed()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in body:
                    pass
        except (TimeoutError, self._module.HTTPError):  # everything was said
            pass

    def _broken(self, error: Exception) -> Exception:
        name = type(error).__name__
        told = StreamEngineError(f"the stream broke: {name}", error_class=name)
        told.__cause__ = error
        kinds = tuple(getattr(self._module, kind) for kind in _AGAIN_ERRORS)
        return _Again(told) if isinstance(error, kinds) else told


class _Again(Exception):
    """What another attempt may cure; `after` are the seconds that the provider wants to pass before it."""

    def __init__(self, error: StreamEngineError, after: float | None = None) -> None:
        super().__init__()
        self.error = error
        self.after = after


async def _beginning(response: Any) -> bytes:
    """The beginning of an error's body; all of it where it is no larger."""
    body = b""
    async with aclosing(response.aiter_bytes()) as parts:
        async for part in parts:
            body += part
            if len(body) > ERROR_BYTES:
                break
    return body[:ERROR_BYTES]
