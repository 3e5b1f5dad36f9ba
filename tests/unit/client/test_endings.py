"""Whatever ends a stream: one record, one last report, one error told once, and nothing left behind."""

import asyncio
import json

import pytest

from tellmeter import ConfigError
from tellmeter.errors import StreamEngineError
from tellmeter.testing import Answer, Hang
from tests.support.replay_server import Streamed, chat
from tests.unit.client.made import BODY, PATH, bench, text

pytestmark = pytest.mark.asyncio


async def test_leaving_the_loop_closes_the_stream():
    streamed = Streamed(chat(*"abcdefgh"), after=3, ending="hang")
    async with bench(streamed) as made:
        async for chunk in made.engine.iterate(PATH, BODY):
            assert chunk.content == "a"
            break
        for _ in range(1000):
            if await made.records():
                break
            await asyncio.sleep(0.01)
        record = await made.record()
        streamed.go.set()
        assert (record.status, record.stream.status, record.error_class) == ("closed_early", "closed_early", None)
        (final,) = made.final()
        assert (final.status, final.error_count) == ("closed_early", 0)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_an_http_error_is_told_once(status):
    body = json.dumps({"error": {"message": "secret prompt", "type": "invalid_request_error"}}).encode()
    async with bench(Answer(status, body), Answer(status, body)) as made:
        metrics = await made.engine.wait(await made.engine.stream(PATH, BODY))
        assert (metrics.status, metrics.error_count) == ("error", 1)
        with pytest.raises(StreamEngineError) as told:
            [chunk async for chunk in made.engine.iterate(PATH, BODY)]
        assert told.value.status_code == status
        assert told.value.body == body
        assert "secret" not in str(told.value) + repr(told.value)
        records = await made.records()
        assert [record.status_code for record in records] == [status] * 2
        assert {record.error_class for record in records} == {metrics.last_error, told.value.error_class}
        assert [(one.event, one.error_count, one.last_error) for one in made.final()] == [
            ("stream.error", 1, metrics.last_error)
        ] * 2
        assert len(made.server.requests) == 2


@pytest.mark.parametrize("ending", ["reset", "close"])
async def test_a_stream_that_breaks_off_is_an_error_and_never_replayed(ending):
    plays = [Streamed(chat("Hel", "lo")[:1], ending=ending) for _ in range(2)]
    async with bench(*plays) as made:
        seen = []
        metrics = await made.engine.wait(await made.engine.stream(PATH, BODY, seen.append))
        assert (text(seen), metrics.status, metrics.error_count, metrics.chunks_received) == ("Hel", "error", 1, 1)
        assert metrics.last_error in ("ReadError", "RemoteProtocolError")
        with pytest.raises(StreamEngineError) as told:
            async for chunk in made.engine.iterate(PATH, BODY):
                seen.append(chunk)
        assert (text(seen), told.value.error_class) == ("HelHel", metrics.last_error)
        records = await made.records()
        assert [(one.status, one.error_class, one.retries) for one in records] == [("error", metrics.last_error, 0)] * 2
        assert [(one.event, one.error_count) for one in made.final()] == [("stream.error", 1)] * 2
        assert len(made.server.requests) == 2


async def test_a_silent_provider_is_a_timeout():
    for play in (Hang(), Streamed(chat("a")[:1], ending="hang")):
        async with bench(play, timeout=0.3) as made:
            metrics = await made.engine.wait(await made.engine.stream(PATH, BODY))
            record = await made.record()
            assert (metrics.status, metrics.last_error, metrics.error_count) == ("error", "ReadTimeout", 1)
            assert (record.status, record.error_category) == ("timeout", "timeout")
            assert len(made.server.requests) == len(made.final()) == 1


@pytest.mark.parametrize("where", ["callback", "parse"])
async def test_what_the_callers_code_raises_ends_the_stream(where):
    def fail(_):
        raise LookupError("secret")

    own = {"callback": fail} if where == "callback" else {"parse_chunk": fail}
    async with bench(Streamed(chat("a", "b"), ending="hang")) as made:
        metrics = await made.engine.wait(await made.engine.stream(PATH, BODY, **own))
        assert (metrics.status, metrics.last_error, metrics.error_count) == ("error", "LookupError", 1)
        record = await made.record()
        assert (record.status, record.error_class, record.stream.status) == ("error", "LookupError", "error")
        assert [one.event for one in made.final()] == ["stream.error"]
    async with bench(Streamed(chat("a"))) as made:
        with pytest.raises(LookupError):
            async for _ in made.engine.iterate(PATH, BODY, parse_chunk=fail):
                pass


async def test_an_error_inside_the_stream_is_told_once():
    events = [*chat("a")[:1], b'data: {"error":{"message":"secret","type":"server_error"}}\n\n']
    for iterated in (False, True):
        async with bench(Streamed(events)) as made:
            if iterated:
                with pytest.raises(StreamEngineError, match="inside") as told:
                    [chunk async for chunk in made.engine.iterate(PATH, BODY)]
                name = told.value.error_class
            else:
                metrics = await made.engine.wait(await made.engine.stream(PATH, BODY))
                assert (metrics.status, metrics.error_count) == ("error", 1)
                name = metrics.last_error
            record = await made.record()
            assert (record.status, record.error_class, record.error_category) == ("error", name, "server_error")
            assert [one.event for one in made.final()] == ["stream.error"]


async def test_cancelled_streams():
    streamed = Streamed(chat("a"), after=1, ending="hang")
    async with bench(streamed, Streamed([], ending="hang")) as made:
        begun = asyncio.Event()
        stream_id = await made.engine.stream(PATH, BODY, lambda _: begun.set())
        await begun.wait()
        assert made.engine.status(stream_id) == "streaming"
        assert await made.engine.cancel(stream_id)
        at_once = await made.engine.stream(PATH, BODY)
        assert await made.engine.cancel(at_once)
        for one in (stream_id, at_once):
            assert made.engine.status(one) == "cancelled"
            assert (await made.engine.wait(one)).status == "cancelled"
            assert not await made.engine.cancel(one)
        assert [record.status for record in await made.records()] == ["cancelled"] * 2
        assert [one.status for one in made.final()] == ["cancelled"] * 2
        streamed.go.set()


async def test_a_callback_may_cancel_its_own_stream():
    async with bench(Streamed(chat("a", "b", "c"))) as made:
        seen = []

        async def once(chunk):
            seen.append(chunk.content)
            assert await made.engine.cancel(stream_id)

        stream_id = await made.engine.stream(PATH, BODY, once)
        assert (await made.engine.wait(stream_id)).status == "cancelled"
        assert seen == ["a"]


async def test_closing_leaves_no_task_and_ends_every_call():
    plays = [Streamed(chat("a"), after=1, ending="hang") for _ in range(5)]
    before = asyncio.all_tasks()
    async with bench(*plays) as made:
        ids = [await made.engine.stream(PATH, BODY) for _ in plays]
        await made.engine.aclose()
        assert asyncio.all_tasks() == before
        assert {made.engine.status(one) for one in ids} == {"cancelled"}
        await made.engine.aclose()
        with pytest.raises(ConfigError, match="closed"):
            await made.engine.stream(PATH, BODY)
        with pytest.raises(ConfigError, match="closed"):
            made.engine.iterate(PATH, BODY)
        assert [record.status for record in await made.records()] == ["cancelled"] * 5
        for play in plays:
            play.go.set()


async def test_closing_ends_a_loop_that_still_reads():
    async with bench(Streamed(chat("a")[:1], ending="hang")) as made:
        chunks = made.engine.iterate(PATH, BODY)
        assert (await anext(chunks)).content == "a"
        await made.engine.aclose()
        with pytest.raises((StreamEngineError, StopAsyncIteration)):
            await asyncio.wait_for(anext(chunks), 60)
        assert (await made.record()).status in ("error", "closed_early")
