"""StreamCall: the call whose answer is a stream that is metered by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..call import class_names
from ..counts import count
from ..guard import note
from ..records import AgentMetrics
from ..wire.answer import Answer
from ..wire.hooks import status as hooks_status
from .inside import call_inside
from .items import ItemMeter, TextOf
from .own_call import OwnCall, clock


class StreamCall(OwnCall):
    """A call that ends with its stream. Output tokens that nobody states are estimated by what has come."""

    items: ItemMeter  # always there
    asked_at: Callable[[int], None]  # notes the time at which the next item was asked for

    def begin(self, source: object, text: TextOf | None) -> None:
        """Measure what comes of `source`, unless nothing is recorded."""
        self.items = ItemMeter(self.started, self.wall, text)
        self.meter = self.items
        self.asked_at = self.items.times.append
        if not self.target.config.enabled:
            self.discard()
        elif "hooked" not in hooks_status().values():
            self.be_watched()
        else:  # not before the first item, when it is known whether there is a call inside
            inside = call_inside(source)
            if inside is not None:
                self.contain(inside)

    # ------------------------------------------------------------------ what a callback tells

    def came_to(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """A function was called with a chunk."""
        if not self.ended:
            self.came(given[0] if given else next(iter(named.values()), None))

    def goes_on(self) -> None:
        """It came back: the next chunk is waited for."""
        if not self.ended:
            self.asked_at(clock())

    # ------------------------------------------------------------------ how it ends

    def raised(self, error: BaseException) -> None:
        """The source raised, be it that it has no more items."""
        if isinstance(error, (StopIteration, StopAsyncIteration)):
            self.over("success")
        elif isinstance(error, GeneratorExit):
            self.over("closed_early")
        else:
            self.over("", error)

    def closed(self) -> None:
        """Nobody wants to have more of it."""
        error = sys.exc_info()[1]
        cancelled = error is not None and not {"CancelledError", "Cancelled"}.isdisjoint(class_names(error))
        self.over("cancelled" if cancelled else "closed_early")

    def dropped(self) -> None:
        """Nobody has it any more."""
        self.over("closed_early" if self.items.times or self.items.last_arrival else "abandoned")

    def over(self, status: str, error: BaseException | None = None) -> None:
        """End the call; only the first end counts. Never raises."""
        if self.ended:
            return
        counted = False
        try:
            self.items_ended()
            counted = self.generated_inside()
            self.failed(error, self.stated_by_items() or Answer())
        except Exception as problem:
            note("stream", problem)
        self.forget()
        if counted:
            self.discard()
        else:
            self.end(status, error)

    # ------------------------------------------------------------------ on the router thread

    def finish(self) -> AgentMetrics | None:
        """As the base's, with what the items state."""
        self.items.finish()
        answer = self.stated_by_items() or Answer()
        self.know(answer)
        stated = answer.usage is not None or bool(self.output_tokens)
        estimated = self.items.estimated_tokens
        if estimated > self.output_tokens and (not stated or self._status != "success"):
            self.output_tokens, self.tokens_estimated = estimated, True
            if answer.usage is not None:
                answer.usage.output_tokens = estimated
            else:
                count("usage_missing", self.provider)
        return super().finish()
