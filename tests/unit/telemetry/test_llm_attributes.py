import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes

from tellmeter import AgentMetrics, MetricsConfig, StreamMetrics
from tellmeter.telemetry.llm_attributes import begun_attributes, ended_attributes, is_of_one_call, span_name

CONFIG = MetricsConfig()
CONVENTIONS = {
    value
    for module in (gen_ai_attributes, error_attributes, http_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
FULL = AgentMetrics(
    model="gpt-4o",
    response_model="gpt-4o-2024",
    provider="openai",
    method="stream",
    latency_ms=1500.0,
    status="error",
    error_class="RateLimitError",
    error_category="rate_limit",
    status_code=429,
    input_tokens=100,
    output_tokens=50,
    cached_tokens=10,
    cache_write_tokens=5,
    reasoning_tokens=20,
    cost_usd=0.25,
    price_version="v1",
    retries=2,
    retry_delay_ms=30.0,
    finish_reason="stop",
    tools_used=("search",),
    request_id="req_1",
    stream=StreamMetrics(time_to_first_chunk_ms=250.0, time_to_first_token_ms=300.0, stalls=1, status="error"),
    tags={"feature": "cart"},
)


def test_what_the_conventions_name_has_their_name_and_unit():
    found = ended_attributes(FULL, CONFIG, "resp_1")
    standard = {name: value for name, value in found.items() if not name.startswith("tellmeter.")}
    assert standard == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-4o-2024",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "http.response.status_code": 429,
        "error.type": "RateLimitError",
    }
    assert set(standard) <= CONVENTIONS


def test_what_they_do_not_name_has_the_name_of_the_records_field():
    found = ended_attributes(FULL, CONFIG, None)
    own = {name: value for name, value in found.items() if name.startswith("tellmeter.")}
    assert own == {
        "tellmeter.record_id": FULL.id,
        "tellmeter.status": "error",
        "tellmeter.error_category": "rate_limit",
        "tellmeter.retries": 2,
        "tellmeter.retry_delay_ms": 30.0,
        "tellmeter.tools_used": ("search",),
        "tellmeter.request_id": "req_1",
        "tellmeter.cost_usd": 0.25,
        "tellmeter.price_version": "v1",
        "tellmeter.stream.status": "error",
        "tellmeter.stream.time_to_first_token_ms": 300.0,
        "tellmeter.stream.stalls": 1,
        "tellmeter.tags.feature": "cart",
    }
    fields = set(AgentMetrics.__struct_fields__) | {"record_id"}
    assert {name.split(".")[1] for name in own} <= fields


def test_an_estimate_is_not_told_as_a_count():
    record = AgentMetrics(model="m", input_tokens=7, output_tokens=9, tokens_estimated=True)
    found = ended_attributes(record, CONFIG, None)
    assert not [name for name in found if name.startswith("gen_ai.usage")]
    assert found["tellmeter.estimated.input_tokens"] == 7
    assert found["tellmeter.estimated.output_tokens"] == 9


def test_what_is_free_is_told_apart_from_a_price_unknown():
    assert ended_attributes(AgentMetrics(model="m", cost_usd=0.0), CONFIG, None)["tellmeter.cost_usd"] == 0.0
    assert "tellmeter.cost_usd" not in ended_attributes(AgentMetrics(model="m"), CONFIG, None)


def test_an_unknown_model_is_left_out_of_name_and_attributes():
    assert "gen_ai.request.model" not in ended_attributes(AgentMetrics(model="unknown"), CONFIG, None)
    assert span_name("chat", "unknown") == span_name("chat", "") == "chat"
    assert span_name("embeddings", "e5") == "embeddings e5"
    assert begun_attributes("chat", "unknown", "") == {"gen_ai.operation.name": "chat"}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (AgentMetrics(model="m", status="timeout", error_category="timeout"), "timeout"),
        (AgentMetrics(model="m", status="rejected"), "circuit_open"),
        (AgentMetrics(model="m", status="closed_early"), None),
        (AgentMetrics(model="m", status="cancelled", error_class="CancelledError"), None),
    ],
)
def test_only_what_failed_has_an_error_type(record, told):
    assert ended_attributes(record, CONFIG, None).get("error.type") == told


def test_the_collectors_tags_are_under_the_records_and_streams_are_left_out_where_it_says_so():
    config = MetricsConfig(tags={"feature": "all", "env": "prod"}, enable_streaming_metrics=False)
    found = ended_attributes(FULL, config, None)
    assert (found["tellmeter.tags.feature"], found["tellmeter.tags.env"]) == ("cart", "prod")
    assert not [name for name in found if "stream." in name or "first_chunk" in name]


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({}, False),
        ({"http.method": "POST"}, False),
        ({"gen_ai.operation.name": "chat"}, True),
        ({"gen_ai.operation.name": "embeddings", "gen_ai.system": "openai"}, True),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "openai"}, False),
        ({"gen_ai.operation.name": "execute_tool"}, False),
        ({"gen_ai.system": "openai", "llm.request.type": "chat"}, True),  # OpenLLMetry before the conventions
        ({"gen_ai.provider.name": "anthropic", "gen_ai.request.model": "c"}, True),  # the SDK's own, of count_tokens
        ({"traceloop.span.kind": "workflow", "gen_ai.system": "openai"}, False),
        ({"openinference.span.kind": "LLM", "llm.model_name": "m"}, True),
        ({"openinference.span.kind": "EMBEDDING"}, True),
        ({"openinference.span.kind": "AGENT", "llm.model_name": "m"}, False),
        ({"openinference.span.kind": "CHAIN"}, False),
    ],
)
def test_a_span_of_the_same_call_is_known_by_its_attributes(attributes, told):
    assert is_of_one_call(attributes) is told


texts = st.text(max_size=80)
numbers = st.one_of(st.integers(), st.floats(), st.just(math.inf))


@given(
    st.builds(
        AgentMetrics,
        model=texts,
        provider=texts,
        operation=texts,
        status=texts,
        error_class=st.none() | texts,
        input_tokens=numbers,
        output_tokens=numbers,
        latency_ms=numbers,
        cost_usd=st.none() | numbers,
        finish_reason=st.none() | texts,
        tools_used=st.lists(texts, max_size=3),
        tags=st.dictionaries(texts, texts, max_size=3),
        tokens_estimated=st.booleans(),
        stream=st.none() | st.builds(StreamMetrics, stalls=numbers, max_gap_ms=numbers, status=texts),
    )
)
def test_every_record_becomes_attributes_that_an_exporter_can_write(record):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    given = ended_attributes(record, CONFIG, record.request_id)
    span = tracer.start_span(span_name(record.operation, record.model), attributes=given)
    span.end()
    assert len(span.attributes) == len(given)  # the SDK drops what it cannot take
    encode_spans([span]).SerializeToString()
