"""Ask: what a caller of the LLMClient wants, the same for every provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError

Messages = str | Sequence[Mapping[str, Any]]
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request, before a provider's SDK gets it. Its repr tells nothing of what is said.

    model: as the provider calls it.
    messages: dicts in the shape of OpenAI's chat completions, each with a `role` of `ROLES`. `content` is a text, None,
        or a list of parts (`{"type": "text", "text": ...}`, `{"type": "image_url", "image_url": {"url": ...}}`, the url
        an http URL or `data:<media type>;base64,...`); an assistant's may have `tool_calls`, a tool's has its
        `tool_call_id`.
    max_tokens: of the answer. temperature, top_p, seed: as the provider has them; None leaves its default.
    stop: texts that end the answer.
    tools: `{"type": "function", "function": {"name", "description", "parameters"}}`, parameters being a JSON schema.
    tool_choice: "auto", "none", "required" or `{"type": "function", "function": {"name": ...}}`.
    response_format: `{"type": "json_object"}`, or `{"type": "json_schema", "json_schema": {"name", "schema"}}`.
    extra: arguments of the provider's own, passed through as they are; they win over what is made of the others.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] = field(repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    tools: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    tool_choice: str | Mapping[str, Any] | None = field(default=None, repr=False)
    response_format: Mapping[str, Any] | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def messages_of(given: Messages, system: str | None = None) -> list[dict[str, Any]]:
    """Messages from a text, which is the user's, or from dicts; `system` comes before them.

    Raises:
        ConfigError: what is neither, no message at all, or a message without one of `ROLES`.
    """
    said: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    if isinstance(given, str):
        return [*said, {"role": "user", "content": given}]
    if isinstance(given, Mapping) or not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)):
        raise ConfigError(f"messages: a text or a list of messages is needed, not a {type(given).__name__}")
    if not given:
        raise ConfigError("messages: there is none; give at least one")
    for number, message in enumerate(given):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise ConfigError(
                f"messages[{number}]: a dict whose 'role' is one of {', '.join(ROLES)} is needed, "
                'as {"role": "user", "content": "Hello!"}'
            )
        said.append(dict(message))
    return said
