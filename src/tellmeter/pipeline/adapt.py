"""Users' own sinks, as the guides write them: `record` and `flush`, async or sync, driven on a lane's thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..guard import note
from ..records import AgentMetrics
from .outcome import Delivered, Outcome, Partial


class RecordSink:
    """Gives a sink with `record(metrics)` and `flush()` the shape of a batch sink.

    Coroutines run on an event loop of the lane, made when the first one appears. A record that raises is rejected
    alone.
    """

    def __init__(self, sink: Any) -> None:
        self.wrapped = sink
        self._loop: Any = None

    def open(self) -> None:
        """`start()` or `initialize()` of the user's sink, where there is one."""
        self._call_first("start", "initialize")

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Hand the batch over, as a whole to `record_batch` where there is one, else one by one."""
        if hasattr(self.wrapped, "record_batch"):
            self._run(self.wrapped.record_batch(list(batch)))
            return Delivered()
        failed = []
        for index, record in enumerate(batch):
            try:
                self._run(self.wrapped.record(record))
            except BaseException as error:
                note(type(self.wrapped).__name__, error)
                failed.append(index)
        return Partial(rejected=tuple(failed), reason="sink_error") if failed else Delivered()

    def flush(self) -> None:
        """The user's own flush."""
        if hasattr(self.wrapped, "flush"):
            self._run(self.wrapped.flush())

    def close(self) -> None:
        """`aclose()`, `cleanup()` or `close()` of the user's sink, then the loop."""
        self._call_first("aclose", "cleanup", "close")
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def after_fork(self) -> None:
        """A loop belongs to the process that made it."""
        self._loop = None

    def _call_first(self, *names: str) -> None:
        name = next((name for name in names if callable(getattr(self.wrapped, name, None))), None)
        if name is not None:
            self._run(getattr(self.wrapped, name)())

    def _run(self, result: Any) -> None:
        if not hasattr(result, "__await__"):
            return
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()

        async def wait() -> None:
            await result

        self._loop.run_until_complete(wait())
