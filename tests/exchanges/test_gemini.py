"""Recorded traffic of the Gemini API and of Vertex AI, read and compared with what the recordings state.

The recordings state Google's own numbers; the rules by which ours differ are functions below, with their reasons.
"""

import json
import random

import pytest

from tellmeter import counts
from tellmeter.wire.formats import gemini, gemini_embeddings
from tests.support.exchanges import load, need_exchanges
from tests.support.readers import read_cut

FORMATS = {
    "generate_content": gemini.FORMAT,
    "stream_generate_content": gemini.STREAM,
    "embeddings": gemini_embeddings.FORMAT,
}


@pytest.fixture(scope="module")
def recorded():
    need_exchanges()
    found = [
        (exchange, form)
        for provider in ("gemini", "vertex")
        for api, form in FORMATS.items()
        for exchange in load(provider, api)
    ]
    assert len(found) > 60
    return found


def mismatches(recorded, check):
    found = []
    for exchange, form in recorded:
        problem = check(exchange, form)
        if problem:
            found.append((exchange.provider, exchange.api, exchange.id, problem))
    return found


def read(exchange, form):
    return form.read_answer(exchange.body, exchange.status)


def events_of(body):
    """What a stream holds, taken apart at once: an array, or server-sent events of one line each."""
    if body.startswith(b"["):
        return json.loads(body)
    lines = body.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def parts_of(event):
    return [part for candidate in event["candidates"] for part in candidate.get("content", {}).get("parts", ())]


def content_events(exchange):
    """The recordings take text that is empty for content; such events carry a signature, or nothing but the end."""
    events = [parts_of(event) for event in events_of(exchange.body)]
    empty = [parts for parts in events if parts and not any(part.keys() - {"thoughtSignature"} for part in parts)]
    empty += [parts for parts in events if parts and all(part.get("text") == "" for part in parts)]
    return exchange.expected["content_events"] - len(empty)


def test_the_model_asked_for_is_in_the_path(recorded):
    def check(exchange, form):
        asked, model = form.read_request(json.dumps(exchange.request).encode()), form.read_path(exchange.path)
        stated = exchange.expected.get("model_in_path") or exchange.path.rpartition("/models/")[2].partition(":")[0]
        found = (asked is not None and asked.model, asked is not None and asked.stream, model)
        wanted = ("", form is gemini.STREAM, stated)
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_the_answering_model_and_id(recorded):
    def check(exchange, form):
        answer = read(exchange, form)
        found = (answer.response_model, answer.response_id)
        wanted = (exchange.expected["model"], exchange.expected["response_id"])
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_tokens(recorded):
    def check(exchange, form):
        expected, usage = exchange.expected, read(exchange, form).usage
        raw = expected["usage_raw"]
        if raw is None:
            return usage
        reasoning = expected["reasoning_tokens"] or 0
        wanted = {
            "input": (expected["input_tokens"] or 0) + raw.get("toolUsePromptTokenCount", 0),
            "output": (expected["output_tokens"] or 0) + reasoning,
            "cached": expected["cached_tokens"] or 0,
            "reasoning": reasoning,
        }
        found = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cached": usage.cached_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        if found != wanted:
            return found, wanted
        total = usage.input_tokens + usage.output_tokens
        return None if expected["total_tokens"] in (None, total) else (total, expected["total_tokens"])

    assert mismatches(recorded, check) == []


def test_finish_reason_and_tools(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange.expected
        # Two answers were asked for with numbers in the place of names: 1 is STOP.
        finish = "STOP" if expected["finish_reason"] == 1 else expected["finish_reason"]
        found, wanted = (answer.finish_reason, len(answer.tools)), (finish, expected["tool_calls"] or 0)
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_errors(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange.expected
        code = expected["error_code"]
        found = (answer.failed, answer.error_type, answer.error_code)
        wanted = (exchange.status >= 400, expected["error_type"], None if code is None else str(code))
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []
    failed = [exchange for exchange, form in recorded if form is gemini.STREAM and not exchange.is_stream]
    for exchange in failed:  # its content type may say that it is a stream
        answer = read_cut(gemini.STREAM, exchange.body, iter(lambda: 64, None)).answer
        assert (answer.failed, answer.error_type) == (True, exchange.expected["error_type"])


@pytest.mark.parametrize("seed", range(4))
def test_streams_count_their_events_however_they_are_cut(recorded, seed):
    draw = random.Random(seed)

    def check(exchange, form):
        if not exchange.is_stream:
            return None
        reader = read_cut(form, exchange.body, iter(lambda: draw.choice((1, 7, 100, 1400, 9000)), None))
        found = (reader.events, reader.content_events, reader.done)
        expected = exchange.expected
        wanted = (expected["stream_events"], content_events(exchange), expected["stream_complete"])
        if found != wanted:
            return found, wanted
        return None if reader.answer == read(exchange, form) else "another answer"

    assert mismatches(recorded, check) == []


def test_both_kinds_of_streams_are_recorded_and_recognised(recorded):
    bodies = [exchange.body for exchange, _ in recorded if exchange.is_stream]
    assert {body.lstrip()[:1] for body in bodies} == {b"[", b"d"}
    assert all(map(gemini.STREAM.begins_stream, bodies))


def test_nothing_in_them_is_unreadable(recorded):
    def noticed():
        names = ("unreadable_stream", "unreadable_event", "unreadable_body", "oversize_event")
        return [counts.total(name) for name in names]

    before = noticed()
    for exchange, form in recorded:
        if exchange.is_stream:
            read_cut(form, exchange.body, iter(lambda: 700, None))
        else:
            read(exchange, form)
    assert noticed() == before
