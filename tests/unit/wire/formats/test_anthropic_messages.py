import json

import pytest

from tellmeter.usage import Usage
from tellmeter.wire.formats.anthropic_messages import COUNT_TOKENS, FORMAT, Reader


def answer(body, status=200, form=FORMAT):
    return form.read_answer(json.dumps(body).encode(), status)


def stream(*events, named=True):
    reader = Reader()
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        reader.feed(f"{name}data: {json.dumps(event)}\n\n".encode())
    reader.finish()
    return reader


def delta(kind, **fields):
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}}


def start(**usage):
    return {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "stop_reason": None, "usage": usage}}


def test_requests():
    asked = FORMAT.read_request(b'{"model":"claude","messages":[],"stream":true}')
    assert (asked.model, asked.stream) == ("claude", True)
    for body in (b'{"model":"claude"}', b'{"messages":[]}', b'{"role":"user","content":"a"}', b"", b"[]"):
        assert FORMAT.read_request(body) is None


def test_an_answer():
    found = answer(
        {
            "id": "msg_1",
            "model": "claude-sonnet-4-5",
            "content": [
                {"type": "thinking", "thinking": "a"},
                {"type": "server_tool_use", "name": "web_search"},
                {"type": "mcp_tool_use", "name": "remote"},
                {"type": "tool_use", "name": "weather", "input": {}},
            ],
            "stop_reason": "tool_use",
            "usage": {
                "input_tokens": 10,
                "output_tokens": 20,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 50,
                "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 20},
                "output_tokens_details": {"thinking_tokens": 7},
                "service_tier": "standard",
            },
        }
    )
    assert (found.response_model, found.response_id, found.service_tier) == ("claude-sonnet-4-5", "msg_1", "standard")
    assert (found.finish_reason, found.tools, found.failed) == ("tool_use", ["weather"], False)
    assert found.usage == Usage(
        input_tokens=160,
        output_tokens=20,
        cached_tokens=100,
        cache_write_tokens=50,
        cache_write_1h_tokens=20,
        reasoning_tokens=7,
    )


def test_writes_that_are_only_split_are_added_up():
    written = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
    found = answer({"usage": {"input_tokens": 1, "output_tokens": 1, "cache_creation": written}}).usage
    assert (found.input_tokens, found.cache_write_tokens, found.cache_write_1h_tokens) == (8, 7, 4)


def test_missing_usage():
    assert answer({"id": "m"}).usage is None
    assert answer({"usage": {}}).usage is None


def test_usage_of_a_stream_replaces_field_by_field():
    reader = stream(start(input_tokens=10, output_tokens=1, cache_read_input_tokens=5, service_tier="standard"))
    assert (reader.answer.usage.input_tokens, reader.answer.usage.output_tokens) == (15, 1)
    reader = stream(
        start(input_tokens=10, output_tokens=1, cache_read_input_tokens=5, service_tier="standard"),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 12, "output_tokens": 30}},
        {"type": "message_stop"},
    )
    assert (reader.answer.usage.input_tokens, reader.answer.usage.output_tokens) == (17, 30)
    assert (reader.answer.finish_reason, reader.answer.service_tier, reader.done) == ("end_turn", "standard", True)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("event", "content"),
    [
        (delta("text_delta", text="a"), True),
        (delta("thinking_delta", thinking="a"), True),
        (delta("input_json_delta", partial_json="{"), True),
        (delta("input_json_delta", partial_json=""), True),
        (delta("signature_delta", signature="x"), False),
        (delta("citations_delta", citation={}), False),
        ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, False),
        ({"type": "content_block_stop", "index": 0}, False),
        (start(), False),
    ],
)
def test_what_is_content(event, content, named):
    reader = stream(event, event, event, named=named)
    assert (reader.events, reader.content_events) == (3, 3 * content)


def test_pings_are_no_events():
    assert stream({"type": "ping"}).events == 0
    assert stream({"type": "ping"}, named=False).events == 0


def test_tools_of_a_stream():
    reader = stream(
        {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f", "input": {}}},
        {"type": "content_block_start", "content_block": {"type": "server_tool_use", "name": "web_search"}},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}},
    )
    assert reader.answer.tools == ["f", "f"]


@pytest.mark.parametrize("named", [True, False])
def test_an_error_inside_a_stream(named):
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "secret"}, "request_id": "req_1"}
    reader = stream(start(input_tokens=1, output_tokens=1), error, named=named)
    assert (reader.answer.failed, reader.answer.error_type, reader.done) == (True, "overloaded_error", False)
    assert "secret" not in repr(reader.answer)


def test_odd_events():
    reader = Reader()
    reader.feed(b"event: error\ndata: secret\n\nevent: x\ndata: {}\n\ndata: [1]\n\nevent: error\ndata: {}\n\n")
    assert (reader.answer.failed, reader.events) == (True, 4)


def test_errors():
    found = answer({"type": "error", "error": {"type": "not_found_error", "message": "secret"}}, 404)
    assert (found.failed, found.error_type, found.error_code) == (True, "not_found_error", None)
    assert answer({"type": "error", "error": {"type": "api_error"}}).failed


def test_counting_tokens_is_free_and_bills_none():
    found = answer({"input_tokens": 588}, form=COUNT_TOKENS)
    assert found.usage == Usage(cost_usd=0.0)
    assert COUNT_TOKENS.read_request(b'{"model":"claude","messages":[]}').model == "claude"
    failed = answer({"type": "error", "error": {"type": "not_found_error"}}, 404, COUNT_TOKENS)
    assert (failed.failed, failed.usage, failed.error_type) == (True, None, "not_found_error")
    assert answer({"error": {"type": "api_error"}}, 200, COUNT_TOKENS).failed
    assert COUNT_TOKENS.read_answer(b"<html>", 200).usage == Usage(cost_usd=0.0)


@pytest.mark.parametrize(
    ("kind", "key", "size"),
    [
        ("text_delta", "text", 4),
        ("thinking_delta", "thinking", 4),
        ("input_json_delta", "partial_json", 4),
        ("signature_delta", "signature", 0),
        ("text_delta", "other", 0),
    ],
)
def test_the_size_of_text(kind, key, size):
    events = [delta(kind, **{key: 'ab"'}) for _ in range(5)]
    assert stream(*events).text_size == 5 * size
    reader = Reader()
    for number, event in enumerate(events):  # padded with spaces, as Anthropic does
        text = json.dumps(event, separators=(",", ":"))
        reader.feed(f"event: content_block_delta\ndata: {text[:-1]}{' ' * number}}}\n\n".encode())
    assert reader.text_size == 5 * size
