"""StreamEngine: a streaming client for every provider, whose streams are metered while they run."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any

import msgspec

from ..call import Target
from ..context import options_in_force
from ..errors import ConfigError, MissingExtra
from ..process import get_metrics_collector
from ..records import StreamMetrics
from ..secret import Secret
from ..streams.options import Callback, StreamOptions, merged, read_options
from ..wire.answer import Format
from ..wire.formats import SHARED, by_body, by_path, generic, model_in_path
from ..wire.http import module_of
from ..wire.message import NO_HEADERS
from ..wire.providers import UNKNOWN, provider_of
from .attempts import Attempts, Parse
from .chunks import parse_chunk as parse_any_chunk
from .endpoints import Place
from .metering import EngineStream
from .per_loop import PerLoop

KEPT = 1000
"""Streams that ended and can still be asked for."""

# Formats whose requests ask for a stream in their body; the others do it by their path.
_ASKING = frozenset(
    {
        "anthropic_messages",
        "cohere_chat",
        "cohere_v1_chat",
        "ollama_chat",
        "ollama_generate",
        "openai_chat",
        "openai_completions",
        "openai_responses",
    }
)


class StreamEngine:
    """Streams from any endpoint that sends server-sent events, JSON lines, a JSON array or Amazon's event stream.

        async with StreamEngine(provider="openai") as engine:
            stream_id = await engine.stream("/chat/completions", body, callback=show)
            metrics = await engine.wait(stream_id)

    Each stream is one call: one record, and reports while it runs. A network failure before the first chunk and an
    answer of 408, 425, 429 or 5xx are tried again within the same call, with full jitter and never before a
    Retry-After; nothing that was given away is ever asked for again.

    Args:
        provider: a name of `gen_ai.provider.name`, or the usual one (`gemini`, `mistral`): base URL and key follow.
        api_key: without one, the provider's own environment variable (`OPENAI_API_KEY`); none at all for local servers.
        base_url: where the paths of the streams begin; without it `OPENAI_BASE_URL` or `ANTHROPIC_BASE_URL` for those
            two, else the provider's own.
        headers: of every request; they win over the engine's own.
        timeout: seconds to wait for a connection, and for the next bytes. A stream as a whole may take longer.
        enable_metrics: False makes neither records nor reports.
        metrics_callback: gets a `StreamReport` of each stream: see `MetricsConfig.stream_callback`.
        metrics_interval: milliseconds between two of them; those of `MetricsConfig` without one, 1,000.
        include_raw_chunks: whether the last report has the bytes that came, up to 1 MiB.
        stall_after_ms: how long a provider may be silent before that is a stall.
        max_reconnects: attempts after the first one.
        http_client: an `AsyncClient` of httpx2 or httpx to send with; it stays open when the engine is closed.
        collector: where the calls go; the process's collector without one.

    An engine may serve one event loop after another; a stream belongs to the loop that it was begun on.

    Raises:
        ConfigError: an argument that cannot work, or an unknown provider without `base_url`.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        provider: str = "",
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 300.0,
        enable_metrics: bool = True,
        metrics_callback: Callback | None = None,
        metrics_interval: float | None = None,
        include_raw_chunks: bool | None = None,
        stall_after_ms: float | None = None,
        max_reconnects: int = 2,
        http_client: Any = None,
        collector: Target | None = None,
    ) -> None:
        self._place = Place(provider, api_key, base_url, headers)
        self._timeout = _number("timeout", timeout, 0.001, 86_400.0)
        self._reconnects = int(_number("max_reconnects", max_reconnects, 0, 100))
        self._options = read_options(
            {
                "enable_metrics": None if enable_metrics is True else enable_metrics,
                "metrics_callback": metrics_callback,
                "metrics_interval": metrics_interval,
                "include_raw_chunks": include_raw_chunks,
                "stall_after_ms": stall_after_ms,
            }
        )
        self._collector = collector
        self._http_client = http_client
        self._module = _module_of(http_client)
        self._clients: PerLoop[Any] = PerLoop()
        self._running: dict[str, tuple[EngineStream, asyncio.Task[None]]] = {}
        self._ended: OrderedDict[str, EngineStream] = OrderedDict()
        self._closed = False

    async def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        callback: Callable[[Any], object] | None = None,
        parse_chunk: Parse | None = None,
        opts: Mapping[str, Any] | StreamOptions | None = None,
    ) -> str:
        """Begin a stream, and give its name; `wait` tells how it ended.

        Args:
            path: below `base_url`, as `/chat/completions`.
            body: the request, sent as JSON; `"stream": True` is added where the format asks for it in the body.
            callback: called with each chunk, in their order; sync or async. The next bytes are read when it is done.
            parse_chunk: makes a chunk of the data of one event, a text without its framing; sync or async. What it
                makes None of is skipped. Without one, chunks are `StreamChunk`s.
            opts: `enabled`, `callback` (of metrics), `interval`, `include_raw_data`, `include_raw_chunks`,
                `stall_after_ms` for this stream: before those of `stream_options(...)` and of the engine.

        Raises:
            ConfigError: an argument that cannot work, or the engine is closed.
        """
        stream, attempts = self._prepared(path, body, parse_chunk, opts)
        task = asyncio.create_task(_run(stream, attempts, callback), name=stream.stream_id)
        self._running[stream.stream_id] = (stream, task)
        task.add_done_callback(lambda _: self._end(stream))
        try:
            await asyncio.sleep(0)  # the request is on its way: who cancels it now cancels a call
        except BaseException:
            task.cancel()
            raise
        return stream.stream_id

    def iterate(
        self,
        path: str,
        body: Mapping[str, Any],
        parse_chunk: Parse | None = None,
        opts: Mapping[str, Any] | StreamOptions | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The chunks of a stream, for `async for` in the running event loop; arguments are those of `stream`.

        Leaving the loop closes the connection. (Python closes a generator that was left by `break` a moment later;
        `contextlib.aclosing` does it at once.)

        Raises:
            ConfigError: an argument that cannot work, or the engine is closed.
            StreamEngineError: in the loop, where the provider or the network failed.
        """
        return _iterated(*self._prepared(path, body, parse_chunk, opts))

    async def wait(self, stream_id: str, timeout: float | None = None) -> StreamMetrics:
        """What was measured of a stream, once it has ended; how it ended, its `status` and `last_error` tell.

        Raises:
            ConfigError: there is no such stream, or more than 1,000 others have ended since it did.
            TimeoutError: it has not ended within `timeout` seconds; it goes on.
        """
        if stream_id in self._running:
            stream, task = self._running[stream_id]
            done, _ = await asyncio.wait({task}, timeout=timeout)
            if not done:
                raise TimeoutError(f"the stream has not ended within {timeout} s")
            return await stream.metrics()
        if stream_id in self._ended:
            return await self._ended[stream_id].metrics()
        raise ConfigError(f"there is no stream {str(stream_id)[:64]!r} of this engine, or it ended too long ago")

    async def cancel(self, stream_id: str) -> bool:
        """Cancel a stream, and wait until it has ended; False where none of that name is running."""
        if stream_id not in self._running:
            return False
        stream, task = self._running[stream_id]
        task.cancel()
        if task is not asyncio.current_task():  # a callback that cancels its own stream
            await asyncio.wait({task})
        return stream.status in ("cancelled", "pending", "streaming")

    def status(self, stream_id: str) -> str | None:
        """pending, streaming, completed, error or cancelled; None where no stream of that name is known."""
        if stream_id in self._running:
            return self._running[stream_id][0].status
        return self._ended[stream_id].status if stream_id in self._ended else None

    async def aclose(self) -> None:
        """Cancel the streams that run, and close the engine's own connections. A second call does nothing."""
        self._closed = True
        loop, here = asyncio.get_running_loop(), asyncio.current_task()
        tasks = {task for _, task in self._running.values() if task.get_loop() is loop and task is not here}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        client = self._clients.pop()
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> StreamEngine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # ------------------------------------------------------------------ one stream

    def _prepared(
        self,
        path: str,
        body: Mapping[str, Any],
        parse_chunk: Parse | None,
        opts: Mapping[str, Any] | StreamOptions | None,
    ) -> tuple[EngineStream, Attempts]:
        if self._closed:
            raise ConfigError("this StreamEngine is closed: make another one")
        url = self._url(path)
        wire_format, content = _asked(url.path, body)
        own = read_options(opts)
        client = self._client()
        target = self._target(own)
        stream = EngineStream(
            target,
            wire_format,
            provider="" if target is None else self._provider(url, target),
            model=str(body.get("model") or ""),
            client_options=self._options,
            call_options=own,
        )
        timeout = self._module.Timeout(self._timeout)
        return stream, Attempts(
            client,
            self._module,
            lambda: client.build_request("POST", url, content=content, headers=self._place.headers(), timeout=timeout),
            stream if stream.metered else None,
            parse_chunk or parse_any_chunk,
            self._reconnects,
            self._timeout,
            stream.opened,
        )

    def _url(self, path: str) -> Any:
        text = self._place.url(path)
        try:
            return self._module.URL(text)
        except self._module.InvalidURL:
            raise ConfigError("path: it has characters that no URL has") from None

    def _target(self, own: StreamOptions) -> Target | None:
        """Where the call goes; None where nothing is to be metered."""
        if merged(self._options, options_in_force.get(), own).enabled is False:
            return None
        target: Target = self._collector if self._collector is not None else get_metrics_collector()
        return target if target.config.enabled else None

    def _provider(self, url: Any, target: Target) -> str:
        """The engine's word for who answers, where the host does not tell."""
        by_host = provider_of(url.host, url.port, NO_HEADERS, "", url.path, target.config.providers)
        return self._place.provider if by_host == UNKNOWN else ""

    def _client(self) -> Any:
        if self._http_client is not None:
            return self._http_client
        client = self._clients.get()
        if client is None:
            limits = self._module.Limits(max_connections=None, max_keepalive_connections=100)
            client = self._clients.add(self._module.AsyncClient(limits=limits))
        return client

    def _end(self, stream: EngineStream) -> None:
        stream.end(asyncio.CancelledError())  # for a task that was cancelled before it began
        self._running.pop(stream.stream_id, None)
        self._ended[stream.stream_id] = stream
        if len(self._ended) > KEPT:
            self._ended.popitem(last=False)


async def _iterated(stream: EngineStream, attempts: Attempts) -> AsyncGenerator[Any, None]:
    with stream:
        async with aclosing(attempts.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk


async def _run(stream: EngineStream, attempts: Attempts, callback: Callable[[Any], object] | None) -> None:
    """Read a stream to its end. Whatever happens is told by `stream`, and raised to nobody."""
    task = asyncio.current_task()
    try:
        with stream:
            async with aclosing(attempts.chunks()) as chunks:
                async for chunk in chunks:
                    if callback is None:
                        continue
                    said = callback(chunk)
                    if inspect.isawaitable(said):
                        await said
                    if task is not None and task.cancelling():  # by the callback, with more chunks at hand
                        await asyncio.sleep(0)
    except (Exception, asyncio.CancelledError):
        pass


def _asked(path: str, body: Mapping[str, Any]) -> tuple[Format, bytes]:
    """The format of a request, and its body: of a path that has a format, if the body is of it, and else of any."""
    content = _json(body)
    found = by_path(path)
    if found is not None and found.name in SHARED:
        found = by_body(found, content)
    if found is None or (found.read_request(content) is None and not (found.read_path or model_in_path)(path)):
        return generic.FORMAT, content
    if found.name in _ASKING and "stream" not in body:
        content = _json({**body, "stream": True})
    return found, content


def _json(body: Mapping[str, Any]) -> bytes:
    if not isinstance(body, Mapping):
        raise ConfigError(f"body: it must be a mapping, not a {type(body).__name__}")
    try:
        return msgspec.json.encode(dict(body))
    except (TypeError, ValueError, RecursionError) as error:
        # Its message names types; only its class is sure to hold nothing of the body.
        raise ConfigError(f"body: it cannot be written as JSON ({type(error).__name__})") from None


def _module_of(client: Any) -> Any:
    if client is None:
        try:
            import httpx2
        except ImportError:
            raise MissingExtra("httpx2", "http") from None
        return httpx2
    module = module_of(client)
    if module is None or not isinstance(client, module.AsyncClient):
        raise ConfigError(f"http_client: it must be an AsyncClient of httpx2 or httpx, not a {type(client).__name__}")
    return module


def _number(name: str, value: Any, least: float, most: float) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not least <= value <= most:
        raise ConfigError(f"{name}: it must be a number from {least:g} to {most:g}")
    return float(value)
