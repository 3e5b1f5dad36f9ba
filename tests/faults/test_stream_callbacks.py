"""Functions that are told of streams: slow, broken and hanging ones delay no stream, and what they miss is counted."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellmeter import counts, on
from tellmeter.testing.contract_kit import poll
from tests.support.paced import PATIENCE, client_of, read, read_async
from tests.support.sse import stream
from tests.support.watched import FINAL, Watched

EVENTS = stream(20)
CANARY = "canary-5b1d"


def dropped(reason: str) -> int:
    return counts.snapshot().get("dropped_stream_reports", {}).get(reason, 0)


def guarded() -> int:
    return counts.snapshot().get("guarded_errors", {}).get("stream_callback", 0)


@pytest.mark.fault(17)
def test_a_slow_function_delays_no_stream_and_gets_the_end_of_each() -> None:
    told: list[Any] = []
    go, entered = threading.Event(), threading.Event()

    def slow(report: Any) -> None:
        entered.set()
        go.wait(PATIENCE)
        told.append(report)

    before = dropped("behind")
    with Watched(stream_callback=slow, stream_interval_ms=5.0) as watched:
        client = client_of(*EVENTS[:5], 0.1, *EVENTS[5:])
        for _ in range(3):
            assert read(client) == b"".join(EVENTS)  # while the function still holds its first report
        assert entered.wait(PATIENCE) and told == []
        go.set()
        watched.records()
        poll(lambda: sum(one.event in FINAL for one in told) == 3, lambda: f"{told}")
        watched.reports.extend(told)
        watched.check()
    assert dropped("behind") > before
    assert len({one.stream_id for one in told}) == 3


@pytest.mark.fault(16)
@pytest.mark.parametrize("error", [ValueError(CANARY), SystemExit(CANARY), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_function_raises_is_counted_and_stays_there(
    is_async: bool, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    def broken(report: Any) -> None:
        told.append(report)
        raise error

    async def broken_async(report: Any) -> None:
        broken(report)

    before = guarded()
    with caplog.at_level(logging.DEBUG), Watched(stream_callback=broken_async if is_async else broken) as watched:

        async def main() -> None:
            assert await read_async(*EVENTS) == b"".join(EVENTS)
            await watched.collector.flush()
            assert await read_async(*EVENTS) == b"".join(EVENTS)

        asyncio.run(main())
        watched.records()
        poll(lambda: sum(one.event in FINAL for one in told) == 2, lambda: f"{told}")
    poll(lambda: guarded() - before == len(told), lambda: f"{guarded() - before} of {len(told)}")
    assert CANARY not in caplog.text


@pytest.mark.fault(17)
def test_a_function_that_hangs_for_ever_costs_the_others_nothing() -> None:
    never, told = threading.Event(), []

    def hang(report: Any) -> None:
        never.wait(PATIENCE)

    def listen(report: Any) -> None:
        told.append(report)

    off = on("stream.complete", listen)
    try:
        with Watched(stream_callback=hang, enable_cost_tracking=False) as watched:
            client = client_of(*EVENTS)
            for _ in range(1000):
                assert read(client) == b"".join(EVENTS)
            poll(lambda: len(told) == 1000, lambda: f"{len(told)} told")
            records = list(watched.records())
            assert {record.status for record in records} == {"success"} and len(records) == 1000
            watched.check()
            never.set()
    finally:
        off()
        never.set()


@pytest.mark.fault(17)
def test_what_no_function_takes_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tellmeter.streams.callbacks.MAX_WAITING", 10)
    never, told = threading.Event(), []

    def hang(report: Any) -> None:
        never.wait(PATIENCE)
        told.append(report)

    before = dropped("full")
    with Watched(stream_callback=hang) as watched:
        client = client_of(*EVENTS)
        for _ in range(20):
            read(client)
            watched.collector._router.drain(PATIENCE)
        assert dropped("full") - before >= 29  # two reports each, of which ten wait and one is in hand
        never.set()
        poll(lambda: len(told) + dropped("full") - before == 40, lambda: f"{len(told)} {dropped('full') - before}")


def reports_of(told: list[Any]) -> list[str]:
    return [one.event for one in told]


@pytest.mark.fault(13)
@pytest.mark.parametrize("ending", ["runs on", "is closed", "stands still", "is none"])
def test_a_coroutine_function_is_called_whatever_became_of_the_streams_loop(ending: str) -> None:
    told: list[Any] = []
    loops: list[Any] = []
    both = asyncio.Event()

    async def listen(report: Any) -> None:
        await asyncio.sleep(0)
        told.append(report)
        loops.append(asyncio.get_running_loop())
        if len(told) == 2:
            both.set()

    with Watched(stream_callback=listen) as watched:
        if ending == "is none":
            read(client_of(*EVENTS))
        elif ending == "runs on":

            async def main() -> None:
                await read_async(*EVENTS)
                await watched.collector.flush()
                await both.wait()
                assert set(loops) == {asyncio.get_running_loop()}

            asyncio.run(main())
        else:
            loop = asyncio.new_event_loop()
            watched.collector._router._lock.acquire()  # the record is made once the loop has ended
            loop.run_until_complete(read_async(*EVENTS))
            if ending == "is closed":
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.close()
            watched.collector._router._lock.release()
        assert watched.collector._router.drain(60)  # no flush: nobody has to ask for what there is to be told
        poll(lambda: len(told) == 2, lambda: f"{told}")
        if ending == "stands still":
            loop.close()
        watched.reports.extend(told)
        watched.check()
    assert reports_of(told) == ["stream.first_token", "stream.complete"]


def test_reports_of_one_stream_come_in_order_on_its_loop() -> None:
    told: list[Any] = []

    async def listen(report: Any) -> None:
        await asyncio.sleep(0.02 if report.event == "stream.first_token" else 0)
        told.append(report)
        if sum(one.event in FINAL for one in told) == 5:
            ended.set()

    ended = asyncio.Event()
    with Watched(stream_callback=listen, stream_interval_ms=1.0) as watched:

        async def main() -> None:
            await asyncio.gather(*(read_async(*EVENTS[:3], 0.05, *EVENTS[3:]) for _ in range(5)))
            await watched.collector.flush()
            await ended.wait()
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
        watched.reports.extend(told)
        watched.records()
        watched.check()
    assert reports_of(told).count("stream.first_token") == 5


@settings(max_examples=25)
@given(st.lists(st.booleans(), max_size=4), st.booleans())
def test_each_of_many_handlers_gets_each_event_once(kinds: list[bool], fails: bool) -> None:
    told: list[list[Any]] = [[] for _ in kinds]
    offs = []
    for number, is_async in enumerate(kinds):

        def listen(report: Any, number: int = number) -> None:
            told[number].append(report)
            if fails:
                raise ValueError

        async def listen_async(report: Any, number: int = number) -> None:
            listen(report, number)

        offs += [
            on(event, listen_async if is_async else listen) for event in ("stream.start", "stream.first_token", *FINAL)
        ]
    try:
        with Watched() as watched:
            read(client_of(*EVENTS))
            watched.only()
            poll(lambda: all(len(one) == 3 for one in told), lambda: f"{told}")
    finally:
        for off in offs:
            off()
    for one in told:
        assert [report.event for report in one] == ["stream.start", "stream.first_token", "stream.complete"]
        assert len({report.stream_id for report in one}) == 1
