"""Rerank, as Cohere, Jina and Voyage speak it.

https://docs.cohere.com/reference/rerank, https://docs.voyageai.com/reference/reranker-api. Cohere bills searches and
states no tokens; the others state the tokens of query and documents as a total.
"""

from __future__ import annotations

import msgspec

from ...usage import Usage
from ..answer import Answer, Asked, Format
from ..sse import IGNORED, OTHER, SseReader
from .bodies import Body, filled, read_whole

NAME = "rerank"


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    query: msgspec.Raw = msgspec.Raw()
    documents: msgspec.Raw = msgspec.Raw()


class _Usage(msgspec.Struct, gc=False):
    total_tokens: int | None = None


class _Body(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: _Usage | None = None


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)


def read_request(body: bytes) -> Asked | None:
    """A query, documents, and a model."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model or not filled(request.query) or not filled(request.documents):
        return None
    return Asked(model=request.model)


def read_answer(body: bytes, status_code: int) -> Answer:
    """A whole answer."""
    return read_whole(body, status_code, _read, Reader)


def _read(data: bytes) -> Answer:
    answer = Answer()
    _note(answer, _bodies.read(data))
    return answer


def _note(answer: Answer, body: _Body | None) -> None:
    if body is None:
        return
    answer.response_id = body.id or answer.response_id
    answer.response_model = body.model or answer.response_model
    if body.usage is not None and body.usage.total_tokens is not None:
        answer.usage = Usage(input_tokens=body.usage.total_tokens)


class Reader(SseReader):
    """Nobody streams ranks; a stream that comes all the same is read for its usage."""

    __slots__ = ()

    format_name = NAME

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        _note(self.answer, body)
        return OTHER if whole or body is not None else IGNORED


FORMAT = Format(name=NAME, operation="rerank", read_request=read_request, read_answer=read_answer, new_reader=Reader)
"""Rerank; the OpenTelemetry conventions have no word for it."""
