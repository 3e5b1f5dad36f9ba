import msgspec
import pytest

from tellmeter.usage import Usage
from tellmeter.wire.formats.anthropic_usage import AnthropicUsage, usage_of


def stated(**fields):
    return msgspec.convert(fields, AnthropicUsage)


@pytest.mark.parametrize("given", [None, AnthropicUsage(), stated(cache_read_input_tokens=5)])
def test_nothing_is_no_usage(given):
    assert usage_of(given) is None


def test_the_input_holds_what_the_cache_gave_and_took():
    found = usage_of(
        stated(
            input_tokens=10,
            output_tokens=7,
            cache_read_input_tokens=100,
            cache_creation_input_tokens=30,
            cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            output_tokens_details={"thinking_tokens": 4},
        )
    )
    assert found == Usage(
        input_tokens=140,
        output_tokens=7,
        cached_tokens=100,
        cache_write_tokens=30,
        cache_write_1h_tokens=20,
        reasoning_tokens=4,
    )


def test_writes_are_added_up_where_their_sum_is_not_stated():
    found = usage_of(stated(output_tokens=1, cache_creation={"ephemeral_5m_input_tokens": 3}))
    assert (found.input_tokens, found.cache_write_tokens, found.cache_write_1h_tokens) == (3, 3, 0)


def test_counts_replace_each_other_one_by_one():
    kept = stated(input_tokens=10, output_tokens=1)
    assert kept.merge(stated(output_tokens=9, service_tier="priority"))
    assert kept == stated(input_tokens=10, output_tokens=9, service_tier="priority")
    assert not kept.merge(AnthropicUsage())
