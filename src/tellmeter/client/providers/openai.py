"""Everybody who speaks as OpenAI does, by the openai SDK: chat completions and embeddings."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ...errors import MissingExtra
from ..ask import Ask
from ..response import ToolCall
from . import parts
from .base import Access, Delta, Reply, meter_http

# The SDK insists on a key; servers of one's own do not.
_NO_KEY_NEEDED = "none"
# They count tokens in every stream, and refuse to be asked for it.
_COUNTS_UNASKED = frozenset({"mistral_ai", "cohere"})
# OpenAI's own have a name for it that reasoning models accept, too; the others know the old one.
_MAX_TOKENS = {"openai": "max_completion_tokens", "azure.ai.openai": "max_completion_tokens"}
_MOST_MODELS = 10_000


class OpenAIProvider:
    """Chat completions of OpenAI, and of every provider whose `base_url` speaks as it does.

    Raises:
        MissingExtra: openai is not installed.
        openai.OpenAIError: there is no key.
    """

    def __init__(self, access: Access) -> None:
        try:
            import openai
        except ImportError:
            raise MissingExtra("openai", "openai") from None
        key = None if access.api_key is None else access.api_key.reveal()
        if key is None and access.provider != "openai":
            key = _NO_KEY_NEEDED
        timeout: Any = openai.Timeout(access.read_seconds, connect=access.connect_seconds)
        self._sdk = openai.AsyncOpenAI(
            api_key=key,
            base_url=access.base_url,
            default_headers=dict(access.headers),
            max_retries=0,
            timeout=timeout,
        )
        if access.provider != "openai":  # the SDK has them from OpenAI's own variables
            self._sdk.organization = self._sdk.project = None
        self._provider = access.provider
        self._known = frozenset(inspect.signature(self._sdk.chat.completions.create).parameters)
        self._known_of_embeddings = frozenset(inspect.signature(self._sdk.embeddings.create).parameters)
        meter_http(self._sdk._client)

    async def generate(self, ask: Ask) -> Reply:
        """Ask, and wait for the whole answer."""
        answer = await self._sdk.chat.completions.create(**self._arguments(ask))
        message: Any = answer.choices[0].message if answer.choices else None
        if message is None:  # Azure, of what its filter kept back
            return Reply(text="", raw=answer)
        calls = tuple(ToolCall.joined([_tool_call(call)]) for call in message.tool_calls or ())
        return Reply(text=_text(message.content) or message.refusal or "", tool_calls=calls, raw=answer)

    async def stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """Ask, and give what comes as it comes."""
        arguments = self._arguments(ask)
        arguments["stream"] = True
        if self._provider not in _COUNTS_UNASKED:
            arguments.setdefault("stream_options", {"include_usage": True})
        events = await self._sdk.chat.completions.create(**arguments)
        try:
            async for event in events:
                for choice in event.choices or ():
                    if choice.index == 0 and choice.delta is not None:
                        for delta in _deltas(choice.delta):
                            yield delta
        finally:
            await events.close()

    async def embed(self, model: str, texts: Sequence[str], extra: Mapping[str, Any]) -> tuple[list[list[float]], Any]:
        """One vector for each text, and the SDK's answer."""
        given = parts.passed({"model": model, "input": list(texts), **extra}, self._known_of_embeddings)
        # The SDK would ask for base64 and decode it by numpy, which may not be there.
        given.setdefault("encoding_format", "float")
        answer = await self._sdk.embeddings.create(**given)
        return [one.embedding for one in sorted(answer.data, key=lambda one: one.index or 0)], answer

    async def models(self) -> list[str]:
        """The names of the models that the provider has for this key."""
        names = []
        async for model in self._sdk.models.list():
            names.append(model.id)
            if len(names) >= _MOST_MODELS:
                break
        return names

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._sdk.close()

    def _arguments(self, ask: Ask) -> dict[str, Any]:
        """The arguments of `create`."""
        made: dict[str, Any] = {
            "model": ask.model,
            "messages": list(ask.messages),
            _MAX_TOKENS.get(self._provider, "max_tokens"): ask.max_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "seed": ask.seed,
            "stop": list(ask.stop) or None,
            "tools": list(ask.tools) or None,
            "tool_choice": ask.tool_choice,
            "response_format": ask.response_format,
        }
        return parts.passed(
            {name: value for name, value in made.items() if value is not None} | dict(ask.extra), self._known
        )


def _text(content: Any) -> str:
    """The text of a message; Mistral's thinking models make a list of parts of it."""
    if isinstance(content, list):
        return "".join(
            part.get("text") or "" for part in content if isinstance(part, dict) and part.get("type") == "text"
        )
    return content or ""


def _tool_call(call: Any) -> ToolCall:
    """A tool call, or a piece of one."""
    function = getattr(call, "function", None) or getattr(call, "custom", None)
    arguments = getattr(function, "arguments", None) or getattr(function, "input", None)
    extra = (call.model_extra or {}).get("extra_content")  # Gemini's
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return ToolCall(call.id or "", getattr(function, "name", None) or "", arguments or "", signature)


def _deltas(delta: Any) -> list[Delta]:
    made = []
    # DeepSeek and vLLM, and OpenRouter. Not by getattr: pydantic takes 2 us to say that there is none.
    extra = delta.model_extra or {}
    reasoning = extra.get("reasoning_content") or extra.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        made.append(Delta(reasoning=reasoning))
    if text := _text(delta.content) or delta.refusal:
        made.append(Delta(text=text))
    for position, call in enumerate(delta.tool_calls or ()):
        made.append(Delta(tool_index=call.index if call.index is not None else position, tool=_tool_call(call)))
    return made
