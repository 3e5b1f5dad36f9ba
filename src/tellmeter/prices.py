"""PriceBook: the tokens of one call to US dollars, by the provider's word, the user's prices or genai-prices.

genai-prices (and `price_book`, which reads it) is loaded on first use, and nothing is ever fetched from here. Where the
application itself runs genai-prices' UpdatePrices, what that fetched is in force from the next call on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .counts import count
from .rates import own_rates, settled
from .usage import Usage

if TYPE_CHECKING:
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

    def load(self) -> None:
        """Load the price list, which takes a moment the first time; what goes wrong is counted."""
        try:
            self._current()
        except Exception as error:
            count("price_error", type(error).__name__)

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
