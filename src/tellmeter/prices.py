"""PriceBook: the tokens of one call to US dollars, by the provider's word, the user's prices or genai-prices.

genai-prices (and `price_book`, which reads it) is loaded on first use, and nothing is ever fetched from here. Where the
application itself runs genai-prices' UpdatePrices, what that fetched is in force from the next call on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from .counts import count
from .usage import Usage

if TYPE_CHECKING:
    from fractions import Fraction

    from .price_book import Call, Edition

# Whoever bills here is not who states a cost: Azure passes on xAI's field, which says 0.
_PASSED_ON = frozenset({"azure.ai.openai", "azure.ai.inference"})


class PriceBook:
    """What calls cost in US dollars, and by which prices. Safe to use from several threads.

    The first of these that knows: the cost that the provider states; `prices`, the user's US dollars per million tokens
    by model, `provider/model` or `provider/*`; genai-prices, less the provider's share (0..1) in `discounts`.

    Models on a machine of one's own (ollama, vllm) have no price here: what they cost is not counted in tokens, and
    ollama.com is billed. `prices={"ollama/*": {"input": 0}}` says that they are free.
    """

    def __init__(
        self,
        prices: Mapping[str, Mapping[str, float]] | None = None,
        discounts: Mapping[str, float] | None = None,
    ) -> None:
        self._own = {name: own_rates(rates) for name, rates in (prices or {}).items()}
        self._discounts = dict(discounts or {})
        self._edition: Edition | None = None
        # Gives the prices in force as genai-prices has them; once it has failed to load, nothing at all.
        self._editions: Callable[[Edition | None], Edition | None] | None = None

    def cost(
        self,
        provider: str,
        model: str,
        response_model: str | None,
        usage: Usage,
        *,
        at: float,
        service_tier: str | None = None,
    ) -> tuple[float | None, str | None]:
        """US dollars and price version of a call that started `at` (Unix seconds). (None, None): the price is unknown.

        The version is "provider", "override" or "genai-prices <version>" with the time of the update, if there was one.
        A call without any token costs 0.0 where its model has a price: refused calls are not billed. An answered call
        whose usage nobody knows is not such a call: do not ask for it. Never raises; what went wrong is counted as
        `price_error{class name}`, every unknown price as `price_unknown{provider}`.
        """
        try:
            stated = usage.cost_usd
            if stated is not None and 0.0 <= stated < math.inf and provider not in _PASSED_ON:
                return float(stated), "provider"
            own = self._own_dollars(provider, model, response_model, usage) if self._own else None
            if own is not None:
                return own, "override"
            edition = self._current()
            if edition is not None:
                dollars = self._dollars(edition, (provider, model, response_model, service_tier), usage, at)
                if dollars is not None:
                    return dollars, edition.version
        except Exception as error:  # a price must never cost the record that it is for
            count("price_error", type(error).__name__)
        count("price_unknown", provider if type(provider) is str else "")
        return None, None

    def _own_dollars(self, provider: str, model: str, response_model: str | None, usage: Usage) -> float | None:
        names = (response_model, model) if response_model else (model,)
        for name in (*(f"{provider}/{name}" for name in names), *names, f"{provider}/*"):
            if name in self._own:
                return self._own[name].dollars(settled(usage))
        return None

    def _dollars(self, edition: Edition, call: Call, usage: Usage, at: float) -> float | None:
        try:
            priced = edition.resolved[call]
        except KeyError:
            priced = edition.resolve(call)
        dollars = None if priced is None else priced.dollars(usage, at)
        if dollars is None:
            return None
        discount = self._discounts.get(call[0])
        return dollars * (1.0 - discount) if discount else dollars

    def _current(self) -> Edition | None:
        if self._editions is None:
            try:
                from .price_book import current_edition
            except Exception:
                # Python does not remember a failed import: without this it would be 0.4 s again at every call.
                self._editions = lambda _: None
                raise
            self._editions = current_edition
        self._edition = edition = self._editions(self._edition)
        return edition


def default_version() -> str | None:
    """The price version that calls get now; None without genai-prices. Loads no prices where nobody did yet."""
    try:
        if "genai_prices.data" in sys.modules:
            from .price_book import current_edition

            return current_edition(None).version
        from importlib.metadata import version

        return f"genai-prices {version('genai-prices')}"
    except Exception:
        return None


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
