"""The Prometheus rules: names that the guides' queries use, figures for dashboards, alerts.

`{JOB}` in an expression is where the matcher of the scrape jobs goes. Names of figures are level:metric:operation, as
Prometheus' own documentation asks ("Recording rules").
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, fields

from ..errors import ConfigError

# What the user asked to leave out; every other reason is a loss.
WANTED_DROPS = ("filtered", "not_llm", "sampled_out")


@dataclass(frozen=True)
class Limits:
    """What the alerts compare with, and whose metrics they look at.

    error_ratio: share of LLM calls that may fail, per provider and model.
    latency_p95: seconds that 95 of 100 LLM calls must end within.
    stalls_per_stream: stalls a stream.
    cost_per_hour: US dollars that a scrape job may spend an hour.
    unknown_share: share of LLM calls whose price or usage may be unknown.
    min_calls: LLM calls in five minutes below which ratios and latencies say nothing.
    job: a regular expression of scrape jobs; empty for all.

    Raises:
        ConfigError: a limit that no figure can be compared with.
    """

    error_ratio: float = 0.05
    latency_p95: float = 30.0
    stalls_per_stream: float = 0.05
    cost_per_hour: float = 10.0
    unknown_share: float = 0.1
    min_calls: float = 10.0
    job: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "job":
                continue
            if not math.isfinite(value) or value < 0:
                raise ConfigError(f"{field.name} = {value}: it must be a number, 0 or more")
            if field.name in {"error_ratio", "unknown_share"} and value > 1:
                raise ConfigError(f"{field.name} = {value}: it is a share, from 0 to 1 (0.05 is 5 %)")
        try:
            re.compile(self.job)
        except re.error as error:
            raise ConfigError(f"job = {self.job}: it is no regular expression: {error}") from None


@dataclass(frozen=True)
class Recording:
    """A rule that stores what `expr` gives under the name `record`."""

    record: str
    expr: str


@dataclass(frozen=True)
class Alert:
    """A rule that warns while `vector` is `comparison` `threshold`, and `only` (an expression) has something to match.

    The vector alone is never empty where the metrics are: a test can ask for it in an application that is well. It
    binds tighter than a comparison.
    """

    name: str
    vector: str
    comparison: str
    threshold: float
    for_: str
    severity: str
    summary: str
    description: str
    only: str = ""

    @property
    def expr(self) -> str:
        """The whole condition."""
        condition = f"{self.vector} {self.comparison} {self.threshold:.10g}"
        return f"{condition}\n  and on (job, provider, model)\n{self.only}" if self.only else condition


@dataclass(frozen=True)
class Group:
    """Rules that Prometheus evaluates one after the other, at one time."""

    name: str
    rules: tuple[Recording, ...] | tuple[Alert, ...]


def _or_zero(counted: str, where: str) -> str:
    """`counted`, and 0 for each label set of `where` that it lacks: a quotient of it is then 0 and not absent."""
    return f"{counted}\n  or\n0 * {where}"


def _ratio(part: str, whole: str, by: str, window: str) -> str:
    below = f"sum by ({by}) (rate({whole}[{window}]))"
    return f"(\n{_or_zero(f'sum by ({by}) (rate({part}[{window}]))', below)}\n)\n  /\n{below}"


def _quantile(share: float, histogram: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({histogram}_bucket{{JOB}}[5m])))"


# One counter an instance, so that a restart is seen as the reset that it is: rate() of a sum over instances would take
# one instance's restart for a reset of all.
_REQUESTS = "sum by (job, instance, endpoint) ({}{{JOB}})"
_CACHE = "sum by (job, instance, cache_name, cache, operation) ({}{{JOB}})"
_TIMES = "sum by ({}job, instance, provider, model) (llm_request_duration_seconds_{}{{JOB}})"

# The names as the guides' queries have them: those of their code, without the endings that Prometheus asks for.
NAMES = (
    Recording("request_count", _REQUESTS.format("request_count_total")),
    Recording("error_count", _or_zero(_REQUESTS.format("error_count_total"), _REQUESTS.format("request_count_total"))),
    Recording("cache_hits", _or_zero(_CACHE.format("cache_hits_total"), _CACHE.format("cache_misses_total"))),
    Recording("cache_misses", _or_zero(_CACHE.format("cache_misses_total"), _CACHE.format("cache_hits_total"))),
    Recording("bedrock_invocations", "bedrock_invocations_total{JOB}"),
    Recording("rag_queries", "rag_queries_total{JOB}"),
    Recording("llm_cost_dollars", "llm_cost_dollars_total{JOB}"),
    # Without method and tags: a copy of every bucket of every series would be dear.
    Recording("llm_request_duration_bucket", _TIMES.format("le, ", "bucket")),
    Recording("llm_request_duration_count", _TIMES.format("", "count")),
    Recording("llm_request_duration_sum", _TIMES.format("", "sum")),
    Recording("cache_size", "cache_size_bytes{JOB}"),
    Recording("memory_usage", "memory_usage_bytes{JOB}"),
)

_WHO = "job, provider, model"
_CALLS = "llm_requests_total{JOB}"
_LEVEL = "job_provider_model"

LLM = (
    Recording(f"{_LEVEL}:llm_requests:rate5m", f"sum by ({_WHO}) (rate({_CALLS}[5m]))"),
    Recording(f"{_LEVEL}:llm_errors:ratio_rate5m", _ratio("llm_errors_total{JOB}", _CALLS, _WHO, "5m")),
    *(
        Recording(
            f"{_LEVEL}:llm_request_duration_seconds:{name}_rate5m",
            _quantile(share, "llm_request_duration_seconds", _WHO),
        )
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    ),
    Recording(
        f"{_LEVEL}:llm_time_to_first_token_seconds:p95_rate5m",
        _quantile(0.95, "llm_time_to_first_token_seconds", _WHO),
    ),
    Recording(
        f"{_LEVEL}:llm_stream_stalls:per_stream_rate5m",
        _ratio("llm_stream_stalls_total{JOB}", "llm_time_to_first_chunk_seconds_count{JOB}", _WHO, "5m"),
    ),
    Recording(f"{_LEVEL}_type:llm_tokens:rate5m", f"sum by ({_WHO}, type) (rate(llm_tokens_total{{JOB}}[5m]))"),
    Recording(
        f"{_LEVEL}:llm_cost_dollars_per_hour:rate5m",
        f"3600 * sum by ({_WHO}) (rate(llm_cost_dollars_total{{JOB}}[5m]))",
    ),
    Recording(f"{_LEVEL}:llm_price_unknown:ratio_rate1h", _ratio("llm_price_unknown_total{JOB}", _CALLS, _WHO, "1h")),
    Recording(f"{_LEVEL}:llm_usage_missing:ratio_rate1h", _ratio("llm_usage_missing_total{JOB}", _CALLS, _WHO, "1h")),
)

_PLACE, _STORE = "job, endpoint", "job, cache_name, cache"

APPLICATION = (
    Recording(
        "job_endpoint:request_errors:ratio_rate5m",
        _ratio("error_count_total{JOB}", "request_count_total{JOB}", _PLACE, "5m"),
    ),
    Recording("job_endpoint:request_duration_seconds:p95_rate5m", _quantile(0.95, "request_duration_seconds", _PLACE)),
    Recording(
        "job_endpoint:http_requests_5xx:ratio_rate5m",
        _ratio('http_requests_total{JOB, status=~"5.."}', "http_requests_total{JOB}", _PLACE, "5m"),
    ),
    Recording(
        "job_endpoint:http_request_duration_seconds:p95_rate5m",
        _quantile(0.95, "http_request_duration_seconds", _PLACE),
    ),
    Recording(
        "job_cache:cache_hits:ratio_rate5m",
        f"sum by ({_STORE}) (rate(cache_hits[5m]))\n  /\n("
        f"sum by ({_STORE}) (rate(cache_hits[5m])) + sum by ({_STORE}) (rate(cache_misses[5m])))",
    ),
)


def _lately(counter: str) -> str:
    """What a counter grew by in ten minutes, for counters that begin with their first event: rate() overlooks that.

    A target that Prometheus sees for the first time may so tell of older events. Better than to miss the first.
    """
    return f"(\n{counter} unless {counter} offset 10m\n  or\nincrease({counter}[10m])\n)"


def alerts(limits: Limits) -> tuple[Alert, ...]:
    """The alerts with their limits."""
    who = "{{ $labels.model }} of {{ $labels.provider }} in {{ $labels.job }}"
    enough = f"({_LEVEL}:llm_requests:rate5m * 300 >= {limits.min_calls:.10g})"
    unwanted = "|".join(WANTED_DROPS)
    lost = _lately(f'tellmeter_dropped_total{{JOB, reason!~"{unwanted}"}}')
    return (
        Alert(
            "LLMErrorRatioHigh", f"{_LEVEL}:llm_errors:ratio_rate5m", ">", limits.error_ratio, "5m", "critical",
            f"LLM calls fail: {who}",
            "{{ $value | humanizePercentage }} of the calls of the last 5 minutes failed, timed out or were rejected.",
            enough,
        ),
        Alert(
            "LLMLatencyHigh", f"{_LEVEL}:llm_request_duration_seconds:p95_rate5m", ">", limits.latency_p95, "10m",
            "warning", f"LLM calls are slow: {who}",
            "The 95th percentile of the last 5 minutes is {{ $value | humanizeDuration }}.",
            enough,
        ),
        Alert(
            "LLMStreamsStall", f"{_LEVEL}:llm_stream_stalls:per_stream_rate5m", ">", limits.stalls_per_stream, "5m",
            "warning", f"LLM streams stall: {who}",
            '{{ $value | printf "%.2f" }} stalls a stream in the last 5 minutes.',
            enough,
        ),
        Alert(
            "LLMCostBurn", f"sum by (job) ({_LEVEL}:llm_cost_dollars_per_hour:rate5m)", ">", limits.cost_per_hour,
            "15m", "critical", "LLM calls of {{ $labels.job }} are expensive",
            'They cost {{ $value | printf "%.2f" }} US dollars an hour.',
        ),
        Alert(
            "LLMPriceUnknown", f"{_LEVEL}:llm_price_unknown:ratio_rate1h", ">", limits.unknown_share, "30m", "warning",
            f"The cost of LLM calls is not known: {who}",
            "{{ $value | humanizePercentage }} of the calls of the last hour have no price: the dollars are too few.",
        ),
        Alert(
            "LLMUsageMissing", f"{_LEVEL}:llm_usage_missing:ratio_rate1h", ">", limits.unknown_share, "30m", "warning",
            f"The tokens of LLM calls are not known: {who}",
            "The provider did not state the usage of {{ $value | humanizePercentage }} of the calls of the last hour.",
        ),
        Alert(
            "LLMCircuitBreakerOpen", "max by (job, provider) (llm_circuit_breaker_open{JOB})", ">", 0, "1m", "critical",
            "The circuit breaker of {{ $labels.provider }} in {{ $labels.job }} is open",
            "Calls are rejected without being sent.",
        ),
        Alert(
            "TellmeterRecordsLost", f"sum by (job, instance, sink, reason) {lost}", ">", 0, "0s", "warning",
            "{{ $labels.sink }} of {{ $labels.instance }} lost records: {{ $labels.reason }}",
            '{{ $value | printf "%.0f" }} records in the last 10 minutes; its log says why.',
        ),
        Alert(
            "TellmeterSeriesOverflow",
            f"sum by (job, instance, metric) {_lately('tellmeter_series_overflow_total{JOB}')}", ">", 0, "0s",
            "warning", "{{ $labels.metric }} of {{ $labels.instance }} has too many label sets",
            '{{ $value | printf "%.0f" }} recordings of the last 10 minutes are in the series __overflow__.',
        ),
        Alert(
            "TellmeterGuardedErrors",
            f"sum by (job, instance, where) {_lately('tellmeter_guarded_errors_total{JOB}')}", ">", 0, "0s",
            "warning", "Metering fails in {{ $labels.where }} of {{ $labels.instance }}",
            '{{ $value | printf "%.0f" }} errors in the last 10 minutes were kept from the program; see its log.',
        ),
        Alert(
            "TellmeterScrapeDown", "up{JOB}", "<", 1, "2m", "critical",
            "{{ $labels.instance }} of {{ $labels.job }} is not scraped",
            "Prometheus gets no metrics from it: it is down, or its page is.",
        ),
    )  # fmt: skip


def rule_groups(limits: Limits | None = None, *, with_alerts: bool = True) -> tuple[Group, ...]:
    """Every group of rules, as Prometheus is to have them."""
    limits = limits or Limits()
    groups: list[Group] = [
        Group(name, tuple(Recording(rule.record, select(rule.expr, limits.job)) for rule in rules))
        for name, rules in (("names", NAMES), ("llm", LLM), ("application", APPLICATION))
    ]
    if with_alerts:
        groups.append(Group("alerts", tuple(_selected(alert, limits.job) for alert in alerts(limits))))
    return tuple(groups)


def _selected(alert: Alert, job: str) -> Alert:
    changed = {field.name: getattr(alert, field.name) for field in fields(alert)}
    changed["vector"] = select(alert.vector, job)
    return Alert(**changed)


def select(expr: str, job: str) -> str:
    """`expr` for the scrape jobs that the regular expression `job` matches; for all without one."""
    if not job:
        return expr.replace("{JOB}", "").replace("{JOB, ", "{")
    return expr.replace("{JOB", f"{{job=~{json.dumps(job, ensure_ascii=False)}")
