"""The thread that exports: once per interval and on demand, in this process alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...context import suppressed
from ...guard import note


class ExportTimer:
    """Calls `export` once per interval, and whenever somebody flushes.

    It is ours and not the SDK's: the SDK starts its thread again in every forked child, where it would export the
    parent's counts a second time, and its `force_flush` waits for as long as a receiver that answers byte by byte
    likes.

    Args:
        export: what is called, on the timer's thread; what it raises is noted.
        interval_seconds: how often.
    """

    def __init__(self, export: Callable[[], object], interval_seconds: float) -> None:
        self._act = export
        self._interval = interval_seconds
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Export once per interval from now on."""
        thread = threading.Thread(target=self._run, name="tellmeter-otlp", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending: flush() exports on its caller's thread
            return
        self._thread = thread

    def flush(self, seconds: float) -> bool:
        """Export now; whether that ended, well or not, within `seconds`."""
        if self._thread is None:
            with suppressed():
                self._export()
            return True
        with self._changed:
            self._asked += 1
            goal = self._asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= goal, seconds)

    def stop(self, deadline: float) -> None:
        """End the thread, and wait for that until `deadline` (of `time.monotonic`)."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        with suppressed():  # our own traffic is not metered
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._ending or self._asked > self._done, self._interval)
                    if self._ending:
                        return
                    goal = self._asked
                self._export()
                with self._changed:
                    self._done = goal
                    self._changed.notify_all()

    def _export(self) -> None:
        try:
            self._act()
        except Exception as error:
            note("otlp_export", error)
