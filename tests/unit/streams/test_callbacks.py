from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tellmeter import StreamReport, counts
from tellmeter.streams import callbacks
from tellmeter.streams.callbacks import settle, tell


def report(number: int, event: str = "stream.complete", stream: str = "s") -> StreamReport:
    return StreamReport(stream_id=stream, event=event, chunks_received=number, status="completed")


def settled() -> None:
    settle(time.monotonic() + 30)


def dropped(reason: str) -> int:
    return counts.snapshot().get("dropped_stream_reports", {}).get(reason, 0)


def guarded() -> int:
    return counts.snapshot().get("guarded_errors", {}).get("stream_callback", 0)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Lanes of our own: those of other tests may be busy."""
    callbacks._lanes.clear()
    yield
    callbacks._lanes.clear()


def test_reports_come_in_order_and_on_another_thread() -> None:
    told: list[tuple[int, int]] = []

    def note(one: StreamReport) -> None:
        told.append((one.chunks_received, threading.get_ident()))

    for number in range(100):
        tell(note, report(number))
    settled()
    assert [number for number, _ in told] == list(range(100))
    assert threading.get_ident() not in {thread for _, thread in told}


def test_a_function_that_hangs_keeps_nobody_else_waiting() -> None:
    go, told = threading.Event(), []

    def hang(one: StreamReport) -> None:
        go.wait(30)

    def note(one: StreamReport) -> None:
        told.append(one.chunks_received)

    tell(hang, report(0))
    for number in range(3):
        tell(note, report(number))
    callbacks._lane_of(note).settle(time.monotonic() + 30)
    assert told == [0, 1, 2]
    settle(time.monotonic() + 0.05)  # the one that hangs is waited for until the deadline and no longer
    assert not go.is_set()
    go.set()


def test_progress_is_dropped_and_counted_while_the_function_is_behind() -> None:
    go, began, told = threading.Event(), threading.Event(), []

    def slow(one: StreamReport) -> None:
        began.set()
        assert go.wait(30)
        told.append((one.stream_id, one.event, one.chunks_received))

    before = dropped("behind")
    tell(slow, report(0, "stream.progress"))
    assert began.wait(30)
    for number in range(1, 6):
        tell(slow, report(number, "stream.progress"))
    tell(slow, report(6, "stream.progress", "another"))  # each stream has its own
    tell(slow, report(7, "stream.stall"))
    tell(slow, report(8))
    go.set()
    settled()
    assert told == [
        ("s", "stream.progress", 0),
        ("another", "stream.progress", 6),
        ("s", "stream.stall", 7),
        ("s", "stream.complete", 8),
    ]
    assert dropped("behind") == before + 5


def test_the_queue_is_bounded_and_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "MAX_WAITING", 10)
    go, began, told = threading.Event(), threading.Event(), []

    def slow(one: StreamReport) -> None:
        began.set()
        assert go.wait(30)
        told.append(one.chunks_received)

    before = dropped("full")
    tell(slow, report(0))
    assert began.wait(30)
    for number in range(1, 16):
        tell(slow, report(number))
    go.set()
    settled()
    assert told == list(range(11))
    assert dropped("full") == before + 5


def test_what_it_raises_is_counted_and_it_goes_on() -> None:
    told = []

    def odd(one: StreamReport) -> None:
        told.append(one.chunks_received)
        if one.chunks_received != 2:
            raise SystemExit if one.chunks_received else ValueError("canary")

    before = guarded()
    for number in range(3):
        tell(odd, report(number))
    settled()
    assert (told, guarded() - before) == ([0, 1, 2], 2)


def test_a_coroutine_function_runs_on_the_loop_of_the_stream() -> None:
    told: list[Any] = []

    async def note(one: StreamReport) -> None:
        await asyncio.sleep(0)
        told.append((one.chunks_received, asyncio.get_running_loop()))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(5):
            tell(note, report(number), loop)
        await asyncio.to_thread(settled)
        assert told == [(number, loop) for number in range(5)]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_on_a_loop_progress_is_dropped_while_it_is_behind_too() -> None:
    told: list[int] = []

    async def main() -> None:
        go = asyncio.Event()

        async def slow(one: StreamReport) -> None:
            await go.wait()
            told.append(one.chunks_received)

        loop = asyncio.get_running_loop()
        for number in range(4):
            tell(slow, report(number, "stream.progress"), loop)
        tell(slow, report(9), loop)
        go.set()
        await asyncio.to_thread(settled)

    before = dropped("behind")
    asyncio.run(main())
    assert (told, dropped("behind") - before) == ([0, 9], 3)


@pytest.mark.parametrize("when", ["none", "closed", "ends before its turn"])
def test_without_that_loop_it_runs_on_one_of_our_own(when: str) -> None:
    told: list[int] = []

    async def note(one: StreamReport) -> None:
        await asyncio.sleep(0)
        told.append(one.chunks_received)

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        if when == "ends before its turn":
            tell(note, report(1), loop)
            tell(note, report(2), loop)
        return loop

    loop = asyncio.run(main())
    if when != "ends before its turn":
        tell(note, report(1), None if when == "none" else loop)
        tell(note, report(2), None if when == "none" else loop)
    settled()
    assert told == [1, 2]
    assert not callbacks._lane_of(note)._waiting


def test_errors_of_coroutines_are_counted() -> None:
    async def odd(one: StreamReport) -> None:
        raise ValueError("canary")

    async def main() -> None:
        tell(odd, report(0), asyncio.get_running_loop())
        await asyncio.to_thread(settled)

    before = guarded()
    asyncio.run(main())
    tell(odd, report(0))
    settled()
    assert guarded() == before + 2


class Handler:
    def __init__(self) -> None:
        self.told: list[int] = []

    def sync(self, prefix: str, one: StreamReport) -> None:
        self.told.append(one.chunks_received)

    async def __call__(self, one: StreamReport) -> None:
        self.told.append(one.chunks_received)


def test_methods_partials_and_objects_can_be_told() -> None:
    handler = Handler()
    tell(functools.partial(handler.sync, "x"), report(1))
    tell(handler, report(2))
    settled()
    assert sorted(handler.told) == [1, 2]


def test_functions_that_are_made_anew_for_each_call_share_a_lane() -> None:
    told: list[int] = []
    for number in range(50):
        tell(lambda one: told.append(one.chunks_received), report(number))
    settled()
    assert (told, len(callbacks._lanes)) == (list(range(50)), 1)


def test_there_are_only_so_many_lanes() -> None:
    told: list[int] = []
    for number in range(40):
        namespace: dict[str, Any] = {"told": told}
        exec(f"def note{number}(one): told.append({number})", namespace)
        tell(namespace[f"note{number}"], report(number))
    settled()
    assert sorted(told) == list(range(40))
    assert len(callbacks._lanes) == callbacks.MAX_LANES


def test_nothing_that_cannot_be_called_raises() -> None:
    before = guarded()
    tell(3, report(0))  # type: ignore[arg-type]
    settled()
    assert guarded() == before + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_tells_nothing_of_what_waited() -> None:
    go, began, told = threading.Event(), threading.Event(), []

    def slow(one: StreamReport) -> None:
        began.set()
        assert go.wait(30)
        told.append(one.chunks_received)

    tell(slow, report(0))
    tell(slow, report(1))
    assert began.wait(30)
    pid = os.fork()
    if pid == 0:
        go.set()
        tell(slow, report(2))
        settle(time.monotonic() + 10)
        os._exit(0 if told == [2] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go.set()
    settled()
    assert told == [0, 1]
