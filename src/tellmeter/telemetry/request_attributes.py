"""What a request asks of the model beside its prompt, as attributes of a span: `gen_ai.request.*`.

Stop sequences are left out: they are text of the user's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..wire.formats.bodies import Body
from ..wire.message import content_of

# Attribute -> its type, and how the providers call it.
_NAMES: dict[str, tuple[type, tuple[str, ...]]] = {
    "gen_ai.request.temperature": (float, ("temperature",)),
    "gen_ai.request.top_p": (float, ("top_p", "topP", "p")),
    "gen_ai.request.top_k": (float, ("top_k", "topK", "k")),
    "gen_ai.request.frequency_penalty": (float, ("frequency_penalty", "frequencyPenalty")),
    "gen_ai.request.presence_penalty": (float, ("presence_penalty", "presencePenalty")),
    "gen_ai.request.max_tokens": (
        int,
        (
            "max_completion_tokens",  # OpenAI, Groq
            "max_output_tokens",  # OpenAI's responses
            "max_tokens",
            "maxOutputTokens",  # Gemini
            "maxTokens",  # Bedrock
            "maxTokenCount",  # Titan
            "max_gen_len",  # Llama on Bedrock
            "max_new_tokens",  # Hugging Face
            "num_predict",  # Ollama
        ),
    ),
    "gen_ai.request.seed": (int, ("seed", "random_seed")),
    "gen_ai.request.choice.count": (int, ("n", "candidateCount", "num_generations")),
    "gen_ai.embeddings.dimension.count": (
        int,
        ("dimensions", "output_dimension", "outputDimensionality"),
    ),
}
# Where providers keep them, if not beside the model: Gemini, Bedrock, Titan, Ollama, Hugging Face and Vertex.
_INSIDE = ("generationConfig", "inferenceConfig", "textGenerationConfig", "options", "parameters")

_fields: list[tuple[str, Any, Any]] = [
    (name, int | float | None, None) for _, names in _NAMES.values() for name in names
]
_Inner = msgspec.defstruct("_Inner", _fields)
_Outer = msgspec.defstruct("_Outer", [*_fields, *((place, _Inner | None, None) for place in _INSIDE)])
_BODY = Body(_Outer, "request")


def request_attributes(request: Any) -> dict[str, Any]:
    """Attributes of an HTTP request: whom it went to, and what its body says. Whatever that is, nothing is raised."""
    found: dict[str, Any] = {}
    url = request.url
    if url.host:
        found["server.address"] = url.host
        found["server.port"] = url.port or {"http": 80}.get(url.scheme, 443)
    body: Any = _BODY.read(content_of(request), quiet=True)
    if body is None:
        return found
    places = [body, *filter(None, (getattr(body, place) for place in _INSIDE))]
    for attribute, (kind, names) in _NAMES.items():
        stated = (value for place in places for name in names if (value := getattr(place, name)) is not None)
        value = next(stated, None)
        if value is not None and -(2**63) <= value < 2**63:
            found[attribute] = kind(value)
    if found.get("gen_ai.request.choice.count") == 1:  # the conventions want it only where it is another
        del found["gen_ai.request.choice.count"]
    return found
