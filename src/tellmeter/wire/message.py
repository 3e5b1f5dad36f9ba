"""Requests and responses of an HTTP library, as plain values: its own look-ups cost more than the reading of a body."""

from __future__ import annotations

import re
from typing import Any

# How an event stream begins, and no JSON does (WHATWG HTML, section 9.2.5).
_EVENT_STREAM = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry)?:")


class PlainHeaders:
    """Headers as a plain mapping, made when first asked. Names are in lower case; of a repeated one the last counts."""

    __slots__ = ("_given", "_made")

    def __init__(self, given: Any) -> None:
        self._given = given
        self._made: dict[bytes, bytes] | None = None

    def get(self, name: str, default: str = "") -> str:
        """The value of a header."""
        if self._made is None:
            self._made = {key.lower(): value for key, value in self._given.raw} if self._given is not None else {}
        found = self._made.get(name.encode())
        return default if found is None else found.decode("latin-1")


EVENT_STREAM = "text/event-stream"
NO_HEADERS = PlainHeaders(None)


def content_of(request: Any) -> bytes:
    """A request's body; empty for an upload that is streamed."""
    try:
        content: bytes = request.content
    except Exception:  # RequestNotRead
        return b""
    return content


def begins_event_stream(body: bytes) -> bool:
    """Whether a body is server-sent events, whatever its content type says."""
    return _EVENT_STREAM.match(body) is not None
