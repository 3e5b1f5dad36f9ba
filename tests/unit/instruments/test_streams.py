from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

import pytest

from tellmeter import (
    ConfigError,
    MetricsCollector,
    meter_stream,
    tags,
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


async def async_words(number: int = 3) -> AsyncGenerator[str, Any]:
    for _ in range(number):
        await asyncio.sleep(0)
        yield "wörd"


def status(collector: MetricsCollector) -> tuple[str, str, str | None]:
    record = only(collector)
    assert record.method == "stream"
    return record.status, record.stream.status, record.error_class


# ---------------------------------------------------------------------- what is recorded


def test_a_generator_is_one_record_with_its_chunks(collector: MetricsCollector) -> None:
    with tags(feature="f"):
        stream = metered(words(), operation="draw", request_id="r")
    assert list(stream) == ["wörd"] * 3
    record = only(collector)
    assert (record.provider, record.model, record.operation, record.request_id) == ("own", "m", "draw", "r")
    assert (record.status, record.stream.status, record.tags) == ("success", "completed", {"feature": "f"})
    assert (record.stream.chunks_received, record.stream.bytes_received) == (3, 15)
    assert record.output_tokens == record.stream.output_tokens == 3 and record.tokens_estimated
    assert 0 < record.ttft_ms <= record.latency_ms
    assert record.stream.provider_wait_ms + record.stream.consumer_wait_ms <= record.latency_ms


def test_an_async_generator_too(collector: MetricsCollector) -> None:
    async def main() -> list[str]:
        return [word async for word in metered(async_words())]

    assert asyncio.run(main()) == ["wörd"] * 3
    assert status(collector) == ("success", "completed", None)
    assert only(collector).stream.chunks_received == 3


def test_what_the_items_state_is_recorded_and_what_is_said_of_the_call_wins(collector: MetricsCollector) -> None:
    items: list[Any] = [
        {"model": "gpt-4o", "id": "c", "choices": [{"delta": {"content": "a" * 40}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}},
    ]
    assert list(meter_stream(items)) == items
    stream = metered(words())
    list(stream)
    stream = metered(words())
    stream.call.input_tokens, stream.call.output_tokens, stream.call.finish_reason = 7, 2, "stop"
    list(stream)
    stated, _, said = records(collector)
    assert (stated.response_model, stated.finish_reason, stated.tools_used) == ("gpt-4o", "tool_calls", ("find",))
    assert (stated.input_tokens, stated.output_tokens, stated.tokens_estimated) == (1000, 500, False)
    assert (stated.stream.chunks_received, stated.stream.bytes_received) == (4, 42)
    assert stated.cost_usd
    assert (said.input_tokens, said.output_tokens, said.finish_reason) == (7, 2, "stop")
    assert not said.tokens_estimated and said.stream.output_tokens == 2


def test_a_stream_that_breaks_off_after_its_usage_has_at_least_what_came(collector: MetricsCollector) -> None:
    begun = {"message": {"usage": {"input_tokens": 9, "output_tokens": 1}}, "type": "message_start"}
    stream = metered(iter([begun, *[{"delta": {"text": "a" * 400}, "type": "content_block_delta"}] * 5]))
    for _ in range(5):
        next(stream)
    stream.close()
    record = only(collector)
    assert (record.input_tokens, record.output_tokens, record.tokens_estimated) == (9, 400, True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError, ("error", "error", "ValueError")),
        (TimeoutError, ("timeout", "error", "TimeoutError")),
        (KeyboardInterrupt, ("cancelled", "cancelled", "KeyboardInterrupt")),
        (asyncio.CancelledError, ("cancelled", "cancelled", "CancelledError")),
    ],
)
def test_an_exception_of_the_source_goes_on(
    collector: MetricsCollector, error: type[BaseException], expected: tuple[str, str, str]
) -> None:
    raised = error("prompt")

    def broken() -> Iterator[str]:
        yield "a"
        raise raised

    with pytest.raises(error) as caught:
        list(metered(broken()))
    assert caught.value is raised and raised.__context__ is None
    assert status(collector) == expected
    assert "prompt" not in repr(only(collector))


def test_closed_and_dropped_streams(collector: MetricsCollector) -> None:
    for _ in metered(words()):
        break
    closed = metered(words())
    next(closed)
    closed.close()
    with metered(words()) as stream:
        next(stream)
    metered(words())
    with pytest.raises(ZeroDivisionError), metered(words()) as stream:
        next(stream)
        raise ZeroDivisionError
    with pytest.raises(asyncio.CancelledError), metered(words()):
        raise asyncio.CancelledError
    found = [record.status for record in records(collector)]
    assert found == ["closed_early", "closed_early", "closed_early", "abandoned", "closed_early", "cancelled"]
    assert all(record.error_class is None for record in records(collector))


def test_closed_and_dropped_async_streams(collector: MetricsCollector) -> None:
    async def main() -> None:
        async for _ in metered(async_words()):
            break
        stream = metered(async_words())
        await anext(stream)
        await stream.aclose()
        async with metered(async_words()) as stream:
            await anext(stream)
        metered(async_words())

    asyncio.run(main())
    assert [record.status for record in records(collector)] == [*["closed_early"] * 3, "abandoned"]


def test_a_cancelled_task_is_cancelled(collector: MetricsCollector) -> None:
    async def endless() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async def read(begun: asyncio.Event) -> None:
        async for _ in metered(endless()):
            begun.set()

    async def main() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(read(begun))
        await begun.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert status(collector) == ("cancelled", "cancelled", "CancelledError")
    assert only(collector).stream.chunks_received == 1


def test_a_disabled_collector_costs_nothing_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with own_collector(monkeypatch, enabled=False) as collector:
        stream = metered(words())
        assert collector.open_calls == {}
        assert list(stream) == ["wörd"] * 3 and records(collector) == []


# ---------------------------------------------------------------------- it stays what it was


class Sdk:
    """What an SDK's stream is like: an iterator, a block, and more."""

    def __init__(self) -> None:
        self.left = [1, 2]
        self.response = object()
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        while self.left:
            yield self.left.pop(0)

    def __next__(self) -> int:
        return next(iter(self))

    def __enter__(self) -> Sdk:
        return self

    def __exit__(self, *error: object) -> bool:
        self.closed += 1
        return error[0] is LookupError

    def get_final_message(self) -> str:
        return "final"


def test_other_attributes_are_the_sources_own(collector: MetricsCollector) -> None:
    source = Sdk()
    with metered(source) as stream:
        assert stream.response is source.response and stream.get_final_message() == "final"
        assert list(stream) == [1, 2]
        raise LookupError  # which the source swallows
    assert source.closed == 1
    for name in ("missing", "send", "throw"):
        with pytest.raises(AttributeError, match=name):
            getattr(stream, name)
    assert status(collector)[0] == "success"


def test_an_iterable_begins_again_each_time_and_is_metered_once(collector: MetricsCollector) -> None:
    stream = metered([1, 2])
    assert list(stream) == list(stream) == [1, 2]
    assert only(collector).stream.chunks_received == 2


def test_what_is_sent_and_returned_passes(collector: MetricsCollector) -> None:
    def echo() -> Generator[Any, Any, str]:
        got = None
        while got != "end":
            got = yield got
        return "returned"

    def delegating() -> Generator[Any, Any, Any]:
        return (yield from stream)

    stream = metered(echo())
    outer = delegating()
    next(outer)
    thing = object()
    assert outer.send(thing) is thing
    with pytest.raises(StopIteration) as stop:
        outer.send("end")
    assert stop.value.value == "returned"
    assert status(collector)[0] == "success"


def test_an_iterator_that_goes_on_after_its_error_goes_on(collector: MetricsCollector) -> None:
    class Stubborn:
        def __init__(self) -> None:
            self.number = 0

        def __iter__(self) -> Stubborn:
            return self

        def __next__(self) -> int:
            self.number += 1
            if self.number == 2:
                raise ConnectionError
            return self.number

    stream = metered(Stubborn())
    assert next(stream) == 1
    with pytest.raises(ConnectionError):
        next(stream)
    assert next(stream) == 3
    assert status(collector) == ("error", "error", "ConnectionError")


def test_what_is_both_sync_and_async_stays_both(collector: MetricsCollector) -> None:
    class Either:
        def __iter__(self) -> Iterator[int]:
            return iter([1])

        async def __aiter__(self) -> AsyncIterator[int]:
            yield 2

    async def main() -> list[int]:
        return [item async for item in metered(Either())]

    assert list(metered(Either())) == [1] and asyncio.run(main()) == [2]
    assert [record.status for record in records(collector)] == ["success"] * 2


def test_no_item_is_kept_alive(collector: MetricsCollector) -> None:
    class Item:
        pass

    def items() -> Iterator[Item]:
        while True:
            yield Item()

    stream = metered(items())
    gc.disable()
    try:
        for _ in range(3):
            item = weakref.ref(next(stream))
            assert item() is None
        reference = weakref.ref(stream)
        del stream
        assert reference() is None
    finally:
        gc.enable()
    assert status(collector)[0] == "closed_early"


def test_two_threads_may_read_one_stream(collector: MetricsCollector) -> None:
    stream = metered(iter(["a"] * 2000))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(stream)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == ["a"] * 2000 and status(collector)[0] == "success"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "a int"),
        ("text", "no chunks"),
        ({}, "no chunks"),
        (str, "a type"),
        (words, "call it"),
        (async_words, "call it"),
        (None, "a NoneType"),
    ],
)
def test_what_is_no_stream_is_told(collector: MetricsCollector, given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        meter_stream(given)
    assert records(collector) == []


def test_what_is_to_be_awaited_is_told(collector: MetricsCollector) -> None:
    async def made() -> list[str]:
        return []

    waiting: Any = made()
    with pytest.raises(ConfigError, match="await it first"):
        meter_stream(waiting)
    waiting.close()


@pytest.mark.parametrize("wrong", [{"text": 3}, {"text": "a..b"}, {"interval": -1}, {"intervall": 5}])
def test_wrong_options_are_told(collector: MetricsCollector, wrong: Any) -> None:
    with pytest.raises(ConfigError):
        meter_stream(words(), **wrong)
    assert records(collector) == []
