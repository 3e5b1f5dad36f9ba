"""StreamReport: what is told of a stream while it runs and when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..records import StreamMetrics

Event = Literal[
    "stream.start", "stream.progress", "stream.first_token", "stream.stall", "stream.complete", "stream.error"
]
EVENTS: tuple[Event, ...] = Event.__args__  # type: ignore[attr-defined]
FINAL_EVENTS = frozenset({"stream.complete", "stream.error"})


class StreamReport(StreamMetrics, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A `StreamMetrics` of this moment, and why it is told.

    event: stream.start, stream.first_token, stream.progress, stream.stall; at last stream.error for the status error,
        else stream.complete, whose status tells whether it was completed, cancelled, closed early or abandoned.
    waiting_for: "provider" or "consumer", whoever keeps the stream waiting; "" once it has ended.
    waiting_ms: for how long, in milliseconds.
    stalled: whether the provider is silent for longer than `stall_after_ms`; at the end, whether it ended so.
    tags: those of the call.
    """

    event: str = "stream.progress"
    waiting_for: str = ""
    waiting_ms: float = 0.0
    stalled: bool = False
    tags: Mapping[str, str] = {}
