"""What the dashboards show: rows of panels, and their queries. tools/grafana.py makes the JSON of it.

In a query, `<app>` stands for the matchers of job and instance, `<llm>` for these and provider and model, and `[r]` for
the window that Grafana chooses ($__rate_interval). Queries use what an application exposes and need no recording rule.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One panel. `queries`: (PromQL, legend) each; `kind`: timeseries, stat, table or heatmap."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    most: float | None = None  # of the axis
    stacked: bool = False


@dataclass(frozen=True)
class Board:
    """One dashboard. `rows`: title and panels; `variables`: those of provider, model, tag that it has."""

    name: str
    title: str
    description: str
    variables: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def rate(counter: str, by: str, where: str = "<app>") -> str:
    """Events a second."""
    return f"sum by ({by}) (rate({counter}{{{where}}}[r]))"


def share(part: str, whole: str, by: str) -> str:
    """`part` of `whole`, both with matchers; 0 and not nothing where no `part` happened yet."""
    below = f"sum by ({by}) (rate({whole}[r]))"
    return f"(sum by ({by}) (rate({part}[r])) or 0 * {below}) / {below}"


def hit_rate(hits: str, misses: str, by: str) -> str:
    """Share of a cache's look-ups that found something; 0 and not nothing where none did yet."""
    found, not_found = rate(hits, by), rate(misses, by)
    return f"({found} or 0 * {not_found}) / (({found} or 0 * {not_found}) + ({not_found} or 0 * {found}))"


def mean(histogram: str, by: str, where: str = "<app>") -> str:
    """The average of what was observed."""
    return f"{rate(f'{histogram}_sum', by, where)} / {rate(f'{histogram}_count', by, where)}"


def quantile(q: float, histogram: str, by: str, where: str = "<app>") -> str:
    """A quantile, as exact as the buckets are narrow."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q:g}, {rate(f'{histogram}_bucket', labels, where)})"


def percentiles(histogram: str, where: str = "<app>", by: str = "", legend: str = "") -> tuple[tuple[str, str], ...]:
    """P50, P95 and P99."""
    return tuple((quantile(q, histogram, by, where), f"{name} {legend}".strip()) for name, q in _PERCENTILES)


_PERCENTILES = (("P50", 0.5), ("P95", 0.95), ("P99", 0.99))
_WHO, _WHO_LEGEND = "provider, model", "{{provider}} {{model}}"
_CALLS = "llm_requests_total{<llm>}"

OVERVIEW = Board(
    "overview", "tellmeter: overview", "Requests, LLM calls, caches, databases, retrieval, the machine.",
    ("provider", "model"),
    (
        ("Requests", (
            Panel("Request rate", "Requests a second, by endpoint and method.", "reqps",
                  ((rate("request_count_total", "endpoint, method"), "{{endpoint}} - {{method}}"),)),
            Panel("Error rate", "Errors a request, by endpoint.", "percentunit",
                  ((share("error_count_total{<app>}", "request_count_total{<app>}", "endpoint"), "{{endpoint}}"),)),
            Panel("Latency", "Percentiles of the time of requests.", "s", percentiles("request_duration_seconds")),
            Panel("Active requests", "Requests in progress.", "short",
                  (("sum by (endpoint) (active_requests{<app>})", "{{endpoint}}"),)),
            Panel("Token usage", "Tokens a request: the average, and the bucket of the largest.", "short", (
                (mean("token_usage", "model_id, token_type"), "avg {{model_id}} {{token_type}}"),
                (quantile(1, "token_usage", "model_id, token_type"), "max {{model_id}} {{token_type}}"),
            )),
            Panel("Cache hit rate", "Share of look-ups that found something.", "percentunit", ((
                hit_rate("cache_hits_total", "cache_misses_total", "cache_name, cache"),
                "{{cache_name}}{{cache}}",
            ),), most=1),
            Panel("Bedrock invocations", "Invocations a second, by model and status.", "reqps",
                  ((rate("bedrock_invocations_total", "model_id, status"), "{{model_id}} {{status}}"),)),
            Panel("Bedrock time", "95th percentile, by model.", "s",
                  ((quantile(0.95, "bedrock_duration_seconds", "model_id"), "P95 {{model_id}}"),)),
            Panel("Database query time", "Average and 95th percentile, by operation and table.", "s", (
                (mean("database_query_duration_seconds", "operation, table"), "avg {{operation}} {{table}}"),
                (quantile(0.95, "database_query_duration_seconds", "operation, table"), "P95 {{operation}} {{table}}"),
            )),
        )),
        ("LLM", (
            Panel("LLM calls", "Calls a second, by model.", "reqps",
                  ((rate("llm_requests_total", _WHO, "<llm>"), _WHO_LEGEND),)),
            Panel("LLM error rate", "Share of calls that failed.", "percentunit",
                  ((share("llm_errors_total{<llm>}", _CALLS, _WHO), _WHO_LEGEND),)),
            Panel("LLM latency", "Percentiles of whole calls, retries included.", "s",
                  percentiles("llm_request_duration_seconds", "<llm>")),
            Panel("LLM tokens", "Tokens a second; cache and reasoning are parts of input and output.", "short",
                  ((rate("llm_tokens_total", "type", "<llm>"), "{{type}}"),)),
            Panel("LLM cost", "US dollars an hour, by model.", "currencyUSD",
                  ((f"3600 * {rate('llm_cost_dollars_total', _WHO, '<llm>')}", _WHO_LEGEND),), stacked=True),
            Panel("LLM calls in progress", "Calls, and those of them that are streams.", "short", (
                ("sum(llm_active_requests{<llm>})", "calls"), ("sum(llm_active_streams{<llm>})", "streams"),
            )),
        )),
        ("HTTP", (
            Panel("HTTP requests", "Requests a second, by method.", "reqps",
                  ((rate("http_requests_total", "method"), "{{method}}"),)),
            Panel("HTTP 5xx", "Share of answers with a status of 500 or more, by endpoint.", "percentunit",
                  ((share('http_requests_total{<app>, status=~"5.."}', "http_requests_total{<app>}", "endpoint"),
                    "{{endpoint}}"),)),
            Panel("HTTP latency", "Percentiles, to the last byte sent.", "s",
                  percentiles("http_request_duration_seconds")),
            Panel("HTTP requests in progress", "By method.", "short",
                  (("sum by (method) (http_requests_active{<app>})", "{{method}}"),)),
        )),
        ("Databases, retrieval, embeddings", (
            Panel("Database queries", "Queries a second.", "reqps",
                  ((rate("db_queries_total", "database, operation"), "{{database}} {{operation}}"),)),
            Panel("Database latency", "Percentiles of queries.", "s", percentiles("db_query_duration_seconds")),
            Panel("Database connections", "Open ones.", "short",
                  (("sum by (database) (db_connections_active{<app>})", "{{database}}"),)),
            Panel("RAG queries", "Queries a second.", "reqps",
                  ((rate("rag_queries_total", "operation, pipeline, status"),
                    "{{operation}}{{pipeline}} {{status}}"),)),
            Panel("RAG retrieval latency", "Percentiles, by either guide's name.", "s", (
                *percentiles("rag_retrieval_latency_seconds"),
                *percentiles("retrieval_time_seconds", legend="(retrieval_time)"),
            )),
            Panel("RAG documents", "Documents a retrieval.", "short",
                  ((mean("rag_documents_retrieved", "source, pipeline"), "{{source}} {{pipeline}}"),)),
            Panel("RAG cache hit rate", "Share of retrievals that a cache answered.", "percentunit", ((
                hit_rate("rag_cache_hits_total", "rag_cache_misses_total", "cache_type"), "{{cache_type}}",
            ),), most=1),
            Panel("Embeddings", "Made a second, by model.", "short",
                  ((rate("embeddings_generated_total", _WHO, "<llm>"), _WHO_LEGEND),)),
            Panel("Embedding time", "Percentiles.", "s", percentiles("embedding_generation_duration_seconds", "<llm>")),
        )),
        ("System", (
            Panel("CPU", "Use of the machine's processors.", "percent",
                  (("max by (instance) (system_cpu_usage_percent{<app>})", "{{instance}}"),), most=100),
            Panel("Memory", "In use on the machine, and by processes (resident).", "bytes", (
                ("max by (instance) (system_memory_usage_bytes{<app>})", "{{instance}}"),
                ("sum by (instance, process) (memory_usage_bytes{<app>})", "{{instance}} {{process}}"),
            )),
            Panel("Disk", "In use, by file system.", "bytes",
                  (("max by (instance, mount_point) (system_disk_usage_bytes{<app>})",
                    "{{instance}} {{mount_point}}"),)),
            Panel("Errors", "A second, by component.", "short",
                  ((rate("errors_total", "component, error_type"), "{{component}} {{error_type}}"),)),
            Panel("Caches", "Bytes in caches.", "bytes",
                  (("sum by (cache_name) (cache_size_bytes{<app>})", "{{cache_name}}"),)),
            Panel("Queues and connections", "What waits, and what is open.", "short", (
                ("sum by (queue_name) (queue_size{<app>})", "queue {{queue_name}}"),
                ("sum by (connection_type) (active_connections{<app>})", "connections {{connection_type}}"),
            )),
        )),
    ),
)  # fmt: skip

_STREAMS = "llm_time_to_first_chunk_seconds_count{<llm>}"

STREAMS = Board(
    "streams", "tellmeter: streams", "First tokens, pace, gaps, stalls of LLM streams.", ("provider", "model"),
    (
        ("First token", (
            Panel("Time to first token", "Percentiles, reasoning included.", "s",
                  percentiles("llm_time_to_first_token_seconds", "<llm>")),
            Panel("Time to first token by model", "95th percentile.", "s",
                  ((quantile(0.95, "llm_time_to_first_token_seconds", _WHO, "<llm>"), _WHO_LEGEND),)),
            Panel("Time to first chunk", "Percentiles: the first event, with content or without.", "s",
                  percentiles("llm_time_to_first_chunk_seconds", "<llm>")),
            Panel("Times to first token", "How many streams took how long.", "s",
                  (("sum by (le) (increase(llm_time_to_first_token_seconds_bucket{<llm>}[r]))", "{{le}}"),),
                  kind="heatmap", width=24),
        )),
        ("Pace", (
            Panel("Time per output token", "Percentiles, after the first token.", "s",
                  percentiles("llm_time_per_output_token_seconds", "<llm>")),
            Panel("Time per output token by model", "Median.", "s",
                  ((quantile(0.5, "llm_time_per_output_token_seconds", _WHO, "<llm>"), _WHO_LEGEND),)),
            Panel("Output tokens a second of a stream", "From the average time per token.", "short",
                  ((f"1 / ({mean('llm_time_per_output_token_seconds', _WHO, '<llm>')})", _WHO_LEGEND),)),
        )),
        ("Trouble", (
            Panel("Longest gap", "Percentiles of the longest wait for the provider in each stream.", "s",
                  percentiles("llm_stream_gap_seconds", "<llm>")),
            Panel("Stalls a stream", "By model.", "short",
                  ((share("llm_stream_stalls_total{<llm>}", _STREAMS, _WHO), _WHO_LEGEND),)),
            Panel("Streams in progress", "By model.", "short",
                  ((f"sum by ({_WHO}) (llm_active_streams{{<llm>}})", _WHO_LEGEND),)),
            Panel("How streams end", "Streams a second, by status: closed_early and abandoned are the application's.",
                  "reqps", (('sum by (status) (rate(llm_requests_total{<llm>, method="stream"}[r]))', "{{status}}"),),
                  width=12),
            Panel("Streams", "First chunks a second, by model.", "reqps",
                  ((f"sum by ({_WHO}) (rate({_STREAMS}[r]))", _WHO_LEGEND),), width=12),
        )),
    ),
)  # fmt: skip

_RANGE_COST = "increase(llm_cost_dollars_total{<llm>}[$__range])"

COST = Board(
    "cost", "tellmeter: cost", "Dollars and tokens by model, and by a tag that label_tags made a label.",
    ("provider", "model", "tag"),
    (
        ("In the time shown", (
            Panel("Cost", "US dollars in the time shown.", "currencyUSD", ((f"sum({_RANGE_COST})", ""),), "stat", 6),
            Panel("Cost an hour", "US dollars, at the pace of now.", "currencyUSD",
                  (("3600 * sum(rate(llm_cost_dollars_total{<llm>}[r]))", ""),), "stat", 6),
            Panel("Cost a call", "US dollars, on average.", "currencyUSD",
                  ((f"sum({_RANGE_COST}) / sum(increase({_CALLS}[$__range]))", ""),), "stat", 6),
            Panel("Price unknown", "Share of calls whose cost is not in the dollars.", "percentunit", ((
                share("llm_price_unknown_total{<llm>}", _CALLS, "").replace("[r]", "[$__range]"), "",
            ),), "stat", 6),
        )),
        ("By model", (
            Panel("Cost by model", "US dollars an hour.", "currencyUSD",
                  ((f"3600 * {rate('llm_cost_dollars_total', _WHO, '<llm>')}", _WHO_LEGEND),), width=12, stacked=True),
            Panel("Cost by model in the time shown", "US dollars.", "currencyUSD",
                  ((f"sort_desc(sum by ({_WHO}) ({_RANGE_COST}))", _WHO_LEGEND),), "table", 12),
            Panel("Cost a call by model", "US dollars, on average.", "currencyUSD", ((
                f"{rate('llm_cost_dollars_total', _WHO, '<llm>')} / {rate('llm_requests_total', _WHO, '<llm>')}",
                _WHO_LEGEND,
            ),)),
            Panel("Tokens by model", "Input and output a second.", "short", ((
                rate("llm_tokens_total", f"{_WHO}, type", '<llm>, type=~"input|output"'), f"{_WHO_LEGEND} {{{{type}}}}",
            ),)),
            Panel("Input read from the provider's cache", "Share of input tokens, by model.", "percentunit", ((
                share('llm_tokens_total{<llm>, type="cache_read"}', 'llm_tokens_total{<llm>, type="input"}', _WHO),
                _WHO_LEGEND,
            ),), most=1),
        )),
        ("By tag", (
            Panel("Cost by ${tag}", "US dollars an hour. The tag must be one of MetricsConfig(label_tags=...).",
                  "currencyUSD", (("3600 * sum by (${tag}) (rate(llm_cost_dollars_total{<llm>}[r]))", "{{${tag}}}"),),
                  width=12, stacked=True),
            Panel("Cost by ${tag} in the time shown", "US dollars.", "currencyUSD",
                  ((f"sort_desc(sum by (${{tag}}) ({_RANGE_COST}))", "{{${tag}}}"),), "table", 12),
        )),
    ),
)  # fmt: skip

RELIABILITY = Board(
    "reliability", "tellmeter: reliability", "Attempts, retries, errors and circuit breakers of LLM calls.",
    ("provider", "model"),
    (
        ("Calls", (
            Panel("Calls by status", "Calls a second, by how they ended.", "reqps",
                  ((rate("llm_requests_total", "status", "<llm>"), "{{status}}"),), stacked=True),
            Panel("Share of calls that succeeded", "By model.", "percentunit",
                  ((share('llm_requests_total{<llm>, status="success"}', _CALLS, _WHO), _WHO_LEGEND),), most=1),
            Panel("Errors by class", "Errors a second.", "short",
                  ((rate("llm_errors_total", "error_class", "<llm>"), "{{error_class}}"),), stacked=True),
        )),
        ("Attempts", (
            Panel("Attempts by HTTP status", "Requests sent a second, retries included.", "reqps",
                  ((rate("llm_attempts_total", "status", "<llm>"), "{{status}}"),), stacked=True),
            Panel("Retries a call", "By model.", "short",
                  ((share("llm_retries_total{<llm>}", _CALLS, _WHO), _WHO_LEGEND),)),
            Panel("Refused for their number", "Attempts a second that were answered 429, by model.", "reqps",
                  ((rate("llm_attempts_total", _WHO, '<llm>, status="429"'), _WHO_LEGEND),)),
        )),
        ("Circuit breakers", (
            Panel("LLM circuit breakers", "1 while open, by provider.", "short",
                  (('max by (provider) (llm_circuit_breaker_open{<app>, provider=~"$provider"})', "{{provider}}"),),
                  most=1),
            Panel("Circuit breakers", "0 closed, 1 open, 2 half-open.", "short", (
                ('max by (provider) (llm_circuit_breaker_state{<app>, provider=~"$provider"})', "{{provider}}"),
                ("max by (service) (circuit_breaker_state{<app>})", "{{service}}"),
            ), most=2),
            Panel("Trips", "Times that a breaker opened, in the window.", "short", (
                ("sum by (service, reason) (increase(circuit_breaker_trips_total{<app>}[r]))",
                 "{{service}} {{reason}}"),
            )),
        )),
    ),
)  # fmt: skip

ITSELF = Board(
    "tellmeter", "tellmeter: itself", "What became of the records, and what metering kept from the program.", (),
    (
        ("The ledger", (
            Panel("Records", "Delivered and dropped a second, by sink.", "short",
                  ((rate("tellmeter_records_total", "sink, outcome"), "{{sink}} {{outcome}}"),)),
            Panel("Dropped", "Records a second, by reason; sampled_out, filtered and not_llm are no loss.", "short",
                  ((rate("tellmeter_dropped_total", "sink, reason"), "{{sink}} {{reason}}"),)),
            Panel("Waiting", "Records in memory and on disk that are not delivered yet.", "short",
                  (("sum by (sink) (tellmeter_queue_records{<app>})", "{{sink}} memory"),
                   ("sum by (sink) (tellmeter_spool_records{<app>})", "{{sink}} spool"))),
            Panel("Failed attempts", "Attempts to deliver that are made again, a second, by reason.", "short",
                  ((rate("tellmeter_send_failures_total", "sink, reason"), "{{sink}} {{reason}}"),)),
        )),
        ("Kept from the program", (
            Panel("Guarded errors", "In the window, by place: the log says which.", "short",
                  (("sum by (where) (increase(tellmeter_guarded_errors_total{<app>}[r]))", "{{where}}"),)),
            Panel("Label sets over the bound", "Recordings in the window that went to __overflow__.", "short",
                  (("sum by (metric) (increase(tellmeter_series_overflow_total{<app>}[r]))", "{{metric}}"),)),
            Panel("Refused recordings", "In the window: labels, values, metrics.", "short", tuple(
                (f"sum by (metric, kind) (increase(tellmeter_{what}_errors_total{{<app>}}[r]))",
                 f"{what} {{{{metric}}}} {{{{kind}}}}")
                for what in ("label", "value", "metric")
            )),
        )),
        ("What is not known", (
            Panel("Price unknown", "Share of LLM calls.", "percentunit",
                  ((share("llm_price_unknown_total{<app>}", "llm_requests_total{<app>}", _WHO), _WHO_LEGEND),)),
            Panel("Usage missing", "Share of LLM calls whose tokens the provider did not state.", "percentunit",
                  ((share("llm_usage_missing_total{<app>}", "llm_requests_total{<app>}", _WHO), _WHO_LEGEND),)),
            Panel("The scrape", "Seconds that it took.", "s",
                  (("max by (instance) (scrape_duration_seconds{<app>})", "{{instance}}"),)),
            Panel("Series", "Samples of the page.", "short",
                  (("max by (instance) (scrape_samples_scraped{<app>})", "{{instance}}"),), width=12),
            Panel("Up", "1 while Prometheus reaches it.", "short",
                  (("min by (instance) (up{<app>})", "{{instance}}"),), width=12, most=1),
        )),
    ),
)  # fmt: skip

BOARDS = (OVERVIEW, STREAMS, COST, RELIABILITY, ITSELF)
