"""When a stream is sent again, and when never."""

import asyncio
import time

import pytest

from tellmeter.client import attempts
from tellmeter.errors import StreamEngineError
from tellmeter.testing import Answer, HalfBody, Hang, Reset
from tests.support.replay_server import Streamed, chat, sse
from tests.unit.client.made import BODY, PATH, bench, text

pytestmark = pytest.mark.asyncio
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """The pauses are asked for, and not kept."""
    asked = []
    sleep = asyncio.sleep

    async def noted(seconds):
        asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr(attempts.asyncio, "sleep", noted)
    return asked


@pytest.mark.parametrize(
    "failing",
    [
        Answer(408),
        Answer(429),
        Answer(500),
        Answer(503),
        Answer(529),
        Reset(),
        HalfBody(),
        Streamed([], ending="reset"),
        Streamed([ROLE], ending="close"),
        Streamed([b": waiting\n\n", b'event: ping\ndata: {"type":"ping"}\n\n'], ending="close"),
    ],
)
async def test_what_fails_before_the_first_chunk_is_sent_again_within_one_call(failing):
    async with bench(failing, failing, Streamed(chat("Hel", "lo"))) as made:
        seen = []
        metrics = await made.engine.wait(await made.engine.stream(PATH, BODY, seen.append))
        assert (text(seen), metrics.status, metrics.error_count) == ("Hello", "completed", 0)
        assert len(made.server.requests) == 3
        assert len({request.body for request in made.server.requests}) == 1
        record = await made.record()
        assert (record.status, record.retries, record.stream.status) == ("success", 2, "completed")
        assert [one.event for one in made.final()] == ["stream.complete"]


@pytest.mark.parametrize("failing", [Answer(503), Reset()])
async def test_in_the_end_it_is_one_error(failing):
    async with bench(*[failing] * 5, max_reconnects=1) as made:
        metrics = await made.engine.wait(await made.engine.stream(PATH, BODY))
        assert (metrics.status, metrics.error_count) == ("error", 1)
        assert len(made.server.requests) == 2
        record = await made.record()
        assert (record.status, record.retries, record.error_class) == ("error", 1, metrics.last_error)
        assert [one.event for one in made.final()] == ["stream.error"]


@pytest.mark.parametrize("failing", [Answer(400), Answer(401), Answer(404), Answer(302), Hang()])
async def test_what_another_attempt_does_not_cure_is_not_sent_again(failing):
    async with bench(failing, timeout=0.3) as made:
        assert (await made.engine.wait(await made.engine.stream(PATH, BODY))).status == "error"
        assert len(made.server.requests) == 1
        assert (await made.record()).status in ("error", "timeout")


async def test_nothing_is_sent_again_once_something_was_given_away():
    # What is given away is what the caller's own parser makes: here the role, too.
    async with bench(Streamed([ROLE], ending="close")) as made:
        seen = []
        metrics = await made.engine.wait(await made.engine.stream(PATH, BODY, seen.append, lambda data: data))
        assert (len(seen), metrics.status, len(made.server.requests)) == (1, "error", 1)


async def test_an_attempt_that_fails_after_one_that_came_to_nothing_is_told_once():
    async with bench(Streamed([ROLE], ending="close"), Answer(400)) as made:
        metrics = await made.engine.wait(await made.engine.stream(PATH, BODY))
        assert ((await made.record()).status, (await made.record()).retries) == ("error", 1)
        assert [(one.event, one.last_error) for one in made.final()] == [("stream.error", metrics.last_error)]


async def test_reconnects_may_be_off():
    async with bench(Answer(503), max_reconnects=0) as made:
        assert (await made.engine.wait(await made.engine.stream(PATH, BODY))).status == "error"
        assert len(made.server.requests) == 1


async def test_a_retry_after_is_obeyed(without_waiting):
    async with bench(Answer(429, headers={"Retry-After": "7"}), Streamed(chat("a"))) as made:
        await made.engine.wait(await made.engine.stream(PATH, BODY))
        assert max(without_waiting) == pytest.approx(7, abs=0.1)


async def test_who_wants_to_be_left_alone_for_longer_than_the_timeout_is_not_asked_again():
    async with bench(Answer(429, headers={"Retry-After": "7"}), timeout=5) as made:
        assert (await made.engine.wait(await made.engine.stream(PATH, BODY))).status == "error"
        assert len(made.server.requests) == 1


async def test_pauses_grow_and_differ(without_waiting):
    async with bench(*[Answer(503)] * 6, max_reconnects=5) as made:
        await made.engine.wait(await made.engine.stream(PATH, BODY))
        pauses = [pause for pause in without_waiting if pause]
        assert len(set(pauses)) == 5
        assert all(pause <= 0.5 * 2**number for number, pause in enumerate(pauses))


async def test_a_stream_cancelled_between_two_attempts_ends_once(monkeypatch):
    resting = asyncio.Event()

    async def rest(seconds):
        if seconds:
            resting.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(attempts.asyncio, "sleep", rest)
    async with bench(Answer(503)) as made:
        stream_id = await made.engine.stream(PATH, BODY)
        await resting.wait()
        assert await made.engine.cancel(stream_id)
        assert (await made.record()).status == "cancelled"
        assert [one.status for one in made.final()] == ["cancelled"]


async def test_of_an_errors_body_a_bounded_part_is_kept():
    async with bench(Answer(400, b"x" * 1_000_000)) as made:
        with pytest.raises(StreamEngineError) as told:
            [chunk async for chunk in made.engine.iterate(PATH, BODY)]
        assert told.value.body == b"x" * attempts.ERROR_BYTES
        assert (await made.record()).status_code == 400


async def test_a_stream_that_said_it_is_over_need_not_end(monkeypatch):
    monkeypatch.setattr(attempts, "DRAIN_SECONDS", 0.05)
    for ending in ("hang", "reset", "close"):
        async with bench(Streamed(chat("a"), ending=ending)) as made:
            began = time.monotonic()
            metrics = await made.engine.wait(await made.engine.stream(PATH, BODY))
            assert (metrics.status, metrics.error_count) == ("completed", 0)
            assert time.monotonic() - began < 60
            assert (await made.record()).status == "success"


async def test_an_event_that_is_too_large_ends_the_stream(monkeypatch):
    monkeypatch.setattr("tellmeter.client.framing.MAX_EVENT", 1000)
    async with bench(Streamed(sse("a", "x" * 5000))) as made:
        seen = []
        metrics = await made.engine.wait(await made.engine.stream("/x", {"model": "m"}, seen.append))
        assert (text(seen), metrics.status, metrics.last_error) == ("a", "error", "StreamEngineError")
        record = await made.record()
        assert (record.status, record.error_class) == ("error", "StreamEngineError")
