"""The recorded answers of every provider cost what genai-prices itself makes of their usage."""

import re
from collections import Counter
from datetime import UTC, datetime
from urllib.parse import unquote

import genai_prices
import pytest

from tellmeter.prices import PriceBook
from tellmeter.usage import Usage
from tests.support.exchanges import EXCHANGES, load, need_exchanges

MOMENTS = (datetime(2025, 6, 1, 3, tzinfo=UTC), datetime(2026, 11, 20, 12, tzinfo=UTC))
# As the recordings call a provider: our name, genai-prices' id, which of its names is billed first
PROVIDERS = {
    "anthropic": ("anthropic", "anthropic", ("answered", "asked")),
    "azure_openai": ("azure.ai.openai", "azure", ("answered",)),
    "bedrock": ("aws.bedrock", "aws", ("asked", "answered")),
    "bedrock_mantle": ("aws.bedrock", "aws", ("asked", "answered")),
    "cerebras": ("cerebras", "cerebras", ("answered", "asked")),
    "cohere": ("cohere", "cohere", ("answered", "asked")),
    "deepseek": ("deepseek", "deepseek", ("answered", "asked")),
    "gemini": ("gcp.gemini", "google", ("answered", "asked")),
    "groq": ("groq", "groq", ("answered", "asked")),
    "huggingface": ("hugging_face", None, ()),
    "mistral": ("mistral_ai", "mistral", ("answered", "asked")),
    "ollama": ("ollama", None, ()),
    "openai": ("openai", "openai", ("answered", "asked")),
    "openrouter": ("openrouter", "openrouter", ("answered",)),
    "perplexity": ("perplexity", "perplexity", ("answered", "asked")),
    "together": ("together_ai", "together", ("answered", "asked")),
    "vertex": ("gcp.vertex_ai", "google", ("answered", "asked")),
    "voyage": ("voyage_ai", "voyageai", ("answered", "asked")),
    "writer": ("writer", None, ()),
    "xai": ("x_ai", "x-ai", ("answered", "asked")),
    "zai": ("z_ai", "zai", ("answered", "asked")),
}
# Input without what the cache gave and took; output without thinking.
CACHE_APART = ("messages", "converse", "converse_stream", "invoke_model", "invoke_model_stream")
THINKING_APART = ("generate_content", "stream_generate_content")

FILES = sorted({file.name.removesuffix(".jsonl").removesuffix(".stream") for file in EXCHANGES.glob("*.jsonl")})


def test_the_recordings_are_there():
    need_exchanges()
    assert {name.partition(".")[0] for name in FILES} == set(PROVIDERS)


def usage_of(exchange):
    """The stated counts, every subset inside its parent."""
    stated = {name: exchange.expected[name] or 0 for name in COUNTS}
    details = (exchange.expected["usage_raw"] or {}).get("cache_creation") or {}
    usage = Usage(**stated, cache_write_1h_tokens=details.get("ephemeral_1h_input_tokens", 0))
    if exchange.api in CACHE_APART:
        usage.input_tokens += usage.cached_tokens + usage.cache_write_tokens
    if exchange.api in THINKING_APART:
        usage.output_tokens += usage.reasoning_tokens
    usage.cached_tokens = min(usage.cached_tokens, usage.input_tokens - usage.cache_write_tokens)  # Grok on Azure
    return usage


COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def asked_model(exchange):
    in_path = re.search(r"/(?:models?|deployments|engines)/([^/:]+)", exchange.path)
    return exchange.request.get("model") or (unquote(in_path[1]) if in_path else "")


def by_genai_prices(exchange, usage, at):
    """genai-prices' own total in US dollars by the first name that it knows, else None."""
    _, provider, order = PROVIDERS[exchange.provider]
    names = {"asked": asked_model(exchange), "answered": exchange.expected["model"]}
    if order == ("answered",) and not names["answered"]:
        order = ("asked",)
    if provider is None:
        name, _, host = names["asked"].rpartition(":")  # Hugging Face's router: `model:host`
        provider, order, names = f"huggingface_{host}", ("asked",), {"asked": name}
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )
    for kind in order:
        try:
            return float(
                genai_prices.calc_price(
                    tokens, names[kind] or "", provider_id=provider, genai_request_timestamp=at
                ).total_price
            )
        except LookupError:
            continue
    return None


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
