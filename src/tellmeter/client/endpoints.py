"""Where the providers are, and how they want to be shown a key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigError
from ..secret import Secret
from ..sinks.sending.url import http_url, without_user


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A provider's API. `keys` and `url` are environment variables that its own SDK reads; "" is a URL that differs."""

    base_url: str = ""
    url: str = ""
    keys: tuple[str, ...] = ()
    header: str = "authorization"
    scheme: str = "Bearer "
    headers: Mapping[str, str] = field(default_factory=dict)


_NOWHERE = Endpoint()
# By the values of OpenTelemetry's `gen_ai.provider.name`, and ours for who is not in it.
_ENDPOINTS = {
    "anthropic": Endpoint(
        base_url="https://api.anthropic.com",
        url="ANTHROPIC_BASE_URL",
        keys=("ANTHROPIC_API_KEY",),
        header="x-api-key",
        scheme="",
        headers={"anthropic-version": "2023-06-01"},
    ),
    "aws.bedrock": Endpoint(keys=("AWS_BEARER_TOKEN_BEDROCK",)),
    "azure.ai.inference": Endpoint(header="api-key", scheme=""),
    "azure.ai.openai": Endpoint(keys=("AZURE_OPENAI_API_KEY",), header="api-key", scheme=""),
    "cerebras": Endpoint(base_url="https://api.cerebras.ai/v1", keys=("CEREBRAS_API_KEY",)),
    "cohere": Endpoint(base_url="https://api.cohere.com", keys=("CO_API_KEY",)),
    "deepseek": Endpoint(base_url="https://api.deepseek.com", keys=("DEEPSEEK_API_KEY",)),
    "fireworks_ai": Endpoint(base_url="https://api.fireworks.ai/inference/v1", keys=("FIREWORKS_API_KEY",)),
    "gcp.gemini": Endpoint(
        base_url="https://generativelanguage.googleapis.com/v1beta",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        header="x-goog-api-key",
        scheme="",
    ),
    "gcp.vertex_ai": _NOWHERE,
    "groq": Endpoint(base_url="https://api.groq.com/openai/v1", keys=("GROQ_API_KEY",)),
    "hugging_face": Endpoint(base_url="https://router.huggingface.co/v1", keys=("HF_TOKEN",)),
    "ibm.watsonx.ai": _NOWHERE,
    "mistral_ai": Endpoint(base_url="https://api.mistral.ai/v1", keys=("MISTRAL_API_KEY",)),
    "moonshot_ai": Endpoint(base_url="https://api.moonshot.ai/v1", keys=("MOONSHOT_API_KEY",)),
    "nvidia": Endpoint(base_url="https://integrate.api.nvidia.com/v1", keys=("NVIDIA_API_KEY",)),
    "ollama": Endpoint(base_url="http://localhost:11434", keys=("OLLAMA_API_KEY",)),
    "openai": Endpoint(base_url="https://api.openai.com/v1", url="OPENAI_BASE_URL", keys=("OPENAI_API_KEY",)),
    "openrouter": Endpoint(base_url="https://openrouter.ai/api/v1", keys=("OPENROUTER_API_KEY",)),
    "perplexity": Endpoint(base_url="https://api.perplexity.ai", keys=("PERPLEXITY_API_KEY",)),
    "together_ai": Endpoint(base_url="https://api.together.xyz/v1", keys=("TOGETHER_API_KEY",)),
    "vllm": Endpoint(base_url="http://localhost:8000/v1"),
    "writer": Endpoint(base_url="https://api.writer.com/v1", keys=("WRITER_API_KEY",)),
    "x_ai": Endpoint(base_url="https://api.x.ai/v1", keys=("XAI_API_KEY",)),
    "z_ai": Endpoint(base_url="https://api.z.ai/api/paas/v4", keys=("ZAI_API_KEY",)),
}
_ALIASES = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "fireworks": "fireworks_ai",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "huggingface": "hugging_face",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "together": "together_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "xai": "x_ai",
    "zai": "z_ai",
}


def provider_named(word: str) -> str | None:
    """The provider that a word means, as `gemini` or `gcp.gemini`; None where there is none of that name."""
    name = _ALIASES.get(word.strip().lower(), word.strip().lower())
    return name if name in _ENDPOINTS else None


def callable_by_key() -> list[str]:
    """The providers whose URL is known, so that a key is all that is needed; Amazon's is in its SDK."""
    return [name for name, known in _ENDPOINTS.items() if known.keys and (known.base_url or name == "aws.bedrock")]


def endpoint_of(provider: str) -> Endpoint:
    """What is known of a provider's API; nothing for one that has no entry."""
    return _ENDPOINTS.get(provider, _NOWHERE)


def key_in_environment(endpoint: Endpoint) -> Secret | None:
    """The key that the provider's own environment variable has."""
    found = next(filter(None, (os.environ.get(name, "").strip() for name in endpoint.keys)), "")
    return Secret(found) if found else None


class Place:
    """Where an engine sends, and with what key.

    Raises:
        ConfigError: neither a provider whose base URL is known nor a base URL, or one that cannot be.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self, provider: str, api_key: str | Secret | None, base_url: str | None, headers: Mapping[str, str] | None
    ) -> None:
        if not isinstance(provider, str):
            raise ConfigError(f"provider: it must be a name, not a {type(provider).__name__}")
        self.provider = _ALIASES.get(provider.strip().lower(), provider.strip())
        endpoint = endpoint_of(self.provider)
        base_url = base_url or os.environ.get(endpoint.url, "").strip() or endpoint.base_url
        if not base_url:
            names = ", ".join(name for name, known in _ENDPOINTS.items() if known.base_url)
            raise ConfigError(f"provider {provider!r}: its base_url is needed; known without one are {names}")
        found = http_url(base_url, allow_link_local=True)
        if "?" in base_url or "#" in base_url:
            raise ConfigError(f"{found.shown}: a base_url has no query; that goes into the path of each stream")
        self.base_url = base_url.strip().rstrip("/")
        self.host, self.port = found.host, found.port
        self._endpoint = endpoint
        self._key = Secret.of("api_key", api_key) or key_in_environment(endpoint)
        self._headers = _checked(headers)

    def headers(self) -> dict[str, str]:
        """The headers of a request, the key among them; whoever made the engine has the last word."""
        made = {"accept": "*/*", "content-type": "application/json", **self._endpoint.headers}
        if self._key is not None:
            made[self._endpoint.header] = self._endpoint.scheme + self._key.reveal()
        return made | self._headers

    def url(self, path: str) -> str:
        """The URL of a path; a version that both say (`/v1`) stands there once.

        Raises:
            ConfigError: a URL, or nothing, in the place of the path.
        """
        if not isinstance(path, str) or not path.strip("/") or "://" in path.partition("?")[0]:
            shown = without_user(path) if isinstance(path, str) else type(path).__name__
            raise ConfigError(f"path: it must be a path below base_url, as /chat/completions, not {shown!r}")
        path = "/" + path.strip().lstrip("/")
        last = "/" + self.base_url.rpartition("/")[2] + "/"
        return self.base_url + (path[len(last) - 1 :] if path.startswith(last) else path)


def _checked(headers: Mapping[str, str] | None) -> dict[str, str]:
    try:
        made = {name.lower(): value for name, value in (headers or {}).items()}
        for name, value in made.items():
            name.encode("ascii")
            value.encode("latin-1")
    except (AttributeError, UnicodeEncodeError):
        raise ConfigError("headers: they must be a mapping of names to texts") from None
    return made
