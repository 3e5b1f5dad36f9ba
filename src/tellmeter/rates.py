"""Rates: a price as a sum of whole numbers, and the counts of tokens that it is multiplied with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from .usage import Usage

if TYPE_CHECKING:
    from fractions import Fraction


class Rates(msgspec.Struct, frozen=True, gc=False):
    """A total as a fixed sum, in whole numbers of 1/`unit` US dollars: nothing is rounded before the end.

    The rate of a subset is what its tokens cost beyond what their parent's rate already charges.
    """

    unit: int
    fixed: int
    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    input_audio: int
    cached_audio: int
    output_audio: int

    def dollars(self, usage: Usage) -> float:
        """US dollars, correctly rounded."""
        return (
            self.fixed
            + self.input * usage.input_tokens
            + self.output * usage.output_tokens
            + self.cached * usage.cached_tokens
            + self.cache_write * usage.cache_write_tokens
            + self.cache_write_1h * usage.cache_write_1h_tokens
            + self.reasoning * usage.reasoning_tokens
            + self.input_audio * usage.input_audio_tokens
            + self.cached_audio * usage.cached_audio_tokens
            + self.output_audio * usage.output_audio_tokens
        ) / self.unit

    @property
    def free(self) -> bool:
        """Whether the total is always 0."""
        return not any(msgspec.structs.astuple(self)[1:])


COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "cost_usd")  # in the order of Rates


def rates_of(fixed: Fraction, each: Mapping[str, Fraction]) -> Rates:
    """Rates by field of Usage, given in US dollars per token beyond what the parent's rate charges."""
    unit = math.lcm(fixed.denominator, *(rate.denominator for rate in each.values()))
    return Rates(unit, int(fixed * unit), *(int(each[name] * unit) for name in COUNTS))


def own_rates(given: Mapping[str, float]) -> Rates:
    """The user's US dollars per million tokens. A cache rate that is not given is the input's, another one is 0."""
    from fractions import Fraction  # two milliseconds that most programs do without

    rates = {name: Fraction(str(rate)) / 1_000_000 for name, rate in given.items()}
    base = rates.get("input", Fraction(0))
    each = {
        "input_tokens": base,
        "output_tokens": rates.get("output", Fraction(0)),
        "cached_tokens": rates.get("cache_read", base) - base,
        "cache_write_tokens": rates.get("cache_write", base) - base,
    }
    return rates_of(Fraction(0), {**dict.fromkeys(COUNTS, Fraction(0)), **each})


def adds_up(usage: Usage) -> bool:
    """Whether every subset is inside its parent, and siblings fit into it together."""
    cached, written, audio = usage.cached_tokens, usage.cache_write_tokens, usage.input_audio_tokens
    both = usage.cached_audio_tokens
    reasoning, spoken = usage.reasoning_tokens, usage.output_audio_tokens
    return (
        0 <= both <= cached
        and both <= audio
        and 0 <= usage.cache_write_1h_tokens <= written
        and cached + written + audio - both <= usage.input_tokens
        and 0 <= reasoning
        and 0 <= spoken
        and reasoning + spoken <= usage.output_tokens
    )


def settled(usage: Usage) -> Usage:
    """The usage with every subset cut to fit its parent, as the record will have it. ValueError: they are no counts.

    Grok on Azure states more cached tokens than input. And few APIs that state both cached tokens and audio say how
    they overlap: it is at least what does not fit beside each other.
    """
    if adds_up(usage):
        return usage
    total, output = usage.input_tokens, usage.output_tokens
    written = min(usage.cache_write_tokens, total)
    cached = min(usage.cached_tokens, total - written)
    audio = min(usage.input_audio_tokens, total - written)
    reasoning = min(usage.reasoning_tokens, output)
    fitting = msgspec.structs.replace(
        usage,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(usage.cache_write_1h_tokens, written),
        reasoning_tokens=reasoning,
        input_audio_tokens=audio,
        cached_audio_tokens=min(max(usage.cached_audio_tokens, cached + written + audio - total), cached, audio),
        output_audio_tokens=min(usage.output_audio_tokens, output - reasoning),
    )
    if not adds_up(fitting):
        raise ValueError("counts of tokens that are none")
    return fitting
