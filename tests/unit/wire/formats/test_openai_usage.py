import msgspec
import pytest

from tellmeter.usage import Usage
from tellmeter.wire.formats.bodies import Body
from tellmeter.wire.formats.openai_usage import OpenAIUsage, usage_of

stated = Body(OpenAIUsage, "test_usage")


def usage(**fields):
    return usage_of(stated.read(msgspec.json.encode(fields)))


def test_nothing_stated():
    assert usage_of(None) is None
    assert usage() is None
    assert usage(prompt_tokens=None, completion_tokens="x") is None


def test_chat():
    found = usage(
        prompt_tokens=100,
        completion_tokens=50,
        total_tokens=150,
        prompt_tokens_details={"cached_tokens": 64, "audio_tokens": 3, "cache_write_tokens": 5},
        completion_tokens_details={"reasoning_tokens": 20, "audio_tokens": 4},
    )
    assert found == Usage(
        input_tokens=100,
        output_tokens=50,
        cached_tokens=64,
        cache_write_tokens=5,
        reasoning_tokens=20,
        input_audio_tokens=3,
        output_audio_tokens=4,
    )


def test_responses():
    found = usage(
        input_tokens=10,
        output_tokens=5,
        total_tokens=15,
        input_tokens_details={"cached_tokens": 2},
        output_tokens_details={"reasoning_tokens": 1},
    )
    assert found == Usage(input_tokens=10, output_tokens=5, cached_tokens=2, reasoning_tokens=1)


@pytest.mark.parametrize(
    "spelling",
    [
        {"prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4},
        {"cached_tokens": 6},
        {"num_cached_tokens": 6},
        {"prompt_tokens_details": {"cached_tokens": 6}, "cached_tokens": 3},
        {"prompt_tokens_details": {"cached_tokens": None}, "prompt_cache_hit_tokens": 6},
    ],
)
def test_spellings_of_cached_tokens(spelling):
    assert usage(prompt_tokens=10, completion_tokens=1, **spelling).cached_tokens == 6


@pytest.mark.parametrize(
    "spelling", [{"prompt_tokens_details": {"cache_creation_tokens": 6}}, {"cache_creation_input_tokens": 6}]
)
def test_spellings_of_cache_writes(spelling):
    assert usage(prompt_tokens=10, completion_tokens=1, **spelling).cache_write_tokens == 6


def test_a_total_alone_is_the_input():
    assert usage(total_tokens=18) == Usage(input_tokens=18)


def test_unstated_reasoning_in_the_total_is_output():
    found = usage(prompt_tokens=35, completion_tokens=12, total_tokens=109)  # Gemini
    assert (found.input_tokens, found.output_tokens, found.reasoning_tokens) == (35, 74, 62)


def test_reasoning_beside_the_output_is_added_to_it():
    found = usage(
        prompt_tokens=32, completion_tokens=9, total_tokens=135, completion_tokens_details={"reasoning_tokens": 94}
    )  # xAI
    assert (found.input_tokens, found.output_tokens, found.reasoning_tokens) == (32, 103, 94)


def test_a_smaller_total_changes_nothing():
    found = usage(prompt_tokens=32, completion_tokens=9, total_tokens=0)
    assert (found.input_tokens, found.output_tokens) == (32, 9)


def test_parts_larger_than_their_whole_are_left_to_the_record():
    found = usage(prompt_tokens=7, completion_tokens=1, total_tokens=8, prompt_tokens_details={"cached_tokens": 161})
    assert (found.input_tokens, found.cached_tokens) == (7, 161)


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({}, None),
        ({"cost": 0.0012}, 0.0012),
        ({"cost": 0}, 0.0),  # a free model
        ({"cost": {"total_cost": 0.005, "request_cost": 0.004}}, 0.005),
        ({"cost": {"request_cost": 0.004}}, None),
        ({"cost": "0.5"}, 0.5),
        ({"cost": -1}, None),
        ({"cost": None}, None),
        ({"cost_in_usd_ticks": 6306000}, 0.0006306),
        ({"cost_in_usd_ticks": 0}, None),  # not filled in: the models are not free
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, 0.21),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, 0.01),
        ({"cost": 0.01, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.2}}, 0.01),
    ],
)
def test_stated_cost(fields, cost):
    found = usage(prompt_tokens=1, completion_tokens=1, **fields).cost_usd
    assert found == (None if cost is None else pytest.approx(cost))
