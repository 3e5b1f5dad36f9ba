"""StreamChunk: what one event of a stream carries, whatever provider sent it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .shapes import BY_KEY, BY_TYPE, Found, dicts, end_of, parts_of, responses, text_of, unwrapped, usage_of

# Names under which services that nobody knows send their text; the first that has one counts.
_TEXTS = (
    "text",
    "content",
    "delta",
    "response",
    "token",
    "completion",
    "generation",
    "outputText",
    "output",
    "answer",
    "value",
)


class StreamChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a streamed answer.

    content: text of the answer, a refusal included; "" where there is none.
    reasoning: text of the model's thinking.
    tool_calls: pieces of tool calls: `{"index", "id", "name", "arguments"}` as far as the event says them. Pieces of
        `arguments` (text) with the same index belong together.
    finish_reason: why the answer ended, in the provider's own word.
    model, id: of the answer, where the event says them.
    index: which of several answers (OpenAI's `n`, Gemini's candidates) this is a piece of.
    usage: the provider's own count of tokens, as it was sent.
    raw: the whole event.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    index: int = 0
    usage: dict[str, Any] | None = None
    raw: Any = None


def chunk_of(event: Any) -> StreamChunk | None:
    """What an event's decoded JSON carries; None for pings, openings that only name a role, and the like."""
    if isinstance(event, str):
        return StreamChunk(content=event, raw=event) if event else None
    event = unwrapped(event)
    if not isinstance(event, dict):
        return None
    found = (shape_of(event) or _anything)(event)
    if not any(map(found.get, ("content", "reasoning", "tool_calls", "finish_reason", "usage"))):
        return None
    said = {
        "model": text_of(event.get("model")) or text_of(event.get("modelVersion")) or None,
        "id": text_of(event.get("id")) or text_of(event.get("responseId")) or None,
        "raw": event,
    }
    return StreamChunk(**{**said, **found})


def error_of(event: Any) -> Any:
    """The error that an event reports, as the provider sent it; None for an event that reports none."""
    if not isinstance(event, dict):
        return None
    kind = event.get("type")
    if event.get("error") or kind == "error":
        return event.get("error") or event
    if kind == "response.failed":
        return event.get("response") or event
    return next((choice["error"] for choice in dicts(event.get("choices")) if choice.get("error")), None)


def shape_of(event: Found) -> Callable[[Found], Found] | None:
    """What reads an event; None for one of a shape that no provider here has."""
    kind = event.get("type") or event.get("event_type")
    if isinstance(kind, str):
        if kind.startswith("response."):
            return responses
        if kind in BY_TYPE:
            return BY_TYPE[kind]
    return next((read for key, read in BY_KEY.items() if key in event), None)


def _anything(event: Found) -> Found:
    """Text of who is not known; a token may be an object (Text Generation Inference)."""
    token, message = event.get("token"), event.get("message")
    if isinstance(token, dict):
        text = "" if token.get("special") is True else text_of(token.get("text"))
    elif isinstance(message, dict):
        text = parts_of(message.get("content"))[0]
    else:
        text = next(filter(None, (parts_of(event.get(key))[0] for key in _TEXTS)), "")
    return {"content": text, **end_of(event), "usage": usage_of(event)}
