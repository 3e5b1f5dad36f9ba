"""Seeded behaviour: what is drawn follows from the seed, waiting is scaled, settings are checked."""

import random
import statistics

import pytest

from tellmeter.errors import ConfigError
from tellmeter.simulator.faults import parse_fault
from tellmeter.simulator.traffic import CHAT_OUTPUT, ERRORS, FAMILIES, Traffic, family_of


def test_the_same_seed_draws_the_same_and_another_draws_otherwise():
    def drawn(seed):
        traffic = Traffic(seed=seed)
        rng = traffic.rng("/v1/messages", "abc", 0)
        pace = traffic.pace("gpt-4o", rng)
        return pace.first, pace.token, pace.gap(3), traffic.output_tokens(rng)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_speed_scales_every_wait_and_zero_is_none():
    def paces(speed):
        traffic = Traffic(speed=speed)
        pace = traffic.pace("claude-haiku-4-5", traffic.rng(1))
        return pace.first, pace.gap(5), pace.whole(100)

    assert paces(0.0) == (0.0, 0.0, 0.0)
    assert paces(0.5) == pytest.approx([value / 2 for value in paces(1.0)])


def test_answers_are_as_long_as_in_the_trace_within_the_limit():
    traffic, rng = Traffic(most_tokens=500), random.Random(7)
    lengths = [traffic.output_tokens(rng) for _ in range(4000)]
    assert 125 < statistics.median(lengths) < 165  # e ** 4.97 is 144
    assert max(lengths) == 500
    assert min(lengths) >= 1
    assert CHAT_OUTPUT.sigma > 0


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("o3-mini", "o3"),
        ("openai/gpt-5.4", "gpt-5"),
        ("claude-haiku-4-5", "claude-haiku"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku"),
        ("arn:aws:bedrock:us-east-1:0:inference-profile/eu.amazon.nova-lite-v1:0", "nova"),
        ("gemini-2.5-pro", "gemini-2.5-pro"),
        ("gemini-3.5-flash", "gemini"),
        ("llama-3", ""),
    ],
)
def test_the_longest_prefix_names_the_family(model, family):
    assert family_of(model) is FAMILIES[family]


def test_the_share_of_failures_is_the_error_rate():
    traffic, rng = Traffic(error_rate=0.25), random.Random(1)
    failed = sum(traffic.error("openai", rng) is not None for _ in range(4000))
    assert 850 < failed < 1150
    assert Traffic().error("anthropic", rng) is None


def test_the_table_of_failures_can_be_given():
    traffic = Traffic(error_rate=1.0, errors={"500": 1.0})
    assert {traffic.error("openai", random.Random(n)) for n in range(9)} == {"500"}


def test_every_failure_of_the_table_is_a_fault():
    for table in ERRORS.values():
        assert [str(parse_fault(text)).partition(";")[0] for text in table] == [t.partition(";")[0] for t in table]


@pytest.mark.parametrize(
    "wrong",
    [
        {"error_rate": 1.5},
        {"tool_call_rate": -0.1},
        {"speed": -1.0},
        {"speed": float("nan")},
        {"cache_minimum": 0},
        {"most_tokens": 0},
        {"errors": {}},
        {"errors": {"500": 0.0}},
    ],
)
def test_a_setting_out_of_range_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Traffic(**wrong)
