"""The recorded answers of every provider cost what genai-prices itself makes of their usage."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from tellmeter.prices import PriceBook
from tests.support.exchanges import EXCHANGES, load, need_exchanges
from tests.support.priced import PROVIDERS, asked_model, by_genai_prices, usage_of

MOMENTS = (datetime(2025, 6, 1, 3, tzinfo=UTC), datetime(2026, 11, 20, 12, tzinfo=UTC))
FILES = sorted({file.name.removesuffix(".jsonl").removesuffix(".stream") for file in EXCHANGES.glob("*.jsonl")})


def test_the_recordings_are_there():
    need_exchanges()
    assert {name.partition(".")[0] for name in FILES} == set(PROVIDERS)


@pytest.mark.parametrize("file", FILES)
def test_every_exchange_with_usage_costs_what_genai_prices_says(file, record_property):
    book, seen = PriceBook(), Counter()
    for exchange in load(*file.split(".", 1)):
        if exchange.expected["input_tokens"] is None and exchange.expected["output_tokens"] is None:
            continue
        usage = usage_of(exchange)
        provider = PROVIDERS[exchange.provider][0]
        for moment in MOMENTS:
            cost, version = book.cost(
                provider, asked_model(exchange), exchange.expected["model"], usage, at=moment.timestamp()
            )
            assert cost == by_genai_prices(exchange, usage, moment), (exchange.id, asked_model(exchange), usage)
            assert (version is None) == (cost is None)
        seen["priced" if cost is not None else "unknown"] += 1
    for kind, number in seen.items():
        record_property(kind, number)


def test_nearly_all_that_the_big_providers_answered_has_a_price():
    need_exchanges()
    book, known, all_of = PriceBook(), Counter(), Counter()
    for file in FILES:
        for exchange in load(*file.split(".", 1)):
            if not exchange.expected["input_tokens"]:
                continue
            provider = PROVIDERS[exchange.provider][0]
            found = book.cost(
                provider, asked_model(exchange), exchange.expected["model"], usage_of(exchange), at=1.79e9
            )
            all_of[provider] += 1
            known[provider] += found[0] is not None
    for provider in ("openai", "anthropic", "gcp.gemini", "gcp.vertex_ai", "azure.ai.openai", "x_ai", "deepseek"):
        assert known[provider] >= 0.95 * all_of[provider], (provider, known[provider], all_of[provider])
