"""Anthropic by its own SDK: the Messages API."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ...errors import ConfigError, MissingExtra
from ..ask import Ask
from . import anthropic_messages as api
from .base import Access, Delta, Reply, meter_http

_MOST_MODELS = 10_000
_PAGE = 1000  # the most that the API gives at once


class AnthropicProvider:
    """Messages of Claude. How an Ask is mapped tells `anthropic_messages.arguments`.

    Raises:
        MissingExtra: anthropic is not installed.
    """

    def __init__(self, access: Access) -> None:
        try:
            import anthropic
        except ImportError:
            raise MissingExtra("anthropic", "anthropic") from None
        self._timeout: Any = anthropic.Timeout(access.read_seconds, connect=access.connect_seconds)
        http = anthropic.DefaultAsyncHttpxClient()
        meter_http(http)
        self._sdk = anthropic.AsyncAnthropic(
            api_key=None if access.api_key is None else access.api_key.reveal(),
            base_url=access.base_url,
            default_headers=dict(access.headers),
            max_retries=0,
            timeout=self._timeout,
            http_client=http,
        )
        self._known = frozenset(inspect.signature(self._sdk.messages.create).parameters)

    async def generate(self, ask: Ask) -> Reply:
        """Ask, and wait for the whole answer."""
        answer = await self._sdk.messages.create(**self._arguments(ask))
        return Reply(text=api.text_of(answer), tool_calls=api.calls_of(answer), raw=answer)

    async def stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """Ask, and give what comes as it comes."""
        reader = api.EventReader()
        async with await self._sdk.messages.create(**self._arguments(ask), stream=True) as events:
            async for event in events:
                for delta in reader.read(event):
                    yield delta

    async def embed(self, model: str, texts: Sequence[str], extra: Mapping[str, Any]) -> tuple[list[list[float]], Any]:
        """Anthropic has no embeddings.

        Raises:
            ConfigError: says so.
        """
        raise ConfigError("Anthropic has no embeddings: ask a model of another provider (it names Voyage AI's itself)")

    async def models(self) -> list[str]:
        """The names of the models that the API has for this key."""
        names: list[str] = []
        async for model in self._sdk.models.list(limit=_PAGE):
            names.append(model.id)
            if len(names) >= _MOST_MODELS:
                break
        return names

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._sdk.close()

    def _arguments(self, ask: Ask) -> dict[str, Any]:
        made = api.arguments(ask, self._known)
        made.pop("stream", None)  # the method says whether it streams
        # Given with each call, since the SDK has rules of its own for the one that equals its default.
        made.setdefault("timeout", self._timeout)
        return made
