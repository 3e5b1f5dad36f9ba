"""One record, whatever is inside of what: streams, decorators and calls that the wire sees."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from tellmeter import MetricsCollector, instrument, meter_call, meter_stream, on, track_llm_usage, uninstrument
from tellmeter.context import enclosing
from tests.support.metered import only, own_collector, records
from tests.support.sse import JSON, SSE, answer, stream

URL = "https://api.openai.com/v1/chat/completions"
BODY = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
EMBEDDING = {"data": [{"embedding": [0.5]}], "model": "e", "usage": {"prompt_tokens": 8, "total_tokens": 8}}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    with own_collector(monkeypatch) as made:
        instrument()
        yield made
    uninstrument()


def respond(request: httpx2.Request) -> httpx2.Response:
    if request.url.path.endswith("/embeddings"):
        return httpx2.Response(200, json=EMBEDDING)
    if b'"stream"' in request.content:
        return httpx2.Response(200, headers=SSE, stream=httpx2.ByteStream(b"".join(stream(3))))
    return httpx2.Response(200, headers=JSON, content=answer())


def client() -> httpx2.Client:
    return httpx2.Client(transport=httpx2.MockTransport(respond))


def lines(http: httpx2.Client) -> Iterator[str]:
    with http.stream("POST", URL, json=BODY) as response:
        yield from response.iter_lines()


def metered(source: Any, **said: Any) -> Any:
    return meter_stream(source, **{"provider": "own", "model": "m", **said})


def models(collector: MetricsCollector) -> list[str]:
    return [record.model for record in records(collector)]


def test_a_request_that_the_source_makes_is_the_one_record(collector: MetricsCollector) -> None:
    def later() -> Iterator[str]:
        yield "first thoughts"
        yield from lines(client())

    async def main() -> int:
        async def own() -> AsyncIterator[str]:
            async with (
                httpx2.AsyncClient(transport=httpx2.MockTransport(respond)) as http,
                http.stream("POST", URL, json=BODY) as response,
            ):
                async for line in response.aiter_lines():
                    yield line

        return len([line async for line in metered(own())])

    number = len(list(metered(lines(client()))))
    assert len(list(metered(later()))) == number + 1 and asyncio.run(main()) == number > 3
    assert models(collector) == ["gpt-4o-mini"] * 3


def test_only_the_wires_stream_is_told_of(collector: MetricsCollector) -> None:
    told: list[Any] = []
    offs = [on(event, told.append) for event in ("stream.start", "stream.complete")]  # type: ignore[arg-type]
    try:
        list(metered(lines(client())))
        collector.flush_sync()
    finally:
        for off in offs:
            off()
    assert [(report.event, report.model) for report in told] == [
        ("stream.start", "gpt-4o-mini"),
        ("stream.complete", "gpt-4o-mini"),
    ]


def test_a_stream_that_had_begun_before_is_found(collector: MetricsCollector) -> None:
    with client() as http, http.stream("POST", URL, json=BODY) as response:
        for line in metered(line for line in response.iter_lines()):
            assert enclosing.get() is None and isinstance(line, str)
    assert models(collector) == ["gpt-4o-mini"]


def test_a_producer_that_makes_the_request_inside_the_block(collector: MetricsCollector) -> None:
    shown: list[str] = []
    with metered(shown.append) as on_chunk:
        for line in lines(client()):
            on_chunk(line)
    assert len(shown) > 3 and models(collector) == ["gpt-4o-mini"]


def test_an_embedding_inside_is_another_call(collector: MetricsCollector) -> None:
    def own(http: httpx2.Client) -> Iterator[str]:
        http.post("https://api.openai.com/v1/embeddings", json={"model": "e", "input": "hi"})
        yield "a"

    list(metered(own(client())))
    assert sorted(models(collector)) == ["e", "m"]


def test_what_the_consumer_asks_between_two_items_is_another_call(collector: MetricsCollector) -> None:
    for _ in metered(iter(["a", "b"])):
        client().post(URL, json={**BODY, "stream": False, "n": 1})
    assert models(collector) == ["m", "gpt-4o-mini", "gpt-4o-mini"]


def test_a_block_that_the_source_entered_stays_around_its_own_calls(collector: MetricsCollector) -> None:
    def own(http: httpx2.Client) -> Iterator[str]:
        with track_llm_usage("own", "block"):
            yield "a"
            http.post(URL, json={**BODY, "stream": True})
        yield "b"

    list(metered(own(client())))
    assert "block" not in models(collector)


def test_a_block_in_a_source_that_is_closed_leaves_nothing_behind(collector: MetricsCollector) -> None:
    def own() -> Iterator[str]:
        with track_llm_usage("own", "block"):
            yield "a"
            yield "b"

    async def own_async() -> AsyncIterator[str]:
        with track_llm_usage("own", "block"):
            yield "a"
            yield "b"

    async def main() -> None:
        closed = metered(own_async())
        await anext(closed)
        await closed.aclose()
        assert enclosing.get() is None

    closed = metered(own())
    next(closed)
    closed.close()
    assert enclosing.get() is None
    asyncio.run(main())
    assert models(collector) == ["block"] * 2


def test_a_stream_that_is_dropped_sets_no_context_variable(
    collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> Any:
            touched.append(name)
            raise AssertionError(name)

    touched: list[str] = []
    dropped = metered(iter("ab"))
    next(dropped)
    with monkeypatch.context() as patch:
        for module in ("streams", "own_call"):
            patch.setattr(f"tellmeter.instruments.{module}.enclosing", Untouchable())
        del dropped
    assert touched == [] and only(collector).status == "closed_early"


def test_the_innermost_of_nested_streams_counts(collector: MetricsCollector) -> None:
    @track_llm_usage("own", "decorated")
    def inner() -> Iterator[str]:
        yield "a"
        yield "b"

    @track_llm_usage("own", "outer")
    def outer() -> Iterator[str]:
        yield from metered(inner(), model="middle")

    assert list(outer()) == ["a", "b"]
    assert list(metered(metered(iter("ab"), model="one"), model="two")) == ["a", "b"]
    assert models(collector)[0] == "decorated" and len(records(collector)) == 3


def test_a_call_said_by_hand_inside_is_not_counted_twice(collector: MetricsCollector) -> None:
    def own() -> Iterator[str]:
        with meter_call(model="by hand") as call:
            call.input_tokens = 3
            yield "a"

    list(metered(own()))
    assert models(collector) == ["by hand"]


def test_a_refusal_is_told_and_free(collector: MetricsCollector) -> None:
    class RateLimitError(Exception):
        status_code = 429

    def refused() -> Iterator[str]:
        raise RateLimitError
        yield

    with pytest.raises(RateLimitError):
        list(metered(refused()))
    record = only(collector)
    assert (record.status, record.status_code, record.error_category, record.cost_usd) == (
        "error",
        429,
        "rate_limit",
        0.0,
    )


def test_streams_that_end_with_the_process_are_abandoned_with_what_came(collector: MetricsCollector) -> None:
    made = metered(iter("abc"))
    next(made)
    collector.at_exit(0.0)
    assert list(made) == ["b", "c"]
    record = only(collector)
    assert (record.status, record.stream.chunks_received, record.output_tokens) == ("abandoned", 1, 1)


def test_a_hundred_threads_have_a_record_each(collector: MetricsCollector) -> None:
    threads = [threading.Thread(target=lambda: list(metered(iter("abc")))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [record.stream.chunks_received for record in records(collector)] == [3] * 100


def test_it_leaves_nothing_to_the_garbage_collector(collector: MetricsCollector) -> None:
    made: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        for source in (iter("ab"), lines(client())):
            ended = metered(source)
            made += [weakref.ref(ended), weakref.ref(ended.call)]
            list(ended)
            del ended
        dropped = metered(iter("ab"))
        next(dropped)
        made += [weakref.ref(dropped), weakref.ref(dropped.call)]
        del dropped
        collector.flush_sync()
        assert [reference() for reference in made] == [None] * 6
    finally:
        gc.enable()
