"""SinkContract: the tests that every sink has to pass, ours and the users'."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from typing import Any

import pytest

from ..records import AgentMetrics
from .contract_faults import FaultContract
from .contract_kit import Pipeline, descriptors, hostile, made, poll, threads

_THREADS = 8
_CYCLES = 3


class SinkContract(FaultContract):
    """Derive from it, say how to make the sink and how to read its backend, and pytest runs the tests below.

        class TestMySink(SinkContract):
            @pytest.fixture(autouse=True)
            def backend(self, tmp_path):
                self.path = tmp_path / "calls.txt"

            def make_sink(self):
                return MySink(self.path)

            def read_back(self):
                return self.path.read_text().split()

    For sinks of all shapes: `send(batch, deadline)`, `record(metrics)` and `flush()` (async or sync), `write(record)`.
    What fails is an AssertionError that says what the sink did; what does not apply is skipped, with the reason.

    Attributes:
        idempotent: True where a record that is sent again, with the same id, adds nothing.
        keeps_fields: True where `read_back` gives `AgentMetrics` that are equal to what was recorded.
        across_processes: False where the backend is memory of this process, which a forked child cannot reach.
        secrets: keys and passwords that `make_sink` gives to its sinks, and nobody may be told.
    """

    def test_every_record_arrives_exactly_once(self) -> None:
        """Whatever is recorded arrives, once, unchanged where fields are kept; and the ledger says so."""
        records = made(250)
        with Pipeline(self.make_sink()) as pipeline:
            pipeline.record(records[:100])
            pipeline.flush()
            pipeline.record(records[100:])
        self._assert_fair_weather(pipeline, records)

    def test_hostile_values_arrive(self) -> None:
        """Quotes, line breaks, NULs, emoji, a megabyte, infinity and zero arrive as `AgentMetrics` cleans them."""
        records = hostile()
        with Pipeline(self.make_sink(), batch_size=7) as pipeline:
            pipeline.record(records)
        self._assert_fair_weather(pipeline, records)

    def test_records_of_many_threads_arrive(self) -> None:
        """Threads that record at the same time lose nothing and repeat nothing."""
        records = made(50 * _THREADS)
        with Pipeline(self.make_sink()) as pipeline:
            shares = [records[number::_THREADS] for number in range(_THREADS)]
            workers = [threading.Thread(target=pipeline.record, args=(share,)) for share in shares]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        self._assert_fair_weather(pipeline, records)

    def test_a_flush_of_nothing_does_nothing(self) -> None:
        """A flush without records succeeds, and nothing arrives."""
        with Pipeline(self.make_sink()) as pipeline:
            pipeline.flush()
            pipeline.flush()
        self._assert_fair_weather(pipeline, [])

    def test_an_end_before_the_first_record_does_nothing(self) -> None:
        """A sink that was never used can be ended, twice."""
        with Pipeline(self.make_sink()) as pipeline:
            pipeline.collector.shutdown_sync()
        self._assert_fair_weather(pipeline, [])

    def test_close_comes_twice_or_first(self) -> None:
        """`close()` can be called before anything else, and again."""
        sink, records = self._batch_sink(), made(5)
        self._call(sink, "close")
        self._call(sink, "close")
        with Pipeline(sink) as pipeline:  # which opens it
            pipeline.record(records)
        self._call(sink, "close")
        self._assert_fair_weather(pipeline, records)

    def test_flush_and_end_can_be_repeated(self) -> None:
        """Each flush brings what was recorded before it, once; a second end does nothing; later records are counted."""
        records = made(30)
        with Pipeline(self.make_sink()) as pipeline:
            for start in (0, 10, 20):
                pipeline.record(records[start : start + 10])
                pipeline.flush()
                pipeline.flush()
                self.assert_arrived(records[: start + 10])
            pipeline.collector.shutdown_sync()
            pipeline.collector.shutdown_sync()
        self._assert_fair_weather(pipeline, records)
        late = made(1)
        pipeline.record(late)
        pipeline.flush()
        pipeline.check()
        # A lane that has ended drops and counts; memory has no end.
        self.assert_arrived([*records, *late][: pipeline.ledger.delivered])

    def test_a_replay_adds_nothing(self) -> None:
        """Where the sink is idempotent, records that arrive again, from another process say, are there once."""
        if not self.idempotent:
            pytest.skip("idempotent = False")
        records = made(30)
        for again in (records, records[::-1]):
            with Pipeline(self.make_sink()) as pipeline:
                pipeline.record(again)
            self._assert_fair_weather(pipeline, records)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_child_records_its_own(self) -> None:
        """A child made by fork, while connections are open, delivers its records, and the parent its own."""
        if not self.across_processes:
            pytest.skip("across_processes = False")
        before, after, childs = made(10), made(10), made(10)
        with Pipeline(self.make_sink()) as pipeline:
            pipeline.record(before)
            pipeline.flush()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which is what is tested
                child = os.fork()
            if child == 0:
                os._exit(_deliver(pipeline, childs))
            pipeline.record(after)
            pipeline.flush()
            _wait_for(child)
        self._assert_fair_weather(pipeline, [*before, *after, *childs], elsewhere=len(childs))

    def test_nothing_is_left_open(self) -> None:
        """Once shut down, a sink has neither a thread nor a file descriptor."""
        kept, records = [], []
        before: set[threading.Thread] = set()
        opened = None
        for cycle in range(1 + _CYCLES):
            sink = self.make_sink()
            kept.append(sink)  # what only the garbage collector would close is not closed
            with Pipeline(sink) as pipeline:
                mine = made(5)
                pipeline.record(mine)
                records += mine
            if cycle == 0:  # the first one loads modules and fills caches, which stay
                before, opened = threads(), descriptors()
        poll(
            lambda: not threads() - before,
            lambda: f"threads are left: {', '.join(sorted(thread.name for thread in threads() - before))}",
        )
        poll(
            lambda: opened is None or (descriptors() or 0) <= opened,
            lambda: f"{(descriptors() or 0) - (opened or 0)} descriptors are left by {_CYCLES} sinks",
        )
        del kept
        self.assert_arrived(records)

    def _assert_fair_weather(self, pipeline: Pipeline, records: list[AgentMetrics], elsewhere: int = 0) -> None:
        """Everything arrived once, the ledger says so, and the sink's code raised nothing."""
        ledger = pipeline.ledger
        many = len(records) - elsewhere
        assert not pipeline.errors, f"the sink's code raised {pipeline.errors} times"
        assert ledger.delivered == many, f"{ledger.delivered} of {many} are delivered: {ledger}"
        self.assert_arrived(records)


def _deliver(pipeline: Pipeline, records: list[Any]) -> int:
    """In the child: 0 when the records are delivered; whatever happens, no exception leaves."""
    try:
        pipeline.record(records)
        report = pipeline.collector.flush_sync()
        return 0 if report.complete and pipeline.ledger.delivered == len(records) else 3
    except BaseException:
        return 4


def _wait_for(child: int) -> None:
    statuses: list[int] = []

    def ended() -> bool:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            statuses.append(status)
        return bool(found)

    try:
        poll(ended, lambda: "the forked child hangs")
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    code = os.waitstatus_to_exitcode(statuses[0])
    assert code == 0, f"the forked child did not deliver its records ({code})"
