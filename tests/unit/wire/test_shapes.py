"""Events of every provider, as their documentation has them, and what they carry."""

import base64
import json

import pytest

from tellmeter.wire.pieces import chunk_of
from tellmeter.wire.shapes import unwrapped, usage_of


def carried(event):
    """What a chunk says, without what is its default."""
    chunk = chunk_of(event)
    if chunk is None:
        return None
    names = ("content", "reasoning", "tool_calls", "finish_reason", "usage")
    return {name: value for name in names if (value := getattr(chunk, name))}


def chat(delta, **more):
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]}


CHAT = [
    (chat({"role": "assistant", "content": ""}), None),
    (chat({"content": "Hi"}), {"content": "Hi"}),
    (chat({"refusal": "No."}), {"content": "No."}),
    (chat({"audio": {"id": "a", "transcript": "Hey"}}), {"content": "Hey"}),
    (chat({"reasoning_content": "Hm"}), {"reasoning": "Hm"}),
    (chat({"reasoning": "Hm", "content": ""}), {"reasoning": "Hm"}),
    # Some servers send one thought under both names.
    (chat({"reasoning": "Hm", "reasoning_content": "Hm"}), {"reasoning": "Hm"}),
    (chat({"content": "A"}, message={"content": "all so far: A"}), {"content": "A"}),  # Perplexity
    (chat({"content": "A"}, text="A"), {"content": "A"}),  # Together
    (chat({"content": ""}, finish_reason="stop"), {"finish_reason": "stop"}),
    ({"choices": [{"index": 0, "text": "Hi", "finish_reason": None}]}, {"content": "Hi"}),
    (
        {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]},
        {"content": "whole", "finish_reason": "stop"},
    ),
    ({"choices": [], "usage": {"prompt_tokens": 3}}, {"usage": {"prompt_tokens": 3}}),
    ({**chat({"role": "assistant", "content": ""}), "usage": {"prompt_tokens": 3}}, None),
    (
        chat({"tool_calls": [{"index": 1, "id": "t", "function": {"name": "find", "arguments": ""}}]}),
        {"tool_calls": ({"index": 1, "id": "t", "name": "find", "arguments": ""},)},
    ),
    (
        chat({"tool_calls": [{"index": 1, "function": {"arguments": '{"q'}}]}),
        {"tool_calls": ({"index": 1, "arguments": '{"q'},)},
    ),
    (chat({"function_call": {"arguments": "{}"}}), {"tool_calls": ({"arguments": "{}"},)}),
    (  # Mistral's thinking
        chat(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                    {"type": "text", "text": "A"},
                ]
            }
        ),
        {"content": "A", "reasoning": "Hm"},
    ),
]
RESPONSES = [
    ({"type": "response.created", "response": {"id": "r", "usage": None}}, None),
    ({"type": "response.output_text.delta", "delta": "Hi"}, {"content": "Hi"}),
    ({"type": "response.output_text.done", "text": "Hi"}, None),
    ({"type": "response.refusal.delta", "delta": "No."}, {"content": "No."}),
    ({"type": "response.reasoning_summary_text.delta", "delta": "Hm"}, {"reasoning": "Hm"}),
    ({"type": "response.reasoning_text.delta", "delta": "Hm"}, {"reasoning": "Hm"}),
    ({"type": "response.code_interpreter_call_code.delta", "delta": "1+1"}, None),
    (
        {
            "type": "response.output_item.added",
            "output_index": 2,
            "item": {"type": "function_call", "id": "f", "name": "g"},
        },
        {"tool_calls": ({"index": 2, "id": "f", "name": "g"},)},
    ),
    ({"type": "response.output_item.added", "output_index": 2, "item": {"type": "message"}}, None),
    (
        {"type": "response.function_call_arguments.delta", "output_index": 2, "item_id": "f", "delta": "{"},
        {"tool_calls": ({"index": 2, "id": "f", "arguments": "{"},)},
    ),
    (
        {"type": "response.completed", "response": {"status": "completed", "usage": {"input_tokens": 1}}},
        {"finish_reason": "completed", "usage": {"input_tokens": 1}},
    ),
    (
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
        {"finish_reason": "max_output_tokens"},
    ),
]
ANTHROPIC = [
    ({"type": "ping"}, None),
    ({"type": "message_start", "message": {"role": "assistant", "usage": {"input_tokens": 3}}}, None),
    ({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, None),
    ({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}, {"content": "Hi"}),
    ({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}, {"content": "Hi"}),
    (
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}},
        {"reasoning": "Hm"},
    ),
    ({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQ"}}, None),
    (
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "g", "input": {}},
        },
        {"tool_calls": ({"index": 1, "id": "t", "name": "g"},)},
    ),
    (
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"q'}},
        {"tool_calls": ({"index": 1, "arguments": '{"q'},)},
    ),
    ({"type": "content_block_stop", "index": 0}, None),
    (
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"finish_reason": "end_turn", "usage": {"output_tokens": 9}},
    ),
    ({"type": "message_stop"}, None),
]


def gemini(*parts, **more):
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}]}


GEMINI = [
    (gemini({"text": "Hi"}), {"content": "Hi"}),
    (gemini({"text": "Hm", "thought": True}, {"text": "A"}), {"content": "A", "reasoning": "Hm"}),
    (gemini({"text": ""}, finishReason="STOP"), {"finish_reason": "STOP"}),
    (
        gemini({"functionCall": {"name": "g", "args": {"q": 1}}}),
        {"tool_calls": ({"name": "g", "arguments": '{"q":1}'},)},
    ),
    ({"promptFeedback": {"blockReason": "SAFETY"}}, {"finish_reason": "SAFETY"}),
    ({"usageMetadata": {"promptTokenCount": 3}}, {"usage": {"promptTokenCount": 3}}),
]
COHERE = [
    (
        {
            "type": "message-start",
            "id": "x",
            "delta": {"message": {"role": "assistant", "content": [], "tool_plan": ""}},
        },
        None,
    ),
    ({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}, None),
    ({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}}, {"content": "Hi"}),
    ({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "Hm"}}}}, {"reasoning": "Hm"}),
    ({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will"}}}, {"reasoning": "I will"}),
    (
        {
            "type": "tool-call-start",
            "index": 0,
            "delta": {"message": {"tool_calls": {"id": "t", "function": {"name": "g", "arguments": ""}}}},
        },
        {"tool_calls": ({"index": 0, "id": "t", "name": "g", "arguments": ""},)},
    ),
    (
        {"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": {"function": {"arguments": "{"}}}}},
        {"tool_calls": ({"index": 0, "arguments": "{"},)},
    ),
    ({"type": "citation-start", "delta": {"message": {"citations": {"text": "quoted"}}}}, None),
    (
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 1}}}},
        {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 1}}},
    ),
    ({"event_type": "stream-start", "generation_id": "g"}, None),
    ({"event_type": "text-generation", "text": "Hi"}, {"content": "Hi"}),
    (
        {"event_type": "tool-calls-generation", "tool_calls": [{"name": "g", "parameters": {"q": 1}}]},
        {"tool_calls": ({"name": "g", "arguments": '{"q":1}'},)},
    ),
    (
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "parameters": "{"}},
        {"tool_calls": ({"index": 0, "arguments": "{"},)},
    ),
    (
        {
            "event_type": "stream-end",
            "finish_reason": "COMPLETE",
            "response": {"text": "Hi", "meta": {"billed_units": {"input_tokens": 1}}},
        },
        {"finish_reason": "COMPLETE", "usage": {"billed_units": {"input_tokens": 1}}},
    ),
]
OLLAMA = [
    ({"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False}, {"content": "Hi"}),
    (
        {"model": "m", "message": {"role": "assistant", "content": "", "thinking": "Hm"}, "done": False},
        {"reasoning": "Hm"},
    ),
    (
        {"message": {"content": "", "tool_calls": [{"function": {"name": "g", "arguments": {"q": 1}}}]}, "done": False},
        {"tool_calls": ({"name": "g", "arguments": '{"q":1}'},)},
    ),
    ({"model": "m", "response": "Hi", "done": False}, {"content": "Hi"}),
    (
        {"model": "m", "response": "", "done": True, "done_reason": "length", "prompt_eval_count": 3, "eval_count": 4},
        {"finish_reason": "length", "usage": {"prompt_eval_count": 3, "eval_count": 4}},
    ),
]
BEDROCK = [
    ({"role": "assistant", "p": "ab"}, None),
    ({"contentBlockIndex": 0, "delta": {"text": "Hi"}, "p": "ab"}, {"content": "Hi"}),
    ({"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm"}}}, {"reasoning": "Hm"}),
    (
        {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "g"}}},
        {"tool_calls": ({"index": 1, "id": "t", "name": "g"},)},
    ),
    ({"contentBlockIndex": 1, "delta": {"toolUse": {"input": "{"}}}, {"tool_calls": ({"index": 1, "arguments": "{"},)}),
    ({"contentBlockIndex": 0}, None),
    ({"stopReason": "end_turn", "p": "ab"}, {"finish_reason": "end_turn"}),
    (
        {"usage": {"inputTokens": 1, "outputTokens": 2}, "metrics": {"latencyMs": 3}},
        {"usage": {"inputTokens": 1, "outputTokens": 2}},
    ),
    ({"contentBlockDelta": {"delta": {"text": "Hi"}, "contentBlockIndex": 0}}, {"content": "Hi"}),  # Nova
    ({"messageStop": {"stopReason": "end_turn"}}, {"finish_reason": "end_turn"}),
    ({"metadata": {"usage": {"inputTokens": 1}}}, {"usage": {"inputTokens": 1}}),
    ({"completion": " Hi", "stop_reason": None}, {"content": " Hi"}),  # Claude before Messages
    (
        {"generation": "Hi", "generation_token_count": 1},
        {"content": "Hi", "usage": {"generation_token_count": 1}},
    ),  # Llama
    ({"outputText": "Hi", "index": 0, "completionReason": None}, {"content": "Hi"}),  # Titan
    ({"outputs": [{"text": "Hi", "stop_reason": None}]}, {"content": "Hi"}),  # Mistral
    ({"text": "Hi", "is_finished": False}, {"content": "Hi"}),  # Command
    ({"generations": [{"text": "Hi", "finish_reason": "COMPLETE"}]}, {"content": "Hi", "finish_reason": "COMPLETE"}),
    ({"completions": [{"data": {"text": "Hi"}}]}, {"content": "Hi"}),  # Jurassic
]


@pytest.mark.parametrize(("event", "expected"), [*CHAT, *RESPONSES, *ANTHROPIC, *GEMINI, *COHERE, *OLLAMA, *BEDROCK])
def test_an_event_carries(event, expected):
    assert carried(event) == expected


def test_pieces_of_several_answers_are_told_apart_and_none_is_lost():
    def choice(index, text):
        return {"index": index, "delta": {"content": text}}

    assert chunk_of({"choices": [choice(1, "b")]}).index == 1
    assert chunk_of({"choices": [choice(0, "a"), choice(1, "b")]}).content == "ab"


def test_what_invoke_model_wraps_is_unwrapped():
    inner = {"completion": "Hi"}
    assert unwrapped({"bytes": base64.b64encode(json.dumps(inner).encode()).decode(), "p": "ab"}) == inner
    broken = {"bytes": "no base64!"}
    assert unwrapped(broken) == broken


@pytest.mark.parametrize("event", [{}, {"usage": None}, {"usage": {}}, {"usage": 3}, {"eval_count": "3"}])
def test_no_usage_is_none(event):
    assert usage_of(event) is None


def test_a_message_states_its_own_usage():
    counts = {"input_tokens": 4}
    metrics = {"inputTokenCount": 9}
    assert usage_of({"message": {"usage": counts}, "amazon-bedrock-invocationMetrics": metrics}) == counts
    assert usage_of({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}) == metrics
