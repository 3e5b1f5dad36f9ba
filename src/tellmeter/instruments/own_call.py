"""OwnCall: a call of one's own code, which steps back behind the calls that are seen inside it."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ..block_call import OuterCall
from ..call import STREAM_STATUS
from ..context import Enclosing, enclosing, reset, tags_in_force
from ..counts import count
from ..guard import note
from ..records import AgentMetrics, StreamMetrics
from ..usage import Usage
from ..wire.answer import Answer
from ..wire.message import NO_HEADERS
from ..wire.providers import UNKNOWN, provider_of
from .items import ItemMeter, TextOf
from .usage import status_code_of

_NOTHING = Usage()
_COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")

clock = time.perf_counter_ns


class Terms(NamedTuple):
    """What is to be recorded, and the US dollars per 1,000 tokens (input, output) where the user gives them."""

    tokens: bool = True
    cost: bool = True
    rates: tuple[float, float] | None = None


class OwnCall(OuterCall):
    """A call of one's own code. Where it is a stream, `items` measures what it yields."""

    terms: Terms = Terms()
    stated: Answer | None = None  # what the result says, with what the call's own fields have no place for
    items: ItemMeter | None = None
    _tokens: tuple[contextvars.Token[Enclosing | None], contextvars.Token[Mapping[str, str]]] | None = None
    _watched = False
    _left: tuple[Enclosing | None, Mapping[str, str]] | None = None  # what its code had set itself, tags for one

    def enter(self) -> None:
        """What begins from here on is inside the call, and has its tags."""
        inside, tags = self._left or (self, self._context_tags)
        self._tokens = enclosing.set(inside), tags_in_force.set(tags)
        if self.items is not None and self._not_ended:
            self.items.times.append(clock())

    def leave(self) -> None:
        """What begins from here on is not; nothing happens where it was not entered."""
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            self._left = enclosing.get(), tags_in_force.get()
            reset(tags_in_force, tokens[1])
            reset(enclosing, tokens[0])

    def asked_aside(self) -> bool:
        """Whether a call inside is this one unless somebody answered whom nobody else saw: a question's embedding."""
        return not self.output_tokens and any(call.is_recorded() for call in self.__dict__.get("inside", ()))

    def forget(self) -> None:
        """Let go of what only a call in progress needs: tasks that it started may keep it for ever."""
        self._left = None  # it refers back to the call
        self.__dict__.pop("inside", None)

    def know(self, answer: Answer) -> None:
        """Take over what the result states."""
        self.response_model = answer.response_model
        self.model = self.model or answer.response_model or ""
        self.finish_reason = answer.finish_reason or self.finish_reason
        self.request_id = self.request_id or answer.response_id
        self.tools_used = answer.tools or self.tools_used
        usage = answer.usage
        if usage is not None:
            self.stated = answer
            self.input_tokens, self.output_tokens = usage.input_tokens, usage.output_tokens

    def failed(self, error: BaseException | None, answer: Answer) -> None:
        """Note the HTTP status that an SDK's exception carries; nothing is billed for what was refused."""
        code = status_code_of(error)
        if code is not None:
            self.status_code = code
            self.refused = code >= 400 and answer.usage is None

    # ------------------------------------------------------------------ its items, where it is a stream

    def measure(self, text: TextOf | None = None) -> None:
        """Measure the items that it yields from now on."""
        if self.target.config.enabled:
            self.meter = self.items = ItemMeter(self.started, self.wall, text)

    def came(self, item: object) -> None:
        """Note an item that its code gave; never raises."""
        meter = self.items
        if meter is None or not self._not_ended:
            return
        try:
            times, chunks = meter.times, meter.chunks
            times.append(clock())
            if len(times) & 1:  # nobody told when it was asked for
                times.append(times[-1])
            if not self._watched:
                self.be_watched()
            chunks.append(item if type(item) in meter.plain else meter.look_at(item))
            if len(chunks) >= meter.limit:
                self._fold(meter)
        except Exception as problem:
            note("stream", problem)

    def _fold(self, meter: ItemMeter) -> None:
        if self.generated_inside():  # that call's stream tells of itself
            self.meter = None
            self.discard()
        else:
            meter.fold()

    def be_watched(self) -> None:
        """Have the stream watched from now on, unless a call inside tells of itself."""
        if self.items is not None and not self.generated_inside():
            self._watched = True
            self.watch(self.items)

    def items_ended(self) -> None:
        """No more items come; never raises."""
        try:
            if self.items is not None:
                self.items.finish(clock())
        except Exception as problem:
            note("stream", problem)

    def stated_by_items(self) -> Answer | None:
        """What its items state; None where there were none."""
        items = self.items.items if self.items is not None else None
        return items.answer if items is not None and items.events else None

    # ------------------------------------------------------------------ on the router thread

    def _manual_stream(self, status: str) -> StreamMetrics | None:
        meter = self.items
        if meter is None:
            return super()._manual_stream(status)
        meter.finish()  # the process ends before its stream
        if not meter.wanted:
            return None
        return meter.snapshot(
            now=self._ended_at,
            status=STREAM_STATUS[status],
            provider=self.provider or provider_by(self.model) or UNKNOWN,
            model=self.model,
            output_tokens=self.output_tokens,
            last_error=self._error[0] if self._error else None,
        )

    def _record(self, *, usage: Usage, service_tier: str | None = None, **rest: Any) -> AgentMetrics:
        terms = self.terms
        self.provider = self.provider or provider_by(self.model)
        answer = self.stated
        if answer is not None:
            usage, service_tier = answer.usage or usage, answer.service_tier
        unknown = answer is None and not self.refused and usage == _NOTHING
        if unknown and rest["status"] == "success":
            count("usage_missing", self.provider)
        by_rates = terms.rates is not None and self.cost_usd is None and not unknown and not self.refused
        self.unpriced = unknown or by_rates or not terms.cost
        self.refused = self.refused and terms.cost
        record = super()._record(usage=usage, service_tier=service_tier, **rest)
        changes: dict[str, Any] = {}
        if by_rates and terms.cost and terms.rates is not None and self.target.config.enable_cost_tracking:
            of_input, of_output = terms.rates
            cost = (usage.input_tokens * of_input + usage.output_tokens * of_output) / 1000
            changes.update(cost_usd=cost, price_version="override")
        if not terms.tokens:
            changes.update(dict.fromkeys(_COUNTS, 0))
            if record.stream is not None:
                changes["stream"] = msgspec.structs.replace(record.stream, output_tokens=0, tokens_per_second=0.0)
        return msgspec.structs.replace(record, **changes) if changes else record


def provider_by(model: str) -> str:
    """Who has a model of that name; "" where that is not known."""
    named = provider_of(None, None, NO_HEADERS, model) if model else UNKNOWN
    return "" if named == UNKNOWN else named
