"""Recorded traffic of Writer's chat, whose path is `/v1/chat`: OpenAI's format reads it."""

import json

import pytest

from tellmeter.wire.formats.openai_chat import FORMAT
from tests.support.exchanges import load, need_exchanges
from tests.support.readers import read_cut, said


@pytest.fixture(scope="module")
def recorded():
    need_exchanges()
    found = load("writer", "chat")
    assert found
    return found


def test_requests(recorded):
    for exchange in recorded:
        asked = FORMAT.read_request(json.dumps(exchange.request).encode())
        assert (asked.model, asked.stream) == (exchange.request["model"], exchange.is_stream), exchange.id


def test_answers(recorded):
    for exchange in recorded:
        answer, expected = FORMAT.read_answer(exchange.body, exchange.status), exchange.expected
        found = (answer.response_model, answer.response_id, answer.finish_reason, len(answer.tools))
        assert found == tuple(expected[key] for key in ("model", "response_id", "finish_reason", "tool_calls"))
        usage = answer.usage
        assert (usage.input_tokens, usage.output_tokens) == (expected["input_tokens"], expected["output_tokens"])


@pytest.mark.parametrize("size", [1, 7, 300, 10**6])
def test_streams_however_they_are_cut(recorded, size):
    for exchange in recorded:
        if not exchange.is_stream:
            continue
        expected = exchange.expected
        reader = read_cut(FORMAT, exchange.body, [size])
        found = (reader.events, reader.content_events, reader.done)
        assert found == (expected["stream_events"], expected["content_events"], expected["stream_complete"])
        assert said(reader) == said(read_cut(FORMAT, exchange.body, [61]))
