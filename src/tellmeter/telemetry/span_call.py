"""SpanCall: the call that another instrumentation's span tells of, which steps back behind whoever else saw it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import force_setattr

from ..call import CALL_BYTES, Call
from ..context import NO_TRACE, Trace, enclosing, tags_in_force
from ..counts import count
from ..failures import error_category, error_class
from ..pipeline import lifecycle
from ..records import AgentMetrics
from ..usage import Usage
from . import genai_attributes as genai
from .sightings import COUNTED, NOTHING, SAME, Sighting, Sightings

_MOST_INSIDE = 16  # calls inside that are remembered; one is enough, unless it turns out to be none
# Events of a stream's first content: OpenInference's, OpenLLMetry's new and old.
_FIRST_TOKEN = frozenset(
    {"First Token Stream Event", "gen_ai.content.completion.chunk", "llm.content.completion.chunk"}
)
# What the provider does nothing for, and bills nothing.
_REFUSED = frozenset(
    {"authentication", "permission_denied", "rate_limit", "quota", "validation", "context_length", "not_found"}
)


class SpanCall(Call):
    """One span of an LLM call, from its start. It is in no collector's `open_calls`: whether it counts is known late.

    `outer` is the call of the span around it, whose call it may be.
    """

    def __init__(self, log: Sightings, span: Any, operation: str, outer: SpanCall | None) -> None:
        self.log = log
        self.span_id = span.context.span_id
        self.seen = Sighting(span.instrumentation_scope.name, operation, span.start_time / 1e9)
        self.inside: list[Sighting] = []
        self.outer = outer
        self.operation = operation
        self.model = self.provider = self.stream_id = ""
        self.request_id = None
        self._context_tags = tags_in_force.get()
        self._generation = lifecycle.forks
        self._trace = NO_TRACE
        self._first_token_at = 0
        self._not_ended = [None]
        if outer is not None:
            outer.contain(self.seen)
        around = enclosing.get()
        self.around: Sighting | None = getattr(around, "sighting", None)  # of one's own function
        if around is not None:
            around.contain(self)

    def contain(self, sighting: Sighting) -> None:
        """Note a call inside, which is inside of what is around this one, too."""
        one: SpanCall | None = self
        while one is not None:
            sighting.told_by.add(one.seen.who)
            if len(one.inside) < _MOST_INSIDE:
                one.inside.append(sighting)
            one = one.outer

    def is_recorded(self) -> bool:
        """Whether a record comes of it, or of who saw the same call; some spans never end."""
        return self.ended and self.seen.fate != NOTHING

    def finish_with(self, span: Any, attributes: dict[str, Any]) -> bool:
        """Take what is read of the span that ended; False where it had ended already, or began before a fork."""
        if not self._not_ended or self._generation != lifecycle.forks:
            return False
        self._not_ended.clear()
        self._name = span.name
        self._client = span.kind.name == "CLIENT"
        self._attributes = attributes
        self._failed = span.status.status_code.name == "ERROR"
        events = span.events
        if events:
            self._read_events(events)
        ids, parent = span.context, span.parent
        self._trace = Trace(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", f"{parent.span_id:016x}" if parent else None)
        self.started, self._ended_at = span.start_time, span.end_time
        self.wall = self.started / 1e9
        self.seen.began, self.seen.ended = self.wall, self._ended_at / 1e9
        return True

    def _read_events(self, events: Sequence[Any]) -> None:
        self._first_token_at = next((event.timestamp for event in events if event.name in _FIRST_TOKEN), 0)
        if self._failed and "error.type" not in self._attributes:
            kinds = [(event.attributes or {}).get("exception.type") for event in events if event.name == "exception"]
            if kinds:
                self._attributes["error.type"] = kinds[-1]

    # ------------------------------------------------------------------ on the router thread

    def size(self) -> int:
        """About how many bytes the ended call holds until it is finished."""
        return CALL_BYTES + sum(len(value) for value in self._attributes.values() if isinstance(value, str))

    def finish(self) -> AgentMetrics | None:
        """Make the record; None for no LLM call, and where another observer's record is of this one."""
        try:
            said = genai.read(self._attributes, self._name, client=self._client)
            if said is None:
                self.seen.fate = NOTHING
                return None
            outcome = self._outcome(said)
            self.seen.whole = outcome[0] == "success"
            self.seen.know(said.operation, (said.model, said.response_model), said.response_id, said.usage or Usage())
            if self._is_counted_already():
                self.seen.fate = SAME
                count("spans_of_metered_calls", self.seen.who)
                return None
            self.seen.fate = COUNTED
            self.log.add(self.seen)
            return self._read(said, *outcome)
        finally:
            self.inside, self.outer, self.around, self._attributes = [], None, None, {}  # no cycles are left

    def _is_counted_already(self) -> bool:
        if any(one.counts() and self.seen.may_be(one) for one in self.inside):
            return True
        # What is around it, where that ended first.
        if self.around is not None and self.around.fate == COUNTED and self.around.may_be(self.seen):
            return True
        outer = self.outer
        while outer is not None:
            if outer.seen.fate == COUNTED and outer.seen.may_be(self.seen):
                return True
            outer = outer.outer
        same = self.log.same_as(self.seen)
        if same is not None:
            same.told_by.add(self.seen.who)
        return same is not None

    def _read(self, said: genai.Said, status: str, name: str | None, category: str | None) -> AgentMetrics:
        config = self.target.config
        usage = said.usage or Usage()
        self.operation = said.operation
        self.model = said.model or said.response_model or ""
        self.response_model = said.response_model
        self.provider = said.provider_name(config.providers)
        self.request_id = self.response_id = said.response_id
        self.finish_reason = said.finish_reason
        self.output_tokens = usage.output_tokens
        if said.first_chunk_seconds and not self._first_token_at:
            self._first_token_at = self.started + int(said.first_chunk_seconds * 1e9)
        streamed = said.stream or bool(self._first_token_at)
        self.method = "stream" if streamed else "embed" if self.operation == "embeddings" else "generate"
        if status == "success" and streamed and not said.finish_reason and not usage.output_tokens:
            status, category = "closed_early", "cancelled"  # a whole stream has one or the other
        self._error = (name,) if name else ()
        if said.usage is None and self.operation != "count_tokens":
            self.refused = (self.status_code or 0) >= 400 or category in _REFUSED
            self.unpriced = not self.refused
            if status == "success":
                count("usage_missing", self.provider)
        record = self._record(
            usage=usage,
            status=status,
            error_class=name,
            error_category=category,
            stream=self._manual_stream(status),
            service_tier=said.service_tier,
        )
        if usage.cost_usd is not None and record.price_version == "provider":
            force_setattr(record, "price_version", "span")  # by the instrumentation's own prices
        return record

    def _outcome(self, said: genai.Said) -> tuple[str, str | None, str | None]:
        """Status, class and category of the error: of what is named, nothing but the name of a class."""
        kind = said.error_type or ""
        if not self._failed and not kind and (said.status_code or 0) < 400:
            return "success", None, None
        code = said.status_code or (int(kind) if kind.isdecimal() and len(kind) == 3 else None)
        self.status_code = code
        name: str | None = kind.rpartition(".")[2]
        if not name or not name[0].isupper():  # a provider's own word, a status, `_OTHER`
            name = error_class(code, self.provider) if (code or 0) >= 400 else None
        names = (name,) if name else ()
        category = error_category(code, kind, None, names)
        by_class = error_category(None, None, None, names)
        return by_class if by_class in ("timeout", "cancelled") else "error", name, category
