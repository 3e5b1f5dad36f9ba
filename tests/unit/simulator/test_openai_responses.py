"""OpenAI's Responses API: the order of events, and that a stream ends in what the whole says."""

import random

import msgspec
import pytest

from tellmeter.simulator.answer import make_answer
from tellmeter.simulator.cache import PromptCache
from tellmeter.simulator.formats import Refused
from tellmeter.simulator.openai_responses import RESPONSES
from tellmeter.simulator.traffic import Traffic

HELLO = {"model": "gpt-4o", "input": "hello"}
FIND = {"type": "function", "name": "find", "parameters": {"properties": {"q": {"type": "string"}}}}


def answered(body, seed=0):
    return make_answer(RESPONSES.read(body), Traffic(), PromptCache(1024), random.Random(seed))


def whole(body):
    return msgspec.json.decode(RESPONSES.whole(answered(body)))


def events(body):
    made = []
    for event in RESPONSES.events(answered(body)):
        name, data = event.data.decode().rstrip("\n").split("\n")
        made.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {made[-1]['type']}"
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
    return made


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"instructions": "be brief", "max_output_tokens": 5},
        {"model": "o4-mini"},
        {"model": "o4-mini", "reasoning": {"effort": "low", "summary": "auto"}},
        {"tools": [FIND], "tool_choice": "required"},
        {"tools": [FIND], "tool_choice": {"type": "function", "name": "find"}, "model": "gpt-5-mini"},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": FIND["parameters"]}}},
        {"text": {"format": {"type": "json_object"}}},
    ],
)
def test_a_stream_ends_in_what_the_whole_says(more):
    body = {**HELLO, **more}
    one, stream = whole(body), events(body)
    assert [event["type"] for event in stream[:2]] == ["response.created", "response.in_progress"]
    final = stream[-1]["response"]
    assert stream[-1]["type"] == f"response.{final['status']}"
    for response in (final, one):  # ids are drawn in another order
        for item in response["output"]:
            item.pop("call_id", None)
    assert final == one
    done = [event["item"] for event in stream if event["type"] == "response.output_item.done"]
    for item in done:
        item.pop("call_id", None)
    assert done == one["output"]


def test_the_pieces_of_each_item_join_to_it():
    stream = events({**HELLO, "model": "o4-mini", "reasoning": {"summary": "auto"}})
    for kind in ("output_text", "reasoning_summary_text"):
        said = "".join(event["delta"] for event in stream if event["type"] == f"response.{kind}.delta")
        assert [event["text"] for event in stream if event["type"] == f"response.{kind}.done"] == [said]
    stream = events({**HELLO, "tools": [FIND], "tool_choice": "required"})
    said = "".join(event["delta"] for event in stream if event["type"] == "response.function_call_arguments.delta")
    assert "q" in msgspec.json.decode(said)


def test_hidden_reasoning_still_takes_its_time():
    made = answered({**HELLO, "model": "o4-mini"})
    assert sum(event.tokens for event in RESPONSES.events(made)) == made.usage.output
    assert made.usage.reasoning > 0


def test_what_is_cut_off_is_incomplete():
    one = whole({**HELLO, "max_output_tokens": 3})
    assert (one["status"], one["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert one["usage"]["output_tokens"] == 3


def test_an_answer_to_a_tool_is_text():
    given = [{"role": "user", "content": "hi"}, {"type": "function_call_output", "call_id": "c", "output": "3"}]
    assert [item["type"] for item in whole({**HELLO, "input": given, "tools": [FIND]})["output"]] == ["message"]


def test_a_failure_inside_a_stream_is_an_error_and_a_failed_response():
    error, failed = RESPONSES.failure(answered(HELLO), 7)
    assert error.data.startswith(b"event: error\n")
    assert b'"sequence_number":8' in failed.data
    assert b'"status":"failed"' in failed.data


def test_an_unknown_model_is_refused_with_this_apis_status():
    with pytest.raises(Refused) as refused:
        RESPONSES.read({**HELLO, "model": "no-such-model"})
    assert (refused.value.status, refused.value.code) == (400, "model_not_found")
    with pytest.raises(Refused, match="input"):
        RESPONSES.read({"model": "gpt-4o"})
