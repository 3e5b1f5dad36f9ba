"""Running: one stream that is watched while it runs, and what was told of it so far."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ..counts import count
from ..records import StreamMetrics
from .callbacks import tell
from .events import anybody, handlers_of
from .meter import Mark, StreamMeter
from .options import StreamOptions
from .report import StreamReport

logger = logging.getLogger(__name__)

_MS = 1_000_000  # nanoseconds in a millisecond
_LOG_SECONDS = 1.0  # a provider's outage stalls every stream: one line a second will do

clock = time.perf_counter_ns


class Streamed(Protocol):
    """The call that a stream is the answer of."""

    def live(self) -> tuple[str, str, bool]:
        """Provider and model, as far as they are known, and whether the stream is running."""

    def live_tags(self) -> Mapping[str, str]:
        """The tags of the call."""

    def is_recorded(self) -> bool:
        """Whether it is an LLM call."""

    def stalled(self, stream_id: str) -> None:
        """Count that the provider fell silent."""


class Running:
    """Tells who asked for it what becomes of one stream. A timer calls `look`, whoever made the record calls `end`."""

    __slots__ = (
        "_call",
        "_callback",
        "_due_progress",
        "_interval",
        "_lock",
        "_loop",
        "_mark",
        "_meter",
        "_sent",
        "_silence_told",
        "_told",
        "_who",
        "due",
        "over",
    )

    def __init__(self, call: Streamed, meter: StreamMeter, options: StreamOptions) -> None:
        self._call: Streamed | None = call
        self._meter: StreamMeter | None = meter
        self._callback = options.callback
        self._interval = int((options.interval_ms or 0) * _MS)
        self._loop = _running_loop()
        self._mark: Mark | None = None
        self._who = ("", "")
        self._told: set[str] = set()  # of what is told once
        self._sent = False  # whether anybody was told of anything
        self._silence_told = 0  # the beginning of the silence that was told as a stall
        self._due_progress = clock() + self._interval
        self._lock = threading.RLock()  # the last report is the last: it waits for the one that is being made
        self.due = 0  # when the timer looks again
        self.over = False  # the stream has ended, its record is being made

    def follow(self, meter: StreamMeter) -> None:
        """Go on with another attempt of the same call."""
        with self._lock:
            former = self._meter
            self._meter, self._mark = meter, None
        if former is not None:
            meter.stream_id = former.stream_id
            meter.stall_after = former.stall_after
            meter.first_content = former.first_content
            meter.raw = None if former.raw is None else []

    def is_told(self, event: str) -> bool:
        """Whether somebody is told of an event."""
        return anybody(event) or (self._callback is not None and event != "stream.start")

    # ------------------------------------------------------------------ while it runs

    def first_look(self, now: int) -> int:
        """When to look first: at once where somebody is told of the start."""
        if self.is_told("stream.start"):
            return now
        meter = self._meter
        stall = now + meter.stall_after if meter is not None and meter.stall_after else 0
        progress = self._due_progress if self._interval and self.is_told("stream.progress") else 0
        return min(stall or progress, progress or stall)

    def look(self, now: int) -> int:
        """Tell what is to be told at `now`; when to look again (`time.perf_counter_ns`), 0 for never."""
        with self._lock:
            call, meter = self._call, self._meter
            if self.over or call is None or meter is None:
                return 0
            if not self._who[0]:
                if not call.is_recorded():
                    return 0
                self._who = call.live()[:2]
            self._tell_once("stream.start", now)
            if meter.first_token:
                self._tell_once("stream.first_token", now)
            stall, progress = self._look_for_a_stall(call, meter, now), self._look_for_progress(now)
            return min(stall or progress, progress or stall)

    def _look_for_progress(self, now: int) -> int:
        if not self._interval or not self.is_told("stream.progress"):
            return 0
        if now >= self._due_progress:
            self._tell("stream.progress", now)
            self._due_progress = now + self._interval  # however late the timer was: never sooner than the interval
        return self._due_progress

    def _look_for_a_stall(self, call: Streamed, meter: StreamMeter, now: int) -> int:
        if not meter.stall_after:
            return 0
        who, since = meter.waiting()
        if who == "provider" and now < since + meter.stall_after:
            return since + meter.stall_after
        if who == "provider" and self._silence_told != since:
            self._silence_told = since
            call.stalled(meter.stream_id)
            _log_stall(self._who, (now - since) / 1e9, meter.stream_id)
            self._tell("stream.stall", now)
        return now + meter.stall_after

    # ------------------------------------------------------------------ the end

    def end(self, stream: StreamMetrics | None, status: str, error: str | None) -> None:
        """Make the last report: of the record's stream, or of what the meter knows where there is no record."""
        with self._lock:
            call, meter = self._call, self._meter
            self.over = True
            self._call = self._meter = None
            if call is None or meter is None:
                return  # the last report was made
            if stream is None:
                if not self._who[0] and not call.is_recorded():
                    return
                provider, model = call.live()[:2]
                stream = meter.snapshot(now=clock(), status=status, provider=provider, model=model, last_error=error)
            tags = call.live_tags()
            begun = msgspec.structs.replace(stream, status="streaming", error_count=0, last_error=None)
            for event in ("stream.start", *(["stream.first_token"] if meter.first_token else [])):
                if event not in self._told:  # it was over before anybody looked
                    self._tell_of(event, begun, tags=tags)
            final: dict[str, Any] = {"tags": tags, "stalled": meter.ended_stalled}
            if meter.raw is not None:
                final["raw_chunks"] = tuple(meter.raw)
            seconds = 0.0 if self._mark is None else stream.duration_ms / 1e3 - (self._mark.at - meter.started) / 1e9
            if self._mark is not None and seconds > 0:
                final["window_bytes_per_second"] = (stream.bytes_received - self._mark.bytes) / seconds
                final["window_chunks_per_second"] = (stream.chunks_received - self._mark.events) / seconds
            self._tell_of("stream.error" if stream.status == "error" else "stream.complete", stream, **final)

    def leave(self) -> None:
        """What it was of is counted elsewhere: there is no end to tell of, but to who was told of something."""
        if self._sent:
            self.end(None, "completed", None)
        with self._lock:
            self.over = True
            self._call = self._meter = None

    # ------------------------------------------------------------------ telling

    def _tell_once(self, event: str, now: int) -> None:
        if event not in self._told:
            self._told.add(event)
            self._tell(event, now)

    def _tell(self, event: str, now: int) -> None:
        meter, call = self._meter, self._call
        if meter is None or call is None or not self.is_told(event):
            return
        provider, model = self._who
        report, mark = meter.look(now, self._mark, provider=provider, model=model, event=event, tags=call.live_tags())
        if event == "stream.progress":
            self._mark = mark
        elif event == "stream.start":  # whether a chunk has come by now is chance
            report = msgspec.structs.replace(report, status="streaming")
        self._send(report)

    def _tell_of(self, event: str, seen: StreamMetrics, **more: Any) -> None:
        if self.is_told(event):
            known = {name: getattr(seen, name) for name in StreamMetrics.__struct_fields__}
            self._send(StreamReport(**{**known, **more, "event": event}))

    def _send(self, report: StreamReport) -> None:
        self._sent = True
        own = [self._callback] if self._callback is not None and report.event != "stream.start" else []
        for callback in (*own, *handlers_of(report.event)):
            tell(callback, report, self._loop)


def report_of(call: Streamed, meter: StreamMeter, tags: Mapping[str, str]) -> StreamReport:
    """What is known now of a running stream; `tags` are those under the call's own."""
    provider, model, _ = call.live()
    return meter.look(clock(), provider=provider, model=model, tags={**tags, **call.live_tags()})[0]


def _running_loop() -> Any:
    """The event loop of the running code, where there is one; asyncio is not imported to find that out."""
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.get_running_loop()
    except (RuntimeError, AttributeError):  # no loop runs; or another thread is importing asyncio
        return None


_logged_at = 0.0


def _log_stall(who: tuple[str, str], seconds: float, stream_id: str) -> None:
    global _logged_at
    now = time.monotonic()
    if now - _logged_at < _LOG_SECONDS:
        count("unlogged_stalls")
        return
    _logged_at = now
    logger.warning("%s has sent nothing for %.1f s in a stream of %s (%s)", who[0], seconds, who[1], stream_id)
