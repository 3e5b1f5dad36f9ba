"""What the providers answer when they are asked for their models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .answer import MODELS
from .formats import encode


def _openai(names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "system"} for name in names],
    }


def _anthropic(names: tuple[str, ...]) -> dict[str, Any]:
    made = "2026-01-01T00:00:00Z"
    return {
        "data": [{"type": "model", "id": name, "display_name": name, "created_at": made} for name in names],
        "has_more": False,
        "first_id": names[0],
        "last_id": names[-1],
    }


def _gemini(names: tuple[str, ...]) -> dict[str, Any]:
    generates = ["generateContent", "countTokens"]
    return {
        "models": [
            {
                "name": f"models/{name}",
                "version": "001",
                "displayName": name,
                "inputTokenLimit": 1_048_576,
                "outputTokenLimit": 65_536,
                "supportedGenerationMethods": ["embedContent"] if "embedding" in name else generates,
            }
            for name in names
        ]
    }


def _bedrock(names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "modelSummaries": [
            {
                "modelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{name}",
                "modelId": name,
                "modelName": name.partition(".")[2],
                "providerName": name.partition(".")[0].capitalize(),
                "inputModalities": ["TEXT"],
                "outputModalities": ["TEXT"],
                "responseStreamingSupported": True,
                "inferenceTypesSupported": ["ON_DEMAND"],
                "modelLifecycle": {"status": "ACTIVE"},
            }
            for name in names
        ]
    }


_LISTS: dict[str, Callable[[tuple[str, ...]], dict[str, Any]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "bedrock": _bedrock,
}
PATHS = ("/models", "/foundation-models")
MODEL_LISTS = {provider: encode(made(MODELS[provider])) for provider, made in _LISTS.items()}
"""The body of a provider's list, by the provider's name."""
