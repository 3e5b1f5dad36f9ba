import asyncio

import pytest

from tellmeter import InMemoryMetricsSink, MetricsCollector, MetricsConfig
from tellmeter.client import metering
from tellmeter.client.metering import EngineStream
from tellmeter.errors import StreamEngineError
from tellmeter.streams.events import on
from tellmeter.streams.options import StreamOptions
from tellmeter.testing import Answer
from tellmeter.wire.formats import generic
from tests.support.replay_server import Streamed, chat
from tests.unit.client.made import BODY, PATH, bench

pytestmark = pytest.mark.asyncio


def made(target=None, **more):
    options = {
        "provider": "p",
        "model": "m",
        "client_options": StreamOptions(),
        "call_options": StreamOptions(),
        **more,
    }
    return EngineStream(target, generic.FORMAT, **options)


@pytest.mark.parametrize(
    ("error", "status", "last_error"),
    [
        (None, "completed", None),
        (ValueError("secret"), "error", "ValueError"),
        (TimeoutError(), "error", "TimeoutError"),
        (StreamEngineError("x", status_code=429), "error", "RateLimitError"),
        (StreamEngineError("x", error_class="ReadError"), "error", "ReadError"),
        (asyncio.CancelledError(), "cancelled", None),
        (GeneratorExit(), "closed_early", None),
    ],
)
async def test_an_end_without_metering(error, status, last_error):
    stream = made()
    assert (stream.metered, stream.status) == (False, "pending")
    stream.opened()
    assert stream.status == "streaming"
    stream.end(error)
    stream.end(ValueError("later"))
    metrics = await stream.metrics()
    assert (metrics.status, metrics.last_error, metrics.error_count) == (
        status,
        last_error,
        int(last_error is not None),
    )
    assert (stream.status, metrics.stream_id, metrics.provider, metrics.model) == (status, stream.stream_id, "p", "m")
    assert metrics.current_time - metrics.start_time == pytest.approx(metrics.duration_ms, abs=0.01)


async def test_the_block_is_the_stream():
    with pytest.raises(LookupError), made() as stream:
        raise LookupError
    assert stream.status == "error"
    with made() as stream:
        pass
    assert stream.status == "completed"


async def test_every_name_is_another_one():
    assert len({made().stream_id for _ in range(100)}) == 100


async def test_a_record_that_is_not_made_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(metering, "RECORD_SECONDS", 0.01)
    stream = made()
    assert (await stream.metrics()).status == "pending"


async def test_a_full_hand_off_is_no_reason_to_wait():
    collector = MetricsCollector(MetricsConfig(max_queue=1), sinks=[InMemoryMetricsSink()])
    collector._router.put = lambda *_: False
    stream = made(collector)
    async with bench() as server:
        request = server.engine._client().build_request("POST", server.server.url, json={})
        with stream:
            stream.attempt(request)
        assert (await asyncio.wait_for(stream.metrics(), 60)).status == "completed"


async def test_the_end_of_a_stream_that_never_began_is_told_to_handlers_too():
    told = []
    off = on("stream.error", told.append)
    try:
        async with bench(Answer(404)) as made:
            stream_id = await made.engine.stream(PATH, BODY)
            await made.engine.wait(stream_id)
            record = await made.record()
    finally:
        off()
    (report,) = told
    assert (report.stream_id, report.status, report.error_count) == (stream_id, "error", 1)
    assert (report.provider, report.model) == (record.provider, record.model)


async def test_without_stream_metrics_there_is_a_record_and_no_report():
    config = MetricsConfig(enable_streaming_metrics=False)
    async with bench(Streamed(chat("a")), Answer(404), config=config) as made:
        for status in ("completed", "error"):
            assert (await made.engine.wait(await made.engine.stream(PATH, BODY))).status == status
        assert [record.stream for record in await made.records()] == [None, None]
        assert made.reports == []
