"""Gemini's formats: Google's way of counting, streams that add up, errors; the SDK's view is in tests/real."""

import random

import msgspec
import pytest

from tellmeter.simulator.answer import make_answer
from tellmeter.simulator.cache import PromptCache
from tellmeter.simulator.formats import Refused
from tellmeter.simulator.gemini_formats import COUNT_TOKENS, EMBED, GEMINI, GENERATE
from tellmeter.simulator.traffic import Traffic

FIND = {"name": "find", "parameters": {"type": "OBJECT", "properties": {"q": {"type": "STRING"}}}}
OTHER = {"name": "other", "parametersJsonSchema": {"type": "object"}}
TOOLS = [{"functionDeclarations": [FIND, OTHER]}]
FLASH = "/v1beta/models/gemini-2.5-flash:generateContent"


def said(text):
    return [{"role": "user", "parts": [{"text": text}]}]


HELLO = {"contents": said("hello")}


def calling(mode, *names):
    return {"tools": TOOLS, "toolConfig": {"functionCallingConfig": {"mode": mode, "allowedFunctionNames": names}}}


def answered(body, path=FLASH, wire=GENERATE, cache=None, seed=0):
    ask = wire.read({**body, **wire.in_path(path)})
    return make_answer(ask, Traffic(cache_minimum=16), cache or PromptCache(16), random.Random(seed))


def whole(body, **more):
    return msgspec.json.decode(GENERATE.whole(answered(body, **more)))


def events(body, **more):
    made = list(GENERATE.events(answered(body, **more)))
    assert [event.ends for event in made] == [False] * (len(made) - 1) + [True]
    return [msgspec.json.decode(event.data.removeprefix(b"data: ")) for event in made]


def text_of(candidate, thought=False):
    parts = candidate["content"]["parts"]
    return "".join(part.get("text", "") for part in parts if part.get("thought", False) == thought)


def calls_of(candidate):
    calls = [part["functionCall"] for part in candidate["content"]["parts"] if "functionCall" in part]
    return [(call["name"], call["args"]) for call in calls]


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        (FLASH, "gemini-2.5-flash", False),
        ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", "gemini-2.5-pro", True),
        ("/v1/projects/p/locations/global/publishers/google/models/g:generateContent", "g", False),
    ],
)
def test_the_model_and_the_way_to_answer_are_in_the_path(path, model, stream):
    assert GENERATE.in_path(path) == {"model": model, "stream": stream}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"generationConfig": {"maxOutputTokens": 5, "thinkingConfig": {"thinkingBudget": 0}}},
        {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
        {"generationConfig": {"candidateCount": 3}},
        {"generationConfig": {"responseMimeType": "application/json", "responseSchema": FIND["parameters"]}},
        calling("ANY"),
    ],
)
def test_a_stream_builds_up_what_the_whole_says(more):
    body = {**HELLO, **more}
    one, stream = whole(body), events(body)
    for index, candidate in enumerate(one["candidates"]):
        pieces = [event["candidates"][0] for event in stream if event["candidates"][0]["index"] == index]
        for thought in (False, True):
            assert "".join(text_of(piece, thought) for piece in pieces) == text_of(candidate, thought)
        assert [call for piece in pieces for call in calls_of(piece)] == calls_of(candidate)
        assert [piece.get("finishReason") for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1]["finishReason"] == candidate["finishReason"]
    assert stream[-1]["usageMetadata"] == one["usageMetadata"]
    assert {event["modelVersion"] for event in stream} == {one["modelVersion"]} == {"gemini-2.5-flash"}


def test_both_spellings_of_a_field_are_taken():
    thoughts = {"generation_config": {"thinkingConfig": {"include_thoughts": True}, "max_output_tokens": 3000}}
    assert text_of(whole({**HELLO, **thoughts})["candidates"][0], thought=True)
    calling = {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}}
    tools = {"function_declarations": [{"name": "f", "parameters_json_schema": {"properties": {"n": {"const": 3}}}}]}
    assert calls_of(whole({**HELLO, "tools": [tools], "tool_config": calling})["candidates"][0]) == [("f", {"n": 3})]


def test_usage_in_a_stream_grows_to_the_whole():
    stream = [event["usageMetadata"] for event in events(HELLO)]
    totals = [usage["totalTokenCount"] for usage in stream]
    assert totals == sorted(totals)
    assert totals[0] == stream[0]["promptTokenCount"]


def test_output_is_stated_without_thinking():
    answer = answered(HELLO)
    usage = msgspec.json.decode(GENERATE.whole(answer))["usageMetadata"]
    assert usage["thoughtsTokenCount"] == answer.usage.reasoning > 0
    assert usage["candidatesTokenCount"] + usage["thoughtsTokenCount"] == answer.usage.output
    assert usage["totalTokenCount"] == answer.usage.input + answer.usage.output
    none = whole({**HELLO, "generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}})["usageMetadata"]
    assert "thoughtsTokenCount" not in none
    lite = FLASH.replace("flash", "flash-lite")
    assert "thoughtsTokenCount" not in whole(HELLO, path=lite)["usageMetadata"]
    told = {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1024}}}
    assert whole({**HELLO, **told}, path=lite)["usageMetadata"]["thoughtsTokenCount"] > 0


def test_what_was_cached_is_inside_the_prompt():
    cache = PromptCache(16)
    first, second = (whole({"contents": said("rules " * 100)}, cache=cache)["usageMetadata"] for _ in range(2))
    assert "cachedContentTokenCount" not in first
    assert 0 < second["cachedContentTokenCount"] < second["promptTokenCount"] == first["promptTokenCount"]


def test_without_usage_nothing_is_stated():
    answer = answered(HELLO)
    answer.usage = None
    assert b"usageMetadata" not in GENERATE.whole(answer)
    assert not any(b"usageMetadata" in event.data for event in GENERATE.events(answer))


def test_finish_reasons_are_googles():
    assert whole(HELLO)["candidates"][0]["finishReason"] == "STOP"
    assert whole({**HELLO, **calling("ANY")})["candidates"][0]["finishReason"] == "STOP"
    limit = {"maxOutputTokens": 3, "thinkingConfig": {"thinkingBudget": 0}}
    assert whole({**HELLO, "generationConfig": limit})["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_functions_are_called_as_told():
    def called(mode, *names, **more):
        return {
            name
            for seed in range(20)
            for name, _ in calls_of(whole({**HELLO, **more, **calling(mode, *names)}, seed=seed)["candidates"][0])
        }

    assert called("ANY") == {"find", "other"}
    assert called("ANY", "find") == {"find"}
    assert called("NONE") == set()
    assert called("AUTO")
    result = [*said("hi"), {"role": "user", "parts": [{"functionResponse": {"name": "find", "response": {}}}]}]
    assert called("AUTO", contents=result) == set()


def test_the_first_call_of_a_model_that_thinks_is_signed():
    (part, *_) = whole({**HELLO, **calling("ANY", "find")})["candidates"][0]["content"]["parts"]
    assert part["thoughtSignature"]
    assert isinstance(part["functionCall"]["args"]["q"], str)


def test_the_first_event_says_nothing_yet():
    first = events(HELLO)[0]["candidates"][0]
    assert text_of(first) == ""
    assert "finishReason" not in first


@pytest.mark.parametrize(("model", "states"), [("gemini-embedding-2", True), ("gemini-embedding-001", False)])
def test_embeddings_are_as_many_and_as_long_as_asked(model, states):
    body = {"requests": [{"content": said(text)[0], "outputDimensionality": 8} for text in ("a", "b")]}
    answer = answered(body, f"/v1beta/models/{model}:batchEmbedContents", EMBED)
    told = msgspec.json.decode(EMBED.whole(answer))
    assert [len(one["values"]) for one in told["embeddings"]] == [8, 8]
    assert ("usageMetadata" in told) == states
    one = answered({"content": said("a")[0]}, f"/v1beta/models/{model}:embedContent", EMBED)
    assert len(msgspec.json.decode(EMBED.whole(one))["embedding"]["values"]) == 3072
    assert one.usage.output == 0


@pytest.mark.parametrize("body", [HELLO, {"generateContentRequest": HELLO}])
def test_tokens_are_counted_without_an_answer(body):
    answer = answered(body, FLASH.replace("generateContent", "countTokens"), COUNT_TOKENS)
    told = msgspec.json.decode(COUNT_TOKENS.whole(answer))
    assert told["totalTokens"] == whole(HELLO)["usageMetadata"]["promptTokenCount"]
    assert answer.usage.output == 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (FLASH.replace("gemini-2.5-flash", "no-such-model"), HELLO, 404),
        (FLASH, {}, 400),
        (FLASH, {"contents": []}, 400),
        (FLASH, {"contents": [{"role": "robot", "parts": [{"text": "x"}]}]}, 400),
        (FLASH, {"contents": [{"role": "user", "parts": []}]}, 400),
        (FLASH, {**HELLO, "generationConfig": {"maxOutputTokens": 0}}, 400),
    ],
)
def test_what_google_would_refuse_is_refused(path, body, status):
    with pytest.raises(Refused) as refused:
        answered(body, path)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_errors_are_in_googles_words(status, said):
    error = msgspec.json.decode(GEMINI.error_body(GEMINI.explain(status, None), ""))["error"]
    assert (error["code"], error["status"]) == (status, said)
    assert error["message"]
    assert "details" not in error


def test_when_to_try_again_is_in_the_body_only():
    refused = GEMINI.explain(429, None)
    refused.retry_after = 0.5
    (detail,) = msgspec.json.decode(GEMINI.error_body(refused, ""))["error"]["details"]
    assert detail == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.5s"}
    assert GEMINI.error_headers(refused, "") == {}


def test_a_failure_inside_a_stream_is_an_error_in_place_of_an_answer():
    (event,) = GENERATE.failure(answered(HELLO), 3)
    assert msgspec.json.decode(event.data.removeprefix(b"data: "))["error"]["status"] == "UNAVAILABLE"
