import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import AgentMetrics, ConfigError, MetricsRegistry, StreamMetrics
from tellmeter.registry.llm import LLM_METRICS, LLMMetrics, trace_labels


@pytest.fixture
def registry():
    return MetricsRegistry(strict=True)


def value(registry, name, **labels):
    return registry.get_metric_stats(name, labels)["sum"]


def record(**fields):
    return AgentMetrics(**{"model": "gpt-4o", "provider": "openai", "latency_ms": 1500.0, **fields})


def test_a_call_is_counted_with_who_and_how_it_ended(registry):
    metrics = LLMMetrics(registry)
    metrics.count(record(input_tokens=100, output_tokens=20, cached_tokens=60, cost_usd=0.25))
    metrics.count(
        record(status="error", error_class="RateLimitError", status_code=429, retries=2), ("429", "503", "429")
    )
    assert value(registry, "llm_requests_total", provider="openai", model="gpt-4o", status="success") == 1
    assert value(registry, "llm_requests_total", status="error") == 1
    assert value(registry, "llm_attempts_total", status="429") == 2
    assert value(registry, "llm_attempts_total") == 4
    assert value(registry, "llm_retries_total") == 2
    assert value(registry, "llm_errors_total", error_class="RateLimitError") == 1
    assert registry.get_metric_stats("llm_request_duration_seconds")["sum"] == 3.0
    tokens = {kind: value(registry, "llm_tokens_total", type=kind) for kind in ("input", "output", "cache_read")}
    assert tokens == {"input": 100, "output": 20, "cache_read": 60}
    assert value(registry, "llm_tokens_used_total", type="prompt") == 100
    assert value(registry, "llm_cost_dollars") == value(registry, "llm_cost_dollars_total") == 0.25
    assert value(registry, "llm_price_unknown_total") == 1


def test_attempts_that_nobody_saw_are_failures_before_the_last(registry):
    LLMMetrics(registry).count(record(retries=3, status_code=200))
    assert value(registry, "llm_attempts_total", status="error") == 3
    assert value(registry, "llm_attempts_total", status="200") == 1


@pytest.mark.parametrize(("status", "errors"), [("timeout", 1), ("rejected", 1), ("cancelled", 0), ("closed_early", 0)])
def test_errors_are_what_the_error_rate_counts(registry, status, errors):
    LLMMetrics(registry).count(record(status=status))
    assert value(registry, "llm_errors_total") == errors
    assert value(registry, "llm_requests_total", status=status) == 1


def test_a_stream_tells_its_quality(registry):
    stream = StreamMetrics(
        time_to_first_chunk_ms=100.0,
        time_to_first_token_ms=300.0,
        tokens_per_second=50.0,
        output_tokens=10,
        chunks_received=12,
        max_gap_ms=800.0,
        stalls=2,
    )
    LLMMetrics(registry).count(record(stream=stream, tokens_estimated=True))
    assert value(registry, "llm_time_to_first_chunk_seconds") == 0.1
    assert value(registry, "llm_time_to_first_token_seconds") == 0.3
    assert value(registry, "llm_time_per_output_token_seconds") == 0.02
    assert value(registry, "llm_stream_gap_seconds") == 0.8
    assert value(registry, "llm_stream_stalls_total") == 2
    assert value(registry, "llm_usage_missing_total") == 1


def test_costs_that_are_not_tracked_are_not_unknown(registry):
    LLMMetrics(registry, priced=False).count(record())
    assert value(registry, "llm_price_unknown_total") == 0


def test_tags_become_labels_of_every_metric(registry):
    metrics = LLMMetrics(registry, ["feature"])
    metrics.count(record(tags={"feature": "search", "user": "u1"}))
    metrics.count(record())
    assert value(registry, "llm_requests_total", feature="search") == 1
    assert value(registry, "llm_requests_total", feature="") == 1
    assert all(registry.get_all_metrics()[one.name]["labels"][-1] == "feature" for one in LLM_METRICS)


def test_tags_that_come_later_leave_what_was_counted(registry):
    former = LLMMetrics(registry)
    former.count(record())
    latter = LLMMetrics(registry, ["feature"])
    latter.count(record(tags={"feature": "search"}))
    former.count(record())
    assert value(registry, "llm_requests_total", feature="") == 2
    assert value(registry, "llm_requests_total", feature="search") == 1
    assert (
        b'llm_requests_total{provider="openai",model="gpt-4o",method="generate",status="success"} 2.0'
        in registry.text()
    )


@pytest.mark.parametrize("tag", ["model", "status", "type"])
def test_a_tag_cannot_be_a_label_that_is_there(registry, tag):
    with pytest.raises(ConfigError, match=tag):
        LLMMetrics(registry, [tag])


def test_a_trace_is_an_exemplar(registry):
    LLMMetrics(registry).count(record(trace_id="a" * 32, span_id="b" * 16))
    page = registry.text(openmetrics=True).decode()
    assert f'le="2.5"}} 1.0 # {{trace_id="{"a" * 32}",span_id="{"b" * 16}"}} 1.5 ' in page
    assert "trace_id" not in registry.text().decode()


def test_what_is_in_progress_follows_and_collectors_add_up(registry):
    one, two = LLMMetrics(registry), LLMMetrics(registry)
    one.show_live({("openai", "gpt-4o"): 3}, {("openai", "gpt-4o"): 1})
    two.show_live({("openai", "gpt-4o"): 2}, {})
    assert value(registry, "llm_active_requests") == 5
    one.show_live({("openai", "gpt-4o"): 1, ("anthropic", "claude"): 1}, {})
    assert value(registry, "llm_active_requests", provider="openai") == 3
    assert value(registry, "llm_active_streams") == 0
    one.show_live({}, {})
    two.show_live({}, {})
    assert value(registry, "llm_active_requests") == 0
    assert b'llm_active_requests{provider="anthropic",model="claude"} 0.0' in registry.text()


def test_models_without_end_are_one_overflow_with_exact_sums():
    registry = MetricsRegistry(max_series=50)
    metrics = LLMMetrics(registry)
    for number in range(10_000):
        metrics.count(record(model=f"model-{number}", input_tokens=1))
    assert value(registry, "llm_tokens_total", type="input", model="model-7") == 1
    assert (
        registry.get_metric_stats("llm_tokens_total", {"type": "input"})["sum"]
        + value(registry, "llm_tokens_total", type="__overflow__")
        == 10_000
    )
    assert registry.text().count(b"llm_requests_total{") == 51


made = st.builds(
    record,
    model=st.sampled_from(["a", "b"]),
    status=st.sampled_from(["success", "error", "closed_early"]),
    status_code=st.sampled_from([None, 200, 429]),
    input_tokens=st.integers(0, 2**63 - 1),
    output_tokens=st.integers(0, 1000),
    latency_ms=st.floats(0, 1e6),
    cost_usd=st.one_of(st.none(), st.just(0.0), st.integers(0, 64).map(lambda number: number / 64)),
    retries=st.integers(0, 2),
    tokens_estimated=st.booleans(),
    trace_id=st.sampled_from([None, "ab" * 16]),
    tags=st.sampled_from([{}, {"team": "x"}, {"team": "y"}]),
)


@given(st.lists(st.tuples(made, st.sampled_from([(), ("200",), ("429", "200")])), max_size=12), st.booleans())
def test_calls_that_are_counted_together_come_to_the_same_as_one_by_one(finished, tagged):
    one, other = MetricsRegistry(), MetricsRegistry()
    tags = ["team"] if tagged else []
    together, singly = LLMMetrics(one, tags), LLMMetrics(other, tags)
    together.count_all(finished)
    for call in finished:
        singly.count(*call)
    assert figures(one) == figures(other)


def figures(registry):
    """Every value of the LLM metrics, by metric and labels; sums of floats to 9 digits."""
    found = {}
    for definition in LLM_METRICS:
        for series in registry.family(definition).series.values():
            value = series.read()
            found[definition.name, series.values] = (
                (value[0], f"{value[1]:.9g}") if isinstance(value, tuple) else f"{value:.9g}"
            )
    return found


def test_a_call_that_cannot_be_counted_is_noted_and_the_others_are():
    registry = MetricsRegistry()
    good = record(input_tokens=5)
    LLMMetrics(registry).count_all([(good, ()), (object(), ()), (good, ())])
    assert registry.get_metric_stats("llm_tokens_total", {"type": "input"})["sum"] == 10
    assert registry.get_metric_stats("llm_requests_total")["sum"] == 2


def test_who_asks_to_hear_of_calls_hears_of_each_and_breaks_nothing(registry):
    heard = []

    def fail(records, tags):
        raise RuntimeError("canary")

    registry.on_calls = (fail, lambda records, tags: heard.append((records, tags)))
    records = [record(), record(status="error", error_class="E"), record(trace_id="a" * 32)]
    LLMMetrics(registry, ["feature"]).count_all([(one, ()) for one in records])
    assert heard == [(records, ("feature",))]
    assert value(registry, "llm_requests_total") == 3


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({}, None),
        ({"span_id": "b" * 16}, None),
        ({"trace_id": "a" * 32}, {"trace_id": "a" * 32}),
        ({"trace_id": "a" * 32, "span_id": "b" * 16}, {"trace_id": "a" * 32, "span_id": "b" * 16}),
    ],
)
def test_an_exemplar_has_the_ids_that_lead_to_the_trace(ids, expected):
    assert trace_labels(record(**ids)) == expected
