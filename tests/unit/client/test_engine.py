import asyncio

import httpx2
import pytest

import tellmeter
from tellmeter import ConfigError, MetricsConfig, counts
from tellmeter.client import engine as module
from tellmeter.client.engine import StreamEngine
from tellmeter.errors import StreamEngineError
from tellmeter.streams.options import stream_options
from tellmeter.testing import Answer, FaultServer
from tests.support.replay_server import Flood, Streamed, chat, sse
from tests.unit.client.made import BODY, PATH, bench, text

pytestmark = pytest.mark.asyncio


async def test_a_stream_is_told_chunk_by_chunk_and_measured():
    async with bench(Streamed(chat("Hel", "lo", usage='{"prompt_tokens":3,"completion_tokens":2}'))) as made:
        chunks = []
        stream_id = await made.engine.stream(PATH, BODY, callback=chunks.append)
        assert stream_id.startswith("stream_")
        assert made.engine.status(stream_id) == "pending"
        metrics = await made.engine.wait(stream_id)
        assert text(chunks) == "Hello"
        assert chunks[-1].finish_reason == "stop"
        assert made.engine.status(stream_id) == "completed"
        assert (metrics.stream_id, metrics.status, metrics.chunks_received) == (stream_id, "completed", 3)
        assert (metrics.error_count, metrics.last_error) == (0, None)
        assert await made.engine.wait(stream_id) == metrics
        record = await made.record()
        assert (record.provider, record.model, record.response_model) == ("openai", "m-1", "m-1")
        assert (record.status, record.method, record.input_tokens, record.output_tokens) == ("success", "stream", 3, 2)
        assert record.stream == metrics
        (final,) = made.final()
        assert (final.event, final.stream_id, final.chunks_received) == ("stream.complete", stream_id, 3)


async def test_the_request_is_what_the_provider_wants():
    async with bench(Streamed(chat("a")), headers={"X-Team": "red"}) as made:
        await made.engine.wait(await made.engine.stream("/chat/completions?x=1", BODY))
        (request,) = made.server.requests
        assert (request.method, request.path) == ("POST", "/chat/completions?x=1")
        assert request.json() == {**BODY, "stream": True}
        assert request.headers["authorization"] == "Bearer sk-canary"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-team"] == "red"


async def test_stream_is_asked_for_where_the_format_does_it_in_the_body():
    asked = {
        "/v1/chat/completions": (BODY, True),
        "/v1/responses": ({"model": "m", "input": "hi"}, True),
        "/v1/messages": ({**BODY, "max_tokens": 9}, True),
        "/v2/chat": (BODY, True),
        "/api/chat": (BODY, True),
        "/v1beta/models/gemini-2.0-flash:streamGenerateContent": ({"contents": []}, None),
        "/model/m/converse-stream": ({"messages": []}, None),
        "/anything": ({"prompt": "x"}, None),
    }
    async with bench() as made:
        for path, (body, _) in asked.items():
            await made.engine.wait(await made.engine.stream(path, body))
        assert [request.json().get("stream") for request in made.server.requests] == [
            want for _, want in asked.values()
        ]
        await made.engine.wait(await made.engine.stream(PATH, {**BODY, "stream": False}))
        assert made.server.requests[-1].json()["stream"] is False


async def test_callbacks_may_be_coroutine_functions_and_come_in_order():
    async with bench(Streamed(chat(*map(str, range(30))))) as made:
        seen = []

        async def slowly(chunk):
            await asyncio.sleep(0)
            seen.append(chunk.content)

        await made.engine.wait(await made.engine.stream(PATH, BODY, callback=slowly))
        assert seen[:-1] == list(map(str, range(30)))


async def test_ones_own_parse_chunk_gets_the_data_and_may_skip():
    async def parse(data):
        return data if data != "b" else None

    for parser in (parse, lambda data: data if data != "b" else None):
        async with bench(Streamed(sse("a", "b", "c"))) as made:
            seen = []
            await made.engine.wait(await made.engine.stream("/x", {"model": "m"}, seen.append, parser))
            assert seen == ["a", "c"]
            assert (await made.record()).stream.chunks_received == 3


async def test_async_for():
    async with bench(Streamed(chat("Hel", "lo"))) as made:
        assert text([chunk async for chunk in made.engine.iterate(PATH, BODY)]) == "Hello"
        assert (await made.record()).status == "success"


async def test_waiting():
    streamed = Streamed(chat("a"), after=1)
    async with bench(streamed) as made:
        stream_id = await made.engine.stream(PATH, BODY)
        with pytest.raises(TimeoutError):
            await made.engine.wait(stream_id, timeout=0.01)
        assert made.engine.status(stream_id) in ("pending", "streaming")
        streamed.go.set()
        first, second = await asyncio.gather(made.engine.wait(stream_id), made.engine.wait(stream_id, timeout=60))
        assert first == second
        assert first.status == "completed"
        with pytest.raises(ConfigError, match="no stream"):
            await made.engine.wait("stream_nobody")
        assert made.engine.status("stream_nobody") is None
        assert not await made.engine.cancel("stream_nobody")


async def test_ended_streams_are_kept_for_a_while(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    async with bench(*[Streamed(chat("a")) for _ in range(3)]) as made:
        ids = [await made.engine.stream(PATH, BODY) for _ in range(3)]
        await asyncio.gather(*map(made.engine.wait, ids))
        await asyncio.sleep(0)
        assert [made.engine.status(one) for one in ids].count("completed") == 2


async def test_the_socket_is_not_read_while_a_callback_runs():
    flood = Flood(b"data: " + b"x" * 65_000 + b"\n\n", 1500)
    async with bench(flood) as made:
        seen = 0

        async def slow_at_first(_):
            nonlocal seen
            seen += 1
            if seen == 1:
                assert await asyncio.to_thread(flood.full.wait, 60)

        metrics = await made.engine.wait(await made.engine.stream("/x", {}, slow_at_first))
        assert flood.took is not None and flood.took < 1000
        assert (seen, metrics.status, metrics.chunks_received) == (1500, "completed", 1500)


async def test_a_hundred_streams_at_once():
    texts = [[f"{stream}-{piece} " for piece in range(20)] for stream in range(100)]

    def play(request):
        return Streamed(chat(*texts[int(request.json()["user"])]))

    async with bench() as made:
        made.server.default = play
        seen = [[] for _ in texts]
        ids = [await made.engine.stream(PATH, {**BODY, "user": str(at)}, seen[at].append) for at in range(100)]
        metrics = await asyncio.gather(*map(made.engine.wait, ids))
        assert [text(chunks) for chunks in seen] == ["".join(pieces) for pieces in texts]
        assert {one.status for one in metrics} == {"completed"}
        assert [one.stream_id for one in metrics] == ids
        records = await made.records()
        assert sorted(one.stream.stream_id for one in records) == sorted(ids)
        assert sorted(one.stream_id for one in made.final()) == sorted(ids)


async def test_metrics_may_be_off():
    for options, opts, config in (
        ({"enable_metrics": False}, None, None),
        ({}, {"enabled": False}, None),
        ({}, None, MetricsConfig(enabled=False)),
    ):
        async with bench(Streamed(chat("Hel", "lo")), Answer(401), config=config, **options) as made:
            tellmeter.instrument(collector=made.collector)
            try:
                seen = []
                metrics = await made.engine.wait(await made.engine.stream(PATH, BODY, seen.append, opts=opts))
                failed = await made.engine.wait(await made.engine.stream(PATH, BODY, opts=opts))
            finally:
                tellmeter.uninstrument()
            assert text(seen) == "Hello"
            assert (metrics.status, metrics.chunks_received, metrics.model) == ("completed", 0, "m-1")
            assert (failed.status, failed.last_error) == ("error", "AuthenticationError")
            assert await made.records() == [] and made.reports == []


async def test_what_is_said_of_one_stream_comes_before_the_block_and_the_engine():
    async with bench(*[Streamed(chat("a")) for _ in range(4)], enable_metrics=False) as made:
        block, own = [], []
        await made.engine.wait(await made.engine.stream(PATH, BODY))
        await made.engine.wait(await made.engine.stream(PATH, BODY, opts={"enabled": True}))
        with stream_options(enabled=True, callback=block.append):
            await made.engine.wait(await made.engine.stream(PATH, BODY))
            raw = {"callback": own.append, "include_raw_data": True}
            await made.engine.wait(await made.engine.stream(PATH, BODY, opts=raw))
        assert len(await made.records()) == 3
        assert [
            len([one for one in told if one.event == "stream.complete"]) for told in (made.reports, block, own)
        ] == [1] * 3
        assert b"".join(own[-1].raw_chunks) == b"".join(chat("a"))


async def test_instrument_counts_no_stream_twice():
    async with bench(Streamed(chat("a"))) as made:
        tellmeter.instrument(collector=made.collector)
        try:
            await made.engine.wait(await made.engine.stream(PATH, BODY))
        finally:
            tellmeter.uninstrument()
        assert len(await made.records()) == 1


async def test_ones_own_http_client_is_used_and_stays_open():
    async with httpx2.AsyncClient(headers={"x-own": "1"}) as client:
        async with bench(Streamed(chat("a")), http_client=client) as made:
            assert (await made.engine.wait(await made.engine.stream(PATH, BODY))).status == "completed"
            assert made.server.requests[0].headers["x-own"] == "1"
        assert not client.is_closed


async def test_the_connection_is_used_again():
    async with bench(*[Streamed(chat("a")) for _ in range(3)]) as made:
        for _ in range(3):
            assert text([chunk async for chunk in made.engine.iterate(PATH, BODY)]) == "a"
        assert made.server.connections == 1


async def test_the_tags_of_the_code_around_are_on_the_record():
    async with bench(Streamed(chat("a"))) as made:
        with tellmeter.tags(feature="search"):
            stream_id = await made.engine.stream(PATH, BODY)
        await made.engine.wait(stream_id)
        assert (await made.record()).tags == {"feature": "search"}


async def test_a_path_that_nobody_knows_is_metered_by_what_it_sends():
    plays = [
        Streamed([b'{"token":"a"}\n', b'{"token":"b"}\n'], content_type="application/x-ndjson"),
        Streamed([b'[{"text":"a"},', b'{"text":"b","model":"m-2"}]'], content_type="application/json"),
    ]
    async with bench(*plays, provider="mine") as made:
        for _ in plays:
            assert text([chunk async for chunk in made.engine.iterate("/generate", {"prompt": "x"})]) == "ab"
        first, second = await made.records()
        assert (first.provider, first.model, first.status) == ("mine", "unknown", "success")
        assert (second.model, second.stream.chunks_received, second.stream.status) == ("m-2", 2, "completed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"max_reconnects": -1}, "max_reconnects"),
        ({"max_reconnects": True}, "max_reconnects"),
        ({"metrics_interval": -5}, "metrics_interval"),
        ({"metrics_callback": 5}, "metrics_callback"),
        ({"enable_metrics": "yes"}, "enable_metrics"),
        ({"http_client": object()}, "http_client"),
        ({"http_client": httpx2.Client}, "http_client"),
        ({"provider": "nobody"}, "base_url"),
    ],
)
async def test_arguments_that_cannot_work(arguments, message):
    with pytest.raises(ConfigError, match=message):
        StreamEngine(**{"provider": "openai", **arguments})


@pytest.mark.parametrize(
    ("path", "body", "opts", "message"),
    [
        ("", BODY, None, "path"),
        ("https://example.com/x", BODY, None, "path"),
        ("/x\x00", BODY, None, "path"),
        (PATH, "text", None, "body"),
        (PATH, {"model": object()}, None, "body"),
        (PATH, BODY, {"intervall": 5}, "intervall"),
    ],
)
async def test_streams_that_cannot_be(path, body, opts, message):
    async with bench() as made:
        with pytest.raises(ConfigError, match=message):
            await made.engine.stream(path, body, opts=opts)
        assert made.server.requests == [] and await made.records() == []


async def test_the_key_is_in_no_error_and_no_repr(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    with FaultServer() as server:
        server.stop_listening()
        async with StreamEngine("openai", base_url=server.url, max_reconnects=0, enable_metrics=False) as engine:
            with pytest.raises(StreamEngineError) as told:
                [chunk async for chunk in engine.iterate(PATH, BODY)]
            shown = (
                repr(engine)
                + repr(vars(engine))
                + repr(vars(engine._place))
                + repr(told.value)
                + repr(told.value.__cause__)
            )
            assert "sk-canary" not in shown
            assert told.value.error_class == "ConnectError"


async def test_an_engine_serves_many_event_loops():
    def on_a_loop_of_its_own(engine):
        async def once():
            seen = []
            metrics = await engine.wait(await engine.stream(PATH, BODY, seen.append))
            await engine._clients.get().aclose()
            return text(seen), metrics.status

        return asyncio.run(once())

    with FaultServer(default=lambda _: Streamed(chat("a"))) as server:
        engine = StreamEngine("openai", base_url=server.url, enable_metrics=False)
        found = await asyncio.gather(*(asyncio.to_thread(on_a_loop_of_its_own, engine) for _ in range(3)))
        found.append(await asyncio.to_thread(on_a_loop_of_its_own, engine))
        assert found == [("a", "completed")] * 4


async def test_nothing_of_ours_failed():
    assert "stream_engine" not in counts.snapshot().get("guarded_errors", {})
