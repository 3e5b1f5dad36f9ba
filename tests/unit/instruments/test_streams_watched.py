"""Callback producers, and what is told of metered streams while they run."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tellmeter import (
    MetricsCollector,
    configure,
    counts,
    instrument,
    meter_stream,
    on,
    uninstrument,
)
from tests.support.metered import only, own_collector, records

PATIENCE = 30


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    with own_collector(monkeypatch) as made:
        yield made
    uninstrument()


def metered(source: Any, **said: Any) -> Any:
    return meter_stream(source, **{"provider": "own", "model": "m", **said})


def words(number: int = 3) -> Generator[str, Any, str]:
    for _ in range(number):
        yield "wörd"
    return "done"


def status(collector: MetricsCollector) -> tuple[str, str, str | None]:
    record = only(collector)
    assert record.method == "stream"
    return record.status, record.stream.status, record.error_class


# ---------------------------------------------------------------------- callbacks


def test_a_callback_producer(collector: MetricsCollector) -> None:
    shown: list[Any] = []

    def show(chunk: str, *, last: bool = False) -> int:
        shown.append((chunk, last))
        return len(shown)

    with metered(show) as on_chunk:
        assert inspect.signature(on_chunk) == inspect.signature(show)
        assert on_chunk("a") == 1 and on_chunk("b", last=True) == 2 and on_chunk(chunk="c") == 3
    assert on_chunk("late") == 4
    assert shown == [("a", False), ("b", True), ("c", False), ("late", False)]
    assert status(collector)[0] == "success"
    assert only(collector).stream.bytes_received == 3


def test_an_async_callback_producer(collector: MetricsCollector) -> None:
    async def show(chunk: str) -> str:
        await asyncio.sleep(0)
        return chunk

    async def main() -> None:
        async with metered(show) as on_chunk:
            assert inspect.iscoroutinefunction(on_chunk.__call__)
            assert [await on_chunk("a"), await on_chunk("b")] == ["a", "b"]

    asyncio.run(main())
    assert status(collector)[0] == "success" and only(collector).stream.chunks_received == 2


def test_an_exception_of_a_producer_or_of_its_callback_goes_on(collector: MetricsCollector) -> None:
    def fail(chunk: str) -> None:
        raise LookupError

    with pytest.raises(ZeroDivisionError), metered(print):
        raise ZeroDivisionError
    with pytest.raises(LookupError), metered(fail) as on_chunk:
        on_chunk("a")
    with metered(fail) as on_chunk:
        for _ in range(2):
            with pytest.raises(LookupError):
                on_chunk("a")
    found = [(record.status, record.error_class, record.stream.chunks_received) for record in records(collector)]
    assert found == [("error", "ZeroDivisionError", 0), ("error", "LookupError", 1), ("success", None, 2)]


# ---------------------------------------------------------------------- while it runs


def test_it_is_watched_while_it_runs(collector: MetricsCollector) -> None:
    told: list[Any] = []
    first, stalled, ended = threading.Event(), threading.Event(), threading.Event()
    seen = {"stream.first_token": first, "stream.stall": stalled, "stream.complete": ended}

    def callback(report: Any) -> None:
        told.append(report)
        seen.get(report.event, threading.Event()).set()

    def slow() -> Iterator[str]:
        yield "a"
        assert first.wait(PATIENCE)
        (running,) = collector.active_streams()
        assert (running.status, running.waiting_for, running.chunks_received) == ("streaming", "provider", 1)
        assert stalled.wait(PATIENCE)
        yield "b"

    assert list(metered(slow(), callback=callback, stall_after_ms=1)) == ["a", "b"]
    record = only(collector)
    assert ended.wait(PATIENCE) and collector.active_streams() == []
    assert [report.event for report in told if report.event != "stream.progress"] == [*seen]
    assert told[-1].stream_id == record.stream.stream_id and told[-1].chunks_received == 2
    assert record.stream.stalls >= 1 and record.stream.provider_wait_ms >= 1


def test_a_provider_that_is_silent_from_the_start_is_told(collector: MetricsCollector) -> None:
    stalled = threading.Event()

    def slow() -> Iterator[str]:
        (running,) = collector.active_streams()
        assert (running.status, running.waiting_for, running.chunks_received) == ("pending", "provider", 0)
        assert stalled.wait(PATIENCE)
        yield "a"

    def callback(report: Any) -> None:
        if report.event == "stream.stall":
            stalled.set()

    list(metered(slow(), callback=callback, stall_after_ms=1, interval=0))
    assert only(collector).stream.stalls >= 1


def test_a_callbacks_time_is_the_consumers(collector: MetricsCollector) -> None:
    waiting: list[str] = []

    def show(chunk: str) -> None:
        waiting.extend(running.waiting_for for running in collector.active_streams())

    with metered(show) as on_chunk:
        on_chunk("a")
        show("")
    assert waiting == ["consumer", "provider"]


def test_one_start_and_one_end_are_told(collector: MetricsCollector) -> None:
    told: list[str] = []
    ended = threading.Event()
    offs = [
        on("stream.start", lambda report: told.append(report.status)),
        on("stream.complete", lambda report: (told.append(report.status), ended.set())),
    ]
    try:
        list(metered(words(100)))
        collector.flush_sync()
        assert ended.wait(PATIENCE) and told[1:] == ["completed"]
    finally:
        for off in offs:
            off()


@pytest.mark.parametrize("hooked", [False, True])
def test_raw_chunks_are_those_that_are_bytes_or_text(collector: MetricsCollector, hooked: bool) -> None:
    if hooked:
        instrument()
    told: list[Any] = []
    ended = threading.Event()
    left_out = counts.total("raw_chunks_left_out")
    items = [bytearray(b"a"), "ö", {"text": "c"}, b"d"]
    callback = lambda report: (told.append(report), ended.set()) if report.status == "completed" else None  # noqa: E731
    list(metered(items, callback=callback, include_raw_chunks=True))
    collector.flush_sync()
    assert ended.wait(PATIENCE)
    assert told[-1].raw_chunks == (b"a", "ö".encode(), b"d")
    assert counts.total("raw_chunks_left_out") == left_out + 1
    assert only(collector).stream.raw_chunks is None


def test_switched_off_it_is_still_a_call(collector: MetricsCollector) -> None:
    list(metered(words(), enabled=False))
    record = only(collector)
    assert record.stream is None and record.output_tokens == 3


def test_it_is_a_call_of_the_collector_that_is_there(collector: MetricsCollector) -> None:
    stream = metered(words())
    assert len(collector.open_calls) == 1
    later = configure()
    list(stream)
    assert only(collector).status == "success" and later is not collector
