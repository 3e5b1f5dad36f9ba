from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.instruments.usage import Reading, has_content, read_result, status_code_of
from tellmeter.usage import Usage
from tests.support.sse import answer as chat_answer


def space(value: Any) -> Any:
    """Dicts as objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: space(inner) for name, inner in value.items()})
    return [space(inner) for inner in value] if isinstance(value, list) else value


OPENAI_CHAT = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"finish_reason": "stop", "message": {"content": "the sea"}}],
    "service_tier": "flex",
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 30, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 8},
    },
}
RESPONSES = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5",
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "usage": {
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "input_tokens_details": {"cached_tokens": 30},
        "output_tokens_details": {"reasoning_tokens": 8},
    },
}
ANTHROPIC = {
    "id": "msg_1",
    "model": "claude-sonnet-4",
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 2},
    },
}
GEMINI = {
    "response_id": "g1",
    "model_version": "gemini-2.5-pro",
    "candidates": [{"finish_reason": "STOP"}],
    "usage_metadata": {
        "prompt_token_count": 100,
        "candidates_token_count": 12,
        "thoughts_token_count": 8,
        "cached_content_token_count": 30,
        "tool_use_prompt_token_count": 1,
        "total_token_count": 121,
    },
}
GEMINI_REST = {
    "responseId": "g1",
    "modelVersion": "gemini-2.5-pro",
    "candidates": [{"finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 12, "thoughtsTokenCount": 8},
}
BEDROCK = {
    "ResponseMetadata": {"RequestId": "b1"},
    "stopReason": "end_turn",
    "usage": {
        "inputTokens": 10,
        "outputTokens": 20,
        "totalTokens": 65,
        "cacheReadInputTokens": 30,
        "cacheWriteInputTokens": 5,
    },
}
COHERE = {
    "id": "c1",
    "finish_reason": "COMPLETE",
    "usage": {"billed_units": {"input_tokens": 10.0, "output_tokens": 20.0}, "tokens": {"input_tokens": 500.0}},
}
COHERE_1 = {"id": "c1", "meta": {"billed_units": {"input_tokens": 10.0, "output_tokens": 20.0}}}
OLLAMA = {
    "model": "llama3",
    "done_reason": "stop",
    "prompt_eval_count": 10,
    "eval_count": 20,
    "message": {"content": ""},
}
LANGCHAIN = {
    "id": "run-1",
    "response_metadata": {"model_name": "gpt-4o", "finish_reason": "stop"},
    "usage_metadata": {
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "input_token_details": {"cache_read": 30},
        "output_token_details": {"reasoning": 8},
    },
}
RESULTS = [
    (
        OPENAI_CHAT,
        Usage(input_tokens=100, output_tokens=20, cached_tokens=30, reasoning_tokens=8, input_audio_tokens=5),
        ("gpt-4o-2024-08-06", "chatcmpl-1", "stop"),
    ),
    (
        RESPONSES,
        Usage(input_tokens=100, output_tokens=20, cached_tokens=30, reasoning_tokens=8),
        ("gpt-5", "resp_1", "max_output_tokens"),
    ),
    (
        ANTHROPIC,
        Usage(input_tokens=45, output_tokens=20, cached_tokens=30, cache_write_tokens=5, cache_write_1h_tokens=2),
        ("claude-sonnet-4", "msg_1", "end_turn"),
    ),
    (
        GEMINI,
        Usage(input_tokens=101, output_tokens=20, cached_tokens=30, reasoning_tokens=8),
        ("gemini-2.5-pro", "g1", "STOP"),
    ),
    (GEMINI_REST, Usage(input_tokens=100, output_tokens=20, reasoning_tokens=8), ("gemini-2.5-pro", "g1", "STOP")),
    (
        BEDROCK,
        Usage(input_tokens=45, output_tokens=20, cached_tokens=30, cache_write_tokens=5),
        (None, "b1", "end_turn"),
    ),
    (COHERE, Usage(input_tokens=10, output_tokens=20), (None, "c1", "COMPLETE")),
    (COHERE_1, Usage(input_tokens=10, output_tokens=20), (None, "c1", None)),
    (OLLAMA, Usage(input_tokens=10, output_tokens=20), ("llama3", None, "stop")),
    (
        LANGCHAIN,
        Usage(input_tokens=100, output_tokens=20, cached_tokens=30, reasoning_tokens=8),
        ("gpt-4o", "run-1", "stop"),
    ),
]


@pytest.mark.parametrize("shape", [dict, space])
@pytest.mark.parametrize(("result", "usage", "about"), RESULTS)
def test_every_provider_counts_its_own_way(result: Any, usage: Usage, about: tuple[Any, ...], shape: Any) -> None:
    answer = read_result(shape(result))
    assert answer.usage == usage
    assert (answer.response_model, answer.response_id, answer.finish_reason) == about


def test_the_tier_is_read() -> None:
    assert read_result(OPENAI_CHAT).service_tier == "flex"


class Struct(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


@dataclass
class Data:
    usage: Any
    model: str = "m"


class Slots:
    __slots__ = ("usage",)


def test_structs_dataclasses_slots_and_properties_are_read() -> None:
    class Computed:
        @property
        def usage(self) -> Struct:
            return Struct(3, 4)

    slots = Slots()
    slots.usage = Struct(3, 4)
    for result in (
        Struct(3, 4),
        Data(Struct(3, 4)),
        Data({"prompt_tokens": 3, "completion_tokens": 4}),
        slots,
        Computed(),
    ):
        assert read_result(result).usage == Usage(input_tokens=3, output_tokens=4), result


@pytest.mark.sdk
def test_pydantic_models_with_declared_extra_and_computed_fields_are_read() -> None:
    import pydantic
    from openai.types.chat import ChatCompletion

    class Open(pydantic.BaseModel, extra="allow"):
        @property
        def usage(self) -> dict[str, int]:
            return {"prompt_tokens": 3, "completion_tokens": 4}

    assert read_result(Open()).usage == Usage(input_tokens=3, output_tokens=4)
    assert read_result(Open(usage_metadata={"prompt_token_count": 1})).usage == Usage(input_tokens=3, output_tokens=4)
    completion = ChatCompletion.model_validate_json(chat_answer())
    completion.usage.cost = 0.25  # OpenRouter, which no model declares
    answer = read_result(completion)
    assert answer.usage == Usage(input_tokens=42, output_tokens=200, cached_tokens=16, cost_usd=0.25)
    assert (answer.response_model, answer.finish_reason) == ("gpt-4o-mini-2024-07-18", "stop")


@pytest.mark.parametrize(
    "result",
    [
        None,
        "",
        "text",
        b"",
        5,
        [],
        {},
        {"usage": None},
        SimpleNamespace(usage=None),
        {"usage": 7},
        {"usage": "1"},
        object(),
    ],
)
def test_what_states_nothing_states_nothing(result: Any) -> None:
    assert read_result(result).usage is None


def test_an_id_is_a_requests_only_beside_its_tokens() -> None:
    assert read_result({"id": "user-7", "model": "m"}).response_id is None


def test_a_total_is_an_embeddings_input_but_no_total_of_anything_else() -> None:
    assert read_result({"usage": {"total_tokens": 9}}).usage == Usage(input_tokens=9)
    assert read_result({"total_tokens": 9}).usage is None


def test_a_pair_is_read_where_it_is_unambiguous() -> None:
    usage, other = {"prompt_tokens": 3, "completion_tokens": 4}, {"prompt_tokens": 5, "completion_tokens": 6}
    expected = Usage(input_tokens=3, output_tokens=4)
    assert read_result(("text", usage)).usage == expected
    assert read_result((usage, "text")).usage == expected
    assert read_result(({"model": "m", "choices": []}, usage)).usage == expected
    assert read_result(({"model": "m"}, usage)).response_model == "m"
    assert read_result(({"usage": usage}, usage)).usage == expected
    assert read_result((usage, other)).usage is None
    assert read_result(("text", usage, other)).usage is None
    assert read_result(((usage, "text"), "text")).usage is None


@pytest.mark.parametrize(
    "bad", [True, -1, 2**63, 10**400, 1.5, float("nan"), float("inf"), "3", None, [3], MagicMock()]
)
def test_what_is_no_number_of_tokens_is_not_stated(bad: Any) -> None:
    assert read_result({"usage": {"prompt_tokens": bad, "completion_tokens": 4}}).usage == Usage(output_tokens=4)
    assert read_result({"usage": {"prompt_tokens": bad}}).usage is None


def test_a_mock_states_nothing() -> None:
    assert read_result(MagicMock()).usage is None


# ---------------------------------------------------------------------- streams


def read_all(items: list[Any]) -> Any:
    reading = Reading()
    for item in items:
        reading.take(item)
    return reading.answer


def test_openais_last_chunk_counts() -> None:
    chunks = [
        {"id": "c", "model": "gpt-4o", "choices": [{"delta": {"content": "a"}, "finish_reason": None}], "usage": None},
        {"id": "c", "model": "gpt-4o", "choices": [{"delta": {}, "finish_reason": "length"}], "usage": None},
        {"id": "c", "model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    ]
    for items in (chunks, [space(chunk) for chunk in chunks]):
        answer = read_all(items)
        assert answer.usage == Usage(input_tokens=3, output_tokens=4)
        assert (answer.response_model, answer.finish_reason, answer.response_id) == ("gpt-4o", "length", "c")


def test_anthropics_counts_are_merged() -> None:
    events = [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "model": "claude",
                "usage": {"input_tokens": 10, "cache_read_input_tokens": 30, "output_tokens": 1},
            },
        },
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
    ]
    for items in (events, [space(event) for event in events]):
        answer = read_all(items)
        assert answer.usage == Usage(input_tokens=40, output_tokens=20, cached_tokens=30)
        assert (answer.response_model, answer.finish_reason, answer.response_id) == ("claude", "end_turn", "msg_1")


@pytest.mark.parametrize(
    "items",
    [
        [
            {"type": "response.created", "response": {"usage": None}},
            {"type": "response.completed", "response": RESPONSES},
        ],
        ["text", "more", {"usage": {"prompt_tokens": 100, "completion_tokens": 20}}, "end"],
        [{"response": "text"}, OLLAMA | {"prompt_eval_count": 100}],
        [{"contentBlockDelta": {}}, {"metadata": {"usage": {"inputTokens": 100, "outputTokens": 20}}}],
        [{"type": "content-delta"}, {"delta": {"usage": {"billed_units": {"input_tokens": 100, "output_tokens": 20}}}}],
        [{"choices": []}, {"x_groq": {"usage": {"prompt_tokens": 100, "completion_tokens": 20}}}],
        [{"usage_metadata": {"prompt_token_count": 1}}, GEMINI_REST],
        ["text", Struct(100, 20)],
    ],
)
def test_the_usage_of_a_stream_is_the_last_one(items: list[Any]) -> None:
    usage = read_all(items).usage
    assert (usage.input_tokens, usage.output_tokens) == (100, 20)


@pytest.mark.parametrize(
    ("item", "content"),
    [
        ("a", True),
        ("", False),
        (None, False),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, False),
        ({"choices": [{"delta": {"content": "a"}}]}, True),
        ({"choices": [{"delta": {"tool_calls": [{}]}}]}, True),
        ({"choices": [{"text": "a"}]}, True),
        ({"choices": []}, False),
        ({"type": "message_start"}, False),
        ({"type": "content_block_delta"}, True),
        ({"type": "message_delta"}, False),
        ({"type": "response.created"}, False),
        ({"type": "response.output_text.delta"}, True),
        ({"messageStart": {"role": "assistant"}}, False),
        ({"type": "text"}, True),
        (object(), True),
    ],
)
def test_what_is_content(item: Any, content: bool) -> None:
    assert has_content(item) is content
    if isinstance(item, dict):
        assert has_content(space(item)) is content


# ---------------------------------------------------------------------- hostile values


class Raising:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("prompt")


class Endless:
    def __getattr__(self, name: str) -> Any:
        return self


class Deep:
    def __getattr__(self, name: str) -> Any:
        return Deep()


class LyingDict(dict[str, Any]):
    def get(self, *given: Any) -> Any:
        raise KeyError("prompt")


RECURSIVE: dict[str, Any] = {}
RECURSIVE.update(usage=RECURSIVE, response=RECURSIVE, choices=[RECURSIVE], model=RECURSIVE)
HOSTILE = [Raising(), Endless(), Deep(), LyingDict(a=1), RECURSIVE, (RECURSIVE, Endless()), Raising, np.zeros(3)]
WORDS = """usage usage_metadata response message metadata delta choices candidates model id type x_groq meta
prompt_tokens completion_tokens input_tokens output_tokens prompt_tokens_details finish_reason cost eval_count"""
NAMES = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.integers(0, len(HOSTILE) - 1).map(lambda number: HOSTILE[number]),
    lambda inner: (
        st.dictionaries(NAMES, inner)
        | st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(NAMES, inner).map(lambda found: SimpleNamespace(**found))
    ),
    max_leaves=20,
)


@given(VALUES)
def test_no_value_raises(value: Any) -> None:
    answer = read_result(value)
    assert answer.usage is None or all(0 <= number for number in msgspec.structs.astuple(answer.usage) if number)
    reading = Reading()
    reading.take(value)
    reading.take({"usage": value})
    assert has_content(value) in (True, False)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_hostile_value_raises(number: int) -> None:
    value = HOSTILE[number]
    for result in (
        value,
        {"usage": value},
        (value, value),
        {"usage": {"prompt_tokens": value, "completion_tokens": 1}},
    ):
        read_result(result)
        has_content(result)


def test_the_status_code_of_an_exception() -> None:
    error = RuntimeError()
    assert status_code_of(None) is None and status_code_of(error) is None
    for given_code, expected in ((429, 429), ("429", None), (7, None), (10**30, None)):
        error.status_code = given_code  # type: ignore[attr-defined]
        assert status_code_of(error) == expected
