"""Server-sent events that may come as JSON lines, one event's data a line: Cohere sends both, as the request asks.

Lines are read as the server-sent events that they are with `data:` before each and an empty line after it. So all of
`sse` serves both, its templates too.
"""

from __future__ import annotations

from .sse import SseReader

_BEFORE = b"\xef\xbb\xbf \t\r\n"  # a byte order mark and white space may come before the first line
_FIELD = b"data: "
_LINE_END = b"\n\n" + _FIELD


class EventsOrLinesReader(SseReader):
    """Reads one stream of either kind: JSON lines begin with an object. A format gives what `SseReader` asks for."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        super().__init__()
        self._lines: bool | None = None  # None before the first byte that tells

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        if self._lines is None:
            data = data.lstrip(_BEFORE)
            if not data:
                return
            self._lines = data.startswith(b"{")
            if self._lines:
                super().feed(_FIELD)
        if self._lines:
            # A carriage return is white space to JSON, and a line's end to server-sent events.
            data = data.replace(b"\r", b" ").replace(b"\n", _LINE_END)
        super().feed(data)
