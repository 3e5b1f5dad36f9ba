"""Cohere's embeddings, versions 1 and 2.

https://docs.cohere.com/reference/embed
"""

from __future__ import annotations

import msgspec

from ..answer import Answer, Asked, Format
from ..sse import IGNORED, OTHER, SseReader
from .bodies import Body, filled, read_whole
from .cohere_end import CohereUsage, usage_of

NAME = "cohere_embeddings"


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    texts: msgspec.Raw = msgspec.Raw()
    images: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()


class _Body(msgspec.Struct, gc=False):
    id: str | None = None
    meta: CohereUsage | None = None


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)


def read_request(body: bytes) -> Asked | None:
    """Texts, images, or both mixed, and a model."""
    request = _requests.read(body, quiet=True)
    if request is None or not request.model:
        return None
    if not (filled(request.texts) or filled(request.images) or filled(request.inputs)):
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
    if body is not None:
        answer.response_id = body.id or answer.response_id
        answer.usage = usage_of(body.meta) or answer.usage


class Reader(SseReader):
    """Cohere streams no embeddings; a stream that comes all the same is read for its usage."""

    __slots__ = ()

    format_name = NAME

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        _note(self.answer, body)
        return OTHER if whole or body is not None else IGNORED


FORMAT = Format(
    name=NAME, operation="embeddings", read_request=read_request, read_answer=read_answer, new_reader=Reader
)
"""Embeddings."""
