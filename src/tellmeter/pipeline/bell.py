"""Bell: what wakes one thread, and waits for nothing where it is rung."""

from __future__ import annotations

import threading


class Bell:
    """A lock that whoever rings lets go of: fit for signal handlers, `__del__` and garbage collection.

    The lock is made late, so that it is gevent's where gevent has taken the place of threads.
    """

    def __init__(self) -> None:
        self.asleep = True
        self.not_started = [None]  # whoever pops it starts the thread
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the thread, or have its next wait end at once."""
        try:
            self._silent.release()
        except RuntimeError:  # it rings already
            pass

    def wait(self, seconds: float = -1.0) -> None:
        """Wait until it rings, for `seconds` at most (-1: for ever)."""
        self._silent.acquire(timeout=seconds)
