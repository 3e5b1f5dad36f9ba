"""The providers' formats, one a file, found by the path that a request goes to."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from urllib.parse import unquote

from ..answer import Format

# The last segment of a path, and what it means after which segment ("" is any other): a module and a name in it.
# A format is loaded when its first call comes, so that a program pays for those that it speaks.
_BY_SEGMENT: dict[str, dict[str, tuple[str, str]]] = {
    "completions": {"chat": ("openai_chat", "FORMAT"), "": ("openai_completions", "FORMAT")},
    "responses": {"": ("openai_responses", "FORMAT")},
    "embeddings": {"api": ("ollama", "EMBEDDINGS"), "": ("openai_embeddings", "FORMAT")},
    "chat": {"api": ("ollama", "CHAT"), "v1": ("cohere_v1", "FORMAT"), "v2": ("cohere", "FORMAT")},
    "generate": {"api": ("ollama", "GENERATE")},
    "embed": {
        "api": ("ollama", "EMBED"),
        "v1": ("cohere_embeddings", "FORMAT"),
        "v2": ("cohere_embeddings", "FORMAT"),
    },
    "rerank": {"": ("rerank", "FORMAT")},
    "messages": {"": ("anthropic_messages", "FORMAT")},
    "count_tokens": {"messages": ("anthropic_messages", "COUNT_TOKENS")},
    "converse": {"": ("bedrock_converse", "FORMAT")},
    "converse-stream": {"": ("bedrock_converse", "STREAM")},
    "invoke": {"": ("bedrock_invoke", "FORMAT")},
    "invoke-with-response-stream": {"": ("bedrock_invoke", "STREAM")},
}
_AT_BEDROCK = ("converse", "converse-stream", "invoke", "invoke-with-response-stream")
# Who else has the path of a format: Writer has Cohere's, and servers that speak OpenAI's formats may have Ollama's.
SHARED = {"cohere_v1_chat": ("openai_chat", "FORMAT"), "ollama_embeddings": ("openai_embeddings", "FORMAT")}
# The same of Google's paths, which end in `model:verb`.
_BY_VERB: dict[str, tuple[str, str]] = {
    "generateContent": ("gemini", "FORMAT"),
    "streamGenerateContent": ("gemini", "STREAM"),
    "countTokens": ("gemini", "COUNT_TOKENS"),
    "embedContent": ("gemini_embeddings", "FORMAT"),
    "batchEmbedContents": ("gemini_embeddings", "FORMAT"),
    "predict": ("gemini_embeddings", "FORMAT"),
}


def by_path(path: str) -> Format | None:
    """The format of the requests to a URL's path, under any prefix; None for what is no LLM call.

    Paths of stored objects (`responses/<id>`, `messages/batches`) are none. Every request of the program passes here.
    """
    front, _, last = path.rpartition("/")
    formats = _BY_SEGMENT.get(last)
    if formats is None:
        model, _, verb = last.rpartition(":")
        if verb in _BY_VERB and (verb != "predict" or "embedding" in model):  # others predict pictures, or anything
            return _load(_BY_VERB[verb])
        # A query or a slash at the end are not in what HTTP libraries call the path; look once more without.
        bare = path.partition("?")[0].rstrip("/")
        return by_path(bare) if len(bare) < len(path) else None
    if last == "messages" and "/threads/" in front:  # OpenAI's Assistants: stored, not answered
        return None
    if last in _AT_BEDROCK and "/model/" not in front:  # others invoke their chains so
        return None
    where = formats.get(front.rpartition("/")[2]) or formats.get("")
    return None if where is None else _load(where)


def by_body(found: Format, body: bytes) -> Format:
    """Which of two formats that share a path a request's body is of; `found`, one of SHARED, is what its path said."""
    return found if found.read_request(body) is not None else _load(SHARED[found.name])


@cache
def _load(where: tuple[str, str]) -> Format:
    found: Format = getattr(import_module(f".{where[0]}", __name__), where[1])
    return found


def model_in_path(path: str) -> str | None:
    """The deployment that an Azure path names (`/openai/deployments/<name>/chat/completions`)."""
    _, found, rest = path.partition("/deployments/")
    return unquote(rest.partition("/")[0]) or None if found else None
