"""The part of SinkContract that makes the backend fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pytest

from ..pipeline.outcome import Delivered, Rejected
from ..records import AgentMetrics
from .clock import FakeClock
from .contract_kit import Pipeline, compare, ids_of, in_time, is_batch_sink, made

FAULTS = {
    "down": "refuses connections, or cannot be opened",
    "error": "answers that it is broken, as 503 does",
    "reset": "breaks the connection before it answers",
    "hang": "takes what is sent and never answers",
    "dribble": "answers one byte at a time, for longer than anybody waits",
    "retry_after": "is busy, and says for how long; yields the seconds",
    "too_large": "refuses more than 10 records at once, as 413 does",
    "partial": "takes a part of each batch, and says which",
    "reject": "refuses what is sent for good, as 400 does",
    "unauthorized": "does not know the key, as 401 does",
}
_ATTEMPT_SECONDS = 1.0
_GRACE_SECONDS = 5.0  # after the deadline, so that a busy machine is no failure
# The backend may have taken what it did not answer.
_UNANSWERED = ("reset", "hang", "dribble")


class Hooks:
    """What a user's contract says of the sink; see `SinkContract`."""

    idempotent: bool = False
    keeps_fields: bool = False
    across_processes: bool = True
    secrets: Sequence[str] = ()

    def make_sink(self) -> Any:
        """A new sink for the backend of this test."""
        raise NotImplementedError

    def read_back(self) -> Sequence[str | AgentMetrics]:
        """The ids, or the records, that the backend of this test has now."""
        raise NotImplementedError

    def fault(self, kind: str) -> AbstractContextManager[Any]:
        """Make the backend fail while the context lasts; `FAULTS` has the kinds. What is not offered is skipped."""
        pytest.skip(f"fault({kind!r}) is not offered: the backend {FAULTS[kind]}")

    def assert_arrived(self, records: Sequence[AgentMetrics], *, more_often: bool = False) -> None:
        """The backend has these records and no other, each once."""
        compare(list(self.read_back()), records, more_often=more_often and not self.idempotent, exact=self.keeps_fields)


class FaultContract(Hooks):
    """What must hold when the backend fails."""

    @pytest.mark.parametrize("kind", ["down", "error", "reset", "unauthorized"])
    def test_what_fails_is_retried_until_it_is_delivered(self, kind: str) -> None:
        """A backend that fails for a while loses nothing. A sink of single records may lose some: these are counted."""
        records = made(20)
        sink = self.make_sink()
        with Pipeline(sink, FakeClock(), batch_size=20, batch_timeout_seconds=3600.0) as pipeline:
            with self.fault(kind):
                pipeline.record(records)
                pipeline.wait_for_attempt()
                delivered = pipeline.ledger.delivered
                assert not delivered or not is_batch_sink(sink), (
                    f"{delivered} are said to be delivered by a backend that failed"
                )
            pipeline.settle()
        self._assert_told_the_truth(sink, pipeline, records, more_often=kind in _UNANSWERED)

    @pytest.mark.parametrize("kind", ["hang", "dribble"])
    def test_send_returns_by_its_deadline(self, kind: str) -> None:
        """`send` is back at its deadline, whatever the backend does, and what it gave up can be sent again."""
        sink, records = self._batch_sink(), made(5)
        self._call(sink, "open")
        with self.fault(kind):
            outcome = in_time(
                lambda: sink.send(records, time.monotonic() + _ATTEMPT_SECONDS),
                _ATTEMPT_SECONDS + _GRACE_SECONDS,
                f"send() was still at it {_GRACE_SECONDS:g} s after its deadline",
            )
            assert not isinstance(outcome, (Delivered, Rejected)), f"{outcome} of a backend that did not answer"
        outcome = in_time(
            lambda: sink.send(records, time.monotonic() + 10 * _ATTEMPT_SECONDS), 60.0, "send() did not return"
        )
        assert isinstance(outcome, Delivered), f"{outcome!r} of a backend that is well again"
        self._call(sink, "close")
        self.assert_arrived(records, more_often=True)

    def test_the_backend_says_when_to_come_again(self) -> None:
        """No attempt before the time that the backend asked for (5 minutes at most)."""
        sink, records, clock = self._batch_sink(), made(20), FakeClock()
        with Pipeline(sink, clock, batch_size=20, batch_timeout_seconds=3600.0) as pipeline:
            with self.fault("retry_after") as seconds:
                assert isinstance(seconds, (int, float)), "fault('retry_after') yields the seconds that are asked for"
                pipeline.record(records)
                pipeline.wait_for_attempt()
                assert pipeline.is_backing_off(), f"no attempt follows: {pipeline.ledger}"
                waits = (clock.next_due or 0.0) - clock.monotonic()
                # Backends that name a time of day name a whole second.
                assert waits >= min(seconds, 300.0) - 1.0, (
                    f"the next attempt is in {waits:g} s, {seconds:g} were asked for"
                )
            pipeline.settle()
        self._assert_told_the_truth(sink, pipeline, records)

    def test_a_batch_that_is_too_large_is_split(self) -> None:
        """Where the backend wants smaller batches, all records arrive in smaller ones."""
        sink, records = self._batch_sink(), made(50)
        with Pipeline(sink, FakeClock(), batch_size=50, batch_timeout_seconds=3600.0) as pipe, self.fault("too_large"):
            pipe.record(records)
            pipe.settle()
        self._assert_told_the_truth(sink, pipe, records)

    def test_only_what_failed_of_a_batch_is_sent_again(self) -> None:
        """Of a batch that is taken in part, what was taken arrives once, and the rest later."""
        sink, records = self._batch_sink(), made(20)
        with Pipeline(sink, FakeClock(), batch_size=20, batch_timeout_seconds=3600.0) as pipeline:
            with self.fault("partial"):
                pipeline.record(records)
                pipeline.wait_for_attempt()
            pipeline.settle()
        self._assert_told_the_truth(sink, pipeline, records)

    def test_what_is_refused_is_counted_and_does_not_stop_the_rest(self) -> None:
        """Records that the backend refuses for good are dropped with a reason; later ones arrive."""
        sink, refused, later = self.make_sink(), made(20), made(20)
        with Pipeline(sink, FakeClock(), batch_size=20, batch_timeout_seconds=3600.0) as pipeline:
            with self.fault("reject"):
                pipeline.record(refused)
                pipeline.wait_for_attempt()
                assert pipeline.is_settled(), f"what is refused for good is sent again: {pipeline.ledger}"
                dropped = sum(pipeline.ledger.dropped.values())
                assert dropped == len(refused), f"{dropped} of {len(refused)} refused records are counted"
            pipeline.record(later)
            pipeline.settle()
        self.assert_arrived(later)

    def test_no_secret_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        """No text of `secrets` is in the sink's repr, its `destination`, the account or any log, whatever happens."""
        if not self.secrets:
            pytest.skip("no secrets are given")
        sink, told = self.make_sink(), []
        with caplog.at_level(0), Pipeline(sink, FakeClock(), batch_size=20, batch_timeout_seconds=3600.0) as pipeline:
            for kind in ("down", "error", "unauthorized", "reject", ""):
                with ExitStack() as weather:
                    try:
                        weather.enter_context(self.fault(kind) if kind else nullcontext())
                    except pytest.skip.Exception:
                        continue
                    pipeline.record(made(20))
                    pipeline.wait_for_attempt()
                    told += [
                        repr(sink),
                        str(sink),
                        str(getattr(sink, "destination", "")),
                        repr(pipeline.collector.stats()),
                    ]
                pipeline.settle()
        told += [caplog.text, *(str(record.__dict__) for record in caplog.records)]
        for secret in self.secrets:
            assert secret, "an empty secret is in everything"
            # Neither is shown: it would end up in the log of a CI.
            leaks = sum(secret in text for text in told)
            if leaks:
                raise AssertionError(f"a secret of {len(secret)} characters is told in {leaks} places")

    def _batch_sink(self) -> Any:
        sink = self.make_sink()
        if not is_batch_sink(sink):
            pytest.skip("the sink has no send(batch, deadline)")
        return sink

    @staticmethod
    def _call(sink: Any, name: str) -> None:
        """A method that a sink may have, which has to return."""
        method = getattr(sink, name, None)
        if method is not None:
            outcome = in_time(method, _GRACE_SECONDS, f"{name}() did not return")
            assert not isinstance(outcome, BaseException), f"{name}() raised {type(outcome).__name__}"

    def _assert_told_the_truth(
        self, sink: Any, pipeline: Pipeline, records: Sequence[AgentMetrics], *, more_often: bool = False
    ) -> None:
        ledger = pipeline.ledger
        if not is_batch_sink(sink) and ledger.dropped:
            arrived = len(set(ids_of(self.read_back())))
            assert arrived == ledger.delivered, f"the ledger says {ledger.delivered} delivered, {arrived} arrived"
            return
        assert ledger.delivered == len(records), f"{ledger.delivered} of {len(records)} are delivered: {ledger}"
        self.assert_arrived(records, more_often=more_often)
