"""ClientCall: one logical call of the LLMClient to one model, from its first attempt to its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..call import CALL_BYTES, Call, Target
from ..errors import LLMTimeoutError
from ..guard import note
from ..prices import PriceBook
from ..records import AgentMetrics
from ..usage import Usage
from ..wire.calls import WireCall
from ..wire.exchange import Exchange
from ..wire.formats import SHARED, by_body, by_path
from ..wire.message import content_of


class ClientCall(WireCall):
    """A call whose caller knows whom it asks, and wants to know what it cost.

    All requests that it is given in `begin` are its attempts. It makes its record where it ends, not on the router's
    thread, so that `record`, `usage` and `cost_breakdown()` are there as soon as it has ended, whatever becomes of the
    record. Where nothing was sent, what it was told at its beginning is all that is recorded.
    """

    record: AgentMetrics | None = None
    usage: Usage | None = None
    provider_request_id: str | None = None
    category: str | None = None  # of what went wrong, where that is not to be read on the wire
    _service_tier: str | None = None
    _failure: Exception | None = None

    def __init__(
        self,
        target: Target,
        *,
        provider: str,
        model: str,
        operation: str,
        method: str,
        request_id: str,
        tags: Mapping[str, str],
    ) -> None:
        self.target = target
        self.known_provider = self.provider = provider
        self.model = model
        self.operation = operation
        self.method = method
        self.scoped = True
        self.exchanges: list[Exchange] = []
        self.tags = tags
        self.request_id = self._own_id = request_id
        self._begin()

    def begin(self, request: Any) -> Exchange | None:
        """The attempt that a POST begins; None for one that asks no model."""
        wire_format = by_path(request.url.path)
        if wire_format is None or self.ended:
            return None
        if wire_format.name in SHARED:
            wire_format = by_body(wire_format, content_of(request))
        self.format = wire_format
        return self.attempt(request)

    def end(self, status: str = "", error: BaseException | None = None) -> None:
        """End the call; only the first end counts. A limit of ours that ran out is what ended its attempts, too."""
        # What the caller cancels is not tried again: all attempts but the last can be cancelled by a limit alone.
        for attempt in self.exchanges if isinstance(error, LLMTimeoutError) else self.exchanges[:-1]:
            if attempt.ending == "cancelled":
                attempt.ending = "timeout"
        super().end(status, error)

    def cost_breakdown(self) -> dict[str, float] | None:
        """US dollars by `input_cost`, `output_cost`, `cache_savings`, `total_cost`; None where the price is not known.

        What the provider itself states is no sum of parts: then there is the total alone.
        """
        record, usage = self.record, self.usage
        if record is None or record.cost_usd is None:
            return None
        if usage is None or (usage.cost_usd is not None and record.price_version == "provider"):
            return {"total_cost": record.cost_usd}
        only_input = msgspec.structs.replace(usage, output_tokens=0, reasoning_tokens=0, output_audio_tokens=0)
        uncached = msgspec.structs.replace(
            only_input, cached_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0, cached_audio_tokens=0
        )
        paid = self._dollars(only_input)
        full = paid if only_input == uncached else self._dollars(uncached)
        if paid is None or full is None:
            return {"total_cost": record.cost_usd}
        return {
            "input_cost": paid,
            "output_cost": record.cost_usd - paid,
            "cache_savings": full - paid,
            "total_cost": record.cost_usd,
        }

    def _dollars(self, usage: Usage) -> float | None:
        prices: PriceBook = self.target.prices
        dollars, _ = prices.cost(
            self.provider, self.model, self.response_model, usage, at=self.wall, service_tier=self._service_tier
        )
        return dollars

    # ------------------------------------------------------------------ where it ends

    def _submit(self) -> None:
        try:
            if self.exchanges:
                self.record = super().finish()
            else:
                self.attempts, self.record = (), Call.finish(self)
        except Exception as error:
            self._failure = error
            note("client", error)
        super()._submit()

    def _describe(self, last: Exchange, answer: Any, streamed: bool) -> None:
        super()._describe(last, answer, streamed)
        self.provider_request_id, self.request_id = self.request_id, self._own_id

    def _record(
        self, *, usage: Usage, error_category: str | None, service_tier: str | None = None, **rest: Any
    ) -> AgentMetrics:
        self.usage, self._service_tier = usage, service_tier
        if error_category is not None and self.category is not None:
            error_category = self.category
        return super()._record(usage=usage, error_category=error_category, service_tier=service_tier, **rest)

    # ------------------------------------------------------------------ on the router thread

    def size(self) -> int:
        """About how many bytes the ended call holds."""
        return CALL_BYTES

    def finish(self) -> AgentMetrics | None:
        """The record that was made at its end."""
        if self._failure is not None:
            raise self._failure
        return self.record
