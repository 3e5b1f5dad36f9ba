"""What spans of GenAI instrumentations say of an LLM call: their names, new and old, in one way of counting.

OpenTelemetry's GenAI conventions (v1.41.1, what they deprecate, and what has been merged since), OpenLLMetry's
(https://traceloop.com/docs/openllmetry/contributing/semantic-conventions) and OpenInference's
(https://arize-ai.github.io/openinference/spec/attributes/semantic-conventions.html). Content has no name here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..usage import Usage
from ..wire.message import NO_HEADERS
from ..wire.providers import UNKNOWN, provider_of

# What is asked for under several names is the first of them that is there.
_MODEL = ("gen_ai.request.model", "llm.request.model_name", "llm.request.model")
_MODEL_OF_EITHER = ("llm.model_name", "embedding.model_name", "reranker.model_name")
_RESPONSE_MODEL = ("gen_ai.response.model", "llm.response.model_name", "llm.response.model", "llm.model_name")
_PARAMETERS = ("llm.invocation_parameters", "embedding.invocation_parameters")  # JSON: of it, model and stream
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor")
_HOST = ("server.address", "net.peer.name")
_PORT = ("server.port", "net.peer.port")
_BASE = ("gen_ai.openai.api_base", "llm.openai.api_base")
_RESPONSE_ID = ("gen_ai.response.id", "llm.response.id")
_FINISH = (
    "gen_ai.response.finish_reasons",
    "gen_ai.response.finish_reason",
    "gen_ai.response.stop_reason",
    "anthropic.message.stop_reason",
    "llm.finish_reason",
    "llm.response.finish_reason",
    "llm.response.stop_reason",
    "gen_ai.completion.0.finish_reason",
)
_STREAM = ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming")
_FIRST_CHUNK = ("gen_ai.response.time_to_first_chunk",)  # seconds
_STATUS_CODE = ("http.response.status_code", "http.status_code")
_ERROR = ("error.type",)
_TIER = ("openai.response.service_tier", "gen_ai.openai.response.service_tier", "gen_ai.response.service_tier")
_COST = ("gen_ai.usage.cost", "llm.cost.total", "operation.cost")  # US dollars: OpenLIT's, OpenInference's, Logfire's
_INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
)
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
_TOTAL = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total")
_CACHED = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.input_tokens.cached",
    "llm.token_count.prompt_details.cache_read",
    "llm.usage.cache_read_input_tokens",
)
_WRITTEN = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
    "llm.usage.cache_creation_input_tokens",
)
_REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "llm.token_count.completion_details.reasoning",
    "llm.usage.reasoning_tokens",
)
_AUDIO_IN = ("gen_ai.usage.audio.input_tokens", "llm.token_count.prompt_details.audio")
_AUDIO_OUT = ("gen_ai.usage.audio.output_tokens", "llm.token_count.completion_details.audio")
_OPERATION, _REQUEST_TYPE, _KIND = "gen_ai.operation.name", "llm.request.type", "openinference.span.kind"
_AROUND_IT = "traceloop.span.kind"  # workflow, task, agent, tool

NAMES = frozenset({_OPERATION, _REQUEST_TYPE, _KIND, _AROUND_IT}).union(
    *(_MODEL, _MODEL_OF_EITHER, _RESPONSE_MODEL, _PARAMETERS, _PROVIDER, _HOST, _PORT, _BASE, _RESPONSE_ID, _FINISH),
    *(_STREAM, _FIRST_CHUNK, _STATUS_CODE, _ERROR, _TIER, _COST, _INPUT, _OUTPUT, _TOTAL, _CACHED, _WRITTEN),
    *(_REASONING, _AUDIO_IN, _AUDIO_OUT),
)
"""All that is ever read of a span's attributes."""
_MARKS = frozenset({_OPERATION, _REQUEST_TYPE, _KIND, *_MODEL})  # a span without any of them is no LLM call's

# As the wire names them.
_OPERATIONS = {
    "chat": "chat",
    "generate_content": "chat",
    "text_completion": "text_completion",
    "completion": "text_completion",
    "embeddings": "embeddings",
    "embedding": "embeddings",
    "rerank": "rerank",
    "reranker": "rerank",
    "count_tokens": "count_tokens",
    "llm": "chat",
}
# In custom names of operations: what is around calls, beside them, or about an answer that was given before.
_NO_INFERENCE = re.compile("agent|tool|workflow|task|chain|plan|memory|retriev|search|fetch|session|evaluat|guard")
_COUNTING = re.compile("count_?tokens", re.IGNORECASE)
_WORD = re.compile(r"[\w.:-]{1,64}")

# Names of providers that are no values of the conventions, beside those that routers put before a model's name.
_SYSTEMS = {
    "amazon": "aws.bedrock",
    "aws": "aws.bedrock",
    "az.ai.inference": "azure.ai.inference",
    "az.ai.openai": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "fireworks": "fireworks_ai",
    "gcp.gen_ai": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google_generative_ai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "hugging_face": "hugging_face",
    "mistral_ai": "mistral_ai",
    "together": "together_ai",
    "vertexai": "gcp.vertex_ai",
    "voyageai": "voyage_ai",
    "x_ai": "x_ai",
}
# Frameworks and makers of models, not who is asked.
_NOBODY = frozenset({"", "unknown", "langchain", "llamaindex", "llama_index", "crewai", "litellm", "meta", "_other"})


class Parameters(msgspec.Struct):
    """What is read of OpenInference's parameters of a request."""

    model: Any = None
    stream: Any = None


class Said(msgspec.Struct, kw_only=True):
    """What one span says of its call; "" and None for what it does not say."""

    operation: str
    model: str = ""
    response_model: str | None = None
    provider: str = ""
    host: str = ""
    port: int | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    stream: bool = False
    first_chunk_seconds: float | None = None
    status_code: int | None = None
    error_type: str | None = None
    service_tier: str | None = None

    def provider_name(self, overrides: Mapping[str, str]) -> str:
        """As records name it: who has the host, else who is named, else whose models have such names; or "unknown"."""
        by_host = provider_of(self.host, self.port, NO_HEADERS, "", overrides=overrides)
        stated = self.provider.lower().replace(" ", "_")
        if by_host != UNKNOWN or stated in _NOBODY:
            return by_host if by_host != UNKNOWN else provider_of(None, None, NO_HEADERS, self.model)
        named = _SYSTEMS.get(stated) or provider_of(None, None, NO_HEADERS, f"{stated}/")
        return stated if named == UNKNOWN else named


def picked(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Of a span's attributes those that are read, so that no content is kept with them; {} for what is no LLM call."""
    if _MARKS.isdisjoint(attributes):  # one look through them: to ask the SDK for one that is not there costs 1 us
        return {}
    return {name: attributes[name] for name in attributes if name in NAMES}


def operation_of(attributes: Mapping[str, Any], name: str, *, client: bool) -> str | None:
    """The operation of the LLM call that a span is of; None for none, or more than one.

    `attributes` are what was picked, `client` is whether the span is of that kind: without an operation it has to be.
    """
    if not attributes or _AROUND_IT in attributes:
        return None
    stated = _first_text(attributes, (_OPERATION,)) or _first_text(attributes, (_KIND,))
    if stated is None:
        stated = _first_text(attributes, (_REQUEST_TYPE,))
        if stated in (None, "unknown"):
            stated = "chat" if client and _first_text(attributes, _MODEL) else ""
    stated = (stated or "").lower()
    if not stated or not _WORD.fullmatch(stated) or _NO_INFERENCE.search(stated):
        return None
    if _KIND in attributes and _OPERATION not in attributes and stated not in _OPERATIONS:
        return None  # kinds of spans, not operations: PROMPT, DECISION
    return "count_tokens" if _COUNTING.search(name) else _OPERATIONS.get(stated, stated)


def read(attributes: Mapping[str, Any], name: str, *, client: bool) -> Said | None:
    """What a span of that name says; None where it is no LLM call's."""
    operation = operation_of(attributes, name, client=client)
    if operation is None:
        return None
    parameters = _parameters(_first_text(attributes, _PARAMETERS))
    asked = _first_text(attributes, _MODEL) or _text(parameters.model) or _first_text(attributes, _MODEL_OF_EITHER)
    host, port = _first_text(attributes, _HOST), _first_number(attributes, _PORT)
    if host is None:
        host = _host_of(_first_text(attributes, _BASE))
    tokens = None if operation == "count_tokens" else usage_of(attributes)
    first_chunk = _first_number(attributes, _FIRST_CHUNK)
    code = _first_number(attributes, _STATUS_CODE)
    return Said(
        operation=operation,
        model=asked or "",
        response_model=_first_text(attributes, _RESPONSE_MODEL),
        provider=_first_text(attributes, _PROVIDER) or "",
        host=host or "",
        port=int(port) if port else None,
        response_id=_first_text(attributes, _RESPONSE_ID),
        finish_reason=_word(_first(attributes, _FINISH)),
        usage=tokens,
        stream=any(attributes.get(one) is True for one in _STREAM) or parameters.stream is True or bool(first_chunk),
        first_chunk_seconds=first_chunk,
        status_code=int(code) if code else None,
        error_type=_word(_first(attributes, _ERROR)),
        service_tier=_word(_first(attributes, _TIER)),
    )


def usage_of(attributes: Mapping[str, Any]) -> Usage | None:
    """The tokens, every subset inside its parent; None where none are stated."""
    found = {
        field: _tokens(attributes, names)
        for field, names in (
            ("input_tokens", _INPUT),
            ("output_tokens", _OUTPUT),
            ("cached_tokens", _CACHED),
            ("cache_write_tokens", _WRITTEN),
            ("reasoning_tokens", _REASONING),
            ("input_audio_tokens", _AUDIO_IN),
            ("output_audio_tokens", _AUDIO_OUT),
        )
    }
    total = _tokens(attributes, _TOTAL)
    if not any(found.values()) and not total:
        return None
    usage = Usage(**found)
    if total and not (usage.input_tokens and usage.output_tokens):
        # One of the two, and both together, are all that is known: of embeddings the first.
        usage.input_tokens = usage.input_tokens or max(0, total - usage.output_tokens)
        usage.output_tokens = max(0, total - usage.input_tokens)
    _take_in(usage, total)
    cost = _first_number(attributes, _COST)
    usage.cost_usd = cost or None  # what knows no price states 0
    return usage


def _take_in(usage: Usage, total: int) -> None:
    """Count parts that were stated beside their whole into it.

    That is what providers do (caches: Anthropic, Bedrock; reasoning: Gemini), and instrumentations that pass on what
    they got. It shows where a part is more than its whole, and where only so the total adds up.
    """
    parts = usage.cached_tokens + usage.cache_write_tokens
    both = usage.input_tokens + usage.output_tokens
    if parts > usage.input_tokens or (parts and total in (both + parts, both + parts + usage.reasoning_tokens)):
        usage.input_tokens += parts
        both += parts
    if usage.reasoning_tokens > usage.output_tokens or (
        usage.reasoning_tokens and total == both + usage.reasoning_tokens
    ):
        usage.output_tokens += usage.reasoning_tokens


_decode_parameters = msgspec.json.Decoder(Parameters).decode


def _parameters(text: str | None) -> Parameters:
    try:
        return _decode_parameters(text) if text else Parameters()
    except (ValueError, UnicodeError, RecursionError):
        return Parameters()


def _host_of(url: str | None) -> str | None:
    try:
        return urlsplit(url).hostname if url else None
    except ValueError:
        return None


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((attributes[name] for name in names if name in attributes), None)


def _first_text(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next(filter(None, (_text(attributes.get(name)) for name in names)), None)


def _first_number(attributes: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        found = attributes.get(name)
        if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < 1e18:
            return found
    return None


def _tokens(attributes: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return int(_first_number(attributes, names) or 0)


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _word(value: object) -> str | None:
    """A name, or the first of several; nothing that may be a sentence."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
