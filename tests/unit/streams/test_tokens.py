import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.streams.tokens import BYTES_PER_TOKEN, TOOL_CALL_TOKENS, estimated_tokens

NUMBER = st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("events", "size", "tokens"),
    [
        (0, 0, 0),
        (1, 0, 1),  # an event is a token at least
        (100, 550, 100),  # a token an event, of the usual length
        (100, 700, 150),  # in between
        (100, 1200, 300),
        (100, 100, 100),  # digits
        (5, 400, 100),  # twenty tokens an event
        (1, len("你好世界吗".encode()), 4),
    ],
)
def test_events_count_where_they_are_small_and_bytes_where_they_are_large(events, size, tokens):
    assert estimated_tokens(events, size) == tokens


def test_a_call_of_a_tool_is_more_than_its_arguments():
    assert estimated_tokens(1, 2, 1) == 1 + TOOL_CALL_TOKENS
    assert estimated_tokens(3, 40, 2) == 40 // BYTES_PER_TOKEN + 2 * TOOL_CALL_TOKENS


@given(NUMBER, NUMBER, st.integers(0, 64), st.integers(0, 5000), st.integers(0, 2))
def test_more_text_and_more_calls_are_never_fewer_tokens(events, size, calls, more_size, more_calls):
    before = estimated_tokens(events, size, calls)
    assert events <= before <= estimated_tokens(events, size + more_size, calls + more_calls)


@given(st.integers(0, 10**6), NUMBER, st.integers(0, 8))
def test_nothing_jumps(events, size, more):
    step = estimated_tokens(events + 1, size + more) - estimated_tokens(events, size)
    assert -2 <= step <= 4
