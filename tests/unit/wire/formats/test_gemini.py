import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.usage import Usage
from tellmeter.wire.formats import gemini
from tellmeter.wire.formats.gemini import COUNT_TOKENS, FORMAT, STREAM, Reader
from tellmeter.wire.json_array import JsonObjects

USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}


def answer(body, status=200, form=FORMAT):
    return form.read_answer(json.dumps(body).encode(), status)


def event(*parts, finish=None, index=None, **more):
    candidate = {"content": {"parts": list(parts), "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    if index is not None:
        candidate["index"] = index
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "r", **more}


def text(value):
    return {"text": value}


def call(name, **args):
    return {"functionCall": {"name": name, "args": args}}


def sent(events):
    return "".join(f"data: {json.dumps(one)}\r\n\r\n" for one in events).encode()


def array(events, indent=None):
    return b"[" + b"\n,\r\n".join(json.dumps(one, indent=indent).encode() for one in events) + b"\n]\n"


def read(body, sizes=(1 << 20,)):
    reader = Reader()
    at = number = 0
    while at < len(body):
        size = sizes[number % len(sizes)]
        reader.feed(body[at : at + size])
        at += size
        number += 1
    reader.finish()
    return reader


def said(reader):
    return reader.events, reader.content_events, reader.text_size, reader.done, reader.answer


# ------------------------------------------------------------------ requests


def test_requests_leave_the_model_to_the_path():
    body = b'{"contents":[{"parts":[{"text":"a"}]}],"generationConfig":{}}'
    assert [(asked.model, asked.stream) for asked in (FORMAT.read_request(body), STREAM.read_request(body))] == [
        ("", False),
        ("", True),
    ]
    path = "/v1beta/models/gemini-2.0-flash:generateContent"
    assert {form.read_path(path) for form in (FORMAT, STREAM, COUNT_TOKENS)} == {"gemini-2.0-flash"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages":[]}', b'{"contents":null}', b"<html>"])
def test_bodies_of_other_formats(body):
    assert FORMAT.read_request(body) is STREAM.read_request(body) is COUNT_TOKENS.read_request(body) is None


def test_what_begins_a_stream():
    for body in (b"data: {}\n\n", b"[{", b'\n[\n{"candidates":[', b": ping"):
        assert STREAM.begins_stream(body)
    for body in (b'{"candidates":[]}', b'[{\n  "error": {', b"", b"<html>"):
        assert not STREAM.begins_stream(body)
    assert not FORMAT.begins_stream(b"[{")
    assert set(STREAM.stream_types) == {"text/event-stream", "application/json"}


# ------------------------------------------------------------------ answers


def test_an_answer():
    stated = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 7,
        "cachedContentTokenCount": 40,
        "totalTokenCount": 157,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 70}, {"modality": "AUDIO", "tokenCount": 30}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}],
        "candidatesTokensDetails": [{"modality": 4, "tokenCount": 3}],
        "serviceTier": "standard",
        "trafficType": "ON_DEMAND",
    }
    found = answer(event({"thought": True, "text": "a"}, call("f", a=1), finish="STOP", usageMetadata=stated))
    assert (found.response_model, found.response_id, found.service_tier) == ("gemini-2.5-flash", "r", "standard")
    assert (found.finish_reason, found.tools, found.failed) == ("STOP", ["f"], False)
    assert found.usage == Usage(
        input_tokens=107,
        output_tokens=50,
        cached_tokens=40,
        reasoning_tokens=30,
        input_audio_tokens=30,
        cached_audio_tokens=9,
        output_audio_tokens=3,
    )


def test_missing_usage():
    assert answer(event(text("a"))).usage is None
    assert answer(event(text("a"), usageMetadata={"trafficType": "ON_DEMAND"})).usage is None
    assert answer(event(text("a"), usageMetadata={"thoughtsTokenCount": 5})).usage.output_tokens == 5


@pytest.mark.parametrize(
    ("stated", "tier"),
    [
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"trafficType": 1}, None),
        ({"serviceTier": "flex"}, "flex"),
    ],
)
def test_service_tiers(stated, tier):
    assert answer(event(usageMetadata=stated)).service_tier == tier


@pytest.mark.parametrize(
    ("finish", "found"),
    [("MAX_TOKENS", "MAX_TOKENS"), (1, "STOP"), (9, "9"), (0, None), ("FINISH_REASON_UNSPECIFIED", None), (None, None)],
)
def test_finish_reasons(finish, found):
    assert answer(event(text("a"), finish=finish)).finish_reason == found


def test_candidates():
    first, second = event(call("f"), finish="STOP", index=0), event(call("g"), finish="SAFETY", index=1)
    found = answer({"candidates": second["candidates"] + first["candidates"]})
    assert (found.finish_reason, found.tools) == ("STOP", ["g", "f"])


def test_a_blocked_prompt_finished_for_the_reason_it_was_blocked():
    body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 8}}
    found = answer(body)
    assert (found.finish_reason, found.failed, found.usage) == ("PROHIBITED_CONTENT", False, Usage(input_tokens=8))
    reader = read(sent([body]))
    assert (reader.answer, reader.done, reader.content_events) == (found, True, 0)
    assert answer({"promptFeedback": {"safetyRatings": []}}).finish_reason is None


def test_odd_fields_cost_nothing_else():
    odd = event(text(1), "part", {"functionCall": []}, finish=[], usageMetadata={**USAGE, "promptTokenCount": "10"})
    found = answer({**odd, "modelVersion": 3})
    assert (found.usage, found.response_id) == (Usage(input_tokens=10, output_tokens=5), "r")


def test_errors():
    error = {"error": {"code": 429, "message": "secret", "status": "RESOURCE_EXHAUSTED"}}
    for body in (error, [error]):
        for status in (429, 200):
            found = answer(body, status, STREAM)
            names = (found.failed, found.error_type, found.error_code)
            assert names == (True, "RESOURCE_EXHAUSTED", "429")
            assert "secret" not in repr(found)
    assert FORMAT.read_answer(b"<html>", 502).failed


def test_counting_tokens_is_free_and_bills_none():
    for body in (b'{"contents":[]}', b'{"generateContentRequest":{}}', b'{"instances":[]}'):
        assert COUNT_TOKENS.read_request(body).model == ""
    assert answer({"totalTokens": 31}, form=COUNT_TOKENS).usage == Usage(cost_usd=0.0)
    failed = answer({"error": {"status": "NOT_FOUND"}}, 404, COUNT_TOKENS)
    assert (failed.failed, failed.usage, failed.error_type) == (True, None, "NOT_FOUND")
    assert answer({"error": {"status": "INTERNAL"}}, 200, COUNT_TOKENS).failed
    assert COUNT_TOKENS.operation == "count_tokens"


# ------------------------------------------------------------------ streams


@pytest.mark.parametrize("form", [sent, array])
@pytest.mark.parametrize(
    ("part", "size"),
    [
        (text("a"), 1),
        (text('\n"é'), 10),
        ({"text": "abc", "thought": True}, 3),
        (call("f", a=1), len('{"a": 1}')),
        ({"functionCall": {"name": "f"}}, 0),
        ({"functionCall": {"name": "f", "willContinue": True}}, 0),
        ({"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "xyz"}], "willContinue": True}}, 3),
        ({"functionCall": {"partialArgs": [{"jsonPath": "$.a", "numberValue": 1}]}}, 0),
        ({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, 0),
        ({"executableCode": {"language": "PYTHON", "code": "1+1"}}, 3),
        ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}}, 0),
        ({"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"q": 1}, "id": "x"}}, len('{"q": 1}')),
        (text(""), None),
        ({"text": "", "thoughtSignature": "abc"}, None),
        ({"thoughtSignature": "abc"}, None),
        ({"functionCall": {}}, None),
    ],
)
def test_what_is_content(form, part, size):
    reader = read(form([event(part)] * 3))
    content = 0 if size is None else 3
    assert (reader.events, reader.content_events, reader.text_size) == (3, content, 3 * (size or 0))


def test_an_event_without_parts_is_no_content():
    for one in ({"usageMetadata": USAGE}, event(finish="STOP"), {"candidates": [{"finishReason": "STOP"}]}, {}):
        reader = read(sent([one]))
        assert (reader.events, reader.content_events) == (1, 0)


def test_the_last_usage_counts():
    events = [
        event(text("a"), usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 1}),
        event(text("b"), usageMetadata={"trafficType": "ON_DEMAND"}),
        event(text("c"), finish="STOP", usageMetadata={**USAGE, "thoughtsTokenCount": 2}),
        {"usageMetadata": {"trafficType": "ON_DEMAND"}},
    ]
    for body in (sent(events), array(events)):
        found = read(body).answer
        assert found.usage == Usage(input_tokens=10, output_tokens=7, reasoning_tokens=2)
        assert STREAM.read_answer(body, 200) == found


def test_a_stream_is_done_when_all_its_candidates_are():
    reader = Reader()
    steps = [
        (event(text("a"), index=0), False),
        (event(text("a"), index=1), False),
        (event(text("a"), index=1, finish="STOP"), False),
        (event(text("a"), finish="MAX_TOKENS"), True),
        ({"usageMetadata": USAGE}, True),
    ]
    for one, done in steps:
        reader.feed(sent([one]))
        assert reader.done is done
    assert reader.answer.finish_reason == "MAX_TOKENS"


@pytest.mark.parametrize("form", [sent, array])
def test_an_error_inside_a_stream(form):
    error = {"error": {"code": 503, "message": "secret", "status": "UNAVAILABLE"}}
    reader = read(form([event(text("a")), error]))
    names = (reader.events, reader.done, reader.answer.failed, reader.answer.error_type, reader.answer.error_code)
    assert names == (2, False, True, "UNAVAILABLE", "503")
    assert "secret" not in repr(reader.answer)


def test_an_error_that_comes_as_json_in_the_place_of_events():
    reader = read(b'{\n  "error": {\n    "code": 400,\n    "status": "INVALID_ARGUMENT"\n  }\n}\n', (5,))
    assert (reader.answer.failed, reader.answer.error_type) == (True, "INVALID_ARGUMENT")


def test_an_array_that_breaks_off():
    body = array([event(text("a"), usageMetadata=USAGE), event(text("b"), finish="STOP")])
    reader = read(body[:-20])
    assert (reader.events, reader.done, reader.answer.usage.output_tokens) == (1, False, 5)


def test_an_event_is_counted_with_its_last_byte():
    reader = Reader()
    seen = []
    for byte in array([event(text("a")), event(text("b"))]):
        reader.feed(bytes([byte]))
        seen.append(reader.events)
    assert seen.index(1) < seen.index(2) < len(seen) - 2


@pytest.mark.parametrize("form", [sent, array])
def test_generated_images_are_read_and_larger_ones_counted(form, monkeypatch):
    image = {"inlineData": {"mimeType": "image/png", "data": "A" * (2 << 20)}}
    body = form([event(text("a")), event(image, finish="STOP", usageMetadata=USAGE)])
    reader = read(body, (1 << 16,))
    assert said(reader)[:4] == (2, 2, 1, True)
    monkeypatch.setattr("tellmeter.wire.sse.MAX_FINAL_EVENT", 1 << 20)
    monkeypatch.setattr(gemini, "JsonObjects", lambda: JsonObjects(1 << 20))
    before = counts.total("oversize_event")
    reader = read(body, (1 << 16,))
    assert (reader.events, reader.content_events, counts.total("oversize_event")) == (2, 1, before + 1)


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    st.sampled_from(["", '"', "\\", '"}]}', "]}, {", "data: ", "\n\n", "[", '{"error":']),
)
PARTS = st.one_of(
    TEXT.map(text),
    TEXT.map(lambda value: {"text": value, "thought": True}),
    TEXT.map(lambda value: call("f", a=value)),
    st.sampled_from([{"thoughtSignature": "x"}, {"executableCode": {"code": "1"}}, {"inlineData": {"data": "aa"}}]),
)
EVENTS = st.one_of(
    st.builds(
        lambda parts, finish, index: event(*parts, finish=finish, index=index),
        st.lists(PARTS, max_size=3),
        st.sampled_from([None, None, "STOP", 2]),
        st.sampled_from([None, 0, 1]),
    ),
    st.integers(1, 99).map(lambda tokens: {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": tokens}}),
    st.sampled_from(
        [{"error": {"status": "INTERNAL", "code": 500}}, {"promptFeedback": {"blockReason": "SAFETY"}}, {}]
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(EVENTS, min_size=1, max_size=8),
    st.lists(st.integers(1, 300), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([b"", b"\n ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"]),
)
def test_both_kinds_of_streams_say_the_same_however_they_are_cut(events, sizes, pretty, start):
    expected = said(read(sent(events)))
    assert expected[0] == len(events)
    for body in (sent(events), array(events)):
        assert said(read(start + body, sizes)) == expected
    if pretty:  # arguments of calls are measured as they stand, white space included
        found = said(read(start + array(events, 2), sizes))
        assert (found[:2], found[3:]) == (expected[:2], expected[3:])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b"data: ", b"\n\n", b"\xef", b"\xef\xbb\xbf", b" "]),
            st.just(json.dumps(event(text("a"))).encode()),
        ),
        max_size=20,
    )
)
def test_no_bytes_make_a_reader_raise(pieces):
    whole, cut = Reader(), Reader()
    whole.feed(b"".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    whole.finish()
    cut.finish()
    assert said(whole) == said(cut)
    FORMAT.read_answer(b"".join(pieces), 200)
    FORMAT.read_request(b"".join(pieces))
