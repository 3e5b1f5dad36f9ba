"""What a wire format says of a request and of an answer, in plain values; the same for every provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from ..usage import Usage
from .message import EVENT_STREAM, begins_event_stream


class Asked(msgspec.Struct, kw_only=True, gc=False):
    """What the request's body asked for."""

    model: str
    stream: bool = False


class Answer(msgspec.Struct, kw_only=True, gc=False):
    """What the body of an answer states about itself. `usage` is None where the provider sent none.

    `operation` is there where the answer tells it better than the path. `error_type` and `error_code` are short names
    of the provider's own, never its message.
    """

    response_model: str | None = None
    response_id: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    tools: list[str] = []
    service_tier: str | None = None
    failed: bool = False
    operation: str | None = None
    error_type: str | None = None
    error_code: str | None = None


class StreamReader(Protocol):
    """Reads one streamed answer in constant memory.

    `feed` takes decoded body bytes, split anywhere. Neither it nor `finish` ever raises.
    """

    events: int
    """Provider events so far: not comments, pings and the terminator."""
    content_events: int
    """Events so far that carried content, reasoning or a tool-call delta."""
    text_size: int
    """Bytes of that content so far, as it stands in the JSON: escapes count, quotes do not."""
    done: bool
    """Whether the format's terminator was seen."""
    answer: Answer

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body."""

    def finish(self) -> None:
        """Read what is left: no more bytes come. What breaks off in the middle of its JSON is no event."""


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """One wire format: how its requests, answers and streams are read. The functions are pure and never raise.

    `read_request` gives None for a body that is not of this format, or that names no model (Azure: `model_in_path`);
    `read_answer` reads a whole body, of any HTTP status. An answer is a stream where its content type is one of
    `stream_types` (and its status no error's, but for server-sent events), or its first bytes are as `begins_stream`
    says. `read_path` gives the model that a URL's path names. `read_headers(answer, header)` takes what only the
    headers of an answer say, `header` giving one by its name in lower case, "" where there is none.
    """

    name: str
    operation: str
    read_request: Callable[[bytes], Asked | None]
    read_answer: Callable[[bytes, int], Answer]
    new_reader: Callable[[], StreamReader]
    stream_types: tuple[str, ...] = (EVENT_STREAM,)
    begins_stream: Callable[[bytes], bool] = begins_event_stream
    read_path: Callable[[str], str | None] | None = None
    read_headers: Callable[[Answer, Callable[[str], str]], None] | None = None
