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
    "embeddings": {"": ("openai_embeddings", "FORMAT")},
    "messages": {"": ("anthropic_messages", "FORMAT")},
    "count_tokens": {"messages": ("anthropic_messages", "COUNT_TOKENS")},
}


def by_path(path: str) -> Format | None:
    """The format of the requests to a URL's path, under any prefix; None for what is no LLM call.

    Paths of stored objects (`responses/<id>`, `messages/batches`) are none. Every request of the program passes here.
    """
    front, _, last = path.rpartition("/")
    formats = _BY_SEGMENT.get(last)
    if formats is None:
        # A query or a slash at the end are not in what HTTP libraries call the path; look once more without.
        bare = path.partition("?")[0].rstrip("/")
        return by_path(bare) if len(bare) < len(path) else None
    if last == "messages" and "/threads/" in front:  # OpenAI's Assistants: stored, not answered
        return None
    where = formats.get(front.rpartition("/")[2]) or formats.get("")
    return None if where is None else _load(where)


@cache
def _load(where: tuple[str, str]) -> Format:
    found: Format = getattr(import_module(f".{where[0]}", __name__), where[1])
    return found


def model_in_path(path: str) -> str | None:
    """The deployment that an Azure path names (`/openai/deployments/<name>/chat/completions`)."""
    _, found, rest = path.partition("/deployments/")
    return unquote(rest.partition("/")[0]) or None if found else None
