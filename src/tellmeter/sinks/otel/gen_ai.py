"""The metrics of OpenTelemetry's GenAI semantic conventions, v1.41.1, as far as a finished record tells them.

https://github.com/open-telemetry/semantic-conventions/blob/v1.41.1/docs/gen-ai/gen-ai-metrics.md has the names, units,
attributes and boundaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...counts import count
from ...records import AgentMetrics

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**power for power in range(14))
# Each with its unit, description and boundaries.
HISTOGRAMS: dict[str, tuple[str, str, Sequence[float]]] = {
    "gen_ai.client.operation.duration": ("s", "GenAI operation duration.", SECONDS),
    "gen_ai.client.token.usage": ("{token}", "Number of input and output tokens used.", TOKENS),
    "gen_ai.client.operation.time_to_first_chunk": (
        "s",
        "Time to receive the first chunk, measured from when the client issues the generation request.",
        SECONDS,
    ),
    "gen_ai.client.operation.time_per_output_chunk": (
        "s",
        "Time per output chunk after the first, the mean of each stream.",
        SECONDS,
    ),
}
_ATTRIBUTES = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model")
# What comes after so many sets of attributes is one, as the specification of the SDK has it.
MAX_SERIES = 2000
OVERFLOW: Mapping[str, bool] = {"otel.metric.overflow": True}


class _Attributes(NamedTuple):
    whole: Mapping[str, str | bool]
    """With `error.type`, where there was an error."""
    common: Mapping[str, str | bool]
    input: Mapping[str, str | bool]
    output: Mapping[str, str | bool]


class GenAIMetrics:
    """The convention's histograms on one meter.

    Args:
        meter: where they are made.
        tag_names: tags of records that become attributes.
    """

    def __init__(self, meter: Meter, tag_names: Sequence[str] = ()) -> None:
        self._tags = tuple(tag_names)
        self._at_hand: dict[tuple[str | None, ...], _Attributes] = {}
        self._duration, self._tokens, self._first_chunk, self._per_chunk = (
            meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=boundaries)
            for name, (unit, description, boundaries) in HISTOGRAMS.items()
        )

    def record(self, record: AgentMetrics, context: Context | None = None) -> None:
        """Measure a finished call; `context` has the span that an exemplar leads to."""
        attributes = self._attributes(record)
        common = attributes.common
        self._duration.record(record.latency_ms / 1000, attributes.whole, context)
        if not record.tokens_estimated:  # the convention forbids guesses
            if record.input_tokens:
                self._tokens.record(record.input_tokens, attributes.input, context)
            if record.output_tokens:
                self._tokens.record(record.output_tokens, attributes.output, context)
        stream = record.stream
        if stream is None or stream.time_to_first_chunk_ms is None:
            return
        first = stream.time_to_first_chunk_ms
        self._first_chunk.record(first / 1000, common, context)
        if stream.chunks_received > 1:
            # A record has no single gaps. The time that the application held the stream is not the provider's.
            waited = max(0.0, stream.duration_ms - first - stream.consumer_wait_ms)
            self._per_chunk.record(waited / 1000 / (stream.chunks_received - 1), common, context)

    def _attributes(self, record: AgentMetrics) -> _Attributes:
        failure = (record.error_class or record.error_category or "_OTHER") if record.failed else None
        values = (record.operation, record.provider, record.model, record.response_model)
        key = (*values, failure, *map(record.tags.get, self._tags))
        found = self._at_hand.get(key)
        if found is not None:
            return found
        if len(self._at_hand) >= MAX_SERIES:
            count("series_overflow", "gen_ai.client")
            return _Attributes(OVERFLOW, OVERFLOW, OVERFLOW, OVERFLOW)
        named = {**dict(zip(_ATTRIBUTES, values, strict=True)), **{tag: record.tags.get(tag) for tag in self._tags}}
        common = {name: value for name, value in named.items() if value}
        found = self._at_hand[key] = _Attributes(
            {**common, "error.type": failure} if failure else common,
            common,
            {**common, "gen_ai.token.type": "input"},
            {**common, "gen_ai.token.type": "output"},
        )
        return found
