"""Users' own sinks, as the guides write them: `record` and `flush`, async or sync, driven on a lane's thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from ..guard import note
from ..records import AgentMetrics
from .outcome import Delivered, Outcome, Partial

CALL_SECONDS = 10.0  # what a coroutine other than `record` may take


class RecordSink:
    """Gives a sink with `record(metrics)` and `flush()` the shape of a batch sink.

    Coroutines run on an event loop of the lane, made when the first one appears, and are cancelled at their deadline.
    A record that raises is rejected alone; a batch for `record_batch` that raises is tried again.
    """

    def __init__(self, sink: Any) -> None:
        from .executor import (
            LastingExecutor,
        )  # now: its base cannot be imported any more when the interpreter is ending

        self.wrapped = sink
        self._runner: Any = None
        self._make_executor = LastingExecutor

    def open(self) -> None:
        """`start()` or `initialize()` of the user's sink, where there is one, and the user has not entered it."""
        self._call_first("start", "initialize")

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Hand the batch over, as a whole to `record_batch` where there is one, else one by one."""
        if callable(getattr(self.wrapped, "record_batch", None)):
            self._run(self.wrapped.record_batch(list(batch)), deadline)
            return Delivered()
        failed = []
        for index, record in enumerate(batch):
            try:
                self._run(self.wrapped.record(record), deadline)
            except TimeoutError as error:
                if time.monotonic() < deadline:  # the sink's own, which is its answer
                    note(type(self.wrapped).__name__, error)
                    failed.append(index)
                    continue
                return Partial(retry=tuple(range(index, len(batch))), rejected=tuple(failed), reason="timeout")
            except BaseException as error:
                note(type(self.wrapped).__name__, error)
                failed.append(index)
        return Partial(rejected=tuple(failed), reason="sink_error") if failed else Delivered()

    def flush(self) -> None:
        """The user's own flush."""
        if callable(getattr(self.wrapped, "flush", None)):
            self._run(self.wrapped.flush(), time.monotonic() + CALL_SECONDS)

    def close(self) -> None:
        """`aclose()`, `cleanup()` or `close()` of the user's sink, then the loop."""
        try:
            self._call_first("aclose", "cleanup", "close")
        finally:
            runner, self._runner = self._runner, None
            if runner is not None:
                with contextlib.suppress(
                    RuntimeError
                ):  # Python 3.12 starts no thread at exit, with which it ends others
                    runner.close()

    def after_fork(self) -> None:
        """A loop belongs to the process that made it."""
        self._runner = None

    def _call_first(self, *names: str) -> None:
        if getattr(self.wrapped, "entered", False):
            return
        name = next((name for name in names if callable(getattr(self.wrapped, name, None))), None)
        if name is not None:
            self._run(getattr(self.wrapped, name)(), time.monotonic() + CALL_SECONDS)

    def _run(self, result: Any, deadline: float) -> None:
        if not hasattr(result, "__await__"):
            return
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
            self._runner.get_loop().set_default_executor(self._make_executor())

        async def wait() -> None:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await result

        self._runner.run(wait())
