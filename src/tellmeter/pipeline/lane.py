"""What the collector drives, one a sink; and the lane of a sink that only remembers."""

from __future__ import annotations

from typing import Any, Protocol

from ..guard import guarded, note
from ..records import AgentMetrics
from .ledger import SinkStats


class Lane(Protocol):
    """What the collector drives, whatever the sink."""

    name: str
    sink: Any

    def put(self, records: list[AgentMetrics]) -> None:
        """Take records; never blocks."""

    def flush(self, deadline: float) -> bool:
        """Wait until what was put before is settled; False at the deadline."""

    def close(self, deadline: float) -> int:
        """Flush and end; what is left at the deadline is spooled, or dropped and counted. How many were dropped."""

    def stats(self) -> SinkStats:
        """The account."""

    def before_fork(self) -> None:
        """Wait, briefly, until the sink is not at work."""

    def after_fork_in_parent(self) -> None:
        """Let the sink work again."""

    def after_fork(self) -> None:
        """Start empty in the child."""


class MemoryLane:
    """For a sink that only remembers: written on the router thread, no queue."""

    def __init__(self, name: str, sink: Any) -> None:
        self.name = name
        self.sink = sink
        self._delivered = 0
        self._failed = 0

    def put(self, records: list[AgentMetrics]) -> None:
        """Write the records, each guarded."""
        write = self.sink.write
        for record in records:
            try:
                write(record)
                self._delivered += 1
            except BaseException as error:
                note(self.name, error)
                self._failed += 1

    def flush(self, deadline: float) -> bool:
        """Nothing ever waits here."""
        return True

    def close(self, deadline: float) -> int:
        """Nothing to end."""
        return 0

    def stats(self) -> SinkStats:
        """The account."""
        failed = {"sink_error": self._failed} if self._failed else {}
        return SinkStats(accepted=self._delivered + self._failed, delivered=self._delivered, dropped=failed)

    def before_fork(self) -> None:
        """Nothing is ever at work here."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork(self) -> None:
        """The child counts its own."""
        self._delivered = self._failed = 0
        if hasattr(self.sink, "after_fork"):
            guarded(self.name, self.sink.after_fork, default=None)
