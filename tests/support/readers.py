"""Streams fed to readers, cut as told."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any


def read_cut(form: Any, body: bytes, sizes: Iterable[int]) -> Any:
    """A format's reader that was fed `body` in pieces of `sizes`, again and again."""
    reader = form.new_reader()
    at = 0
    for size in cycle(sizes):
        if at >= len(body):
            break
        reader.feed(body[at : at + size])
        at += size
    reader.finish()
    return reader


def said(reader: Any) -> tuple[Any, ...]:
    """All that a reader tells."""
    return reader.events, reader.content_events, reader.text_size, reader.done, reader.answer
