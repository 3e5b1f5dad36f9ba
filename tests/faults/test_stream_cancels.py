"""Cancellations of streams at any moment, one and ten thousand: each stream has one record and one last report."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import openai
import pytest

from tellmeter.testing import FaultServer
from tests.support.paced import ASKED, HANG, PATIENCE, URL, Paced
from tests.support.sdk import http as sdk_http
from tests.support.sse import SSE, stream
from tests.support.watched import FINAL, Watched

EVENTS = stream(6)
MESSAGES: Any = ASKED["messages"]

Enough = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(Paced([*EVENTS[:5], HANG])) as made:
        yield made


async def consume(client: Any, url: str, reached: asyncio.Event, hold: bool) -> None:
    async with client.stream("POST", f"{url}/v1/chat/completions", json=ASKED) as response:
        async for _ in response.aiter_raw():
            reached.set()
            if hold:
                await asyncio.Event().wait()


async def cancelled(client: Any, url: str, hold: bool) -> None:
    reached = asyncio.Event()
    task = asyncio.create_task(consume(client, url, reached, hold))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def timed_out(client: Any, url: str, hold: bool) -> None:
    reached = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            task = asyncio.create_task(reached.wait())
            task.add_done_callback(lambda _: limit.reschedule(0.0))  # as soon as the first piece is there
            await consume(client, url, reached, hold)


async def in_a_group(client: Any, url: str, hold: bool) -> None:
    reached = asyncio.Event()

    async def fail() -> None:
        await reached.wait()
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(consume(client, url, reached, hold))
            group.create_task(fail())


@pytest.mark.parametrize("how", [cancelled, timed_out, in_a_group])
@pytest.mark.parametrize("hold", [False, True], ids=["waiting for the provider", "holding the stream"])
@pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.fault(24)
def test_a_cancelled_stream(server: FaultServer, http: ModuleType, how: Any, hold: bool) -> None:
    left: list[Any] = []

    async def main() -> None:
        async with http.AsyncClient(timeout=PATIENCE) as client:
            await how(client, server.url, hold)
            await turns(10)  # the loop closes the generators that httpx left
            left.extend(asyncio.all_tasks() - {asyncio.current_task()})

    with Watched() as watched:
        asyncio.run(main())
        record, final = watched.only()
    assert (record.status, record.error_category, final.status) == ("cancelled", "cancelled", "cancelled")
    assert (final.event, final.error_count) == ("stream.complete", 0 if hold else 1)
    assert final.chunks_received >= 1 and record.tokens_estimated
    assert not left


@pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.fault(24)
def test_a_call_cancelled_before_its_answer_is_no_stream(http: ModuleType) -> None:
    async def main(url: str) -> None:
        async with http.AsyncClient(timeout=PATIENCE) as client:
            task = asyncio.create_task(consume(client, url, asyncio.Event(), False))
            await asyncio.to_thread(server.wait_for, 1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    class Silent(Paced):
        def play(self, talk: Any, request: Any) -> bool:
            talk.read_to_the_end()
            return False

    with FaultServer(Silent([])) as server, Watched() as watched:
        asyncio.run(main(server.url))
        (record,) = watched.records()
        assert (record.status, record.method) == ("cancelled", "stream")
        assert watched.reports == []  # no stream has begun
        watched.check()


class Transport(sdk_http.AsyncBaseTransport):  # type: ignore[name-defined, misc]
    """Answers with a stream whose every piece comes after a few turns of the loop."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.asked = 0

    async def handle_async_request(self, request: Any) -> Any:
        dice = self.dice
        self.asked += 1
        await turns(dice.randrange(4))

        class Body(sdk_http.AsyncByteStream):  # type: ignore[name-defined, misc]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for event in EVENTS:
                    await turns(dice.randrange(3))
                    yield event

        return sdk_http.Response(200, headers=SSE, stream=Body())


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.sdk
@pytest.mark.heavy
@pytest.mark.fault(24)
def test_ten_thousand_cancellations_at_any_moment() -> None:
    number, dice = 10_000, random.Random(7)
    transport = Transport(dice)

    async def one(client: Any, sdk: openai.AsyncOpenAI) -> None:
        if dice.random() < 0.9:
            async with client.stream("POST", URL, json=ASKED) as response:
                await read(response.aiter_raw())
            return
        answer = await sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
        async with answer if dice.random() < 0.5 else contextlib.nullcontext():
            await read(answer)

    async def read(answer: Any) -> None:
        async for _ in answer:
            if dice.random() < 0.2:
                await turns(dice.randrange(8))
            if dice.random() < 0.01:
                break

    async def main() -> set[Any]:
        async with sdk_http.AsyncClient(transport=transport) as client:
            sdk = openai.AsyncOpenAI(api_key="k", max_retries=0, http_client=client)
            for _ in range(0, number, 500):
                tasks = [asyncio.create_task(one(client, sdk)) for _ in range(500)]
                for _ in range(25):
                    await turns(1)
                    for task in dice.sample(tasks, 30):
                        task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                del tasks
            gc.collect()  # what was left without a close
            await turns(20)
            return asyncio.all_tasks() - {asyncio.current_task()}

    config = {"max_queue": 100_000, "stall_after_ms": 1.0, "enable_cost_tracking": False, "stream_interval_ms": 1.0}
    with Watched(**config) as watched:
        assert not asyncio.run(main())
        gc.collect()
        records = watched.records()
        watched.check()
        finals = watched.of(*FINAL)
        stats = watched.collector.stats()
    # A task that is cancelled before it sends makes no call.
    assert stats.recorded == len(records) == transport.asked > number * 0.9
    streams = [record for record in records if record.stream is not None and record.stream.stream_id]
    assert Counter(one.stream_id for one in finals) == Counter(one.stream.stream_id for one in streams if one.stream)
    assert len({one.stream_id for one in finals}) == len(finals) > number * 0.3
    said = Counter(record.status for record in records)
    assert set(said) <= {"success", "cancelled", "closed_early", "abandoned"}, said
    assert said["success"] > 100 and said["cancelled"] > number * 0.4, said
    by_id = {one.stream_id: one for one in finals}
    for record in streams:
        assert record.stream is not None
        assert by_id[record.stream.stream_id].chunks_received == record.stream.chunks_received
    assert not any(name.startswith("Thread-") for name in watched.threads())


@pytest.mark.fault(23)
def test_a_thousand_streams_at_once() -> None:
    number = 1000
    all_there, seen = threading.Event(), []

    async def main() -> None:
        waiting, go = 0, asyncio.Event()

        class Body(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                nonlocal waiting
                yield b"".join(EVENTS[:5])
                waiting += 1
                if waiting == number:
                    seen.append(watched.collector.active_streams())
                    seen.append(watched.total("llm_active_streams"))
                    all_there.set()
                    go.set()
                await go.wait()
                yield b"".join(EVENTS[5:])

        class Held(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: Any) -> Any:
                return httpx.Response(200, headers=SSE, stream=Body())

        async def one(client: httpx.AsyncClient) -> bytes:
            async with client.stream("POST", URL, json=ASKED) as response:
                return b"".join([part async for part in response.aiter_raw()])

        async with httpx.AsyncClient(transport=Held()) as client:
            got = await asyncio.gather(*(one(client) for _ in range(number)))
        assert set(got) == {b"".join(EVENTS)}

    with Watched(stall_after_ms=1.0, enable_cost_tracking=False) as watched:
        asyncio.run(main())
        records = watched.records()
        watched.check()
    assert len(seen[0]) == seen[1] == number
    assert {live.chunks_received for live in seen[0]} == {5} and len({live.stream_id for live in seen[0]}) == number
    assert [record.status for record in records] == ["success"] * number
    assert len(watched.of(*FINAL)) == number
    assert all(record.output_tokens == 200 for record in records)


@pytest.mark.sdk
def test_who_looks_at_streams_from_other_threads_changes_nothing_of_them() -> None:
    """Dashboards, scrapes and the timer read what waits to be read, at any moment, the last one too."""
    number, over, failed = 300, threading.Event(), []

    def look() -> None:
        try:
            while not over.is_set():
                for live in watched.collector.active_streams():
                    assert live.chunks_received <= len(EVENTS) and live.status in ("pending", "streaming")
                watched.registry.text()
        except BaseException as error:
            failed.append(error)

    async def main() -> None:
        async with sdk_http.AsyncClient(transport=Transport(random.Random(3))) as client:
            sdk = openai.AsyncOpenAI(api_key="k", max_retries=0, http_client=client)

            async def one() -> int:
                answer = await sdk.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
                return len([event async for event in answer])

            for _ in range(0, number, 30):
                assert set(await asyncio.gather(*(one() for _ in range(30)))) == {len(EVENTS) - 1}

    with Watched(stall_after_ms=1.0, stream_interval_ms=1.0, enable_cost_tracking=False) as watched:
        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            asyncio.run(main())
        finally:
            over.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert not failed
        records = watched.records()
        watched.check()
    assert Counter(record.status for record in records) == {"success": number}
    streams = [record.stream for record in records if record.stream is not None]
    assert {one.chunks_received for one in streams} == {len(EVENTS) - 1} and len(streams) == number
    assert {one.bytes_received for one in streams} == {sum(map(len, EVENTS))}
    assert len(watched.of(*FINAL)) == number
