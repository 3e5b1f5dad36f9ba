"""Recorded traffic of Amazon Bedrock, compared with what the recordings state about themselves.

The recordings state the provider's own numbers; the rules by which ours differ are functions below, with their reasons.
"""

import base64
import json
import random

import pytest

from tellmeter import counts
from tellmeter.wire.event_stream import Frames
from tellmeter.wire.formats import bedrock, bedrock_converse, bedrock_invoke
from tests.support.exchanges import load, need_exchanges
from tests.support.readers import read_cut

FORMATS = {
    "converse": bedrock_converse.FORMAT,
    "converse_stream": bedrock_converse.STREAM,
    "invoke_model": bedrock_invoke.FORMAT,
    "invoke_model_stream": bedrock_invoke.STREAM,
}


@pytest.fixture(scope="module")
def recorded():
    need_exchanges()
    found = [(exchange, form) for api, form in FORMATS.items() for exchange in load("bedrock", api)]
    assert len(found) > 100
    return found


def mismatches(recorded, check):
    found = []
    for exchange, form in recorded:
        problem = check(exchange, form)
        if problem:
            found.append((exchange.api, exchange.id, exchange.path, problem))
    return found


def read(exchange, form, headers=True):
    answer = form.read_answer(exchange.body, exchange.status)
    if headers:
        bedrock.read_headers(answer, lambda name: exchange.headers.get(name, ""))
    return answer


def events_in(exchange):
    """The events of a stream, as (type, body); for InvokeModel the body is what the chunk carries."""
    for message in Frames().feed(exchange.body):
        body = json.loads(message.payload)
        yield message.event_type, json.loads(base64.b64decode(body["bytes"])) if "bytes" in body else body


def always(size):
    while True:
        yield size


def at_random(seed):
    draw = random.Random(seed)
    while True:
        yield draw.randint(1, 500)


def said(reader):
    return reader.events, reader.content_events, reader.text_size, reader.done, reader.answer


def test_the_model_and_whether_a_stream_is_asked_for(recorded):
    def check(exchange, form):
        asked = form.read_request(json.dumps(exchange.request).encode())
        found = (asked.model, asked.stream, form.read_path(exchange.path))
        # The path alone names it; the model that an answer names may be another one.
        stated = exchange.expected.get("model_in_path") or found[2]
        return None if found == ("", exchange.api.endswith("_stream"), stated) and found[2] else found

    assert mismatches(recorded, check) == []


def test_what_is_a_stream(recorded):
    def check(exchange, form):
        kind = exchange.headers.get("content-type")
        by_type = exchange.is_stream if kind is None else kind in form.stream_types
        return None if by_type == form.begins_stream(exchange.body) == exchange.is_stream else kind

    assert mismatches(recorded, check) == []


def test_the_answering_model_and_id(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange.expected
        found = (answer.response_model, answer.response_id)
        # Our own wherever the recording states one; Cohere's ids it does not.
        wanted = (expected["model"], expected["response_id"] or found[1])
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def tokens(expected):
    """The stated tokens in our way of counting: every part inside its whole."""
    cached, written = expected["cached_tokens"] or 0, expected["cache_write_tokens"] or 0
    details = (expected["usage_raw"] or {}).get("output_tokens_details") or {}
    return {
        "input": (expected["input_tokens"] or 0) + cached + written,
        "output": expected["output_tokens"],
        "cached": cached,
        "written": written,
        "reasoning": details.get("thinking_tokens") or 0,
    }


def test_tokens(recorded):
    def check(exchange, form):
        usage, expected = read(exchange, form).usage, exchange.expected
        if expected["input_tokens"] is None and expected["output_tokens"] is None:
            return usage
        wanted = tokens(expected)
        if wanted["output"] is None:  # embeddings have none; of Nova's answer to a guardrail only a header has it
            wanted["output"] = int(exchange.headers.get("x-amzn-bedrock-output-token-count", 0))
        found = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cached": usage.cached_tokens,
            "written": usage.cache_write_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_headers_are_only_asked_where_the_answer_is_silent(recorded):
    def check(exchange, form):
        expected = exchange.expected
        without = read(exchange, form, headers=False).usage
        silent = expected.get("usage_source") == "headers" or expected["input_tokens"] is None
        return None if (without is None) == silent else (without, expected)

    assert mismatches(recorded, check) == []


def asked_of_the_client(exchange):
    """The calls that the recording counts, less the tools that ran at Amazon."""
    calls = exchange.expected["tool_calls"] or 0
    bodies = [body for _, body in events_in(exchange)] if exchange.is_stream else [json.loads(exchange.body)]
    for body in bodies:
        content = ((body.get("output") or {}).get("message") or {}).get("content") or [body.get("start") or {}]
        calls -= sum((block.get("toolUse") or {}).get("type") == "server_tool_use" for block in content)
    return calls


def test_finish_reason_and_tools(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange.expected
        # We read Cohere's reasons and the old Claude's in streams, too.
        found = (answer.finish_reason, len(answer.tools))
        wanted = (expected["finish_reason"] or found[0], asked_of_the_client(exchange))
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_errors(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange.expected
        found = (answer.failed, answer.error_type, answer.error_code)
        wanted = (exchange.status >= 400, expected["error_type"], expected["error_code"])
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def content_of(exchange):
    """The recording's number of content events, less those that bring nothing that the model wrote.

    It counts Nova's ends of blocks under InvokeModel, and every chunk of the families that have but one kind.
    """
    content = exchange.expected["content_events"]
    for kind, body in events_in(exchange):
        deltas = body.get("delta") or {}
        content -= kind == "contentBlockDelta" and not deltas.keys() & {"text", "toolUse", "reasoningContent"}
        content -= "contentBlockStop" in body
        content -= body.get("completion") == "" or ("is_finished" in body and not body.get("text"))
    return content


@pytest.mark.parametrize("size", [1, 7, 300, 4096, 1 << 20])
def test_streams_count_their_events_however_they_are_cut(recorded, size):
    def check(exchange, form):
        if not exchange.is_stream:
            return None
        reader = read_cut(form, exchange.body, always(size))
        found = (reader.events, reader.content_events, reader.done)
        wanted = (exchange.expected["stream_events"], content_of(exchange), exchange.expected["stream_complete"])
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_a_stream_says_the_same_in_one_piece_and_cut_at_random(recorded):
    def check(exchange, form):
        if not exchange.is_stream:
            return None
        whole = read_cut(form, exchange.body, always(len(exchange.body)))
        for seed in range(5):
            cut = read_cut(form, exchange.body, at_random(seed))
            if said(cut) != said(whole) or form.read_answer(exchange.body, 200) != whole.answer:
                return seed
        return None

    assert mismatches(recorded, check) == []


def test_a_stream_that_breaks_off_keeps_what_came(recorded):
    def check(exchange, form):
        if not exchange.is_stream:
            return None
        frames = list(events_in(exchange))
        reader = form.new_reader()
        reader.feed(exchange.body[:-1])
        reader.finish()
        return None if (reader.events, reader.done) == (len(frames) - 1, False) else said(reader)

    assert mismatches(recorded, check) == []


def texts_in(exchange):
    """The text, the reasoning and the tools' input that a stream brings, found without the formats."""
    keys = {"text", "input", "thinking", "partial_json", "outputText", "generation", "completion"}

    def strings(value):
        if not isinstance(value, dict):
            return
        for key, inner in value.items():
            if key in keys and isinstance(inner, str):
                yield inner
            elif key in ("delta", "toolUse", "reasoningContent", "contentBlockDelta"):
                yield from strings(inner)

    return [text for _, body in events_in(exchange) for text in strings(body)]


def test_the_size_of_the_text(recorded):
    def check(exchange, form):
        if not exchange.is_stream:
            return None
        size = read_cut(form, exchange.body, always(1000)).text_size
        texts = texts_in(exchange)
        # JSON may be written in several ways: between the bare text and the text with all escaped.
        least = sum(len(text.encode()) for text in texts)
        most = sum(len(json.dumps(text)) - 2 for text in texts)
        return None if min(least, most) <= size <= max(least, most) else (least, size, most)

    assert mismatches(recorded, check) == []


def test_nothing_in_them_is_unreadable(recorded):
    def noticed():
        names = ("unreadable_stream", "unreadable_event", "unreadable_body", "oversize_event")
        return [counts.total(name) for name in names]

    before = noticed()
    for exchange, form in recorded:
        if exchange.is_stream:
            read_cut(form, exchange.body, always(700))
        elif exchange.status == 200:
            read(exchange, form)
    assert noticed() == before
