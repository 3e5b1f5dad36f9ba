"""The simulated prompt cache."""

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.simulator.cache import PromptCache


def test_the_second_prompt_with_the_same_beginning_reads_it_in_blocks():
    cache = PromptCache(minimum=1024)
    rules = "r" * 4 * 1500
    assert cache.read("m", rules + "first question") == 0
    assert cache.read("m", rules + "another question") == 1408  # 11 blocks of 128
    assert cache.read("m", rules[:100]) == 0  # too short
    assert cache.read("other", rules) == 0  # another model's


def test_a_prompt_that_differs_early_reads_nothing():
    cache = PromptCache(minimum=1)
    cache.read("m", "a" * 400)
    assert cache.read("m", "b" + "a" * 399) == 0


def test_short_prompts_are_cached_when_the_minimum_says_so():
    cache = PromptCache(minimum=1)
    assert cache.read("m", "hello world!") == 0
    assert cache.read("m", "hello world!") == 3


def test_marks_are_written_first_and_read_later():
    cache = PromptCache(minimum=1)
    prompt = "tools--" * 10 + "rules--" * 10
    assert cache.read_marked("m", prompt + "one", [70, 140]) == (0, 35)
    assert cache.read_marked("m", prompt + "two", [70, 140]) == (35, 0)
    assert cache.read_marked("m", prompt[:70] + "x" * 30, [70, 100]) == (18, 7)
    assert cache.read_marked("m", prompt, []) == (0, 0)


def test_marks_below_the_minimum_are_ignored():
    assert PromptCache(minimum=1024).read_marked("m", "short", [5]) == (0, 0)


@given(st.text(max_size=300), st.lists(st.integers(0, 300), max_size=4), st.integers(1, 20))
def test_no_more_is_cached_than_there_is(prompt, marks, minimum):
    cache = PromptCache(minimum)
    for _ in range(2):
        read, written = cache.read_marked("m", prompt, [min(mark, len(prompt)) for mark in marks])
        assert 0 <= read <= read + written <= -(-len(prompt) // 4)
        assert cache.read("m", prompt) <= -(-len(prompt) // 4)


def test_it_stays_bounded():
    cache = PromptCache(1, most=10)
    for number in range(100):
        cache.read("m", f"{number:0400}")
    assert len(cache._known) == 10
