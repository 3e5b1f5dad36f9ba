"""Every query that the guides print, that our dashboards ask and that our alerts compare, on a real Prometheus.

It scrapes a real application under load every 0.2 s, with our rules loaded.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tellmeter.serve.dashboards import dashboard, names
from tellmeter.serve.rules import Limits, alerts, rule_groups, select
from tellmeter.serve.rules_text import rules_text
from tests.support.exchanges import SHARED, need_shared
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.servers import require

pytestmark = [pytest.mark.heavy]

ROOT = Path(__file__).parents[2]
SEEDS = SHARED / "seeds"
ROUNDS = 40
SCRAPES = 10  # that see the load
CHAIN = 4  # evaluations until a rule of a rule of a rule has seen its end

# What the guides print, and the seed that prints it.
GUIDES = {
    "rate(llm_requests_total[5m])": "000",
    "histogram_quantile(0.5, sum(rate(llm_request_duration_bucket[5m])) by (provider, le))": "000",
    "rate(llm_tokens_total[5m])": "000",
    "rate(llm_errors_total[5m]) / rate(llm_requests_total[5m])": "000",
    "llm_circuit_breaker_open": "000",
    "rate(request_count[5m])": "002",
    "rate(error_count[5m]) / rate(request_count[5m])": "002",
    "histogram_quantile(0.95, rate(request_duration_seconds_bucket[5m]))": "002",
    "rate(token_usage_sum[5m]) / rate(token_usage_count[5m])": "002",
    "rate(cache_hits[5m]) / (rate(cache_hits[5m]) + rate(cache_misses[5m]))": "002",
    "active_requests": "002",
}
# The two metrics have different labels (error_class; method, status), so that nothing can match: docs/prometheus.md.
UNMATCHED = "rate(llm_errors_total[5m]) / rate(llm_requests_total[5m])"
MATCHED = (
    "sum by (provider, model) (rate(llm_errors_total[5m])) / sum by (provider, model) (rate(llm_requests_total[5m]))"
)
# Seed 002's counters under the names of its code; seed 003 prints no query, but these names.
NAMES = [
    "request_count",
    "error_count",
    "cache_hits",
    "cache_misses",
    "bedrock_invocations",
    "rag_queries",
    "request_duration_seconds_bucket",
    "token_usage_bucket",
    "retrieval_time_seconds_bucket",
    "bedrock_duration_seconds_bucket",
    "database_query_duration_seconds_bucket",
    "active_requests",
    "cache_size",
    "active_connections",
    "memory_usage",
    "queue_size",
]
AVAILABLE = [
    "http_requests_total",
    "http_request_duration_seconds",
    "db_connections_active",
    "db_queries_total",
    "db_query_duration_seconds",
    "llm_requests_total",
    "llm_tokens_used_total",
    "llm_request_duration_seconds",
    "llm_cost_dollars",
    "rag_queries_total",
    "rag_retrieval_latency_seconds",
    "rag_documents_retrieved",
    "rag_cache_hits_total",
    "rag_cache_misses_total",
    "embeddings_generated_total",
    "embedding_generation_duration_seconds",
    "system_cpu_usage_percent",
    "system_memory_usage_bytes",
    "system_disk_usage_bytes",
    "errors_total",
    "circuit_breaker_state",
    "circuit_breaker_trips_total",
]
HISTOGRAMS = re.compile("(duration_seconds|latency_seconds|documents_retrieved)$")


def panels():
    """(dashboard, panel, query) of every query of every panel."""
    for name in names():
        for panel in json.loads(dashboard(name))["panels"]:
            for target in panel.get("targets", ()):
                yield name, panel["title"], target["expr"]


def plain(query):
    """A panel's query as Grafana sends it."""
    for variable, value in {
        "[$__rate_interval]": "[10m]",  # all of the load, however slow the machine is
        "[$__range]": "[5m]",
        "${tag}": "feature",
        **{f"${name}": ".*" for name in ("job", "instance", "provider", "model")},
    }.items():
        query = query.replace(variable, value)
    assert "$" not in query
    return query


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    require("prometheus")
    folder = tmp_path_factory.mktemp("promql")
    port = free_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TELLMETER_")}
    log = (folder / "server.log").open("wb")
    application = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "tests.support.promql_app:create", "--port", str(port)],
        cwd=ROOT,
        env=environ,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    server = Prometheus(folder, f"127.0.0.1:{port}", rules=rules_text(rule_groups()))
    try:
        # What there is before the load: Prometheus must know every series, and every rule of another rule.
        for known in ("request_count", "job_provider_model:llm_requests:rate5m", "job_cache:cache_hits:ratio_rate5m"):
            server.until(lambda known=known: server.query(known), bool)
        load(server, f"http://127.0.0.1:{port}/round")
        done = 10 * (ROUNDS + 1)
        server.until(lambda: server.value('sum(request_count{endpoint="/query"})'), lambda found: found == done)
        for _ in range(CHAIN):
            server.evaluated()
        yield server
        assert application.poll() is None, (folder / "server.log").read_text()
    finally:
        server.close()
        os.killpg(application.pid, signal.SIGKILL)
        application.wait(10)
        log.close()


def load(server, url):
    """Play all rounds, a few between one scrape and the next."""

    def ask(_):
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read()

    with ThreadPoolExecutor(2) as pool:
        for _ in range(SCRAPES):
            assert set(pool.map(ask, range(ROUNDS // SCRAPES))) == {b"played"}
            server.scraped()


def ask(prometheus, query):
    """The vector that a query gives; a failure with what Prometheus says of it if it does not understand it."""
    try:
        return prometheus.query(query)
    except urllib.error.HTTPError as error:
        pytest.fail(f"{query}\n{error.read().decode()}")


def empty(prometheus, query):
    return all(math.isnan(value) for value in ask(prometheus, query).values())


def by(prometheus, query, *labels):
    """label values -> value."""
    return {tuple(dict(key).get(label, "") for label in labels): value for key, value in ask(prometheus, query).items()}


def squeezed(text):
    return re.sub(r"(?<=\() | (?=\))", "", re.sub(r"\s+", " ", text)).strip()


def printed(text):
    """The queries of a guide: blocks of promql, and expressions of panels."""
    for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"\n\s*\n", re.sub(r"#[^\n]*", "", block)):
            if part.strip():
                yield squeezed(part)
    yield from re.findall(r'"expr": "([^"]+)"', text)


def test_the_list_above_is_what_the_guides_print():
    need_shared(SEEDS)
    found = {}
    for path in sorted(SEEDS.glob("*.txt")):
        text = path.read_text("utf-8")
        found.update(dict.fromkeys(printed(text), path.name[:3]))
        if path.name.startswith("003"):
            available = text[text.index("## Available Metrics") : text.index("## Decorators")]
            assert re.findall(r"^- `(\w+)`", available, re.MULTILINE) == AVAILABLE
    assert found == GUIDES


def test_every_query_of_the_guides_gives_something(prometheus):
    assert [query for query in GUIDES if empty(prometheus, query)] == [UNMATCHED]
    assert not empty(prometheus, MATCHED)


def test_every_query_of_our_documentation_gives_something(prometheus):
    asked = [query for page in sorted((ROOT / "docs").rglob("*.md")) for query in printed(page.read_text("utf-8"))]
    assert MATCHED in asked and {query for query, guide in GUIDES.items() if guide == "002"} <= {*asked}
    assert [query for query in asked if empty(prometheus, query)] == []


def test_every_metric_of_the_guides_is_there_under_their_names(prometheus):
    asked = [*NAMES, *(f"{name}_count" if HISTOGRAMS.search(name) else name for name in AVAILABLE)]
    assert [name for name in asked if empty(prometheus, name)] == []


def test_every_panel_of_every_dashboard_shows_something(prometheus):
    asked = list(panels())
    assert len(asked) > 90
    assert [(name, title, query) for name, title, query in asked if empty(prometheus, plain(query))] == []


def test_the_variables_of_the_dashboards_have_values(prometheus):
    for name in names():
        for variable in json.loads(dashboard(name))["templating"]["list"]:
            if variable["type"] != "query":
                continue
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
            found = prometheus.get(f"label/{label}/values", **{"match[]": plain(selector)})
            expected = {
                "job": ["app"],
                "provider": ["anthropic", "ollama", "openai"],
                "model": ["claude-sonnet-4-5", "gone", "gpt-4o-mini", "home-made"],
            }
            assert found == expected.get(label, found) and found, (name, variable)


def test_every_alert_has_something_to_compare(prometheus):
    limits = Limits()
    asked = {alert.name: select(alert.vector, limits.job) for alert in alerts(limits)}
    assert [name for name, vector in asked.items() if empty(prometheus, vector)] == []


def test_prometheus_evaluates_every_rule_and_the_right_alerts_wait_or_fire(prometheus):
    groups = prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == sum(len(group.rules) for group in rule_groups())
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in rules} == {
        (rule["name"], "ok", "") for rule in rules
    }
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert [name for name in recorded if empty(prometheus, name)] == []
    states = {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}
    assert {name for name, state in states.items() if state == "inactive"} == {
        "LLMLatencyHigh",
        "LLMCircuitBreakerOpen",
        "TellmeterScrapeDown",
    }
    assert {name for name, state in states.items() if state == "firing"} >= {
        "TellmeterRecordsLost",
        "TellmeterSeriesOverflow",
        "TellmeterGuardedErrors",
    }


# query -> labels and the right answer. Every round of the application records the same.
RATIOS = [
    (
        "rate(error_count[5m]) / rate(request_count[5m])",
        ("endpoint",),
        {("/query",): 0.2, ("/health",): 0.0},
    ),
    (
        "rate(cache_hits[5m]) / (rate(cache_hits[5m]) + rate(cache_misses[5m]))",
        ("cache_name",),
        {("embeddings",): 0.75, ("cold",): 0.0},
    ),
    (
        "rate(token_usage_sum[5m]) / rate(token_usage_count[5m])",
        ("model_id", "token_type"),
        {("claude-3", "input"): 200.0, ("claude-3", "output"): 20.0},
    ),
    (MATCHED, ("provider", "model"), {("openai", "gpt-4o-mini"): 0.2}),
    (
        "job_provider_model:llm_errors:ratio_rate5m",
        ("job", "model"),
        {
            ("app", "gpt-4o-mini"): 0.2,
            ("app", "gone"): 0.0,
            ("app", "home-made"): 0.0,
            ("app", "claude-sonnet-4-5"): 0.0,
        },
    ),
    ("job_provider_model:llm_stream_stalls:per_stream_rate5m", ("model",), {("claude-sonnet-4-5",): 0.125}),
    (
        "job_provider_model:llm_price_unknown:ratio_rate1h",
        ("model",),
        {("gpt-4o-mini",): 0.0, ("gone",): 1.0, ("home-made",): 1.0, ("claude-sonnet-4-5",): 0.0},
    ),
    (
        "job_provider_model:llm_usage_missing:ratio_rate1h",
        ("model",),
        {("gpt-4o-mini",): 0.0, ("gone",): 0.0, ("home-made",): 0.2, ("claude-sonnet-4-5",): 0.0},
    ),
    ("job_endpoint:request_errors:ratio_rate5m", ("endpoint",), {("/query",): 0.2, ("/health",): 0.0}),
    ("job_endpoint:http_requests_5xx:ratio_rate5m", ("endpoint",), {("/items/{id}",): 0.1}),
    ("job_cache:cache_hits:ratio_rate5m", ("cache_name",), {("embeddings",): 0.75, ("cold",): 0.0}),
]


@pytest.mark.parametrize(
    ("query", "labels", "right"), RATIOS, ids=lambda value: value[:40] if type(value) is str else ""
)
def test_quotients_are_right(query, labels, right, prometheus):
    assert by(prometheus, query, *labels) == pytest.approx(right, rel=1e-6)


# (dashboard, panel, number of the query) -> labels and the right answer.
SHOWN = [
    ("overview", "Error rate", 0, ("endpoint",), {("/query",): 0.2, ("/health",): 0.0}),
    ("overview", "Token usage", 0, ("token_type",), {("input",): 200.0, ("output",): 20.0}),
    ("overview", "Cache hit rate", 0, ("cache_name",), {("embeddings",): 0.75, ("cold",): 0.0}),
    ("overview", "Active requests", 0, ("endpoint",), {("/query",): 3.0}),
    ("overview", "Database query time", 0, ("table",), {("users",): 0.02}),
    ("overview", "HTTP 5xx", 0, ("endpoint",), {("/items/{id}",): 0.1}),
    ("overview", "RAG cache hit rate", 0, ("cache_type",), {("semantic",): 0.75}),
    ("overview", "RAG documents", 0, ("pipeline",), {("standard",): 6.0}),
    ("overview", "CPU", 0, (), {(): 12.5}),
    ("overview", "LLM calls in progress", 0, (), {(): 1.0}),
    ("overview", "LLM calls in progress", 1, (), {(): 1.0}),
    ("streams", "Output tokens a second of a stream", 0, ("model",), {("claude-sonnet-4-5",): 50.0}),
    ("streams", "Stalls a stream", 0, ("model",), {("claude-sonnet-4-5",): 0.125}),
    ("cost", "Cost a call", 0, (), {(): (2 + 0.00258) / 34}),
    ("cost", "Price unknown", 0, (), {(): 6 / 34}),
    (
        "cost",
        "Cost a call by model",
        0,
        ("model",),
        {("claude-sonnet-4-5",): 0.25, ("gpt-4o-mini",): 0.000129},
    ),
    (
        "cost",
        "Input read from the provider's cache",
        0,
        ("model",),
        {("gpt-4o-mini",): 0.25, ("claude-sonnet-4-5",): 0.0, ("home-made",): 0.0, ("gone",): 0.0},
    ),
    (
        "reliability",
        "Share of calls that succeeded",
        0,
        ("model",),
        {("gpt-4o-mini",): 0.8, ("gone",): 1.0, ("home-made",): 1.0, ("claude-sonnet-4-5",): 1.0},
    ),
    (
        "reliability",
        "Retries a call",
        0,
        ("model",),
        {("gpt-4o-mini",): 0.15, ("gone",): 0.0, ("home-made",): 0.0, ("claude-sonnet-4-5",): 0.0},
    ),
    ("tellmeter", "Up", 0, (), {(): 1.0}),
]


@pytest.mark.parametrize(("name", "title", "number", "labels", "right"), SHOWN)
def test_panels_show_the_right_numbers(name, title, number, labels, right, prometheus):
    queries = [query for one, panel, query in panels() if (one, panel) == (name, title)]
    assert by(prometheus, plain(queries[number]), *labels) == pytest.approx(right, rel=1e-6)


# query -> the bucket that the right answer is in.
QUANTILES = [
    ('histogram_quantile(0.95, rate(request_duration_seconds_bucket{endpoint="/query"}[5m]))', 0.25, 0.5),
    (
        'histogram_quantile(0.5, sum(rate(llm_request_duration_bucket{provider="anthropic"}[5m])) by (provider, le))',
        5,
        10,
    ),
    ('job_provider_model:llm_request_duration_seconds:p99_rate5m{provider="anthropic"}', 5, 10),
    ("job_provider_model:llm_time_to_first_token_seconds:p95_rate5m", 0.25, 0.5),
    ("histogram_quantile(0.5, sum by (le) (rate(llm_stream_gap_seconds_bucket[5m])))", 0.1, 0.25),
    ("histogram_quantile(0.99, sum by (le) (rate(llm_stream_gap_seconds_bucket[5m])))", 2.5, 5),
    ("histogram_quantile(0.5, sum by (le) (rate(llm_time_per_output_token_seconds_bucket[5m])))", 0.015, 0.025),
]


@pytest.mark.parametrize(("query", "above", "most"), QUANTILES)
def test_quantiles_are_in_the_right_bucket(query, above, most, prometheus):
    found = prometheus.value(query)
    assert above < found <= most


def test_counters_under_the_guides_names_are_exact(prometheus):
    done = ROUNDS + 1
    assert by(prometheus, "error_count", "endpoint") == {("/query",): 2 * done, ("/health",): 0}
    assert by(prometheus, "bedrock_invocations", "status") == {
        ("started",): 3 * done,
        ("success",): 2 * done,
        ("failed",): done,
    }
    assert by(prometheus, "rag_queries", "pipeline") == {("standard",): 4 * done}
    assert prometheus.value("sum(llm_cost_dollars)") == pytest.approx(2.00258 * done)
    assert by(prometheus, "sum by (feature) (llm_cost_dollars)", "feature").keys() == {("search",)}
