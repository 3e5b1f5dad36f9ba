"""How Cohere says what an answer cost and that it failed: the same in all of its formats."""

from __future__ import annotations

import msgspec

from ...usage import Usage
from ..answer import Answer
from .bodies import fail

# Reasons to end that leave no whole answer: https://docs.cohere.com/reference/chat, and .../v1/reference/chat.
_FAILURES = frozenset({"ERROR", "ERROR_LIMIT", "ERROR_TOXIC", "TIMEOUT"})


class _Units(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    image_tokens: int | None = None
    reasoning_tokens: int | None = None


class CohereUsage(msgspec.Struct, gc=False):
    """`usage` of v2, `meta` of v1 and of embeddings."""

    billed_units: _Units | None = None
    tokens: _Units | None = None
    cached_tokens: int | None = None


def usage_of(stated: CohereUsage | None) -> Usage | None:
    """The tokens that are billed; where none are stated, those that were processed.

    The processed ones hold Cohere's own prompt around the user's, which is not billed, and `cached_tokens` are part of
    them: nothing says how many of the billed ones were cached.
    """
    if stated is None:
        return None
    processed = stated.tokens or _Units()
    billed = stated.billed_units
    if billed is not None and (billed.input_tokens is not None or billed.output_tokens is not None):
        units, cached = billed, 0
    elif processed.input_tokens is not None or processed.output_tokens is not None:
        units, cached = processed, stated.cached_tokens or 0
    else:
        return None
    output = units.output_tokens or 0
    return Usage(
        input_tokens=(units.input_tokens or 0) + (units.image_tokens or 0),
        output_tokens=output,
        cached_tokens=cached,
        reasoning_tokens=min(processed.reasoning_tokens or 0, output),
    )


def note_end(answer: Answer, reason: str | None, stated: CohereUsage | None) -> None:
    """Take over why an answer ended and what it cost; what is not stated stays."""
    answer.usage = usage_of(stated) or answer.usage
    answer.finish_reason = reason or answer.finish_reason
    if reason in _FAILURES:
        fail(answer, {"type": reason.lower()})
