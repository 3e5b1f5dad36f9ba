"""The estimate of output tokens, over recorded streams that state them."""

import itertools
import re
import statistics

import pytest

from tellmeter.streams.tokens import estimated_tokens
from tellmeter.wire.formats import by_path
from tests.support.exchanges import load, need_exchanges, pairs

# What shows reasoning as it is; a stream with reasoning tokens and none of these hides or sums it up.
SHOWN = re.compile(
    rb'"reasoning(_content)?": ?"[^"]|"response.reasoning_text.delta"|"thinking_delta"|"type": ?"thinking"'
)


def streams():
    for provider, api in pairs():
        for exchange in load(provider, api):
            found = by_path(exchange.path)
            if exchange.is_stream and found is not None:
                yield exchange, found.new_reader()


def estimate_of(reader):
    return estimated_tokens(reader.content_events, reader.text_size, len(reader.answer.tools))


@pytest.fixture(scope="module")
def measured():
    """Of each stream: estimate / stated tokens, and the same by content events alone."""
    need_exchanges()
    found = []
    for exchange, reader in streams():
        reader.feed(exchange.body)
        reader.finish()
        usage = reader.answer.usage
        if usage is None or not usage.output_tokens or not reader.content_events:
            continue
        if usage.reasoning_tokens and not SHOWN.search(exchange.body):
            continue
        stated = usage.output_tokens
        found.append((exchange.id, exchange.provider, estimate_of(reader) / stated, reader.content_events / stated))
    assert len(found) > 200
    return sorted(found)


def middle(ratios):
    return statistics.median(ratios)


def factor(ratios):
    """The factor that 9 of 10 are within."""
    return statistics.quantiles([max(ratio, 1 / ratio) for ratio in ratios], n=10)[-1]


def test_the_estimate_is_near_the_truth(measured):
    for half in (measured[::2], measured[1::2]):
        estimates, events = [row[2] for row in half], [row[3] for row in half]
        assert 0.7 < middle(estimates) < 1.4
        assert factor(estimates) < 3 < factor(events)


@pytest.mark.parametrize(("provider", "low", "high"), [("openai", 0.8, 1.2), ("anthropic", 0.5, 1.4)])
def test_it_is_for_providers_of_one_token_an_event_and_of_many(measured, provider, low, high):
    ratios = [row[2] for row in measured if row[1] == provider]
    assert low < middle(ratios) < high
    assert factor(ratios) < 3.5


def test_it_hardly_falls_while_a_stream_runs():
    need_exchanges()
    for exchange, reader in streams():
        estimates = []
        for at in range(0, len(exchange.body), 300):
            reader.feed(exchange.body[at : at + 300])
            estimates.append(estimate_of(reader))
        highest = list(itertools.accumulate(estimates, max))
        assert all(now >= 0.95 * most - 4 for now, most in zip(estimates, highest, strict=True)), exchange.id
