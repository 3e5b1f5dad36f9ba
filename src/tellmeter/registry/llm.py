"""The LLM metrics, fed from every finished call, whatever becomes of its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from ..errors import ConfigError, MetricError
from ..guard import guarded, note
from ..records import FAILURES, AgentMetrics
from .catalogue import LLM_METRICS
from .deltas import Deltas
from .family import Family
from .registry import MetricsRegistry

_WHO = ("provider", "model")
_EXTRA = {
    "llm_attempts_total": "status",
    "llm_tokens_total": "type",
    "llm_tokens_used_total": "type",
    "llm_errors_total": "error_class",
}
_TOKENS = (
    (attrgetter("input_tokens"), (("llm_tokens_total", "input"), ("llm_tokens_used_total", "prompt"))),
    (attrgetter("output_tokens"), (("llm_tokens_total", "output"), ("llm_tokens_used_total", "completion"))),
    (attrgetter("cached_tokens"), (("llm_tokens_total", "cache_read"),)),
    (attrgetter("cache_write_tokens"), (("llm_tokens_total", "cache_write"),)),
    (attrgetter("reasoning_tokens"), (("llm_tokens_total", "reasoning"),)),
)
_BOUND = 4096  # label sets whose series are kept at hand, and series a label set

Live = Mapping[tuple[str, ...], int]


class LLMMetrics:
    """The LLM metrics of one collector on its registry.

    Args:
        registry: where they are counted.
        label_tags: tags of records that become labels.
        priced: whether costs are tracked, so that a record without one is a price unknown.

    Raises:
        ConfigError: a tag that cannot be a label beside the metrics' own.
    """

    def __init__(self, registry: MetricsRegistry, label_tags: Iterable[str] = (), *, priced: bool = True) -> None:
        self._registry = registry
        self._tags = tuple(label_tags)
        self._priced = priced
        self._families: dict[str, Family[Any]] = {}
        self._deltas = Deltas(registry)
        self._at_hand: dict[tuple[str, ...], _Series] = {}
        self._stalls_told: dict[str, int] = {}  # of streams that are still running
        own = {label for definition in LLM_METRICS for label in definition.labels}
        if own & set(self._tags):
            raise ConfigError(
                f"label_tags = {list(self._tags)}: the LLM metrics have a label {min(own & set(self._tags))}"
            )
        for definition in LLM_METRICS:
            family = registry.family(definition)
            try:
                family.widen(self._tags)
            except MetricError as error:
                raise ConfigError(f"label_tags = {list(self._tags)}: {error}") from None
            self._families[definition.name] = family

    def count(self, record: AgentMetrics, attempts: Sequence[str] | None = None) -> None:
        """Count a finished call. `attempts`: the HTTP status or outcome of each; None where they are not known."""
        series = self._series_of(record)
        exemplar = trace_labels(record)
        self._add_up(series, [record], exemplar)
        for status in _attempts(record) if attempts is None else attempts:
            series["llm_attempts_total", status].inc()
        if record.tokens_estimated:
            series["llm_usage_missing_total", ""].inc()
        if record.status in FAILURES:
            series["llm_errors_total", record.error_class or record.status].inc(1, exemplar)
        if record.retries:
            series["llm_retries_total", ""].inc(record.retries)
        if record.stream is not None:
            self._count_stream(series, record, exemplar)

    def count_all(self, finished: Sequence[tuple[AgentMetrics, Sequence[str] | None]]) -> None:
        """Count finished calls, with the attempts of each. Those that are alike are added up first, which is faster.

        A call that cannot be counted is noted, and the others are. Then `on_calls` of the registry hear of them.
        """
        alike: dict[int, tuple[_Series, list[AgentMetrics]]] = {}
        for record, attempts in finished:
            try:
                if attempts is not None or _is_special(record):
                    self.count(record, attempts)
                    continue
                series = self._series_of(record)
                alike.setdefault(id(series), (series, []))[1].append(record)
            except BaseException as error:
                note("metrics", error)
        for series, records in alike.values():
            try:
                self._add_up(series, records, None)
                for status, number in Counter(map(_last_attempt, records)).items():
                    series["llm_attempts_total", status].inc(number)
            except BaseException as error:
                note("metrics", error)
        for tell in self._registry.on_calls:
            guarded("metrics", tell, [record for record, _ in finished], self._tags, default=None)

    def _series_of(self, record: AgentMetrics) -> _Series:
        """The series of calls like this one."""
        tags = tuple([record.tags.get(tag, "") for tag in self._tags])
        key = (record.provider, record.model, record.method, record.status, *tags)
        series = self._at_hand.get(key)
        if series is None:
            if len(self._at_hand) >= _BOUND:
                self._at_hand.clear()
            names = ("provider", "model", "method", "status", *self._tags)
            series = self._at_hand[key] = _Series(self._families, dict(zip(names, key, strict=True)))
            for name in ("llm_active_requests", "llm_active_streams"):
                series[name, ""]  # 0 between calls: shown, and not only while somebody looks
        return series

    def _add_up(self, series: _Series, records: Sequence[AgentMetrics], exemplar: dict[str, str] | None) -> None:
        """What every call has: duration, tokens, cost."""
        series["llm_requests_total", ""].inc(len(records), exemplar)
        observe = series["llm_request_duration_seconds", ""].observe
        for record in records:
            observe(record.latency_ms / 1000, exemplar)
        for tokens_of, places in _TOKENS:
            if tokens := sum(map(tokens_of, records)):
                for place in places:
                    series[place].inc(tokens)
        costs = [record.cost_usd for record in records if record.cost_usd is not None]
        if costs:
            series["llm_cost_dollars_total", ""].inc(sum(costs))
        if self._priced and len(costs) < len(records):
            series["llm_price_unknown_total", ""].inc(len(records) - len(costs))

    def _count_stream(self, series: _Series, record: AgentMetrics, exemplar: dict[str, str] | None) -> None:
        stream = record.stream
        assert stream is not None
        if stream.time_to_first_chunk_ms is not None:
            series["llm_time_to_first_chunk_seconds", ""].observe(stream.time_to_first_chunk_ms / 1000, exemplar)
        if stream.time_to_first_token_ms is not None:
            series["llm_time_to_first_token_seconds", ""].observe(stream.time_to_first_token_ms / 1000, exemplar)
        if stream.tokens_per_second > 0 and stream.output_tokens > 1:
            series["llm_time_per_output_token_seconds", ""].observe(1 / stream.tokens_per_second, exemplar)
        if stream.chunks_received > 1:
            series["llm_stream_gap_seconds", ""].observe(stream.max_gap_ms / 1000, exemplar)
        told = self._stalls_told.pop(stream.stream_id, 0) if self._stalls_told else 0
        if stream.stalls > told:
            series["llm_stream_stalls_total", ""].inc(stream.stalls - told)

    def count_stall(self, stream_id: str, provider: str, model: str, tags: Mapping[str, str]) -> None:
        """Count a stall of a running stream, which is not counted again at its end."""
        if len(self._stalls_told) < _BOUND:
            self._stalls_told[stream_id] = self._stalls_told.get(stream_id, 0) + 1
            family = self._families["llm_stream_stalls_total"]
            known = {"provider": provider, "model": model, **{tag: tags.get(tag, "") for tag in self._tags}}
            family.find({label: known.get(label, "") for label in family.definition.labels}).inc()

    def show_live(self, requests: Live, streams: Live) -> None:
        """Set what is in progress now: (provider, model, a value for each of the label tags) -> number."""
        for name, now in (("llm_active_requests", requests), ("llm_active_streams", streams)):
            family = self._families[name]
            for values, change in self._deltas.moved(name, now):
                labels = dict.fromkeys(family.definition.labels, "")
                labels.update(zip((*_WHO, *self._tags), values, strict=True))
                family.find(labels).inc(change)


class _Series(dict[tuple[str, str], Any]):
    """The series of calls that agree in provider, model, method, status and tags: (metric, extra label) -> series."""

    def __init__(self, families: Mapping[str, Family[Any]], known: Mapping[str, str]) -> None:
        super().__init__()
        self._families = families
        self._known = known

    def __missing__(self, key: tuple[str, str]) -> Any:
        name, extra = key
        family = self._families[name]
        known = {**self._known, _EXTRA[name]: extra} if name in _EXTRA else self._known
        series = family.find({label: known.get(label, "") for label in family.definition.labels})
        if len(self) >= _BOUND:
            self.clear()
        self[key] = series
        return series


def trace_labels(record: AgentMetrics) -> dict[str, str] | None:
    """The labels of an exemplar that lead to the trace of a call; None where it has none."""
    if not record.trace_id:
        return None
    ids = {"trace_id": record.trace_id, "span_id": record.span_id}
    return {name: value for name, value in ids.items() if value}


def _is_special(record: AgentMetrics) -> bool:
    """Whether there is more to count than every call has."""
    return bool(
        record.trace_id
        or record.retries
        or record.stream is not None
        or record.tokens_estimated
        or record.status in FAILURES
    )


def _last_attempt(record: AgentMetrics) -> str:
    return str(record.status_code) if record.status_code else record.status


def _attempts(record: AgentMetrics) -> list[str]:
    """The attempts of a call of which only the last is known."""
    return ["error"] * min(record.retries, 1000) + [_last_attempt(record)]
