import json

import pytest

from tellmeter.wire.formats.openai_completions import FORMAT, Reader


def request(**fields):
    return FORMAT.read_request(json.dumps(fields).encode())


def stream(*events, name=None):
    reader = Reader()
    for event in events:
        prefix = f"event: {name}\n" if name else ""
        reader.feed(f"{prefix}data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
    reader.finish()
    return reader


def choice(text, finish=None, index=0):
    return {"id": "c", "model": "m", "choices": [{"text": text, "index": index, "finish_reason": finish}]}


@pytest.mark.parametrize("prompt", ["a", "", ["a", "b"], [1, 2], [[1], [2]]])
def test_requests(prompt):
    asked = request(model="m", prompt=prompt, stream=True)
    assert (asked.model, asked.stream) == ("m", True)


def test_bodies_of_other_formats():
    assert request(model="m", messages=[]) is None
    assert request(prompt="a") is None
    assert FORMAT.read_request(b"<html>") is None


def test_an_answer():
    body = {**choice("text", "length"), "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    found = FORMAT.read_answer(json.dumps(body).encode(), 200)
    assert (found.response_model, found.response_id, found.finish_reason) == ("m", "c", "length")
    assert (found.usage.input_tokens, found.usage.output_tokens) == (3, 0)


def test_a_stream():
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    reader = stream(choice("a"), choice(""), choice(" b", "stop"), choice("c", "length", 1), usage, "[DONE]")
    assert (reader.events, reader.content_events, reader.done) == (5, 3, True)
    assert (reader.answer.finish_reason, reader.answer.usage.output_tokens) == ("stop", 2)


def test_writer_sends_values():
    reader = stream({"value": "Sure"}, {"value": ","}, {"value": ""})
    assert (reader.events, reader.content_events) == (3, 2)


def test_errors():
    for reader in (
        stream({"error": {"type": "server_error"}}),
        stream({"error": {"type": "server_error"}}, name="error"),
        stream({"type": "server_error"}, name="error"),
    ):
        assert (reader.answer.failed, reader.answer.error_type) == (True, "server_error")
    assert stream("no JSON", name="error").answer.failed
    assert stream("no JSON").events == 1


def test_the_size_of_text():
    assert stream(choice("abc"), choice(""), choice('"', index=1), choice("d", finish="stop")).text_size == 3 + 2 + 1
    assert stream({"value": "ab"}, {"value": "c"}).text_size == 3
