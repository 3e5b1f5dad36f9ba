"""Who answers a request: the host says it, else the SDK's own headers, else the model's name.

The names are the values of OpenTelemetry's `gen_ai.provider.name`, and ours for providers that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

UNKNOWN = "unknown"

_OLLAMA_PORT = 11434

# Domains, each with all hosts below it; the longest that fits decides.
_DOMAINS = {
    "ai.azure.com": "azure.ai.inference",  # services.ai.azure.com, models.ai.azure.com
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "anthropic.com": "anthropic",
    "bigmodel.cn": "z_ai",
    "cerebras.ai": "cerebras",
    "claude.googleapis.com": "gcp.vertex_ai",
    "cohere.ai": "cohere",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "fireworks.ai": "fireworks_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "groq.com": "groq",
    "huggingface.cloud": "hugging_face",
    "huggingface.co": "hugging_face",
    "inference.ai.azure.com": "azure.ai.inference",
    "mistral.ai": "mistral_ai",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "moonshot.ai": "moonshot_ai",
    "moonshot.cn": "moonshot_ai",
    "nvidia.com": "nvidia",
    "ollama.com": "ollama",
    "openai.azure.com": "azure.ai.openai",
    "openai.azure.us": "azure.ai.openai",
    "openai.com": "openai",
    "openrouter.ai": "openrouter",
    "perplexity.ai": "perplexity",
    "together.ai": "together_ai",
    "together.xyz": "together_ai",
    "voyageai.com": "voyage_ai",
    "writer.com": "writer",
    "x.ai": "x_ai",
    "z.ai": "z_ai",
}
# Hosts that carry a region or a resource inside their names.
_HOSTS = (
    (re.compile(r"(^|\.)bedrock[\w-]*\..*(amazonaws\.com(\.cn)?|api\.aws)$"), "aws.bedrock"),
    (re.compile(r"(^|\.)aws-external-anthropic\..*api\.aws$"), "anthropic"),
    (re.compile(r"(^|[.-])aiplatform\.([\w-]+\.rep\.)?googleapis\.com$"), "gcp.vertex_ai"),
)
# One resource of Azure's serves OpenAI's models under this path, and everybody's models under others.
_AZURE_OPENAI_HOSTS = ("services.ai.azure.com", "cognitiveservices.azure.com")
_AZURE_OPENAI_PATH = "/openai/"

# The name at the beginning of an SDK's user agent ("AsyncOpenAI/Python 3.0.0"), without "Async", in lower case.
_AGENTS = {
    "anthropic": "anthropic",
    "anthropicaws": "anthropic",  # its own platform, sold by AWS
    "anthropicbedrock": "aws.bedrock",
    "anthropicbedrockmantle": "aws.bedrock",
    "anthropicfoundry": "azure.ai.inference",
    "anthropicgooglecloud": "gcp.vertex_ai",
    "anthropicvertex": "gcp.vertex_ai",
    "azureopenai": "azure.ai.openai",
    "bedrockopenai": "aws.bedrock",
    "cerebras": "cerebras",
    "fireworks": "fireworks_ai",
    "google-genai-sdk": "gcp.gemini",
    "groq": "groq",
    "mistral-client-python": "mistral_ai",
    "ollama-python": "ollama",
    "openai": "openai",
    "perplexity": "perplexity",
    "together": "together_ai",
    "writer": "writer",
}
_HEADERS = {
    "anthropic-version": "anthropic",
    "x-goog-api-key": "gcp.gemini",
}

# What stands before the slash of `provider/model`, as routers (OpenRouter, LiteLLM) and Hugging Face name vendors.
_PREFIXES = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "deepseek-ai": "deepseek",
    "fireworks_ai": "fireworks_ai",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "groq": "groq",
    "hosted_vllm": "vllm",
    "huggingface": "hugging_face",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "nvidia": "nvidia",
    "nvidia_nim": "nvidia",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together_ai": "together_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vllm": "vllm",
    "voyage": "voyage_ai",
    "watsonx": "ibm.watsonx.ai",
    "x-ai": "x_ai",
    "xai": "x_ai",
    "z-ai": "z_ai",
    "zai": "z_ai",
    "zai-org": "z_ai",
}
# Beginnings of the vendors' own names for models. Open models that anybody serves (llama, qwen, gpt-oss) tell nothing.
_MODELS = (
    (
        re.compile(r"(arn:aws|(us|eu|apac|jp|au|ca|global)\.)|(amazon|anthropic|meta|cohere|ai21|mistral)\."),
        "aws.bedrock",
    ),
    (re.compile(r"gpt-oss"), UNKNOWN),
    (
        re.compile(r"(ft:)?(gpt-|chatgpt-|codex-|o\d(-|$)|text-embedding-|davinci|babbage|dall-e|whisper-|tts-|omni-)"),
        "openai",
    ),
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"(models/)?gemini|text-embedding-00\d"), "gcp.gemini"),
    (re.compile(r"grok"), "x_ai"),
    (re.compile(r"(open-)?(mistral|mixtral|codestral|ministral|magistral|devstral|pixtral|voxtral)"), "mistral_ai"),
    (re.compile(r"deepseek"), "deepseek"),
    (re.compile(r"command|embed-|c4ai-|rerank-"), "cohere"),
    (re.compile(r"sonar|pplx-"), "perplexity"),
    (re.compile(r"kimi|moonshot-"), "moonshot_ai"),
    (re.compile(r"glm-"), "z_ai"),
    (re.compile(r"palmyra"), "writer"),
    (re.compile(r"voyage-"), "voyage_ai"),
    (re.compile(r"accounts/fireworks/"), "fireworks_ai"),
)


class Headers(Protocol):
    """Anything that gives a header by its lower-case name: what HTTP libraries have, or a dict."""

    def get(self, key: str, default: str = ..., /) -> str | None:
        """The value of a header."""


def provider_of(
    host: str | None,
    port: int | None,
    headers: Headers,
    model: str | None,
    path: str = "",
    overrides: Mapping[str, str] | None = None,
) -> str:
    """The provider's name, or "unknown". `overrides` maps a host, or `host:port`, to a provider, and comes first."""
    host = (host or "").lower().rstrip(".")
    if overrides:
        chosen = overrides.get(f"{host}:{port}") or overrides.get(host)
        if chosen:
            return chosen
    return _by_host(host, path) or _by_port(port) or _by_headers(headers) or _by_model(model or "") or UNKNOWN


def _by_host(host: str, path: str) -> str | None:
    if host.endswith(_AZURE_OPENAI_HOSTS) and path.startswith(_AZURE_OPENAI_PATH):
        return "azure.ai.openai"
    domain = host
    while domain:
        if domain in _DOMAINS:
            return _DOMAINS[domain]
        domain = domain.partition(".")[2]
    return next((provider for pattern, provider in _HOSTS if pattern.search(host)), None)


def _by_port(port: int | None) -> str | None:
    return "ollama" if port == _OLLAMA_PORT else None


def _by_headers(headers: Headers) -> str | None:
    agent = (headers.get("user-agent", "") or "").partition("/")[0].lower()
    provider = _AGENTS.get(agent.removeprefix("async"))
    return provider or next((name for header, name in _HEADERS.items() if headers.get(header, "")), None)


def _by_model(model: str) -> str | None:
    model = model.lower()
    prefix, slash, _ = model.partition("/")
    if slash and prefix in _PREFIXES:
        return _PREFIXES[prefix]
    return next((provider for pattern, provider in _MODELS if pattern.match(model)), None)
