"""Token counts as OpenAI states them, and as everybody states them who speaks OpenAI's formats."""

from __future__ import annotations

import math

import msgspec

from ...usage import Usage

_TICKS_PER_DOLLAR = 1e10  # xAI: https://docs.x.ai/docs/api-reference


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None  # OpenAI, OpenRouter
    cache_creation_tokens: int | None = None  # LiteLLM
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Cost(msgspec.Struct, gc=False):
    total_cost: float | None = None  # Perplexity


class _CostDetails(msgspec.Struct, gc=False):
    upstream_inference_cost: float | None = None


class OpenAIUsage(msgspec.Struct, gc=False):
    """The `usage` object in all its spellings."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek
    cached_tokens: int | None = None  # Moonshot, Together
    num_cached_tokens: int | None = None  # Mistral
    cache_creation_input_tokens: int | None = None  # LiteLLM
    reasoning_tokens: int | None = None  # Perplexity
    service_tier: str | None = None  # Mistral
    cost: float | _Cost | None = None
    cost_in_usd_ticks: int | None = None
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None


def usage_of(stated: OpenAIUsage | None) -> Usage | None:
    """One way of counting out of many; None where nothing is stated.

    Cached tokens are inside the input and reasoning inside the output. Where input and output do not add up to a larger
    total, the provider left the reasoning out of the output (xAI's chat, Gemini's compatible endpoint): it is billed as
    output, so it is added. A total alone (Voyage) is the input of an embedding.
    """
    if stated is None:
        return None
    given = _first(stated.prompt_tokens, stated.input_tokens)
    made = _first(stated.completion_tokens, stated.output_tokens)
    total = stated.total_tokens
    if given is None and made is None:
        given = total
    cost = _cost(stated)
    if given is None and made is None and cost is None:
        return None
    inside = stated.prompt_tokens_details or stated.input_tokens_details or _Details()
    outside = stated.completion_tokens_details or stated.output_tokens_details or _Details()
    reasoning = _first(outside.reasoning_tokens, stated.reasoning_tokens)
    if given is not None and made is not None and total is not None and total > given + made:
        reasoning = reasoning or total - given - made
        made = total - given
    return Usage(
        input_tokens=given or 0,
        output_tokens=made or 0,
        cached_tokens=_first(
            inside.cached_tokens, stated.prompt_cache_hit_tokens, stated.cached_tokens, stated.num_cached_tokens
        )
        or 0,
        cache_write_tokens=_first(
            inside.cache_write_tokens, inside.cache_creation_tokens, stated.cache_creation_input_tokens
        )
        or 0,
        reasoning_tokens=reasoning or 0,
        input_audio_tokens=inside.audio_tokens or 0,
        output_audio_tokens=outside.audio_tokens or 0,
        cost_usd=cost,
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _cost(stated: OpenAIUsage) -> float | None:
    """The dollars that the provider itself states."""
    cost = stated.cost.total_cost if isinstance(stated.cost, _Cost) else stated.cost
    if cost is None and stated.cost_in_usd_ticks:  # 0 is what resellers send who do not fill it in
        cost = stated.cost_in_usd_ticks / _TICKS_PER_DOLLAR
    if cost is not None and stated.is_byok and stated.cost_details is not None:
        # OpenRouter with the user's own key: `cost` is its fee alone, the model is paid for upstream.
        cost += stated.cost_details.upstream_inference_cost or 0.0
    return cost if cost is not None and math.isfinite(cost) and cost >= 0 else None
