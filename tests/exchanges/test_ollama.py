"""Recorded traffic of Ollama's own formats, compared with what the recordings state about themselves."""

import json
import random

import pytest

from tellmeter import counts
from tellmeter.wire.formats.ollama import CHAT, EMBEDDINGS, GENERATE
from tests.support.exchanges import load, need_exchanges
from tests.support.readers import read_cut, said

FORMATS = {"/api/chat": CHAT, "/api/generate": GENERATE, "/api/embeddings": EMBEDDINGS}


@pytest.fixture(scope="module")
def recorded():
    need_exchanges()
    found = [*load("ollama", "ollama.chat"), *load("ollama", "embeddings")]
    assert len(found) > 10
    return [(exchange, FORMATS[exchange.path]) for exchange in found]


def test_requests(recorded):
    for exchange, form in recorded:
        asked = form.read_request(json.dumps(exchange.request).encode())
        assert (asked.model, asked.stream) == (exchange.request["model"], exchange.is_stream), exchange.id


def test_answers(recorded):
    for exchange, form in recorded:
        answer, expected = form.read_answer(exchange.body, exchange.status), exchange.expected
        assert (answer.response_model, answer.response_id) == (expected["model"], None), exchange.id
        assert answer.finish_reason == expected["finish_reason"], exchange.id
        # The recordings do not count the calls of tools.
        calls = [] if exchange.is_stream else (json.loads(exchange.body).get("message") or {}).get("tool_calls") or []
        assert answer.tools == [call["function"]["name"] for call in calls], exchange.id
        assert (answer.failed, answer.error_type) == (exchange.status >= 400, expected["error_type"]), exchange.id


def test_tokens(recorded):
    for exchange, form in recorded:
        usage, expected = form.read_answer(exchange.body, exchange.status).usage, exchange.expected
        if expected["input_tokens"] is expected["output_tokens"] is None:
            assert usage is None, exchange.id
            continue
        # A prompt from the cache was left out by older versions.
        assert usage.input_tokens == (expected["input_tokens"] or 0), exchange.id
        assert usage.output_tokens == expected["output_tokens"], exchange.id


def test_streams_however_they_are_cut(recorded):
    cuts = random.Random(1)
    streams = [(exchange, form) for exchange, form in recorded if exchange.is_stream]
    assert streams
    for exchange, form in streams:
        expected = exchange.expected
        whole = read_cut(form, exchange.body, [len(exchange.body)])
        found = (whole.events, whole.content_events, whole.done)
        assert found == (expected["stream_events"], expected["content_events"], expected["stream_complete"])
        texts = [json.loads(line)["response"] for line in exchange.body.splitlines()]
        assert whole.text_size == sum(len(json.dumps(text, ensure_ascii=False).encode()) - 2 for text in texts)
        for sizes in ([1], [7], [300], [cuts.randint(1, 200) for _ in range(50)]):
            assert said(read_cut(form, exchange.body, sizes)) == said(whole), exchange.id
        assert form.begins_stream(exchange.body) and form.read_answer(exchange.body, 200) == whole.answer


def test_nothing_in_them_is_unreadable(recorded):
    names = ("unreadable_stream", "unreadable_event", "unreadable_body", "oversize_event")
    before = [counts.total(name) for name in names]
    for exchange, form in recorded:
        form.read_answer(exchange.body, exchange.status)
    assert [counts.total(name) for name in names] == before
