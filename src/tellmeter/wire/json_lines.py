"""JSON lines: streams of one JSON value a line (https://github.com/ndjson/ndjson-spec), read in constant memory."""

from __future__ import annotations

import re
from typing import ClassVar

from ..counts import count
from .answer import Answer
from .sse import CONTENT, IGNORED, MAX_FINAL_EVENT, OTHER

MAX_LINE = MAX_FINAL_EVENT
"""Bytes of one line that are kept. Ollama's last one holds the usage, and the tokens of the whole conversation."""

_BOM = b"\xef\xbb\xbf"
_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?\s*+([^\n]++)\n")


class JsonLinesReader:
    """Reads one stream; a format derives from it and gives `read`. `StreamReader` says what it tells."""

    __slots__ = ("_begun", "_rest", "_skipping", "answer", "content_events", "done", "events", "text_size")

    format_name: ClassVar[str] = ""

    def __init__(self) -> None:
        self.events = 0
        self.content_events = 0
        self.text_size = 0
        self.done = False
        self.answer = Answer()
        self._begun = False
        self._rest = bytearray()  # of a line whose end has not come yet
        self._skipping = False  # inside a line that is too large

    def read(self, data: bytes, whole: bool) -> int:
        """Take what a line's JSON says into `answer`, its content into `text_size`. Gives IGNORED, OTHER or CONTENT.

        `whole` is False for what is left at the end of a stream: JSON that breaks off there is no event (IGNORED).
        """
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        try:
            *lines, last = data.split(b"\n")
            if lines and (self._rest or self._skipping):
                self._keep(lines[0])
                lines[0] = self._taken()
            for line in lines:
                self._line(line)
            if last:
                self._keep(last)
        except Exception:
            count("unreadable_stream", self.format_name)

    def finish(self) -> None:
        """Read what is left: the stream is over, with or without the end of its last line."""
        try:
            self._line(self._taken(), whole=False)
        except Exception:
            count("unreadable_stream", self.format_name)

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of a line; nothing once it is too large."""
        if self._skipping:
            return
        if len(self._rest) + len(data) > MAX_LINE:
            self._oversize()
            self._rest.clear()
            self._skipping = True
        else:
            self._rest += data

    def _taken(self) -> bytes:
        """The line that was kept, as its end has come; empty for one that was too large."""
        line = bytes(self._rest)
        self._rest.clear()
        self._skipping = False
        return line

    def _oversize(self) -> None:
        self._begun = True
        self.events += 1
        count("oversize_event", self.format_name)

    def _line(self, line: bytes, whole: bool = True) -> None:
        if len(line) > MAX_LINE:
            self._oversize()
            return
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        data = line.strip()
        if not data:
            return
        try:
            kind = self.read(data, whole)
        except Exception:
            count("unreadable_event", self.format_name)
            kind = OTHER
        if kind == IGNORED:
            return
        self.events += 1
        if kind >= CONTENT:
            self.content_events += 1


def first_line(body: bytes) -> bytes:
    """The first line of a body; empty where none ends. By its JSON a format knows its streams."""
    found = _FIRST_LINE.match(body)
    return found[1] if found is not None else b""
