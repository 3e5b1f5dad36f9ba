"""Embeddings, as OpenAI, Azure, Mistral, OpenRouter, Perplexity and Voyage speak them.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import msgspec

from ..answer import Answer, Asked, Format
from ..sse import IGNORED, OTHER, SseReader
from .bodies import Body, fail_raw, present, read_whole
from .openai_usage import OpenAIUsage, usage_of

NAME = "openai_embeddings"


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: OpenAIUsage | None = None
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)


def read_request(body: bytes) -> Asked | None:
    """Embeddings have an input; Ollama's own endpoint, whose path ends alike, has a prompt."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model or not present(request.input):
        return None
    return Asked(model=request.model)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader)


def _read(data: bytes) -> Answer:
    answer = Answer()
    body = _bodies.read(data)
    if body is not None:
        _note(answer, body)
    return answer


def _note(answer: Answer, body: _Body) -> None:
    answer.response_model = answer.response_model or body.model or None
    answer.response_id = answer.response_id or body.id or None
    answer.usage = usage_of(body.usage) or answer.usage
    if present(body.error):
        fail_raw(answer, body.error)


class Reader(SseReader):
    """No provider streams embeddings; a stream that comes all the same is read for its usage."""

    __slots__ = ()

    format_name = NAME

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        if body is None:
            return OTHER if whole else IGNORED
        _note(self.answer, body)
        return OTHER


FORMAT = Format(
    name=NAME, operation="embeddings", read_request=read_request, read_answer=read_answer, new_reader=Reader
)
"""Embeddings."""
