"""OracleSink: remembers exactly what it was given, and answers as it is told."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Unpack

from ..errors import ConfigError
from ..pipeline.ledger import CollectorStats, SinkStats
from ..pipeline.outcome import Delivered, Outcome, Partial, Rejected, RetryLater, TooLarge
from ..records import AgentMetrics
from ..sinks.base import BatchingMetricsSink, LaneOptions

Reply = Outcome | BaseException | type[BaseException] | Callable[[Sequence[AgentMetrics], float], Outcome]


class OracleSink(BatchingMetricsSink):
    """A sink that knows the truth, to hold a ledger against.

        oracle = OracleSink(script=[RetryLater(), Partial(retry=(0,))])
        collector = MetricsCollector(sinks=[oracle])
        ...
        collector.shutdown_sync()
        oracle.check(collector.stats())

    Args:
        script: what its next `send`s answer, in turn: outcomes, exceptions to raise, or functions that are given
            `send`'s arguments and return an outcome.
        default: what comes after the script; all is delivered without one.
        lane: settings for this sink alone; see `LaneOptions`.
    """

    def __init__(
        self, script: Iterable[Reply] = (), *, default: Reply | None = None, **lane: Unpack[LaneOptions]
    ) -> None:
        super().__init__(**lane)
        self.default: Reply = Delivered() if default is None else default
        self.after_fork()
        self.script(*script)

    def script(self, *replies: Reply) -> None:
        """Answer these next, in turn, in place of what was left of an earlier script.

        Raises:
            ConfigError: something that is no answer.
        """
        for reply in (*replies, self.default):
            if not (isinstance(reply, (Outcome, BaseException)) or callable(reply)):
                raise ConfigError(f"{type(reply).__name__}: an answer is an Outcome, an exception or a function")
        with self._changed:
            self._script: deque[Reply] = deque(replies)

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Answer as told, and remember what that delivers."""
        ids = tuple(record.id for record in batch)
        with self._changed:
            self._batches.append(ids)
            self._changed.notify_all()
            reply = self._script.popleft() if self._script else self.default
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, type):
            raise reply()
        outcome = reply if isinstance(reply, Outcome) else reply(batch, deadline)  # a function may wait: no lock
        with self._changed:
            self._delivered += _delivered(ids, outcome)
            self._changed.notify_all()
        return outcome

    def after_fork(self) -> None:
        """The child starts empty, with what is left of the script."""
        self._changed = threading.Condition()
        self._batches: list[tuple[str, ...]] = []
        self._delivered: list[str] = []

    @property
    def delivered(self) -> list[str]:
        """The ids that it took, in order, as often as it took them."""
        with self._changed:
            return list(self._delivered)

    @property
    def duplicates(self) -> list[str]:
        """The ids that it took more than once."""
        return [record_id for record_id, number in Counter(self.delivered).items() if number > 1]

    @property
    def batches(self) -> list[tuple[str, ...]]:
        """The ids of every `send`, whatever it answered."""
        with self._changed:
            return list(self._batches)

    def wait_for(self, number: int, timeout: float = 10.0) -> list[str]:
        """Wait until `number` ids have been delivered, for `timeout` seconds at most; the ids.

        Raises:
            TimeoutError: there are fewer.
        """
        self._wait(lambda: len(self._delivered), number, "records arrived", timeout)
        return self.delivered

    def wait_for_batches(self, number: int, timeout: float = 10.0) -> list[tuple[str, ...]]:
        """Wait until `send` has been called `number` times, for `timeout` seconds at most; the ids of each.

        Raises:
            TimeoutError: it was called less often.
        """
        self._wait(lambda: len(self._batches), number, "batches were sent", timeout)
        return self.batches

    def _wait(self, count: Callable[[], int], number: int, told: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: count() >= number, timeout):
                raise TimeoutError(f"{count()} of {number} {told} within {timeout:g} s")

    def check(self, ledger: SinkStats | CollectorStats, recorded: Iterable[str] | None = None) -> None:
        """Hold a ledger against the truth.

        Args:
            ledger: `collector.stats()`, in which this must be the only OracleSink, or `collector.stats().sinks[name]`.
            recorded: the ids that were recorded; nothing else may have arrived.

        Raises:
            AssertionError: it does not add up, or says another number than was delivered; a record arrived twice, or
                one that nobody recorded.
        """
        if isinstance(ledger, CollectorStats):
            oracles = [name for name in ledger.sinks if name.startswith(type(self).__name__)]
            if len(oracles) != 1:
                raise ConfigError(f"check(stats.sinks[name]): there are {len(oracles)} sinks of this kind")
            ledger = ledger.sinks[oracles[0]]
        delivered = self.delivered
        many = len(delivered)
        wrong = []
        if not ledger.balanced:
            wrong.append(f"the ledger does not add up: {ledger}")
        if ledger.delivered != many:
            wrong.append(f"the ledger says {ledger.delivered} delivered, {many} arrived")
        if many > ledger.accepted:
            wrong.append(f"{many} arrived, only {ledger.accepted} were accepted")
        if twice := self.duplicates:
            wrong.append(f"{len(twice)} arrived more than once, as {twice[0]}")
        if recorded is not None and (foreign := set(delivered).difference(recorded)):
            wrong.append(f"{len(foreign)} arrived that nobody recorded, as {min(foreign)}")
        if wrong:
            raise AssertionError("; ".join(wrong))


def _delivered(ids: tuple[str, ...], outcome: object) -> tuple[str, ...]:
    match outcome:
        case Delivered():
            return ids
        case Partial(retry=retry, rejected=rejected):
            return tuple(one for index, one in enumerate(ids) if index not in {*retry, *rejected})
        case Rejected() | RetryLater() | TooLarge():
            return ()
    raise AssertionError(f"the oracle was told to answer {outcome!r}, which is no outcome")
