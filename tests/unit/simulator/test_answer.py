"""One answer before any format: limits, tools, reasoning and counts."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.simulator.answer import Ask, Tool, make_answer, release_of
from tellmeter.simulator.cache import PromptCache
from tellmeter.simulator.traffic import Traffic

FIND = Tool("find", {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]})
OTHER = Tool("other", {"type": "object"})


def answer(seed=0, *, rate=1.0, **ask):
    traffic = Traffic(tool_call_rate=rate)
    ask = Ask(**{"model": "gpt-4o", "prompt": "hello there", **ask})
    return make_answer(ask, traffic, PromptCache(1024), random.Random(seed))


@given(
    st.integers(0, 99),
    st.none() | st.integers(0, 300),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([[], [FIND], [FIND, OTHER]]),
)
def test_counts_add_up_and_limits_hold(seed, limit, thinks, many, tools):
    made = answer(seed, limit=limit, thinks=thinks, count=many, tools=tools)
    assert made.usage.output == made.usage.reasoning + sum(choice.tokens for choice in made.choices)
    assert made.usage.reasoning <= made.usage.output
    assert made.usage.cached + made.usage.written <= made.usage.input
    for choice in made.choices:
        if limit is not None:
            assert made.usage.reasoning + choice.tokens <= limit
        assert (choice.finish == "tool_calls") == bool(choice.calls)


def test_what_is_cut_off_says_so():
    assert answer(limit=3).choice.finish == "length"
    assert len(answer(limit=3).choice.text) == 3
    assert answer().choice.finish == "stop"


@pytest.mark.parametrize(
    ("ask", "called"),
    [
        ({"tools": [FIND], "tool_choice": "required"}, True),
        ({"tools": [OTHER, FIND], "tool_choice": "find"}, True),
        ({"tools": [FIND], "tool_choice": "none"}, False),
        ({"tools": [FIND], "tool_choice": "auto", "answers_tool": True}, False),
        ({"tools": [FIND], "tool_choice": "required", "answers_tool": True}, True),
        ({"tools": [], "tool_choice": "auto"}, False),
    ],
)
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_tools_are_called_on_demand(ask, called, rate):
    calls = answer(rate=rate, **ask).choice.calls
    assert bool(calls) == called
    if called:
        assert calls[0].name == "find"
        assert "what" in msgspec.json.decode(calls[0].arguments)


def test_tools_on_offer_are_called_at_the_rate():
    called = sum(bool(answer(seed, rate=0.7, tools=[FIND]).choice.calls) for seed in range(300))
    assert 180 < called < 240


def test_two_tools_are_called_at_once_unless_that_is_forbidden():
    def most(**ask):
        return max(len(answer(seed, tools=[FIND, OTHER], **ask).choice.calls) for seed in range(60))

    assert most() == 2
    assert most(parallel=False) == 1


def test_reasoning_comes_in_the_providers_steps():
    assert answer(model="o4-mini", thinks=True).usage.reasoning % 64 == 0
    assert answer(model="o4-mini", thinks=True).thoughts == []
    shown = answer(model="claude-opus-4-6", thinks=True, shows_thoughts=True)
    assert len(shown.thoughts) == shown.usage.reasoning > 0
    assert answer(thinks=False).usage.reasoning == 0


def test_the_same_draw_gives_the_same_answer():
    assert answer(5).choice == answer(5).choice != answer(6).choice
    assert answer(5).new_id("x", 9) == answer(5).new_id("x", 9)


def test_an_alias_is_answered_by_a_release():
    assert release_of("gpt-4o-mini") == "gpt-4o-mini-2024-07-18"
    assert release_of("my-own-model") == "my-own-model"
