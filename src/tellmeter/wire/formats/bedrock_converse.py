"""Converse and ConverseStream of Amazon Bedrock: one format for all its models.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and ..._ConverseStream.html
"""

from __future__ import annotations

from ..answer import Answer
from ..sse import CONTENT, OTHER
from . import bedrock
from .bodies import Body

NAME = "bedrock_converse"

_bodies = Body(bedrock.Converse, NAME)


def _read(data: bytes) -> Answer:
    answer = Answer()
    body = _bodies.read(data)
    if body is not None:
        bedrock.note(answer, body)
    return answer


class Reader(bedrock.Reader):
    """Events are the stream's messages; the last is the metadata, which has the usage."""

    __slots__ = ()

    format_name = NAME

    def read(self, name: bytes, data: bytes) -> int:  # noqa: D102
        event = _bodies.read(data)
        if event is None:
            return OTHER
        if name == b"contentBlockDelta":
            size = bedrock.size_of_content(event)
            self.text_size += size or 0
            return OTHER if size is None else CONTENT
        bedrock.note(self.answer, event)
        self.done = self.done or name == b"metadata"
        return OTHER


FORMAT, STREAM = bedrock.formats(NAME, _read, Reader)
"""`/model/<id>/converse` and `/model/<id>/converse-stream`."""
