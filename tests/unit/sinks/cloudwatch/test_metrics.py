import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.errors import ConfigError
from tellmeter.records import StreamMetrics
from tellmeter.sinks.cloudwatch.metrics import (
    METRICS,
    NAMES,
    check_dimensions,
    check_metrics,
    dimension_sets,
    dimension_value,
    names_in,
    number,
    series_of,
)
from tests.unit.sinks.made import record


def told(one):
    """Name, with its label where it has one -> value."""
    return {
        (metric.name, metric.label_value(one)) if metric.label else metric.name: metric.value(one)
        for metric in METRICS
        if metric.value(one) is not None
    }


def test_what_a_call_tells():
    one = record(
        latency_ms=12.5,
        input_tokens=7,
        output_tokens=3,
        cached_tokens=2,
        cache_write_tokens=1,
        reasoning_tokens=1,
        cost_usd=0.5,
        retries=2,
        stream=StreamMetrics(time_to_first_token_ms=4.5),
    )
    assert told(one) == {
        "RequestLatency": 12.5,
        ("TokenUsage", "total"): 10,
        "Errors": 0.0,
        "Requests": 1.0,
        "InputTokens": 7,
        "OutputTokens": 3,
        "CachedTokens": 2,
        "CacheWriteTokens": 1,
        "ReasoningTokens": 1,
        "Cost": 0.5,
        "Retries": 2,
        "TimeToFirstToken": 4.5,
    }


def test_what_a_call_does_not_have_is_not_told():
    assert told(record()) == {
        "RequestLatency": 0.0,
        ("TokenUsage", "total"): 0,
        "Errors": 0.0,
        "Requests": 1.0,
        "InputTokens": 0,
        "OutputTokens": 0,
    }
    assert told(record(cost_usd=0.0))["Cost"] == 0.0


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"status": "error", "error_class": "RateLimitError"}, "RateLimitError"),
        ({"status": "timeout"}, "timeout"),
        ({"status": "rejected", "error_category": "budget"}, "budget"),
    ],
)
def test_an_error_is_told_with_its_type_and_without(fields, label):
    found = told(record(**fields))
    assert (found["Errors"], found["Errors", label]) == (1.0, 1.0)


@pytest.mark.parametrize("status", ["success", "cancelled", "closed_early", "abandoned"])
def test_what_is_no_error_has_no_type(status):
    assert [key for key in told(record(status=status)) if key[0] == "Errors"] == []


def test_metrics_are_chosen_by_name():
    assert check_metrics(None) == METRICS
    assert [one.name for one in check_metrics(["Errors", "Cost"])] == ["Errors", "Errors", "Cost"]
    for bad in (["cost"], "Cost", [], [5]):
        with pytest.raises(ConfigError, match="metrics"):
            check_metrics(bad)
    assert len(set(NAMES)) == len(NAMES)


def test_dimensions_are_fields_and_tags():
    sets = check_dimensions([["provider", "feature"], ["model", "tag:model"], []], METRICS)
    one = record(tags={"feature": "chat", "model": "m"})
    assert series_of(one, sets) == [
        (("Provider", "openai"), ("feature", "chat")),
        (("Model", "gpt-4o"), ("model", "m")),
        (),
    ]
    assert series_of(record(finish_reason=None), check_dimensions([["finish_reason"], ["team"]], METRICS)) == []


def test_the_default_is_the_guides_and_two_sums():
    assert series_of(record(), check_dimensions(None, METRICS)) == [
        (("Provider", "openai"), ("Model", "gpt-4o")),
        (("Provider", "openai"),),
        (),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "provider",
        ["provider"],
        [],
        [["provider", "provider"]],
        [["a", "b"], ["b", "a"]],
        [[":a"]],
        [["é"]],
        [[5]],
        [["ErrorType"]],
        [["TokenType"]],
        [[f"t{n}" for n in range(30)]],
        [[f"t{n}"] for n in range(100)],
    ],
)
def test_dimensions_that_cannot_work(bad):
    with pytest.raises(ConfigError, match="dimension"):
        check_dimensions(bad, METRICS)


def test_sets_and_names_in_urls():
    assert dimension_sets("provider model;provider;") == [["provider", "model"], ["provider"], []]
    assert dimension_sets("provider,feature") == [["provider", "feature"]]
    assert dimension_sets("") == [[]]
    assert names_in("Cost, Requests") == ["Cost", "Requests"]


@given(st.text(max_size=2000))
def test_any_text_becomes_what_a_dimension_takes(text):
    value = dimension_value(text)
    assert value.isascii()
    assert len(value) <= 1024
    assert bool(value) == bool(text.strip()) or not text.isascii()


def test_texts_that_differ_stay_apart():
    values = {dimension_value(text) for text in ("é", "e", "日本", "日", "😀", "x" * 1024)}
    assert len(values) == 6


def test_numbers_are_those_that_cloudwatch_takes():
    before = counts.snapshot().get("sanitised", {}).get("cloudwatch_value", 0)
    assert [number(value) for value in (0, 1.5, 2**63 - 1, 5e-324)] == [0.0, 1.5, 2.0**63, 0.0]
    assert number(1e308) == 2.0**360
    assert counts.snapshot()["sanitised"]["cloudwatch_value"] == before + 1
