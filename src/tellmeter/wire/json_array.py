"""A JSON array of objects that arrives piece by piece, cut into its objects without being parsed.

Google's streams come so where server-sent events are not asked for. Only the object in hand is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .sse import MAX_FINAL_EVENT

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
# Up to and with the next bracket that stands in no string; escapes are gone by then.
_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:"[^"]*+"[^"{}\[\]]*+)*+([{}\[\]])')


class JsonObjects:
    """Finds the outermost objects of what it is fed, however it is cut: those of an array, or a single one.

    What stands between them is skipped. Nesting is only counted: an object whose brackets do not match ends somewhere,
    and is for the JSON decoder to refuse.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "_kept", "_limit", "_skipping")

    def __init__(self, limit: int = MAX_FINAL_EVENT) -> None:
        self._limit = limit
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last byte was a backslash that escapes the next one
        self._kept = bytearray()  # of the object in hand
        self._skipping = False  # inside an object of more than `limit` bytes

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The objects that end in `data`; None for one of more than `limit` bytes, as soon as it is that large.

        The iterator is to be read to its end before the next bytes are fed.
        """
        plain = self._without_escapes(data)
        at = start = 0
        if self._in_string:
            at = plain.find(b'"') + 1
            self._in_string = not at
        while not self._in_string and (found := _BRACKET.match(plain, at)) is not None:
            at = found.end()
            bracket = found[1]
            if bracket in b"}]":
                if not self._depth:  # of the array
                    continue
                self._depth -= 1
                if not self._depth:
                    yield from self._keep(data[start:at])
                    if not self._skipping:
                        yield bytes(self._kept)
                    self._kept.clear()
                    self._skipping = False
            elif self._depth:
                self._depth += 1
            elif bracket == b"{":
                self._depth = 1
                start = at - 1
        if not self._in_string and plain.count(b'"', at) % 2:
            self._in_string = True
        if self._depth:
            yield from self._keep(data[start:])

    def _without_escapes(self, data: bytes) -> bytes:
        """As many bytes, in which every quote begins or ends a string."""
        plain = b"_" + data[1:] if self._escaped and data else data
        if b"\\" in plain:
            plain = _ESCAPE.sub(b"__", plain)
        if data:
            self._escaped = plain.endswith(b"\\")
        return plain

    def _keep(self, data: bytes) -> Iterator[None]:
        if self._skipping:
            return
        if len(self._kept) + len(data) > self._limit:
            self._kept.clear()
            self._skipping = True
            yield None
        else:
            self._kept += data
