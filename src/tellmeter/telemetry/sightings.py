"""Sightings: one call may be seen on the wire and told by spans of several instrumentations; which are the same?

What is seen inside a span is its call. Some spans are made after their call, or are not current while it runs: there
the provider's id of the answer tells, else time, model and tokens together.
"""

from __future__ import annotations

import math
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from ..call import Call
from ..records import AgentMetrics
from ..wire.calls import WireCall

MOST_ENDED = 1000
LATE_SECONDS = 1.0  # records are not made quite in the order in which their calls ended

_ASIDE = frozenset({"embeddings", "count_tokens"})  # what is done beside a chat

OPEN, COUNTED, SAME, NOTHING = "open", "counted", "same", "nothing"


class Counted(Protocol):
    """A record or a usage."""

    @property
    def input_tokens(self) -> int: ...  # noqa: D102 - as in records

    @property
    def output_tokens(self) -> int: ...  # noqa: D102


class Sighting:
    """A call as one observer sees it: tellmeter itself (`who` is ""), or an instrumentation, by the scope of its spans.

    `began` and `ended` are Unix seconds. `fate` is what became of it: it is open, counted, the same as one that is
    counted, or nothing.
    """

    def __init__(self, who: str, operation: str, began: float) -> None:
        self.who = who
        self.operation = operation
        self.began = began
        self.ended = math.inf
        self.fate = OPEN
        self.models: frozenset[str] = frozenset()
        self.response_id: str | None = None
        self.tokens = 0, 0
        self.whole = False  # whether the tokens are the provider's count of the whole call
        self.told_by: set[str] = set()  # instrumentations whose spans are of it

    def know(self, operation: str, models: Iterable[str | None], response_id: str | None, usage: Counted) -> None:
        """Take over what is known now that it has ended."""
        self.operation = operation
        self.models = _names(*models)
        self.response_id = response_id
        self.tokens = usage.input_tokens, usage.output_tokens

    def counts(self) -> bool:
        """Whether there is, or will be, a record of it."""
        return self.fate in (COUNTED, SAME)

    def may_be(self, inner: Sighting) -> bool:
        """Whether a call inside may be this one, and is not one beside it: a question's embedding."""
        return inner.operation == self.operation or inner.operation not in _ASIDE

    def is_same(self, other: Sighting) -> bool:
        """Whether two observers saw one call."""
        if self.began > other.ended or other.began > self.ended:
            return False
        if self.response_id and other.response_id:
            return self.response_id == other.response_id
        return (
            (self.operation in _ASIDE) == (other.operation in _ASIDE)
            and not (self.models and other.models and self.models.isdisjoint(other.models))
            and _agree(self, other)
        )


def _names(*models: str | None) -> frozenset[str]:
    return frozenset(name.rpartition("/")[2].lower() for name in models if name and name != "unknown")


def _agree(one: Sighting, other: Sighting) -> bool:
    """Whether the tokens leave it possible. Of a call that broke off everybody has counted another part."""
    if not (one.whole and other.whole):
        return True
    return all(
        first == second or not first or not second for first, second in zip(one.tokens, other.tokens, strict=True)
    )


class OwnSighting(Sighting):
    """A call that tellmeter meters itself."""

    def __init__(self, call: Call, log: Sightings) -> None:
        super().__init__("", call.operation, time.time())
        self._call = weakref.ref(call)
        self._log = log

    def end(self, call: Call, record: AgentMetrics | None) -> None:
        """The record is made; None where none is."""
        if record is None:
            self.fate = NOTHING
            return
        self.know(record.operation, (record.model, record.response_model), call.response_id, record)
        self.whole = record.status == "success" and not record.tokens_estimated
        self.ended = record.timestamp + record.latency_ms / 1000
        self.fate = COUNTED
        if isinstance(call, WireCall):  # one's own functions may be around a call, and step back behind it
            self._log.add(self)

    def counts(self) -> bool:
        """As above; a call in progress ends in a record, unless it was discarded."""
        return super().counts() or (self.fate == OPEN and self.call is not None)

    @property
    def call(self) -> Call | None:
        """The call, while it has no record yet."""
        call = self._call()
        return call if call is not None and call.sighting is self else None


class Sightings:
    """The newest in this process."""

    def __init__(self) -> None:
        # By id. Its references are listed in one step, whatever other threads add meanwhile.
        self._open: weakref.WeakValueDictionary[int, OwnSighting] = weakref.WeakValueDictionary()
        self._ended: deque[Sighting] = deque(maxlen=MOST_ENDED)

    def begin(self, call: Call) -> OwnSighting:
        """See a call that begins."""
        sighting = OwnSighting(call, self)
        if isinstance(call, WireCall):
            self._open[id(sighting)] = sighting
        return sighting

    def add(self, sighting: Sighting) -> None:
        """Keep one of which there is a record, to compare with others."""
        self._open.pop(id(sighting), None)
        self._ended.append(sighting)

    def same_as(self, told: Sighting) -> Sighting | None:
        """What another observer saw of the call that a span tells of, unless a span like it is of that already."""

        def distance(other: Sighting) -> tuple[bool, float]:
            # Of calls that are alike the first inside the span: spans that end later may have begun after it.
            inside = other.began >= told.began
            return not inside, other.began if inside else -other.began

        possible = []
        for other in self._candidates(told):
            if other.who != told.who and told.who not in other.told_by and told.is_same(other):
                if told.response_id and other.response_id:
                    return other
                possible.append(other)
        return min(possible, key=distance, default=None)

    def _candidates(self, told: Sighting) -> Iterator[Sighting]:
        for other in reversed(self._ended.copy()):
            if other.ended < told.began - LATE_SECONDS:
                break
            yield other
        for reference in self._open.valuerefs():
            one = reference()
            call = None if one is None else one.call
            if one is not None and call is not None and told.began <= one.began <= told.ended:
                one.models = _names(call.live()[1])
                yield one
