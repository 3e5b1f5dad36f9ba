"""parse_chunk: the data of one event, of any provider's stream, as a StreamChunk."""

from __future__ import annotations

import msgspec

from ..errors import StreamEngineError
from ..wire.pieces import StreamChunk, chunk_of, error_of

REPORTED = "the provider reported an error inside the stream"
ERROR_BYTES = 64 * 1024
"""Of what the provider says of an error that is kept."""

__all__ = ["ERROR_BYTES", "REPORTED", "StreamChunk", "parse_chunk", "said"]


def said(data: str) -> bytes:
    """The beginning of what the provider says of an error."""
    return data.encode("utf-8", "replace")[:ERROR_BYTES]


def parse_chunk(data: str) -> StreamChunk | None:
    """What one event carries: `data` is its data without framing, JSON or plain text.

    None for pings, openings that only name a role, and the like. Joined, the `content` of a stream's chunks is the text
    of its answer.

    Raises:
        StreamEngineError: the event reports an error, or is broken JSON.
    """
    if data.startswith("[DONE]"):
        return None
    try:
        event = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        if data.lstrip().startswith(("{", "[")):
            raise StreamEngineError("an event of the stream is broken JSON") from None
        event = data
    if isinstance(event, (bool, int, float)):
        event = data  # a word of a text that only looks like JSON
    if error_of(event) is not None:
        raise StreamEngineError(REPORTED, body=said(data))
    return chunk_of(event)
