"""Tokens as they are billed: what a wire format reads from an answer, and what the price book multiplies."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, kw_only=True, gc=False):
    """The tokens of one call, in one way of counting whoever the provider is.

    Every subset is inside its parent: `cached_tokens`, `cache_write_tokens`, `input_audio_tokens` in `input_tokens`;
    `cache_write_1h_tokens` in `cache_write_tokens`; `cached_audio_tokens` in both `cached_tokens` and
    `input_audio_tokens`; `reasoning_tokens`, `output_audio_tokens` in `output_tokens`. `cost_usd` is what the provider
    itself states, else None.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    cached_audio_tokens: int = 0
    output_audio_tokens: int = 0
    cost_usd: float | None = None
