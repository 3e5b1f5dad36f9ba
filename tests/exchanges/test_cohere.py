"""Recorded traffic of Cohere's own formats, compared with what the recordings state about themselves."""

import json
import random

import pytest

from tellmeter import counts
from tellmeter.wire.formats import cohere, cohere_embeddings, cohere_v1
from tests.support.exchanges import load, need_exchanges
from tests.support.readers import read_cut, said

FORMATS = {"/v2/chat": cohere.FORMAT, "/v1/chat": cohere_v1.FORMAT, "/v2/embed": cohere_embeddings.FORMAT}


@pytest.fixture(scope="module")
def recorded():
    need_exchanges()
    found = [*load("cohere", "chat"), *load("cohere", "embeddings")]
    assert len(found) > 30
    return [(exchange, FORMATS[exchange.path]) for exchange in found]


def test_requests(recorded):
    for exchange, form in recorded:
        asked = form.read_request(json.dumps(exchange.request).encode())
        assert (asked.model, asked.stream) == (exchange.request["model"], exchange.is_stream), exchange.id


def test_answers(recorded):
    for exchange, form in recorded:
        answer, expected = form.read_answer(exchange.body, exchange.status), exchange.expected
        # The recordings give embeddings no id, and count the calls of tools in whole answers only.
        wanted = expected["response_id"] or (answer.response_id if form.operation == "embeddings" else None)
        assert (answer.response_id, answer.response_model) == (wanted, None), exchange.id
        assert answer.finish_reason == expected["finish_reason"], exchange.id
        if expected["tool_calls"] is not None:
            assert len(answer.tools) == expected["tool_calls"], exchange.id
        assert bool(answer.tools) == (answer.finish_reason == "TOOL_CALL"), exchange.id
        assert (answer.failed, answer.error_type) == (exchange.status >= 400, expected["error_type"]), exchange.id


def test_the_tokens_that_are_billed(recorded):
    """The recordings take those that were processed; both stand in the usage as it was sent."""
    for exchange, form in recorded:
        usage, raw = form.read_answer(exchange.body, exchange.status).usage, exchange.expected["usage_raw"]
        if raw is None:
            assert usage is None and exchange.status >= 400, exchange.id
            continue
        billed, processed = raw["billed_units"], raw.get("tokens") or {}
        assert usage.input_tokens == billed["input_tokens"], exchange.id
        assert usage.output_tokens == billed.get("output_tokens", 0), exchange.id
        assert usage.reasoning_tokens == processed.get("reasoning_tokens", 0), exchange.id
        assert usage.cached_tokens == 0, exchange.id  # of the processed ones, which are far more than the billed ones
        if processed:
            assert exchange.expected["input_tokens"] == processed["input_tokens"] >= usage.input_tokens, exchange.id


def test_streams_however_they_are_cut(recorded):
    cuts = random.Random(1)
    for exchange, form in recorded:
        if not exchange.is_stream:
            continue
        expected, events = exchange.expected, exchange.body.decode().split("\n\n")
        # The plan before a tool's call is written by the model, and the user may see it.
        plans = sum(event.startswith("event: tool-plan-delta") for event in events)
        whole = read_cut(form, exchange.body, [len(exchange.body)])
        found = (whole.events, whole.content_events, whole.done)
        wanted = (expected["stream_events"], expected["content_events"] + plans, expected["stream_complete"])
        assert found == wanted, exchange.id
        texts = [json.loads(event.partition("data: ")[2])["delta"]["message"] for event in events if "-delta" in event]
        texts = [text.get("tool_plan") or text["content"]["text"] for text in texts]
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
