"""What the LLMClient gives back: texts, tool calls, tokens and dollars, the same for every provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..records import AgentMetrics
from .calls import ClientCall


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called. `arguments` is the JSON that it wrote, which may be broken.

    signature: what the provider wants back with the call when its result is given (Gemini's thought signature, base64).
    """

    id: str
    name: str
    arguments: str = field(default="{}", repr=False)
    signature: str | None = field(default=None, repr=False)

    @classmethod
    def joined(cls, pieces: Sequence[ToolCall]) -> ToolCall:
        """The call whose pieces these are, at least one, in their order."""
        return cls(
            next((piece.id for piece in pieces if piece.id), ""),
            next((piece.name for piece in pieces if piece.name), ""),
            "".join(piece.arguments for piece in pieces) or "{}",
            next((piece.signature for piece in pieces if piece.signature), None),
        )

    def as_message(self) -> dict[str, Any]:
        """The call as it stands in a message, for the next call's `messages`."""
        function = {"name": self.name, "arguments": self.arguments}
        made: dict[str, Any] = {"id": self.id, "type": "function", "function": function}
        if self.signature:
            made["extra_content"] = {"google": {"thought_signature": self.signature}}
        return made

    def parsed(self) -> Any:
        """The arguments as values.

        Raises:
            ValueError: they are no JSON.
        """
        return msgspec.json.decode(self.arguments or "{}")


class TokenUsage(dict[str, int]):
    """Tokens as they are billed, in the usual shape of a chat completion, and as attributes with the records' names.

    `prompt_tokens` holds what was read from a cache and written to it, `completion_tokens` the reasoning.
    """

    def __init__(self, record: AgentMetrics | None = None) -> None:
        if record is None:
            super().__init__(prompt_tokens=0, completion_tokens=0, total_tokens=0)
            return
        super().__init__(
            prompt_tokens=record.input_tokens,
            completion_tokens=record.output_tokens,
            total_tokens=record.total_tokens,
            cached_tokens=record.cached_tokens,
            cache_write_tokens=record.cache_write_tokens,
            reasoning_tokens=record.reasoning_tokens,
        )

    @property
    def input_tokens(self) -> int:
        """Tokens of the prompt."""
        return self["prompt_tokens"]

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer."""
        return self["completion_tokens"]

    @property
    def total_tokens(self) -> int:
        """Both."""
        return self["total_tokens"]

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, read from the provider's cache."""
        return self.get("cached_tokens", 0)

    @property
    def cache_write_tokens(self) -> int:
        """Of the prompt, written to the provider's cache."""
        return self.get("cache_write_tokens", 0)

    @property
    def reasoning_tokens(self) -> int:
        """Of the answer, thought and not said."""
        return self.get("reasoning_tokens", 0)


@dataclass(frozen=True, kw_only=True)
class GenerationResponse:
    """An answer, whole. Its repr tells nothing of what was said.

    text: "" where the model only calls tools.
    usage, cost_usd: as in `metrics`; the cost is None where the price is not known.
    cost_breakdown: US dollars: `input_cost`, `output_cost`, `cache_savings` (against the same tokens uncached; caching
        may cost more than it saves), `total_cost`. None where the price is not known; a provider that states its cost
        states the total alone.
    finish_reason: the provider's own word (stop, end_turn, length, ...).
    request_id: of this call, in all its records. provider_request_id: the provider's own, for its support.
    metrics: the record of the call; None where it could not be made.
    raw: the SDK's own object.
    """

    text: str = field(repr=False)
    model: str
    provider: str
    usage: TokenUsage
    cost_usd: float | None
    cost_breakdown: Mapping[str, float] | None
    finish_reason: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    request_id: str = ""
    provider_request_id: str | None = None
    metrics: AgentMetrics | None = field(default=None, repr=False)
    raw: Any = field(default=None, repr=False)

    def get_json(self) -> Any:
        """The text as JSON, with or without a Markdown fence around it.

        Raises:
            ValueError: it is none.
        """
        return json_in(self.text)

    def as_message(self) -> dict[str, Any]:
        """The answer as a message, for the next call's `messages`."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = [call.as_message() for call in self.tool_calls]
        return message


@dataclass(frozen=True, kw_only=True)
class EmbeddingResponse:
    """Vectors, one for each text, in their order; the rest as in `GenerationResponse`."""

    embeddings: tuple[list[float], ...] = field(repr=False)
    model: str
    provider: str
    usage: TokenUsage
    cost_usd: float | None
    request_id: str = ""
    provider_request_id: str | None = None
    metrics: AgentMetrics | None = field(default=None, repr=False)
    raw: Any = field(default=None, repr=False)


def response_of(call: ClientCall, text: str, tool_calls: tuple[ToolCall, ...], raw: Any) -> GenerationResponse:
    """The answer to a call that has ended."""
    record = call.record
    return GenerationResponse(
        text=text,
        model=call.model,
        provider=call.provider,
        usage=TokenUsage(record),
        cost_usd=None if record is None else record.cost_usd,
        cost_breakdown=call.cost_breakdown(),
        finish_reason=None if record is None else record.finish_reason,
        tool_calls=tool_calls,
        request_id=call.request_id or "",
        provider_request_id=call.provider_request_id,
        metrics=record,
        raw=raw,
    )


def json_in(text: str) -> Any:
    """The JSON that a text is, with or without a Markdown fence around it.

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].partition("\n")[2]
    return msgspec.json.decode(text)
