"""Recorded traffic of every provider, read by the formats and compared with what the recordings state about themselves.

The recordings state the provider's own numbers; the rules by which ours differ are functions below, with their reasons.
"""

import json

import pytest

from tellmeter import counts
from tellmeter.wire.formats import by_path, model_in_path
from tests.support.exchanges import APIS, EXCHANGES, OTHER_FORMATS, need_exchanges


def exchanges():
    """Every recorded exchange of the APIs above."""
    for file in sorted(EXCHANGES.glob("*.jsonl")):
        for line in file.read_text("utf-8").splitlines():
            exchange = json.loads(line)
            if exchange["api"] in APIS:
                yield exchange


def body_of(exchange):
    return exchange["response_body"].encode()


def ours(exchange):
    """The format of an exchange; those that other files of tests are about are left to them."""
    if exchange["method"] != "POST" or (exchange["provider"], exchange["api"]) in OTHER_FORMATS:
        return None
    return by_path(exchange["path"])


@pytest.fixture(scope="module")
def recorded():
    need_exchanges()
    found = [(exchange, form) for exchange in exchanges() if (form := ours(exchange)) is not None]
    assert len(found) > 100
    return found


def mismatches(recorded, check):
    found = []
    for exchange, form in recorded:
        problem = check(exchange, form)
        if problem:
            found.append((exchange["provider"], exchange["api"], exchange["id"], problem))
    return found


def read(exchange, form):
    return form.read_answer(body_of(exchange), exchange["status"])


def reader_of(exchange, form, size=None):
    reader = form.new_reader()
    body = body_of(exchange)
    size = size or len(body) or 1
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    reader.finish()
    return reader


def tokens(exchange):
    """The stated tokens in our way of counting: every part inside its whole."""
    expected = exchange["expected"]
    raw = expected["usage_raw"] or {}
    given, made = expected["input_tokens"] or 0, expected["output_tokens"] or 0
    cached, written = expected["cached_tokens"] or 0, expected["cache_write_tokens"] or 0
    reasoning = expected["reasoning_tokens"] or 0
    if exchange["api"] == "messages":
        given += cached + written
        # The recordings read Anthropic's thinking from nowhere; it is stated in newer ones.
        reasoning = (raw.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    elif exchange["api"] == "embeddings" and expected["input_tokens"] is None:
        given = expected["total_tokens"] or raw.get("total_tokens") or 0  # Voyage states nothing else
    elif expected["total_tokens"] and expected["total_tokens"] > given + made:
        # Gemini's compatible endpoint leaves thinking out of the output, and bills it as output.
        reasoning = reasoning or expected["total_tokens"] - given - made
        made = expected["total_tokens"] - given
    cached = cached or raw.get("num_cached_tokens") or 0  # what Mistral called them
    # Writes to a cache are taken from few providers by the recordings; OpenAI has come to state them, too.
    details = raw.get("input_tokens_details") or raw.get("prompt_tokens_details") or {}
    written = written or details.get("cache_write_tokens") or 0
    return {"input": given, "output": made, "cached": cached, "written": written, "reasoning": reasoning}


def test_the_model_asked_for_is_read_from_body_or_path(recorded):
    def check(exchange, form):
        if exchange["request_json"] is None:
            return None  # two bodies come without their requests
        asked = form.read_request(json.dumps(exchange["request_json"]).encode())
        stated = exchange["request_json"].get("model")
        if isinstance(stated, str):
            return None if asked is not None and asked.model == stated else asked
        if asked is not None:  # a stored prompt of the Responses API names the model
            return None if asked.model == "" and "prompt" in exchange["request_json"] else asked
        # Azure: the body may leave the model to the deployment in the path.
        return None if model_in_path(exchange["path"]) else "no model"

    assert mismatches(recorded, check) == []


def test_requests_tell_whether_they_ask_for_a_stream(recorded):
    def check(exchange, form):
        asked = exchange["request_json"] and form.read_request(json.dumps(exchange["request_json"]).encode())
        if not asked:
            return None
        return None if asked.stream == bool(exchange["request_json"].get("stream")) else asked.stream

    assert mismatches(recorded, check) == []


def test_the_answering_model_and_id(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange["expected"]
        found = (answer.response_model, answer.response_id)
        # Our own wherever the recording states one; count_tokens states neither.
        wanted = (expected["model"] or found[0], expected["response_id"] or found[1])
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_tokens(recorded):
    def check(exchange, form):
        usage = read(exchange, form).usage
        if form.operation == "count_tokens":
            free = usage is not None and usage.input_tokens == 0 and usage.cost_usd == 0.0
            return None if free or exchange["status"] >= 400 else usage
        if exchange["expected"]["usage_raw"] is None:
            return usage
        if usage is None:
            return "no usage"
        found = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cached": usage.cached_tokens,
            "written": usage.cache_write_tokens,
            "reasoning": usage.reasoning_tokens,
        }
        return None if found == tokens(exchange) else (found, tokens(exchange))

    assert mismatches(recorded, check) == []


def test_stated_cost(recorded):
    def check(exchange, form):
        raw = exchange["expected"]["usage_raw"] or {}
        cost = raw.get("cost")
        cost = cost.get("total_cost") if isinstance(cost, dict) else cost
        if cost is None and raw.get("cost_in_usd_ticks"):  # Azure sends 0 ticks with xAI's models, which are not free
            cost = raw["cost_in_usd_ticks"] / 1e10
        if raw.get("is_byok"):  # the router's fee; the model itself is paid for at its provider
            cost += raw["cost_details"]["upstream_inference_cost"]
        usage = read(exchange, form).usage
        if form.operation == "count_tokens":
            return None
        found = usage.cost_usd if usage is not None else None
        return None if found == cost else (found, cost)

    assert mismatches(recorded, check) == []


def test_finish_reason_and_tools(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange["expected"]
        found = (answer.finish_reason, len(answer.tools))
        calls = expected["tool_calls"] or 0
        if "n_gt_1" in exchange["tags"] and not exchange["is_stream"] and exchange["status"] == 200:
            # The recordings look at all choices of a stream, but at the first one of a whole answer; we at all of both.
            choices = json.loads(exchange["response_body"])["choices"]
            calls = sum(len(choice.get("message", {}).get("tool_calls") or ()) for choice in choices)
        wanted = (expected["finish_reason"], calls)
        return None if found == wanted else (found, answer.tools, wanted)

    assert mismatches(recorded, check) == []


def test_errors(recorded):
    def check(exchange, form):
        answer, expected = read(exchange, form), exchange["expected"]
        wrong = exchange["status"] >= 400 or expected["stream_error"] is not None
        if answer.failed != wrong:
            return answer.failed
        for found, wanted in ((answer.error_type, expected["error_type"]), (answer.error_code, expected["error_code"])):
            # We also read shapes for which the recordings state nothing, such as a code beside a text.
            if wanted is not None and found != str(wanted):
                return found, wanted
        message = expected["error_message"]
        return message if message and message in (answer.error_type, answer.error_code) else None

    assert mismatches(recorded, check) == []


def events_of(exchange):
    """The recording's numbers, less what it counts and we do not; plus what we count and it does not."""
    events, content = exchange["expected"]["stream_events"], exchange["expected"]["content_events"]
    for line in exchange["response_body"].splitlines():
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            continue
        data = json.loads(line[5:])
        if exchange["api"] == "messages":
            events -= data["type"] == "ping"  # a sign of life
            # Signatures and citations are not written by the model.
            content -= (data.get("delta") or {}).get("type") in ("signature_delta", "citations_delta")
        elif exchange["api"] == "chat.completions":
            # A refusal is what the user gets to read.
            content += any((choice.get("delta") or {}).get("refusal") for choice in data.get("choices") or ())
        elif exchange["api"] == "completions":
            content += bool(data.get("value"))  # Writer's text
    return events, content


@pytest.mark.parametrize("size", [None, 1, 7, 300, 4096])
def test_streams_count_their_events_however_they_are_cut(recorded, size):
    def check(exchange, form):
        if not exchange["is_stream"]:
            return None
        reader = reader_of(exchange, form, size)
        found = (reader.events, reader.content_events, reader.done)
        wanted = (*events_of(exchange), exchange["expected"]["stream_complete"])
        return None if found == wanted else (found, wanted)

    assert mismatches(recorded, check) == []


def test_a_stream_says_the_same_in_one_piece_and_byte_by_byte(recorded):
    def check(exchange, form):
        if not exchange["is_stream"]:
            return None
        whole, cut = read(exchange, form), reader_of(exchange, form, 3).answer
        return None if whole == cut else (whole, cut)

    assert mismatches(recorded, check) == []


def test_nothing_in_them_is_unreadable(recorded):
    def noticed():
        names = ("unreadable_stream", "unreadable_event", "unreadable_body", "oversize_event")
        return [counts.total(name) for name in names]

    before = noticed()
    for exchange, form in recorded:
        if exchange["is_stream"]:
            reader_of(exchange, form, 700)
        elif exchange["status"] == 200:
            read(exchange, form)
    assert noticed() == before
