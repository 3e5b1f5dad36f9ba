"""What a call of the LLMClient may be told beside its messages and its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..errors import ConfigError
from .ask import Ask, Messages, messages_of
from .checks import check_number
from .reliability.retries import RetryPolicy
from .reliability.timeouts import Timeouts


class CallOptions(TypedDict, total=False):
    """Options of `generate`, `stream` and `stream_with_usage`. Whatever else is given goes to the provider as it is.

    system: said before the messages.
    temperature, top_p, max_tokens, seed, stop: as every provider knows them; None, or left out, is its default.
    tools, tool_choice, response_format: in the shape of OpenAI's chat completions; `response_format="json"` asks for
        any JSON object.
    raw_params: arguments of the provider's own, for those whose names are taken here.
    fallback_models, retry_policy, timeouts: instead of the client's.
    tags: beside those of `tellmeter.tags(...)`, and before them.
    request_id: of the call in its records; one is made where none is given.
    """

    system: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    response_format: str | Mapping[str, Any] | None
    raw_params: Mapping[str, Any] | None
    fallback_models: Sequence[str] | None
    retry_policy: RetryPolicy | None
    timeouts: Timeouts | None
    tags: Mapping[str, Any] | None
    request_id: str | None


_OURS = frozenset(CallOptions.__annotations__)
_KINDS: Mapping[str, tuple[type, str]] = {
    "stop": (Sequence, "a text or a list of texts"),
    "tools": (Sequence, "a list of tools"),
    "raw_params": (Mapping, "a dict"),
}


def ask_of(messages: Messages, options: Mapping[str, Any]) -> Ask:
    """The request that messages and options make, for a model that is not chosen yet.

    Raises:
        ConfigError: an argument that cannot be; none of it is in the message.
    """
    if options.get("stream") is not None:
        raise ConfigError("stream: use client.stream(...) or client.stream_with_usage(...)")
    for name, (kinds, told) in _KINDS.items():
        if options.get(name) is not None and not isinstance(options[name], kinds):
            raise ConfigError(f"{name}: it must be {told}, not a {type(options[name]).__name__}")
    stop = options.get("stop") or ()
    if options.get("max_tokens") is not None:
        check_number("max_tokens", options["max_tokens"], 1, 1e9, whole=True)
    for name, high in (("temperature", 100.0), ("top_p", 1.0)):
        if options.get(name) is not None:
            check_number(name, options[name], 0.0, high)
    extra = {name: value for name, value in options.items() if name not in _OURS}
    return Ask(
        model="",
        messages=messages_of(messages, options.get("system")),
        max_tokens=options.get("max_tokens"),
        temperature=options.get("temperature"),
        top_p=options.get("top_p"),
        seed=options.get("seed"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        tools=options.get("tools") or (),
        tool_choice=options.get("tool_choice"),
        response_format=_format(options.get("response_format")),
        extra={**extra, **(options.get("raw_params") or {})},
    )


def _format(given: Any) -> Mapping[str, Any] | None:
    if given is None or given == "text":
        return None
    if given == "json":
        return {"type": "json_object"}
    if not isinstance(given, Mapping) or not isinstance(given.get("type"), str):
        raise ConfigError(
            "response_format: it must be 'json', or a dict as {'type': 'json_schema', 'json_schema': ...}"
        )
    return None if given["type"] == "text" else given
