import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tellmeter.registry.names import (
    NAME_LENGTH,
    UNIT_WORDS,
    clean_label,
    clean_name,
    exposed_name,
    otlp_name,
    prometheus_name,
    unit_symbol,
    unit_word,
)

KINDS = ["counter", "gauge", "histogram", "up_down_counter"]
METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
WORDS = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(
    lambda word: word not in {"total", "ratio", "per"} and word not in UNIT_WORDS.values()
)


@given(st.text())
def test_any_text_becomes_a_name_that_prometheus_accepts(text):
    assert METRIC.fullmatch(clean_name(text))
    assert len(clean_name(text)) <= NAME_LENGTH + 1


@given(st.text())
def test_any_text_becomes_a_label_that_is_not_one_of_prometheus_own(text):
    assert LABEL.fullmatch(clean_label(text))


@given(st.from_regex(METRIC, fullmatch=True).filter(lambda name: len(name) <= NAME_LENGTH))
@example("a__b")
@example("__a:_")
def test_a_name_that_prometheus_accepts_is_kept(name):
    assert clean_name(name) == name
    assert exposed_name(name, "", "gauge") == name


@given(st.from_regex(LABEL, fullmatch=True).filter(lambda name: len(name) <= NAME_LENGTH))
def test_a_label_that_prometheus_accepts_is_kept(name):
    assert clean_label(name) == name


@given(st.text(), st.text(), st.sampled_from(KINDS))
@example("", "", "counter")
@example(".", "", "counter")
@example(".total", "1", "counter")
@example("1.2", "%", "counter")
def test_any_text_has_a_name_on_the_page(name, unit, kind):
    exposed = exposed_name(name, unit, kind)
    assert METRIC.fullmatch(exposed)
    # What a counter is called without its ending names it in OpenMetrics: it must be a name, too.
    assert kind != "counter" or (METRIC.fullmatch(exposed.removesuffix("_total")) and exposed.endswith("_total"))


@given(st.text(), st.sampled_from(KINDS))
def test_what_is_on_the_page_keeps_its_name_when_it_is_registered_by_it(name, kind):
    exposed = exposed_name(name, "", kind)
    assert exposed_name(exposed, "", kind) == exposed


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        # metrics-core.md, section 4
        ("gen_ai.client.token.usage", "{token}", "histogram", "gen_ai_client_token_usage"),
        ("gen_ai.client.operation.duration", "s", "histogram", "gen_ai_client_operation_duration_seconds"),
        ("mem.used.total", "By", "counter", "mem_used_bytes_total"),
        # the examples of the OpenTelemetry collector's normaliser, which Prometheus uses for OTLP
        ("(lambda).function.executions(#)", "", "gauge", "lambda_function_executions"),
        ("system.filesystem.usage", "By", "gauge", "system_filesystem_usage_bytes"),
        ("system.network.dropped", "{packets}", "gauge", "system_network_dropped"),
        ("system.network.dropped", "packets", "gauge", "system_network_dropped_packets"),
        ("system.memory.utilization", "1", "gauge", "system_memory_utilization_ratio"),
        ("system.network.io", "By/s", "gauge", "system_network_io_bytes_per_second"),
        ("astro.light.speed_limit", "m/s", "gauge", "astro_light_speed_limit_meters_per_second"),
        ("process.cpu", "1", "counter", "process_cpu_total"),
        ("jobs.done", "{job}/min", "gauge", "jobs_done_per_minute"),
        ("jobs.done", "1/min", "gauge", "jobs_done_per_minute"),
        ("cpu.load", "%", "gauge", "cpu_load_percent"),
        ("queue.wait.seconds", "s", "histogram", "queue_wait_seconds"),
        ("active.requests", "{request}", "up_down_counter", "active_requests"),
        ("total.calls", "", "counter", "calls_total"),
        ("2xx.answers", "", "counter", "_2xx_answers_total"),
    ],
)
def test_opentelemetry_names_become_prometheus_names(name, unit, kind, expected):
    assert prometheus_name(name, unit, kind) == expected
    assert exposed_name(name, unit, kind) in (expected, name)


def test_a_name_without_dots_is_kept_but_for_the_total_of_counters():
    assert exposed_name("request_count", "", "counter") == "request_count_total"
    assert exposed_name("request_count_total", "", "counter") == "request_count_total"
    assert exposed_name("request_duration", "seconds", "histogram") == "request_duration"
    assert exposed_name("job:rate5m", "", "gauge") == "job:rate5m"
    assert exposed_name("requests total", "", "gauge") == "requests_total"
    assert exposed_name("_total", "", "counter") == "_total_total"


@given(st.lists(WORDS, min_size=1, max_size=5), st.sampled_from(["", *UNIT_WORDS]), st.sampled_from(KINDS))
def test_names_that_follow_the_conventions_go_both_ways(words, unit, kind):
    words = [word for word in words if word not in unit_word(unit).split("_")] or ["calls"]
    name = prometheus_name(".".join(words), unit, kind)
    base = otlp_name(name, unit, kind)
    assert base == "_".join(words)
    assert prometheus_name(base, unit, kind) == name


@given(st.text(), st.sampled_from(["", "1", "s", "By", "seconds", "{token}", "By/s"]), st.sampled_from(KINDS))
def test_a_metrics_otlp_name_is_never_empty_and_leads_back_to_it(text, unit, kind):
    name = prometheus_name(text, unit, kind)
    base = otlp_name(name, unit, kind)
    assert base
    # Only where the unit's word is in it twice is one of them lost.
    if not base.endswith(f"_{unit_word(unit)}") and unit != "1":
        assert prometheus_name(base, unit, kind).replace("_", "") == name.replace("_", "")


@pytest.mark.parametrize(("symbol", "word"), UNIT_WORDS.items())
def test_units_are_words_for_prometheus_and_symbols_for_opentelemetry(symbol, word):
    assert unit_word(symbol) == word == unit_word(word)
    assert unit_symbol(word) == symbol == unit_symbol(symbol)


def test_a_unit_that_nobody_knows_is_an_annotation_and_a_word():
    assert unit_symbol("tokens") == "{tokens}"
    assert unit_symbol("{token}") == "{token}"
    assert unit_symbol("1") == "1"
    assert unit_symbol("") == ""
    assert unit_word("tokens") == "tokens"
    assert unit_word("{token}") == unit_word("1") == unit_word("") == ""
    assert unit_word("By/wk") == "bytes_per_week"
    assert unit_word("°/\n") == "per"


@given(st.text())
def test_any_unit_becomes_a_word_that_a_name_may_end_in(unit):
    assert re.fullmatch(r"([a-zA-Z0-9]+(_[a-zA-Z0-9]+)*)?", unit_word(unit))
