"""What spans say, in the names of every instrumentation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.telemetry import genai_attributes as genai
from tellmeter.usage import Usage

NEW = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": 42,
    "gen_ai.usage.output_tokens": 200,
    "gen_ai.usage.cache_read.input_tokens": 16,
    "gen_ai.usage.reasoning.output_tokens": 64,
}
DEPRECATED = {
    "gen_ai.system": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.prompt_tokens": 42,
    "gen_ai.usage.completion_tokens": 200,
    "gen_ai.usage.cache_read_input_tokens": 16,
    "gen_ai.usage.reasoning_tokens": 64,
}
OPENLLMETRY = {
    "gen_ai.system": "OpenAI",
    "llm.request.type": "chat",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.completion.0.finish_reason": "stop",
    "llm.usage.total_tokens": 242,
    "gen_ai.usage.prompt_tokens": 42,
    "gen_ai.usage.completion_tokens": 200,
    "gen_ai.usage.cache_read_input_tokens": 16,
    "llm.usage.reasoning_tokens": 64,
}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.system": "openai",
    "llm.provider": "openai",
    "llm.model_name": "gpt-4o-mini-2024-07-18",
    "llm.invocation_parameters": '{"model": "gpt-4o-mini", "tools": [{"x": 1}]}',
    "llm.finish_reason": "stop",
    "llm.token_count.prompt": 42,
    "llm.token_count.completion": 200,
    "llm.token_count.total": 242,
    "llm.token_count.prompt_details.cache_read": 16,
    "llm.token_count.completion_details.reasoning": 64,
}


def read(attributes: dict[str, Any], name: str = "span", client: bool = False) -> genai.Said | None:
    return genai.read(genai.picked(attributes), name, client=client)


@pytest.mark.parametrize("attributes", [NEW, DEPRECATED, OPENLLMETRY, OPENINFERENCE])
def test_all_say_the_same_of_one_call(attributes: dict[str, Any]) -> None:
    said = read(attributes)
    assert said is not None
    assert (said.operation, said.model, said.response_model) == ("chat", "gpt-4o-mini", "gpt-4o-mini-2024-07-18")
    assert (said.provider_name({}), said.finish_reason, said.stream) == ("openai", "stop", False)
    assert said.usage == Usage(input_tokens=42, output_tokens=200, cached_tokens=16, reasoning_tokens=64)
    assert said.response_id == (None if attributes is OPENINFERENCE else "chatcmpl-1")


@pytest.mark.parametrize(
    ("attributes", "name", "client", "operation"),
    [
        ({"gen_ai.operation.name": "generate_content"}, "", True, "chat"),
        ({"gen_ai.operation.name": "text_completion"}, "", True, "text_completion"),
        ({"gen_ai.operation.name": "embeddings"}, "", True, "embeddings"),
        ({"gen_ai.operation.name": "image_generation"}, "", True, "image_generation"),
        ({"llm.request.type": "completion"}, "", False, "text_completion"),
        ({"llm.request.type": "rerank"}, "", False, "rerank"),
        ({"openinference.span.kind": "EMBEDDING"}, "", False, "embeddings"),
        ({"openinference.span.kind": "RERANKER"}, "", False, "rerank"),
        ({"openinference.span.kind": "LLM"}, "messages.count_tokens", False, "count_tokens"),
        ({"gen_ai.request.model": "claude"}, "anthropic.messages.count_tokens", True, "count_tokens"),
        ({"gen_ai.request.model": "claude"}, "chat", True, "chat"),
        ({"llm.request.type": "unknown", "gen_ai.request.model": "m"}, "", True, "chat"),
        # none, or more than one
        ({"gen_ai.request.model": "claude"}, "step", False, None),
        *(
            ({"gen_ai.operation.name": one, "gen_ai.request.model": "m"}, "", True, None)
            for one in [
                "invoke_agent",
                "create_agent",
                "execute_tool",
                "invoke_workflow",
                "plan",
                "retrieval",
                "search_memory",
                "fetch_response",
                "evaluate",
            ]
        ),
        *(
            ({"openinference.span.kind": one, "llm.model_name": "m"}, "", True, None)
            for one in [
                "CHAIN",
                "AGENT",
                "TOOL",
                "RETRIEVER",
                "GUARDRAIL",
                "EVALUATOR",
                "PROMPT",
                "DECISION",
                "UNKNOWN",
            ]
        ),
        ({"traceloop.span.kind": "task", "gen_ai.request.model": "m", "llm.request.type": "chat"}, "", True, None),
        ({"gen_ai.operation.name": "a whole sentence of a prompt"}, "", True, None),
        ({"gen_ai.operation.name": 3}, "", True, None),
        ({"db.system": "postgresql", "server.address": "api.openai.com"}, "SELECT", True, None),
        ({}, "chat", True, None),
    ],
)
def test_which_spans_are_llm_calls(attributes: dict[str, Any], name: str, client: bool, operation: str | None) -> None:
    assert genai.operation_of(genai.picked(attributes), name, client=client) == operation


@pytest.mark.parametrize(
    ("stated", "host", "model", "provider"),
    [
        ("openai", "api.groq.com", "llama", "groq"),
        ("openai", "llm.example.com", "gpt-4o", "openai"),
        ("aws.bedrock", "", "", "aws.bedrock"),
        ("AWS", "", "", "aws.bedrock"),
        ("Azure", "", "", "azure.ai.openai"),
        ("az.ai.openai", "", "", "azure.ai.openai"),
        ("azure.ai.inference", "", "", "azure.ai.inference"),
        ("google", "", "", "gcp.gemini"),
        ("gcp.gen_ai", "", "", "gcp.gemini"),
        ("vertexai", "", "", "gcp.vertex_ai"),
        ("vertex_ai", "", "", "gcp.vertex_ai"),
        ("mistralai", "", "", "mistral_ai"),
        ("mistral_ai", "", "", "mistral_ai"),
        ("xai", "", "", "x_ai"),
        ("x_ai", "", "", "x_ai"),
        ("fireworks", "", "", "fireworks_ai"),
        ("moonshot", "", "", "moonshot_ai"),
        ("Hugging Face", "", "", "hugging_face"),
        ("langchain", "", "claude-sonnet-4-5", "anthropic"),
        ("", "", "gemini-2.5-flash", "gcp.gemini"),
        ("", "", "", "unknown"),
        ("a new one", "", "gpt-4o", "a_new_one"),
    ],
)
def test_providers_have_our_names(stated: str, host: str, model: str, provider: str) -> None:
    said = genai.Said(operation="chat", provider=stated, host=host, model=model)
    assert said.provider_name({}) == provider


def test_the_users_own_table_of_hosts_comes_first() -> None:
    said = read({**NEW, "gen_ai.openai.api_base": "https://llm.corp:8443/v1"})
    assert said is not None and said.host == "llm.corp"
    assert said.provider_name({"llm.corp": "vllm"}) == "vllm"


@pytest.mark.parametrize(
    ("stated", "usage"),
    [
        # caches beside the input, as Anthropic and Bedrock state them: seen by a part that is more than its whole
        ({"input_tokens": 12, "output_tokens": 40, "cache_read.input_tokens": 1000}, (1012, 40, 1000, 0, 0)),
        # or by a total that only so adds up
        (
            {
                "input_tokens": 100,
                "output_tokens": 40,
                "total_tokens": 170,
                "cache_read.input_tokens": 10,
                "cache_creation.input_tokens": 20,
            },
            (130, 40, 10, 20, 0),
        ),
        (
            {"input_tokens": 100, "output_tokens": 40, "total_tokens": 140, "cache_write.input_tokens": 20},
            (100, 40, 0, 20, 0),
        ),
        # reasoning beside the output, as Gemini states it
        (
            {"input_tokens": 10, "output_tokens": 40, "total_tokens": 80, "reasoning.output_tokens": 30},
            (10, 70, 0, 0, 30),
        ),
        ({"input_tokens": 10, "output_tokens": 40, "reasoning.output_tokens": 41}, (10, 81, 0, 0, 41)),
        ({"input_tokens": 10, "output_tokens": 40, "reasoning.output_tokens": 40}, (10, 40, 0, 0, 40)),
        ({"total_tokens": 7}, (7, 0, 0, 0, 0)),
        ({"total_tokens": 7, "input_tokens": 5}, (5, 2, 0, 0, 0)),
        ({"input_tokens": True, "output_tokens": "9"}, None),
        ({"input_tokens": -3}, None),
        ({}, None),
    ],
)
def test_parts_are_inside_their_wholes(stated: dict[str, Any], usage: tuple[int, ...] | None) -> None:
    found = genai.usage_of({f"gen_ai.usage.{name}": value for name, value in stated.items()})
    assert usage == (
        None
        if found is None
        else (
            found.input_tokens,
            found.output_tokens,
            found.cached_tokens,
            found.cache_write_tokens,
            found.reasoning_tokens,
        )
    )


def test_a_stated_cost_counts_unless_it_is_0() -> None:
    for stated, known in ((0.25, 0.25), (0.0, None)):
        usage = genai.usage_of({"gen_ai.usage.input_tokens": 1, "gen_ai.usage.cost": stated})
        assert usage is not None and usage.cost_usd == known


def test_content_is_not_picked() -> None:
    content = {
        "gen_ai.input.messages": "canary",
        "gen_ai.output.messages": "canary",
        "gen_ai.prompt.0.content": "canary",
        "gen_ai.completion.0.content": "canary",
        "gen_ai.system_instructions": "canary",
        "input.value": "canary",
        "output.value": "canary",
        "llm.input_messages.0.message.content": "canary",
        "traceloop.entity.input": "canary",
    }
    assert genai.picked({**NEW, **content}) == NEW


def test_names_that_may_be_sentences_are_left_out() -> None:
    said = read({**NEW, "gen_ai.response.finish_reasons": "because of a canary", "error.type": "canary said: no"})
    assert said is not None and said.finish_reason is None and said.error_type is None


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.binary(max_size=4),
    st.sampled_from(
        ["chat", "LLM", "{", "[" * 2000, '{"model": 3, "stream": "x"}', "http://[", "\ud800", "embeddings"]
    ),
)


@given(st.dictionaries(st.sampled_from(sorted(genai.NAMES)), VALUES, max_size=25), st.text(max_size=10), st.booleans())
def test_whatever_a_span_holds_it_is_read(attributes: dict[str, Any], name: str, client: bool) -> None:
    said = read(attributes, name, client)
    if said is None or said.usage is None:
        return
    assert said.provider_name({})
    usage = said.usage
    assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert 0 <= usage.reasoning_tokens <= usage.output_tokens
