"""Ended spans, brought to an exporter in batches: what the SDK's BatchSpanProcessor does, with an end to every wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ..counts import count
from ..guard import note
from ..sinks.otel.exporting import refused_in
from ..sinks.otel.timer import ExportTimer

logger = logging.getLogger(__name__)

FORK_SECONDS = 0.5  # how long a fork waits for an exporter at work


class SpanExport:
    """One exporter of spans, its queue and its thread.

    The SDK's processor waits at the exit for up to 30 s, its `force_flush` for as long as a receiver that is down takes
    to refuse each batch; what it drops it does not count; and a forked child sends on the connection of its parent.

    What is lost is counted: `spans_dropped{reason}` (queue_full, export_failed, refused, shutdown), and batches as
    `span_exports{outcome}`.

    Args:
        make: makes the exporter, again in every forked child; gets what is called with the answers over HTTP.
        max_spans: how many wait at most; those that come after are dropped.
        batch_size: spans in one export; as many wake the thread early.
        delay_seconds: between two exports.
    """

    def __init__(
        self,
        make: Callable[[Callable[..., object]], SpanExporter],
        max_spans: int,
        batch_size: int,
        delay_seconds: float,
    ) -> None:
        self._make = make
        self._max_spans = max_spans
        self._batch_size = batch_size
        self._delay = delay_seconds
        self._refused = 0
        self._exporter: SpanExporter | None = make(self._see)
        self._parents: SpanExporter | None = None
        self._begin()
        self._start()

    def _begin(self) -> None:
        self._queue: deque[ReadableSpan] = deque()
        self._at_work = threading.Lock()
        self._timer = ExportTimer(self._export, self._delay)
        self._not_started = [None]  # whoever pops it starts the thread
        self._woken = self._closed = self._forking = False

    # ------------------------------------------------------------------ from any thread

    def take(self, span: ReadableSpan) -> None:
        """Take an ended span. Never waits, never raises."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._closed or len(self._queue) >= self._max_spans:
            count("spans_dropped", "shutdown" if self._closed else "queue_full")
            return
        self._queue.append(span)
        if self._not_started:
            self._start()
        if not self._woken and len(self._queue) >= self._batch_size:
            self._woken = True
            self._timer.flush(0.0)

    def flush(self, seconds: float) -> bool:
        """Export what has ended; whether that was over, well or not, within `seconds`."""
        return self._timer.flush(seconds)

    def close(self, seconds: float) -> None:
        """Flush and end, within about `seconds`; what is left is dropped. Again, it does nothing."""
        if self._closed:
            return
        deadline = time.monotonic() + seconds
        done = self.flush(seconds)
        self._closed = True
        if self._exporter is not None:
            self._exporter.shutdown()  # ends one that waits to try again
        self._timer.stop(deadline if done else 0.0)
        self._drop(len(self._queue), "shutdown")

    # ------------------------------------------------------------------ forks

    def before_fork(self) -> None:
        """Wait, briefly, until the exporter is not at work: the child could never take the locks of its libraries."""
        self._forking = self._at_work.acquire(timeout=FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Let it work again."""
        if self._forking:
            self._forking = False
            self._at_work.release()

    def after_fork(self) -> None:
        """The parent exports what has ended; the child has an exporter and connections of its own."""
        closed = self._closed
        # Kept: its end would speak on the parent's connection.
        self._parents, self._exporter = self._exporter or self._parents, None
        self._begin()
        self._closed = closed

    # ------------------------------------------------------------------ on the thread

    def _start(self) -> None:
        try:
            self._not_started.pop()
        except IndexError:
            return
        self._timer.start()

    def _export(self) -> None:
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            left = len(self._queue)
            self._woken = False
            while left > 0 and not self._closed:
                batch = [self._queue.popleft() for _ in range(min(left, self._batch_size))]
                left -= len(batch)
                with self._at_work:
                    self._export_one(batch)
        finally:
            detach(token)

    def _export_one(self, batch: list[ReadableSpan]) -> None:
        self._refused = 0
        try:
            if self._exporter is None:
                self._exporter = self._make(self._see)
            failed = self._exporter.export(batch) is not SpanExportResult.SUCCESS
        except Exception as error:
            note("span_export", error)
            failed = True
        refused = min(self._refused, len(batch))
        count("span_exports", "failed" if failed else "partial" if refused else "delivered")
        self._drop(len(batch) if failed else refused, "export_failed" if failed else "refused")

    def _see(self, response: Any, *arguments: object, **more: object) -> None:
        """Note how many spans the receiver refused, in an answer that the exporter takes for a success."""
        if 300 <= response.status_code < 400:  # a redirect, which is not followed
            self._refused = self._max_spans
        else:
            self._refused = refused_in(response.content) if response.status_code == 200 else 0

    @staticmethod
    def _drop(number: int, reason: str) -> None:
        for _ in range(number):
            count("spans_dropped", reason)
