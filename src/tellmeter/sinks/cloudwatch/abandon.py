"""Work that may hang, on a thread of its own that is left behind at the deadline."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TimedThread:
    """Runs one function at a time. While one that was late still runs, the next waits for it.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._late: threading.Thread | None = None

    def run(self, function: Callable[[], T], deadline: float) -> T:
        """What `function` returns or raises, in the context of the caller; `deadline` is of `time.monotonic`.

        Raises:
            TimeoutError: it, or one before it, was not done by then.
        """
        if self._late is not None:
            self._late.join(_left(deadline))
            if self._late.is_alive():
                raise TimeoutError
            self._late = None
        results: list[T] = []
        errors: list[BaseException] = []
        context = contextvars.copy_context()

        def work() -> None:
            try:
                results.append(context.run(function))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending and starts no more threads (Python 3.12 and later)
            return function()
        thread.join(_left(deadline))
        if errors:
            raise errors[0]
        if results:
            return results[0]
        self._late = thread
        raise TimeoutError

    def after_fork(self) -> None:
        """Threads stay with the parent."""
        self._late = None


def _left(deadline: float) -> float:
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
