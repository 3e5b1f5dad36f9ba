"""Google's embeddings: embedContent and batchEmbedContents, and predict of Vertex AI's embedding models.

https://ai.google.dev/api/embeddings and
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api. Only newer models state their
tokens: older ones of the Gemini API state none, and those behind predict state them text by text. What predict does
depends on the model: it is one of embeddings where the model's name says so.
"""

from __future__ import annotations

import msgspec

from ...usage import Usage
from ..answer import Answer, Asked, Format
from ..google_path import read_path
from ..sse import IGNORED, OTHER, SseReader
from .bodies import Body, fail_raw, present, read_whole

NAME = "gemini_embeddings"


class _Request(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw()
    requests: msgspec.Raw = msgspec.Raw()  # of a batch
    instances: msgspec.Raw = msgspec.Raw()  # of predict


class _Usage(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: int | None = None


class _Statistics(msgspec.Struct, gc=False):
    token_count: int | None = None


class _Vector(msgspec.Struct, gc=False):
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct, gc=False):
    embeddings: _Vector | None = None


class _Body(msgspec.Struct, rename="camel", gc=False):
    usage_metadata: _Usage | None = None
    predictions: list[_Prediction] | None = None
    error: msgspec.Raw = msgspec.Raw()


_requests = Body(_Request, NAME)
_bodies = Body(_Body, NAME)


def read_request(body: bytes) -> Asked | None:
    """What is to be embedded; the model is left to the path, as `""`."""
    request = _requests.read(body, quiet=True)
    if request is None:
        return None
    given = (request.content, request.requests, request.instances)
    return Asked(model="") if any(map(present, given)) else None


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
    tokens = _tokens_of(body)
    if tokens is not None:
        answer.usage = Usage(input_tokens=tokens)
    if present(body.error):
        fail_raw(answer, body.error)


def _tokens_of(body: _Body) -> int | None:
    if body.usage_metadata is not None:
        return body.usage_metadata.prompt_token_count
    vectors = [one.embeddings for one in body.predictions or () if one.embeddings is not None]
    stated = [one.statistics.token_count for one in vectors if one.statistics is not None]
    counts = [one for one in stated if one is not None]
    return sum(counts) if counts else None


class Reader(SseReader):
    """Google streams no embeddings; a stream that comes all the same is read for its usage."""

    __slots__ = ()

    format_name = NAME

    def read(self, name: bytes, data: bytes, whole: bool) -> int:  # noqa: D102
        body = _bodies.read(data, quiet=not whole)
        if body is None:
            return OTHER if whole else IGNORED
        _note(self.answer, body)
        return OTHER


FORMAT = Format(
    name=NAME,
    operation="embeddings",
    read_request=read_request,
    read_answer=read_answer,
    new_reader=Reader,
    read_path=read_path,
)
"""embedContent, batchEmbedContents, predict."""
