"""LLMClient: one client for all providers, by their official SDKs, metered and hardened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, Unpack

from ..cleaning import clean_tags
from ..collector import MetricsCollector
from ..config import MetricsConfig
from ..context import tags_in_force
from ..errors import ConfigError
from ..guard import note
from ..process import new_collector
from ..records import uuid7
from ..registry.registry import MetricsRegistry
from ..secret import Secret
from .ask import Messages
from .background import run
from .calling import Calling, Job
from .options import CallOptions, ask_of
from .reliability.breaker import CircuitBreakerConfig
from .reliability.budgets import Budget
from .reliability.retries import RetryPolicy, need_tenacity
from .reliability.timeouts import Timeouts
from .response import EmbeddingResponse, GenerationResponse, TokenUsage, response_of
from .routing import Routes
from .sdks import SDKs
from .stream_events import Callbacks, StreamCompleted, StreamDelta, StreamFailed, StreamStarted, StreamUsage
from .streaming import StreamingResponse, SyncStreamingResponse

_BREAKER = CircuitBreakerConfig()


class LLMClient:
    """Asks language models of any provider, and meters each call.

        client = LLMClient(metrics_sinks=["sqlite:///calls.db"])
        answer = await client.generate("Hello!", model="gpt-4o-mini")
        print(answer.text, answer.cost_usd)

    `provider/model` names both (`groq/llama-3.3-70b-versatile`, `bedrock/us.amazon.nova-pro-v1:0`); without a provider
    the vendors' own names tell. Each model that is asked is one call with one record, its retries inside it. Every
    method has a twin for code without an event loop (`generate_sync`); a client serves any number of event loops and
    threads.

    Args:
        openai_api_key, anthropic_api_key, xai_api_key: as in `api_keys`.
        metrics_config, metrics_sinks, registry: of a collector of this client's own; without any of them, calls go to
            the process's collector (`configure()`). Without `metrics_sinks`, sinks are those of `TELLMETER_SINKS`, else
            memory; `[]` is none.
        metrics_collector: a collector to share instead.
        model: asked where a call names none.
        models: name or pattern (`my-*`) -> provider, or `provider/model` for an alias; before the built-in names.
        api_keys: provider -> key; without one, the environment variables of the provider's own SDK.
        base_urls: provider -> URL. A name of your own makes an OpenAI-compatible provider of that name.
        headers: provider -> headers of its requests.
        fallback_models: asked in turn when a model does not answer; not where the request itself is at fault.
        retry_policy, circuit_breaker, timeouts: see there. `circuit_breaker=None` has none.
        max_concurrency: requests that are under way at once; what is more waits its turn.
        budgets: what may be spent.

    Raises:
        ConfigError: an argument that cannot be.
        MissingExtra: tenacity, which every provider's extra brings, is not installed.
    """

    def __init__(
        self,
        openai_api_key: str | Secret | None = None,
        anthropic_api_key: str | Secret | None = None,
        xai_api_key: str | Secret | None = None,
        *,
        metrics_config: MetricsConfig | None = None,
        metrics_sinks: Sequence[Any] | None = None,
        metrics_collector: MetricsCollector | None = None,
        registry: MetricsRegistry | None = None,
        model: str | None = None,
        models: Mapping[str, str] | None = None,
        api_keys: Mapping[str, str | Secret | None] | None = None,
        base_urls: Mapping[str, str] | None = None,
        headers: Mapping[str, Mapping[str, str]] | None = None,
        fallback_models: Sequence[str] = (),
        retry_policy: RetryPolicy | None = None,
        circuit_breaker: CircuitBreakerConfig | None = _BREAKER,
        timeouts: Timeouts | None = None,
        max_concurrency: int | None = None,
        budgets: Sequence[Budget] = (),
    ) -> None:
        need_tenacity()
        named = {"openai": openai_api_key, "anthropic": anthropic_api_key, "xai": xai_api_key}
        keys = {word: key for word, key in named.items() if key is not None} | dict(api_keys or {})
        self._timeouts = timeouts or Timeouts()
        self._policy = retry_policy or RetryPolicy()
        self._model = model
        self._fallbacks = _names("fallback_models", fallback_models)
        sdks = SDKs(keys, base_urls or {}, headers or {}, self._timeouts)
        self._routes = Routes(models, sdks.words)
        own = (metrics_config, metrics_sinks, registry)
        if metrics_collector is not None and any(given is not None for given in own):
            raise ConfigError("metrics_collector: it has its config, sinks and registry; give it alone")
        self._owns_collector = any(given is not None for given in own)
        if self._owns_collector:
            metrics_collector = new_collector(*own)
        self._calling = Calling(metrics_collector, sdks, circuit_breaker, max_concurrency, list(budgets))
        self._closed = False

    @property
    def metrics_collector(self) -> MetricsCollector:
        """Where the calls go."""
        return self._calling.collector

    # ------------------------------------------------------------------ asking

    async def generate(
        self, messages: Messages, model: str | None = None, **options: Unpack[CallOptions]
    ) -> GenerationResponse:
        """Ask, and wait for the whole answer.

        Args:
            messages: a text, or messages in the shape of OpenAI's chat completions.
            model: its name, or `provider/model`; the client's without one.
            options: see `CallOptions`.

        Raises:
            LLMError: no model answered; its subclasses and its `category` say why.
            ConfigError: an argument that cannot be, or that the provider has no place for.
            MissingExtra: the provider's SDK is not installed.
        """
        ask = ask_of(messages, options)
        job = await self._job(model, options, "chat", "generate")
        call, reply = await self._calling.answer(
            job, lambda provider, name: provider.generate(replace(ask, model=name))
        )
        return response_of(call, reply.text, reply.tool_calls, reply.raw)

    async def stream(
        self, messages: Messages, model: str | None = None, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[str, None]:
        """The text of the answer as it arrives. Arguments and errors are those of `generate`."""
        async with self.stream_with_usage(messages, model, **options) as response:
            async for text in response:
                yield text

    def stream_with_usage(
        self,
        messages: Messages,
        model: str | None = None,
        *,
        on_start: Callable[[StreamStarted], object] | None = None,
        on_delta: Callable[[StreamDelta], object] | None = None,
        on_usage: Callable[[StreamUsage], object] | None = None,
        on_complete: Callable[[StreamCompleted], object] | None = None,
        on_error: Callable[[StreamFailed], object] | None = None,
        **options: Unpack[CallOptions],
    ) -> StreamingResponse:
        """The answer as it arrives, and what it took: `async for text in response`, then `response.get_usage()`.

        Callbacks, sync or async, are called in the order of the stream. Arguments are those of `generate`; its errors
        are raised where the response is read.
        """
        ask = ask_of(messages, options)
        callbacks = Callbacks(
            on_start=on_start, on_delta=on_delta, on_usage=on_usage, on_complete=on_complete, on_error=on_error
        )

        async def deltas(opened: Any) -> AsyncGenerator[Any, None]:
            job = await self._job(model, options, "chat", "stream")
            source = self._calling.deltas(job, ask, opened)
            try:
                async for delta in source:
                    yield delta
            finally:
                await source.aclose()

        return StreamingResponse(deltas, callbacks)

    async def embed(
        self, texts: str | Sequence[str], model: str | None = None, **options: Unpack[CallOptions]
    ) -> EmbeddingResponse:
        """One vector for each text. Of the options, those that make text mean nothing here.

        Raises:
            LLMError, ConfigError, MissingExtra: as `generate`.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        if not given or not all(isinstance(text, str) for text in given):
            raise ConfigError("texts: a text, or a list of at least one, is needed")
        extra = ask_of("-", options).extra
        job = await self._job(model, options, "embeddings", "embed")
        call, (vectors, raw) = await self._calling.answer(
            job, lambda provider, name: provider.embed(name, given, extra)
        )
        record = call.record
        return EmbeddingResponse(
            embeddings=tuple(vectors),
            model=call.model,
            provider=call.provider,
            usage=TokenUsage(record),
            cost_usd=None if record is None else record.cost_usd,
            request_id=job.request_id,
            provider_request_id=call.provider_request_id,
            metrics=record,
            raw=raw,
        )

    async def get_available_models(self, provider: str | None = None) -> dict[str, list[str]]:
        """The models of a provider, or of all that have a key or a base URL, as the providers list them.

        One that does not answer has none, which is logged.
        """
        names = [self._routes.provider(provider)] if provider is not None else self._calling.sdks.configured()

        async def listed(name: str) -> list[str]:
            try:
                provider = await self._calling.sdks.get(name)
                return sorted(await provider.models())
            except ConfigError:
                raise
            except Exception as error:
                note("client", error)
                return []

        return dict(zip(names, await asyncio.gather(*map(listed, names)), strict=True))

    # ------------------------------------------------------------------ the same without an event loop

    def generate_sync(
        self, messages: Messages, model: str | None = None, **options: Unpack[CallOptions]
    ) -> GenerationResponse:
        """As `generate`, waiting for it."""
        return run(self.generate(messages, model, **options))

    def stream_sync(
        self, messages: Messages, model: str | None = None, **options: Unpack[CallOptions]
    ) -> Iterator[str]:
        """As `stream`."""
        with closing(self.stream_with_usage_sync(messages, model, **options)) as response:
            yield from response

    def stream_with_usage_sync(
        self, messages: Messages, model: str | None = None, **options: Any
    ) -> SyncStreamingResponse:
        """As `stream_with_usage`: `for text in response`."""
        return SyncStreamingResponse(lambda: self.stream_with_usage(messages, model, **options))

    def embed_sync(
        self, texts: str | Sequence[str], model: str | None = None, **options: Unpack[CallOptions]
    ) -> EmbeddingResponse:
        """As `embed`, waiting for it."""
        return run(self.embed(texts, model, **options))

    def get_available_models_sync(self, provider: str | None = None) -> dict[str, list[str]]:
        """As `get_available_models`, waiting for it."""
        return run(self.get_available_models(provider))

    # ------------------------------------------------------------------ its end

    async def aclose(self) -> None:
        """Close the connections; flush and end a collector of its own. Safe to call twice."""
        await self._close(None)

    def close(self) -> None:
        """As `aclose`, waiting for it; in a coroutine, for all but the connections of its own event loop."""
        try:
            standing = asyncio.get_running_loop()
        except RuntimeError:
            standing = None
        run(self._close(standing))

    async def _close(self, standing: asyncio.AbstractEventLoop | None) -> None:
        self._closed = True
        await self._calling.sdks.aclose(standing)
        if self._owns_collector:
            await self.metrics_collector.shutdown()

    async def __aenter__(self) -> LLMClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> LLMClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------

    async def _job(self, model: str | None, options: Mapping[str, Any], operation: str, method: str) -> Job:
        """Whom to ask; a model that nobody has is recorded, and raised."""
        if self._closed:
            raise ConfigError("the LLMClient is closed")
        chosen = model or self._model
        if not chosen:
            raise ConfigError("model: name one, here or in LLMClient(model=...)")
        fallbacks = options.get("fallback_models")
        names = [chosen, *(self._fallbacks if fallbacks is None else _names("fallback_models", fallbacks))]
        tags = {
            **clean_tags(dict(self.metrics_collector.config.tags)),
            **tags_in_force.get(),
            **clean_tags(dict(options.get("tags") or {})),
        }
        job = Job(
            routes=(),
            request_id=options.get("request_id") or uuid7(),
            operation=operation,
            method=method,
            tags=tags,
            policy=options.get("retry_policy") or self._policy,
            timeouts=options.get("timeouts") or self._timeouts,
        )
        routes = []
        for name in names:
            route = self._routes.find(name)
            if route is None:
                # The names that may have been meant are in a list that takes a moment to load.
                error = await asyncio.to_thread(self._routes.unknown, name)
                self._calling.refuse(job, error)
                raise error
            routes.append(route)
        self._calling.prepare()
        return replace(job, routes=tuple(routes))


def _names(field: str, given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(name, str) and name for name in given):
        raise ConfigError(f"{field}: a list of names of models is needed")
    return tuple(given)
