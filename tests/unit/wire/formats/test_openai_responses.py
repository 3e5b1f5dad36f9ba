import json

import pytest

from tellmeter.wire.formats.openai_responses import FORMAT, Reader

USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "output_tokens_details": {"reasoning_tokens": 2}}


def request(**fields):
    return FORMAT.read_request(json.dumps(fields).encode())


def answer(**fields):
    return FORMAT.read_answer(json.dumps({"id": "resp_1", "model": "m", **fields}).encode(), 200)


def stream(*events, named=True):
    reader = Reader()
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        reader.feed(f"{name}data: {json.dumps(event)}\n\n".encode())
    reader.finish()
    return reader


def test_requests():
    asked = request(model="gpt-5", input="a", stream=True)
    assert (asked.model, asked.stream) == ("gpt-5", True)
    for field in ("input", "previous_response_id", "conversation", "prompt"):
        assert request(model="m", **{field: "x"}).model == "m"
    assert request(prompt={"id": "pmpt_1"}).model == ""  # the stored prompt names it
    for body in ({"model": "m"}, {"input": "a"}, {"model": "m", "messages": []}, {"model": "m", "input": None}):
        assert request(**body) is None
    assert FORMAT.read_request(b"<html>") is None


def test_an_answer():
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "web_search_call", "status": "completed"},
        {"type": "mcp_call", "name": "provider_side"},
        {"type": "function_call", "name": "weather", "arguments": "{}"},
        {"type": "custom_tool_call", "name": "shell", "input": "ls"},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
    ]
    found = answer(status="completed", output=output, usage=USAGE, service_tier="default", error=None)
    assert (found.response_model, found.response_id, found.service_tier) == ("m", "resp_1", "default")
    assert (found.finish_reason, found.tools, found.failed) == ("completed", ["weather", "shell"], False)
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.reasoning_tokens) == (10, 5, 2)


def test_why_it_ended():
    assert (
        answer(status="incomplete", incomplete_details={"reason": "max_output_tokens"}).finish_reason
        == "max_output_tokens"
    )
    assert answer(status="queued", incomplete_details=None).finish_reason == "queued"
    failed = answer(status="failed", error={"code": "server_error", "message": "secret"})
    assert (failed.failed, failed.error_code, failed.finish_reason) == (True, "server_error", "failed")
    assert "secret" not in repr(failed)
    assert answer(status="failed").failed


@pytest.mark.parametrize("named", [True, False])
def test_a_stream(named):
    call = {"type": "function_call", "name": "weather"}
    reader = stream(
        {"type": "response.created", "response": {"id": "r", "model": "m", "service_tier": "auto", "status": "queued"}},
        {"type": "keepalive", "sequence_number": 1},
        {"type": "response.reasoning_summary_text.delta", "delta": "a"},
        {"type": "response.output_item.added", "item": call, "output_index": 1},
        {"type": "response.function_call_arguments.delta", "delta": "{"},
        {"type": "response.function_call_arguments.done", "arguments": "{}"},
        {"type": "response.output_item.done", "item": call, "output_index": 1},
        {"type": "response.output_text.delta", "delta": "a"},
        named=named,
    )
    assert (reader.events, reader.content_events, reader.done) == (7, 3, False)
    assert (reader.answer.tools, reader.answer.finish_reason, reader.answer.usage) == (["weather"], None, None)
    final = {"status": "completed", "usage": USAGE, "service_tier": "default", "output": [call]}
    reader.feed(b'data: {"type":"response.completed","response":%s}\n\ndata: [DONE]\n\n' % json.dumps(final).encode())
    assert (reader.events, reader.done, reader.answer.service_tier) == (8, True, "default")
    assert (reader.answer.tools, reader.answer.finish_reason) == (["weather"], "completed")
    assert reader.answer.usage.output_tokens == 5


def test_how_streams_fail():
    reader = stream(
        {"type": "error", "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "secret"}},
        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "insufficient_quota"}}},
    )
    assert (reader.answer.failed, reader.answer.error_type) == (True, "insufficient_quota")
    assert (reader.answer.error_code, reader.answer.finish_reason, reader.done) == (
        "insufficient_quota",
        "failed",
        True,
    )
    flat = stream({"type": "error", "code": "rate_limit_exceeded", "message": "secret", "param": None})
    assert (flat.answer.error_type, flat.answer.error_code) == (None, "rate_limit_exceeded")
    assert "secret" not in repr(flat.answer)
    reader = Reader()
    reader.feed(b"event: error\ndata: secret\n\n")
    assert reader.answer.failed


def test_incomplete_is_no_failure():
    response = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    reader = stream({"type": "response.incomplete", "response": response})
    assert (reader.done, reader.answer.failed, reader.answer.finish_reason) == (True, False, "content_filter")


@pytest.mark.parametrize(
    "layout",
    [
        'event: {kind}\ndata: {"type":"{kind}","sequence_number":{n},"delta":"a"}\n\n',
        'event: {kind}\ndata: {"sequence_number":{n},"type":"{kind}","delta":"a"}\n\n',
        'data: {"delta":"a","sequence_number":{n},"type":"{kind}"}\nevent: {kind}\n\n',
        'data: {"type":"{kind}","sequence_number":{n},"delta":"a"}\n\n',
    ],
)
def test_layouts_that_are_counted_without_being_parsed(layout):
    reader = Reader()
    for n in range(200):
        reader.feed(layout.replace("{kind}", "response.output_text.delta").replace("{n}", str(n)).encode())
    assert (reader.events, reader.content_events) == (200, 200)
    assert reader._template is not None


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("output_text", 4),
        ("reasoning_summary_text", 4),
        ("function_call_arguments", 4),
        ("audio.transcript", 4),
        ("audio", 0),
        ("output_audio", 0),
    ],
)
def test_the_size_of_text(kind, size):
    events = [
        {"type": f"response.{kind}.delta", "sequence_number": n, "delta": 'ab"', "obfuscation": "x" * n}
        for n in range(20)
    ]
    reader = stream(*events)
    assert (reader.content_events, reader.text_size) == (20, 20 * size)
