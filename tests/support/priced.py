"""What recorded answers cost by genai-prices itself, asked as it wants to be asked."""

from __future__ import annotations

import re
from urllib.parse import unquote

import genai_prices

from tellmeter.usage import Usage

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
COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


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
