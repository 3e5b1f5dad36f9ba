"""The rules, judged by promtool: every recording gives the right number, every alert fires, and does not without cause."""

import json
import subprocess
from pathlib import Path

import pytest

from tellmeter.errors import ConfigError
from tellmeter.serve.rules import Alert, Limits, Recording, alerts, rule_groups, select
from tellmeter.serve.rules_text import rules_text
from tests.support.servers import require

WHERE = 'job="app", instance="a:1"'
WHO = f'{WHERE}, provider="openai", model="gpt"'
CALLS = (f'llm_requests_total{{{WHO}, method="generate", status="success"}}', "0+60x90")  # one a second
FEW_CALLS = (CALLS[0], "0+1x90")


def case(series, **checks):
    """One test of promtool: what is scraped, and what is then to be."""
    return {"interval": "1m", "input_series": [{"series": name, "values": values} for name, values in series], **checks}


def judged(folder, *cases, limits=None):
    """What promtool has to say of the rules in these cases: "" where all is as it should be."""
    (folder / "rules.yml").write_text(rules_text(rule_groups(limits)))
    told = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": cases}
    (folder / "test.yml").write_text(json.dumps(told))
    run = subprocess.run(
        [require("promtool"), "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, check=False
    )
    return "" if run.returncode == 0 else run.stdout + run.stderr


def bucket(name, labels, le, a_minute):
    return f'{name}_bucket{{{labels}, le="{le}"}}', f"0+{a_minute}x90"


def spread(name, labels):
    """60 observations a minute, half of them from 1 to 2, half from 2 to 4."""
    return [bucket(name, labels, le, number) for le, number in (("1", 0), ("2", 30), ("4", 60), ("+Inf", 60))]


PLACE = f'{WHERE}, endpoint="/query"'
CACHE = f'{WHERE}, cache_name="c", operation="get"'
LEVEL = 'job="app", provider="openai", model="gpt"'
DURATION = "llm_request_duration_seconds"

# recording -> input series, labels and value after 60 minutes
RECORDED = {
    "request_count": (
        [
            (f'request_count_total{{{PLACE}, method="GET", status="200"}}', "0+5x90"),
            (f'request_count_total{{{PLACE}, method="POST", status="500"}}', "0+1x90"),
        ],
        PLACE,
        360,
    ),
    "error_count": ([(f'error_count_total{{{PLACE}, error_type="E", function="f"}}', "0+2x90")], PLACE, 120),
    "cache_hits": ([(f"cache_hits_total{{{CACHE}}}", "0+3x90")], CACHE, 180),
    "cache_misses": ([(f"cache_misses_total{{{CACHE}}}", "0+1x90")], CACHE, 60),
    "bedrock_invocations": (
        [(f'bedrock_invocations_total{{{WHERE}, model_id="m", status="failed"}}', "0+1x90")],
        f'{WHERE}, model_id="m", status="failed"',
        60,
    ),
    "rag_queries": ([(f'rag_queries_total{{{WHERE}, pipeline="p"}}', "0+1x90")], f'{WHERE}, pipeline="p"', 60),
    "llm_cost_dollars": (
        [(f'llm_cost_dollars_total{{{WHO}, feature="f"}}', "0+0.5x90")],
        f'{WHO}, feature="f"',
        30,
    ),
    "llm_request_duration_bucket": ([bucket(DURATION, WHO, "5", 2)], f'{WHO}, le="5"', 120),
    "llm_request_duration_count": ([(f"{DURATION}_count{{{WHO}}}", "0+2x90")], WHO, 120),
    "llm_request_duration_sum": ([(f"{DURATION}_sum{{{WHO}}}", "0+2x90")], WHO, 120),
    "cache_size": ([(f'cache_size_bytes{{{WHERE}, cache_name="c"}}', "7x90")], f'{WHERE}, cache_name="c"', 7),
    "memory_usage": ([(f'memory_usage_bytes{{{WHERE}, process="p"}}', "7x90")], f'{WHERE}, process="p"', 7),
    "job_provider_model:llm_requests:rate5m": ([CALLS], LEVEL, 1),
    "job_provider_model:llm_errors:ratio_rate5m": (
        [
            CALLS,
            (f'llm_errors_total{{{WHO}, error_class="A"}}', "0+9x90"),
            (f'llm_errors_total{{{WHO}, error_class="B"}}', "0+6x90"),
        ],
        LEVEL,
        0.25,
    ),
    f"job_provider_model:{DURATION}:p50_rate5m": (spread(DURATION, WHO), LEVEL, 2),
    f"job_provider_model:{DURATION}:p95_rate5m": (spread(DURATION, WHO), LEVEL, 3.8),
    f"job_provider_model:{DURATION}:p99_rate5m": (spread(DURATION, WHO), LEVEL, 3.96),
    "job_provider_model:llm_time_to_first_token_seconds:p95_rate5m": (
        spread("llm_time_to_first_token_seconds", WHO),
        LEVEL,
        3.8,
    ),
    "job_provider_model:llm_stream_stalls:per_stream_rate5m": (
        [
            (f"llm_stream_stalls_total{{{WHO}}}", "0+6x90"),
            (f"llm_time_to_first_chunk_seconds_count{{{WHO}}}", "0+60x90"),
        ],
        LEVEL,
        0.1,
    ),
    "job_provider_model_type:llm_tokens:rate5m": (
        [(f'llm_tokens_total{{{WHO}, type="input"}}', "0+600x90")],
        f'{LEVEL}, type="input"',
        10,
    ),
    "job_provider_model:llm_cost_dollars_per_hour:rate5m": (
        [(f"llm_cost_dollars_total{{{WHO}}}", "0+0.5x90")],
        LEVEL,
        30,
    ),
    "job_provider_model:llm_price_unknown:ratio_rate1h": (
        [CALLS, (f"llm_price_unknown_total{{{WHO}}}", "0+30x90")],
        LEVEL,
        0.5,
    ),
    "job_provider_model:llm_usage_missing:ratio_rate1h": (
        [CALLS, (f"llm_usage_missing_total{{{WHO}}}", "0+30x90")],
        LEVEL,
        0.5,
    ),
    "job_endpoint:request_errors:ratio_rate5m": (
        [
            (f'request_count_total{{{PLACE}, method="GET", status="200"}}', "0+5x90"),
            (f'error_count_total{{{PLACE}, error_type="E", function="f"}}', "0+2x90"),
        ],
        'job="app", endpoint="/query"',
        0.4,
    ),
    "job_endpoint:request_duration_seconds:p95_rate5m": (
        spread("request_duration_seconds", PLACE),
        'job="app", endpoint="/query"',
        3.8,
    ),
    "job_endpoint:http_requests_5xx:ratio_rate5m": (
        [
            (f'http_requests_total{{{PLACE}, method="GET", status="200"}}', "0+9x90"),
            (f'http_requests_total{{{PLACE}, method="GET", status="503"}}', "0+1x90"),
        ],
        'job="app", endpoint="/query"',
        0.1,
    ),
    "job_endpoint:http_request_duration_seconds:p95_rate5m": (
        spread("http_request_duration_seconds", PLACE),
        'job="app", endpoint="/query"',
        3.8,
    ),
    "job_cache:cache_hits:ratio_rate5m": (
        [(f"cache_hits_total{{{CACHE}}}", "0+3x90"), (f"cache_misses_total{{{CACHE}}}", "0+1x90")],
        'job="app", cache_name="c"',
        0.75,
    ),
}


def recordings():
    return [rule.record for group in rule_groups() for rule in group.rules if isinstance(rule, Recording)]


def test_every_recording_is_tested_below():
    assert sorted(RECORDED) == sorted(recordings())
    assert len(set(recordings())) == len(recordings())


def test_recordings_give_the_right_numbers(tmp_path):
    cases = []
    for name, (series, labels, value) in RECORDED.items():
        expected = {"labels": f"{{{labels}}}", "value": value}
        check = {"expr": f"round({name}, 1e-6)", "eval_time": "60m", "exp_samples": [expected]}
        cases.append(case(series, promql_expr_test=[check]))
    assert judged(tmp_path, *cases) == ""


@pytest.mark.parametrize(
    ("name", "series", "labels"),
    [
        ("error_count", [(f'request_count_total{{{PLACE}, status="200"}}', "0+5x90")], PLACE),
        ("cache_hits", [(f"cache_misses_total{{{CACHE}}}", "0+1x90")], CACHE),
        ("cache_misses", [(f"cache_hits_total{{{CACHE}}}", "0+1x90")], CACHE),
        ("job_provider_model:llm_errors:ratio_rate5m", [CALLS], LEVEL),
        (
            "job_cache:cache_hits:ratio_rate5m",
            [(f"cache_misses_total{{{CACHE}}}", "0+1x90")],
            'job="app", cache_name="c"',
        ),
    ],
)
def test_what_never_happened_is_0_and_not_nothing(name, series, labels, tmp_path):
    check = {"expr": name, "eval_time": "60m", "exp_samples": [{"labels": f"{name}{{{labels}}}", "value": 0}]}
    if ":" not in name:  # it is a counter from the start, so that rate() sees its first event
        check["expr"] = f"{name} + 0"
        check["exp_samples"][0]["labels"] = f"{{{labels}}}"
    assert judged(tmp_path, case(series, promql_expr_test=[check])) == ""


def test_a_restart_of_one_instance_is_no_restart_of_the_others(tmp_path):
    series = [
        (f'request_count_total{{{PLACE}, status="200"}}', "0+60x28 0+60x60"),
        ('request_count_total{job="app", instance="b:1", endpoint="/query", status="200"}', "0+60x90"),
    ]
    check = {
        "expr": "round(sum(increase(request_count[10m])), 1)",
        "eval_time": "33m",
        "exp_samples": [{"labels": "{}", "value": 1140}],  # 19 steps of 60, and the one that begins again at 0
    }
    assert judged(tmp_path, case(series, promql_expr_test=[check])) == ""


WHAT = "gpt of openai in app"
AT = {"job": "app", "provider": "openai", "model": "gpt"}
HOST = {"job": "app", "instance": "a:1"}


def lost(reason):
    return f'tellmeter_dropped_total{{{WHERE}, sink="PG", reason="{reason}"}}'


ERRORS = f'llm_errors_total{{{WHO}, error_class="E"}}'
STREAMS = (f"llm_time_to_first_chunk_seconds_count{{{WHO}}}", "0+60x90")


def all_within(seconds):
    return [bucket(DURATION, WHO, le, 60 if le == "+Inf" or float(le) >= seconds else 0) for le in ("30", "60", "+Inf")]


# alert -> series that fire it, minutes, labels, summary, description; and series that do not, each for its reason
FIRED = {
    "LLMErrorRatioHigh": (
        [CALLS, (ERRORS, "0+6x90")], 40, {**AT, "severity": "critical"},
        f"LLM calls fail: {WHAT}", "10% of the calls of the last 5 minutes failed, timed out or were rejected.",
        [[CALLS, (ERRORS, "0+2x90")], [FEW_CALLS, (ERRORS, "0+1x90")], [CALLS, (ERRORS, "0x10 0+6x3 18x60")]],
    ),
    "LLMLatencyHigh": (
        [CALLS, *all_within(60)], 40, {**AT, "severity": "warning"},
        f"LLM calls are slow: {WHAT}", "The 95th percentile of the last 5 minutes is 58.5s.",
        [[CALLS, *all_within(30)], [FEW_CALLS, *all_within(60)]],
    ),
    "LLMStreamsStall": (
        [CALLS, STREAMS, (f"llm_stream_stalls_total{{{WHO}}}", "0+6x90")], 40, {**AT, "severity": "warning"},
        f"LLM streams stall: {WHAT}", "0.10 stalls a stream in the last 5 minutes.",
        [[CALLS, STREAMS], [CALLS, STREAMS, (f"llm_stream_stalls_total{{{WHO}}}", "0+2x90")]],
    ),
    "LLMCostBurn": (
        [(f"llm_cost_dollars_total{{{WHO}}}", "0+0.1x90"), (f'llm_cost_dollars_total{{{WHO}, feature="b"}}', "0+0.1x90")],
        40, {"job": "app", "severity": "critical"},
        "LLM calls of app are expensive", "They cost 12.00 US dollars an hour.",
        [[(f"llm_cost_dollars_total{{{WHO}}}", "0+0.1x90")]],
    ),
    "LLMPriceUnknown": (
        [CALLS, (f"llm_price_unknown_total{{{WHO}}}", "0+30x90")], 60, {**AT, "severity": "warning"},
        f"The cost of LLM calls is not known: {WHAT}",
        "50% of the calls of the last hour have no price: the dollars are too few.",
        [[CALLS], [CALLS, (f"llm_price_unknown_total{{{WHO}}}", "0+3x90")]],
    ),
    "LLMUsageMissing": (
        [CALLS, (f"llm_usage_missing_total{{{WHO}}}", "0+30x90")], 60, {**AT, "severity": "warning"},
        f"The tokens of LLM calls are not known: {WHAT}",
        "The provider did not state the usage of 50% of the calls of the last hour.",
        [[CALLS], [CALLS, (f"llm_usage_missing_total{{{WHO}}}", "0+3x90")]],
    ),
    "LLMCircuitBreakerOpen": (
        [(f'llm_circuit_breaker_open{{{WHERE}, provider="openai"}}', "0x5 1x20")], 10,
        {"job": "app", "provider": "openai", "severity": "critical"},
        "The circuit breaker of openai in app is open", "Calls are rejected without being sent.",
        [[(f'llm_circuit_breaker_open{{{WHERE}, provider="openai"}}', "0x90")]],
    ),
    "TellmeterRecordsLost": (
        [(lost("rejected"), "_x5 7x90")], 10,
        {**HOST, "sink": "PG", "reason": "rejected", "severity": "warning"},
        "PG of a:1 lost records: rejected", "7 records in the last 10 minutes; its log says why.",
        [[(lost(reason), "_x5 7x90")] for reason in ("sampled_out", "filtered", "not_llm")],
    ),
    "TellmeterSeriesOverflow": (
        [(f'tellmeter_series_overflow_total{{{WHERE}, metric="crowded"}}', "_x5 3x90")], 10,
        {**HOST, "metric": "crowded", "severity": "warning"},
        "crowded of a:1 has too many label sets", "3 recordings of the last 10 minutes are in the series __overflow__.",
        [[]],
    ),
    "TellmeterGuardedErrors": (
        [(f'tellmeter_guarded_errors_total{{{WHERE}, where="filter"}}', "_x5 1x90")], 10,
        {**HOST, "where": "filter", "severity": "warning"},
        "Metering fails in filter of a:1",
        "1 errors in the last 10 minutes were kept from the program; see its log.",
        [[]],
    ),
    "TellmeterScrapeDown": (
        [(f"up{{{WHERE}}}", "1x5 0x90")], 10, {**HOST, "severity": "critical"},
        "a:1 of app is not scraped", "Prometheus gets no metrics from it: it is down, or its page is.",
        [[(f"up{{{WHERE}}}", "1x90")], [(f"up{{{WHERE}}}", "1x9 0x1 1x90")]],
    ),
}  # fmt: skip


def test_every_alert_is_tested_below():
    assert list(FIRED) == [alert.name for alert in alerts(Limits())]


def test_alerts_fire(tmp_path):
    cases = []
    for name, (series, minutes, labels, summary, description, _) in FIRED.items():
        expected = {"exp_labels": labels, "exp_annotations": {"summary": summary, "description": description}}
        check = {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": [expected]}
        cases.append(case(series, alert_rule_test=[check]))
    assert judged(tmp_path, *cases) == ""


def test_alerts_do_not_fire_without_cause(tmp_path):
    cases = []
    for name, (*_, quiet) in FIRED.items():
        for series in quiet:
            check = [{"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": []} for minutes in (10, 20, 60)]
            cases.append(case(series, alert_rule_test=check))
    assert judged(tmp_path, *cases) == ""


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("LLMErrorRatioHigh", Limits(error_ratio=0.11)),
        ("LLMErrorRatioHigh", Limits(min_calls=301)),
        ("LLMLatencyHigh", Limits(latency_p95=60)),
        ("LLMStreamsStall", Limits(stalls_per_stream=0.2)),
        ("LLMCostBurn", Limits(cost_per_hour=12.5)),
        ("LLMPriceUnknown", Limits(unknown_share=0.6)),
        ("LLMUsageMissing", Limits(unknown_share=0.6)),
        ("TellmeterRecordsLost", Limits(job="web|worker")),
        ("TellmeterScrapeDown", Limits(job="web|worker")),
    ],
)
def test_a_limit_of_the_users_is_the_one_that_counts(name, limits, tmp_path):
    series, minutes, *_ = FIRED[name]
    check = {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": []}
    assert judged(tmp_path, case(series, alert_rule_test=[check]), limits=limits) == ""


def test_a_loss_is_told_for_ten_minutes_also_of_a_counter_that_was_there(tmp_path):
    check = [
        {
            "expr": 'ALERTS{alertname="TellmeterRecordsLost", alertstate="firing"}',
            "eval_time": f"{minutes}m",
            "exp_samples": [
                {
                    "labels": (
                        'ALERTS{alertname="TellmeterRecordsLost", alertstate="firing", instance="a:1", job="app", '
                        'reason="rejected", severity="warning", sink="PG"}'
                    ),
                    "value": 1,
                }
            ][:firing],
        }
        for minutes, firing in ((5, 1), (15, 0), (29, 0), (33, 1), (45, 0))
    ]
    assert judged(tmp_path, case([(lost("rejected"), "7x30 9x60")], promql_expr_test=check)) == ""


@pytest.mark.parametrize("limits", [Limits(), Limits(job='a"b\\.c|d', cost_per_hour=1e-5, latency_p95=0.25)])
def test_promtool_finds_nothing(limits, tmp_path):
    (tmp_path / "rules.yml").write_text(rules_text(rule_groups(limits)))
    run = subprocess.run(
        [require("promtool"), "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert f"SUCCESS: {len(RECORDED) + len(FIRED)} rules found" in run.stdout


def test_a_job_is_asked_for_in_every_expression():
    expressions = [rule.expr for group in rule_groups(Limits(job="web")) for rule in group.rules]
    assert not [expr for expr in expressions if "JOB" in expr]
    figures = {*recordings()}
    assert not [expr for expr in expressions if 'job=~"web"' not in expr and not any(name in expr for name in figures)]
    assert select('up{JOB} + a{JOB, b="c"}', "") == 'up + a{b="c"}'
    assert select('up{JOB} + a{JOB, b="c"}', "w") == 'up{job=~"w"} + a{job=~"w", b="c"}'


def test_without_alerts_there_are_only_recordings():
    assert not [rule for group in rule_groups(with_alerts=False) for rule in group.rules if isinstance(rule, Alert)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"error_ratio": 5.0}, "error_ratio = 5.0: it is a share, from 0 to 1"),
        ({"cost_per_hour": -1.0}, "cost_per_hour = -1.0: it must be a number, 0 or more"),
        ({"latency_p95": float("nan")}, "latency_p95 = nan"),
        ({"min_calls": float("inf")}, "min_calls = inf"),
        ({"job": "("}, r"job = \(: it is no regular expression"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        Limits(**given)


def test_the_documentation_names_every_rule():
    page = (Path(__file__).parents[3] / "docs" / "prometheus.md").read_text("utf-8")
    assert [name for name in FIRED if f"| `{name}` |" not in page] == []
    metrics = {name.split(":")[1] if ":" in name else name for name in recordings()}
    unsaid = {metric for metric in metrics if metric not in page}
    assert unsaid == {
        "llm_request_duration_count",
        "llm_request_duration_sum",
    }  # `_count` and `_sum` of the bucket's line
