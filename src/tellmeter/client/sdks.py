"""The SDKs' clients of an LLMClient: made when they are first asked, for each event loop its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from importlib import import_module
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..guard import note
from ..secret import Secret
from .endpoints import callable_by_key, endpoint_of, key_in_environment, provider_named
from .explain import no_key
from .per_loop import PerLoop
from .providers.base import Access, Provider
from .reliability.timeouts import Timeouts

# Who has an SDK of its own, which reads its own environment variables; everybody else speaks as OpenAI does.
_OWN = {
    "anthropic": ("anthropic", "AnthropicProvider"),
    "aws.bedrock": ("bedrock", "BedrockProvider"),
    "gcp.gemini": ("gemini", "GeminiProvider"),
    "gcp.vertex_ai": ("gemini", "GeminiProvider"),
    "openai": ("openai", "OpenAIProvider"),
}
_OPENAI = _OWN["openai"]
# Where that is not at the provider's own base URL.
_SPEAKS_OPENAI_AT = {
    "cohere": "https://api.cohere.ai/compatibility/v1",
    "ollama": "http://localhost:11434/v1",
}
_KEYLESS = frozenset({"ollama"})  # on one's own machine, though its cloud wants a key
_CLOSE_SECONDS = 5.0


class SDKs:
    """Gives the provider of a name on the running event loop.

    Args:
        api_keys, base_urls, headers: by provider, as the user calls it.
        timeouts: of connections, and of silence on them.

    Raises:
        ConfigError: a key, URL or headers that cannot be.
    """

    def __init__(
        self,
        api_keys: Mapping[str, str | Secret | None],
        base_urls: Mapping[str, str],
        headers: Mapping[str, Mapping[str, str]],
        timeouts: Timeouts,
    ) -> None:
        self._keys = {_name(word): Secret.of(f"api_keys[{word!r}]", key) for word, key in api_keys.items()}
        self._urls = {_name(word): _checked(word, url) for word, url in base_urls.items()}
        self._headers = {_name(word): dict(given) for word, given in headers.items()}
        self._timeouts = timeouts
        self._made: PerLoop[tuple[dict[str, Provider], AsyncGenerator[None, None]]] = PerLoop()

    @property
    def words(self) -> set[str]:
        """Providers that the user named, and that may be nobody else's."""
        return {*self._keys, *self._urls}

    async def get(self, provider: str) -> Provider:
        """The provider on the running loop. SDKs take a second to import: that is done on a thread.

        Raises:
            ConfigError: an OpenAI-compatible provider without a base URL.
            MissingExtra: its SDK is not installed.
            ProviderError: an OpenAI-compatible provider has no key.
            Exception: what the SDK raises where it has no key.
        """
        here = self._made.get()
        if here is None:
            providers: dict[str, Provider] = {}
            held = _held(providers)
            await anext(held)
            here = self._made.add((providers, held))
        made, _ = here
        found = made.get(provider)
        return found or made.setdefault(provider, await asyncio.to_thread(self._make, provider))

    def configured(self) -> list[str]:
        """Providers that could be asked now: those that the user named, and those whose key is in the environment."""
        named = [name for name in self.words if name in self._urls or self._keys.get(name) is not None]
        by_key = [name for name in callable_by_key() if key_in_environment(endpoint_of(name)) is not None]
        return list(dict.fromkeys([*named, *by_key]))

    def _make(self, provider: str) -> Provider:
        module, name = _OWN.get(provider, _OPENAI)
        made: Provider = getattr(import_module(f".providers.{module}", __package__), name)(self._access(provider))
        return made

    def _access(self, provider: str) -> Access:
        endpoint, key = endpoint_of(provider), self._keys.get(provider)
        base_url = self._urls.get(provider)
        if provider not in _OWN:
            key = key or key_in_environment(endpoint)
            base_url = base_url or _SPEAKS_OPENAI_AT.get(provider) or endpoint.base_url
            if not base_url:
                raise ConfigError(f"provider {provider!r}: it needs LLMClient(base_urls={{{provider!r}: ...}})")
            if key is None and endpoint.keys and provider not in self._urls and provider not in _KEYLESS:
                raise no_key(provider, "")
        timeouts = self._timeouts
        return Access(
            provider=provider,
            api_key=key,
            base_url=base_url,
            headers=self._headers.get(provider, {}),
            connect_seconds=timeouts.connect or 86_400.0,
            read_seconds=timeouts.total or 86_400.0,
        )

    async def aclose(self, standing: asyncio.AbstractEventLoop | None = None) -> None:
        """Give all connections back: those of other loops there, where they are still running.

        `standing` is a loop that does not move until this is over, and so is not waited for.
        """
        here = asyncio.get_running_loop()
        for loop, (_, held) in self._made.pop_all().items():
            try:
                if loop is here:
                    await held.aclose()
                elif loop.is_running():
                    closing = asyncio.run_coroutine_threadsafe(_end(held), loop)
                    if loop is not standing:
                        await asyncio.wait_for(asyncio.wrap_future(closing), _CLOSE_SECONDS)
            except Exception as error:
                note("client", error)


async def _held(providers: Mapping[str, Provider]) -> AsyncGenerator[None, None]:
    """Closes the providers at its own end.

    An event loop ends the generators that were begun on it before it ends itself (`loop.shutdown_asyncgens()`, which
    `asyncio.run()` calls), so no connection is left behind where nobody closes the client.
    """
    try:
        yield
    finally:
        for provider in providers.values():
            try:
                await provider.aclose()
            except Exception as error:
                note("client", error)


async def _end(held: AsyncGenerator[None, None]) -> None:
    await held.aclose()


def _name(word: str) -> str:
    if not isinstance(word, str) or not word or "/" in word:
        raise ConfigError(f"provider {word!r}: it must be a name without a slash")
    return provider_named(word) or word


def _checked(word: str, url: str) -> str:
    try:
        found = urlsplit(url) if isinstance(url, str) else None
    except ValueError:  # "http://[half"
        found = None
    if found is None or found.scheme not in ("http", "https") or not found.hostname or found.query or found.fragment:
        raise ConfigError(f"base_urls[{word!r}]: it must be a URL of http or https without a query")
    return url.rstrip("/")
