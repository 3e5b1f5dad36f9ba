"""Streams for tests: a reader in which each byte is an event with content, and the call that a stream belongs to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tellmeter.streams.meter import StreamMeter
from tellmeter.streams.options import StreamOptions
from tellmeter.streams.running import Running
from tellmeter.wire.answer import Answer

MS = 1_000_000


class Bytes:
    answer = Answer()

    def __init__(self) -> None:
        self.events = self.content_events = self.text_size = 0

    def feed(self, data: bytes) -> None:
        self.events += len(data)
        self.content_events = self.text_size = self.events

    def finish(self) -> None: ...


class Asked:
    """A call as a running stream sees it."""

    def __init__(self, recorded: bool = True, tags: Mapping[str, str] | None = None) -> None:
        self.recorded = recorded
        self.tags = tags or {}
        self.stalls: list[str] = []

    def live(self) -> tuple[str, str, bool]:
        return "openai", "m", True

    def live_tags(self) -> Mapping[str, str]:
        return self.tags

    def is_recorded(self) -> bool:
        return self.recorded

    def stalled(self, stream_id: str) -> None:
        self.stalls.append(stream_id)


def stream(call: Any = None, *, stall_after_ms: int = 0, **options: Any) -> tuple[Running, StreamMeter, Any]:
    """A running stream that began now."""
    call = call or Asked()
    meter = StreamMeter(Bytes(), time.perf_counter_ns(), 1000.0)
    meter.stream_id = meter.stream_id
    meter.stall_after = stall_after_ms * MS
    return Running(call, meter, StreamOptions(**options)), meter, call
