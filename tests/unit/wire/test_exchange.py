from __future__ import annotations

import gzip
from typing import Any

import httpx2
import pytest

from tellmeter import MetricsCollector, MetricsRegistry, counts
from tellmeter.wire.calls import WireCall
from tellmeter.wire.exchange import Exchange, OneByOne
from tellmeter.wire.formats import gemini, ollama, openai_chat

SSE = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


@pytest.fixture
def collector() -> Any:
    made = MetricsCollector(registry=MetricsRegistry())
    yield made
    made.shutdown_sync()


class Unread(httpx2.SyncByteStream):
    def __iter__(self) -> Any:
        yield b""


def answered(
    collector: Any, kind: str, *, status: int = 200, form: Any = openai_chat.FORMAT, **headers: str
) -> Exchange:
    call = WireCall(collector, form, scoped=False)
    exchange = call.attempt(httpx2.Request("POST", "https://api.openai.com/v1/chat/completions", json={}))
    response = httpx2.Response(status, headers={"content-type": kind, **headers}, stream=Unread())
    assert exchange.answered(response)
    return exchange


@pytest.mark.parametrize(
    ("kind", "form", "status", "metered"),
    [
        ("text/event-stream", openai_chat.FORMAT, 200, True),
        ("Text/Event-Stream; charset=utf-8", openai_chat.FORMAT, 200, True),
        ("text/event-stream", openai_chat.FORMAT, 500, True),  # an error that comes as an event
        ("application/json", openai_chat.FORMAT, 200, False),
        ("application/x-ndjson", openai_chat.FORMAT, 200, False),
        ("application/x-ndjson", ollama.CHAT, 200, True),
        ("application/x-ndjson", ollama.CHAT, 404, False),
        ("application/json", gemini.STREAM, 200, True),
        ("application/json", gemini.STREAM, 400, False),
        ("", openai_chat.FORMAT, 200, False),
    ],
)
def test_what_is_a_stream_by_its_content_type(collector: Any, kind: str, form: Any, status: int, metered: bool) -> None:
    exchange = answered(collector, kind, status=status, form=form)
    assert (exchange.meter is not None) == metered
    assert (exchange.kept is not None) != metered
    exchange.ended("completed")


def test_a_stream_without_a_content_type_is_known_by_its_first_bytes(collector: Any) -> None:
    exchange = answered(collector, "")
    noted = exchange.chunks()
    assert isinstance(noted, OneByOne)
    noted.times.append(10)
    assert exchange.meter is None
    noted.times.append(20)
    noted.chunks.append(SSE)
    noted.fold()
    assert exchange.meter is not None
    assert exchange.meter.reader.events == 1
    noted.times.append(30)  # the next one is asked for
    assert exchange.meter.waiting() == ("provider", 30)
    exchange.ended("completed")


def test_encoded_chunks_are_read_and_the_waiting_is_seen_all_the_same(collector: Any) -> None:
    exchange = answered(collector, "text/event-stream", **{"content-encoding": "gzip"})
    noted = exchange.chunks()
    assert exchange.meter is not None and noted is not exchange.meter
    noted.times.append(10)
    assert exchange.meter.waiting() == ("provider", 10)
    noted.times.append(20)
    noted.chunks.append(gzip.compress(SSE))
    noted.fold()
    assert exchange.meter.waiting() == ("consumer", 20)
    assert (exchange.meter.bytes, exchange.meter.reader.content_events) == (len(SSE), 1)
    exchange.ended("completed")


def test_an_encoding_that_nobody_knows_is_counted_and_left(collector: Any) -> None:
    before = counts.total("undecodable_body")
    exchange = answered(collector, "text/event-stream", **{"content-encoding": "rot13"})
    assert exchange.meter is None and exchange.kept is None
    assert counts.total("undecodable_body") == before + 1
    exchange.ended("completed")


def test_the_first_end_counts(collector: Any) -> None:
    exchange = answered(collector, "text/event-stream")
    exchange.ended("error", ValueError("canary"))
    exchange.ended("completed")
    exchange.closed()
    assert (exchange.ending, exchange.error[0]) == ("error", "ValueError")
    assert collector.open_calls == {}
