import json

import pytest

from tellmeter.wire.formats.openai_chat import FORMAT, Reader

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def request(**fields):
    return FORMAT.read_request(json.dumps(fields).encode())


def answer(body, status=200):
    return FORMAT.read_answer(json.dumps(body).encode(), status)


def stream(*events, name=None):
    reader = Reader()
    for event in events:
        prefix = f"event: {name}\n" if name else ""
        data = event if isinstance(event, str) else json.dumps(event, separators=(",", ":"))
        reader.feed(f"{prefix}data: {data}\n\n".encode())
    reader.finish()
    return reader


def delta(index=0, finish=None, **fields):
    return {"id": "c", "model": "m", "choices": [{"index": index, "delta": fields, "finish_reason": finish}]}


def test_requests():
    asked = request(model="gpt-4o", messages=[], stream=True)
    assert (asked.model, asked.stream) == ("gpt-4o", True)
    assert request(model="gpt-4o", messages=[{"role": "user"}]).stream is False
    assert request(model="gpt-4o", messages=[], stream="yes").stream is False


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"model":"m"}', b'{"messages":[]}', b'{"model":5,"messages":[]}', b"x"]
)
def test_bodies_of_other_formats(body):
    assert FORMAT.read_request(body) is None


def test_an_answer():
    found = answer(
        {
            "id": "chatcmpl-1",
            "model": "gpt-4o-2024-08-06",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {
                        "content": None,
                        "tool_calls": [
                            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                            {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                            {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
                            {"id": "d", "type": "function"},
                        ],
                    },
                }
            ],
            "usage": USAGE,
            "service_tier": "default",
        }
    )
    assert (found.response_model, found.response_id, found.service_tier) == (
        "gpt-4o-2024-08-06",
        "chatcmpl-1",
        "default",
    )
    assert (found.usage.input_tokens, found.usage.output_tokens) == (3, 4)
    assert (found.finish_reason, found.tools, found.failed) == ("tool_calls", ["weather", "weather", "shell"], False)


def test_legacy_function_calls():
    found = answer({"choices": [{"finish_reason": "function_call", "message": {"function_call": {"name": "f"}}}]})
    assert found.tools == ["f"]
    reader = stream(delta(function_call={"name": "f", "arguments": ""}), delta(function_call={"arguments": "{"}))
    assert (reader.answer.tools, reader.content_events) == (["f"], 2)


def test_the_first_choice_finishes_and_all_ask_for_tools():
    call = {"id": "a", "index": 0, "function": {"name": "f"}}
    choices = [
        {"index": 1, "finish_reason": "length", "message": {"tool_calls": [call]}},
        {"index": 0, "finish_reason": "stop", "message": {"tool_calls": [call]}},
    ]
    found = answer({"choices": choices})
    assert (found.finish_reason, found.tools) == ("stop", ["f", "f"])
    reader = stream(delta(1, "length"), delta(0, "stop"), delta(1, "other"))
    assert reader.answer.finish_reason == "stop"


def test_tool_calls_of_a_stream_are_named_once():
    def call(index, name=None, key=None, choice=0):
        return delta(choice, tool_calls=[{"index": index, "id": key, "function": {"name": name, "arguments": "x"}}])

    reader = stream(
        call(0, "f", "a"), call(0), call(0, "f", "a"), call(1, "g", "b"), call(0, "h", "c"), call(0, "f", "a", 1)
    )
    assert reader.answer.tools == ["f", "g", "h", "f"]  # Gemini gives every call index 0
    whole = delta(tool_calls=[{"function": {"name": "f"}}, {"function": {"name": "f"}}])
    assert stream(whole).answer.tools == ["f", "f"]  # Mistral gives no index


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({"content": "a"}, True),
        ({"content": ""}, False),
        ({"content": None}, False),
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": "a"}, True),
        ({"content": [{"type": "thinking", "thinking": []}]}, True),
        ({"content": []}, False),
        ({"content": "", "reasoning": "a"}, True),
        ({"content": None, "reasoning_content": "a"}, True),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}], "content": ""}, False),
        ({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}, True),
        ({"tool_calls": []}, False),
        ({"refusal": "no"}, True),
        ({"audio": {"data": "x"}}, True),
        ({}, False),
    ],
)
def test_what_is_content(fields, content):
    assert stream(delta(**fields)).content_events == content


def test_usage_of_streams():
    reader = stream(delta(content="a"), {"choices": [], "usage": USAGE}, "[DONE]")
    assert (reader.answer.usage.output_tokens, reader.done, reader.events) == (4, True, 2)
    cumulative = [{**delta(content="a"), "usage": {"prompt_tokens": 3, "completion_tokens": n}} for n in (1, 2, 3)]
    assert stream(*cumulative).answer.usage.output_tokens == 3
    groq = {**delta(finish="stop"), "x_groq": {"id": "r", "usage": USAGE}}
    assert stream(groq).answer.usage.output_tokens == 4
    assert stream(groq, {"usage": None, "x_groq": {"id": "r"}}).answer.usage.output_tokens == 4
    assert stream(delta(content="a")).answer.usage is None


def test_the_first_named_model_stays():
    reader = stream(
        {"id": "", "model": "", "choices": []}, delta(content="a"), {**delta(), "model": "other", "id": "d"}
    )
    assert (reader.answer.response_model, reader.answer.response_id) == ("m", "c")


def test_mistral_states_the_tier_in_its_usage():
    assert answer({"usage": {**USAGE, "service_tier": "flex"}}).service_tier == "flex"


@pytest.mark.parametrize(
    ("event", "names"),
    [
        ({"error": {"message": "secret", "type": "server_error", "code": 502}}, ("server_error", "502")),
        ({"error": {"code": 502}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}, (None, "502")),
        ({"choices": [{"delta": {}, "error": {"code": 429, "message": "secret"}}]}, (None, "429")),
        ({"error": "secret text"}, (None, None)),
    ],
)
def test_errors_inside_a_stream(event, names):
    reader = stream(delta(content="a"), event)
    assert reader.answer.failed
    assert (reader.answer.error_type, reader.answer.error_code) == names
    assert "secret" not in repr(reader.answer)


def test_an_error_event():
    reader = stream({"error": {"type": "invalid_request_error", "code": "tool_use_failed"}}, name="error")
    assert (reader.answer.failed, reader.answer.error_code, reader.events) == (True, "tool_use_failed", 1)
    for data in ("overloaded", '"text"', '{"type":"overloaded_error"}'):
        assert stream(data, name="error").answer.failed
    assert stream('{"type":"overloaded_error"}', name="error").answer.error_type == "overloaded_error"


def test_errors_of_a_whole_answer():
    found = answer({"error": {"type": "invalid_request_error", "code": "invalid_api_key", "message": "secret"}}, 401)
    assert (found.failed, found.error_type, found.error_code) == (True, "invalid_request_error", "invalid_api_key")
    assert answer({"error": {"code": 429, "message": "m"}}).failed  # OpenRouter, with status 200
    assert not answer({"error": None, "choices": []}).failed


def test_odd_fields_do_not_cost_the_tokens():
    found = answer({"id": 7, "model": ["m"], "choices": [{"message": "text"}, 5], "usage": {**USAGE, "cost": []}})
    assert (found.response_id, found.response_model, found.usage.output_tokens) == (None, None, 4)


def test_a_stream_read_at_once():
    body = b'data: {"model":"m","choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    found = FORMAT.read_answer(body, 200)
    assert (found.response_model, found.finish_reason) == ("m", "stop")


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"role": "assistant", "content": ""}, 0),
        ({"content": None, "reasoning": None}, 0),
        ({"content": "abc"}, 3),
        ({"content": '"\n'}, 4),
        ({"content": "abc", "reasoning_content": "de"}, 5),
        ({"reasoning": "abc", "reasoning_content": "abc"}, 3),  # under both names
        ({"refusal": "no"}, 2),
        ({"audio": {"data": "abc"}}, 0),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"a'}}, {"custom": {"input": "bc"}}]}, 4 + 2),
        ({"tool_calls": [{"index": 0, "id": "t"}]}, 0),
        ({"function_call": {"name": "f", "arguments": "{}"}}, 2),
        ({"content": [{"type": "text", "text": "ab"}, {"type": "reference", "reference_ids": [1, 2]}]}, 2),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "abc"}]}]}, 3),
        ({"content": ["odd"]}, 7),
        ({"content": {"odd": 1}}, 9),
    ],
)
def test_the_size_of_text(fields, size):
    assert stream(delta(**fields)).text_size == size
    assert stream(delta(**fields), delta(index=1, content="more"), delta(**fields)).text_size == 2 * size + 4
