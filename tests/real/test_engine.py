"""Every recorded stream through the StreamEngine, over real connections: its text, its bytes, its record."""

import asyncio
import base64
import json
from functools import cache

import pytest

from tellmeter import InMemoryMetricsSink, MetricsCollector
from tellmeter.client.engine import StreamEngine
from tellmeter.errors import StreamEngineError
from tellmeter.testing import FaultServer
from tests.support.exchanges import EXCHANGES, load, need_exchanges
from tests.support.replay_server import recorded

eventstream = pytest.importorskip("botocore.eventstream")

APIS = sorted({file.name.removesuffix(".jsonl").removesuffix(".stream") for file in EXCHANGES.glob("*stream*.jsonl")})
MOST_RAW = 1 << 20


@cache
def streams(name):
    return [exchange for exchange in load(*name.split(".", 1)) if exchange.is_stream and exchange.status == 200]


# ------------------------------------------------------------------ the answer's text, read in another way


def events(exchange):
    """The data of the events, found without anything of ours."""
    body = exchange.body
    if "bedrock" in exchange.provider and body[:1] == b"\0":
        buffer = eventstream.EventStreamBuffer()
        buffer.add_data(body)
        found = [json.loads(message.payload) for message in buffer]
        return [json.loads(base64.b64decode(one["bytes"])) if "bytes" in one else one for one in found]
    text = body.decode()
    if text.lstrip().startswith("["):
        return json.loads(text)
    lines = text.splitlines()
    if not text.lstrip().startswith("{"):
        lines = [line[5:] for line in lines if line.startswith("data:")]
    return [json.loads(line) for line in lines if line.strip() and line.strip() != "[DONE]"]


def parts(content):
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    return content or ""


def chat_text(found):
    deltas = [choice["delta"] for event in found for choice in event.get("choices", ()) if choice.get("delta")]
    return "".join(parts(delta.get("content")) + (delta.get("refusal") or "") for delta in deltas)


def responses_text(found):
    """What the last event repeats as a whole."""
    whole = [event["response"] for event in found if event["type"] in ("response.completed", "response.incomplete")]
    output = [part for response in whole for item in response["output"] for part in item.get("content") or ()]
    return "".join(
        part.get("text") or part.get("refusal") or "" for part in output if part["type"] in ("output_text", "refusal")
    )


def anthropic_text(found):
    deltas = [event["delta"] for event in found if event.get("type") == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas if delta["type"] == "text_delta")


def gemini_text(found):
    pieces = [
        part
        for event in found
        for one in event.get("candidates", ())
        for part in one.get("content", {}).get("parts", ())
    ]
    return "".join(part.get("text", "") for part in pieces if not part.get("thought"))


def cohere_text(found):
    return "".join(
        event["delta"]["message"]["content"].get("text", "") for event in found if event["type"] == "content-delta"
    )


def invoke_text(found):
    if any("contentBlockDelta" in event for event in found):
        return "".join(
            event["contentBlockDelta"]["delta"].get("text", "") for event in found if "contentBlockDelta" in event
        )
    if any(event.get("type") == "message_start" for event in found):
        return anthropic_text(found)
    if any("choices" in event for event in found):
        return chat_text(found)
    keys = ("completion", "generation", "outputText", "text")
    pieces = [event.get(key) or "" for event in found for key in keys]
    return "".join(pieces) + "".join(one["text"] for event in found for one in event.get("outputs", ()))


TEXTS = {
    "chat.completions": chat_text,
    "responses": responses_text,
    "messages": anthropic_text,
    "generate_content": gemini_text,
    "stream_generate_content": gemini_text,
    "chat": chat_text,
    "cohere.chat": cohere_text,
    "completions": lambda found: "".join(choice["text"] for event in found for choice in event["choices"]),
    "writer.completions": lambda found: "".join(event["value"] for event in found),
    "ollama.chat": lambda found: "".join(
        event.get("response") or event.get("message", {}).get("content") or "" for event in found
    ),
    "converse_stream": lambda found: "".join(event.get("delta", {}).get("text", "") for event in found),
    "invoke_model_stream": invoke_text,
}


def text_of(exchange):
    read = TEXTS.get(f"{exchange.provider}.{exchange.api}") or TEXTS[exchange.api]
    return read(events(exchange))


# ------------------------------------------------------------------ through the engine


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize("cut", [7, 65_536])
def test_every_recorded_stream(name, cut):
    need_exchanges()
    found = streams(name)
    if cut == 7:  # each byte is a system call there
        found = [exchange for exchange in found if len(exchange.body) < 10_000][:10]

    async def run(server):
        finals = {}
        sink = InMemoryMetricsSink()
        collector = MetricsCollector(sinks=[sink])
        async with StreamEngine(base_url=server.url, include_raw_chunks=True, collector=collector) as engine:
            for exchange in found:
                server.default = recorded(exchange, cut)
                told = []
                chunks = []
                opts = {"callback": lambda report: told.append(report) if report.status != "streaming" else None}  # noqa: B023
                stream_id = await engine.stream(exchange.path, exchange.request, chunks.append, opts=opts)
                metrics = await engine.wait(stream_id)
                await collector.flush()
                finals[stream_id] = (exchange, chunks, metrics, told)
        records = {record.stream.stream_id: record for record in await sink.get_metrics(limit=10_000)}
        await collector.shutdown()
        return finals, records

    with FaultServer() as server:
        finals, records = asyncio.run(run(server))
    assert len(finals) == len(records) == len(found)
    for stream_id, (exchange, chunks, metrics, told) in finals.items():
        failed = exchange.expected["stream_error"] is not None
        text = "".join(chunk.content for chunk in chunks)
        assert text == text_of(exchange) or failed, exchange.id
        assert metrics.status == ("error" if failed else "completed"), (exchange.id, metrics.last_error)
        (final,) = told
        if len(exchange.body) < MOST_RAW and not failed:
            assert b"".join(final.raw_chunks) == exchange.body, exchange.id
            assert metrics.bytes_received == len(exchange.body)
        record = records[stream_id]
        assert record.stream == metrics
        assert record.status == ("error" if failed else "success"), exchange.id
        reasons = [chunk.finish_reason for chunk in chunks if chunk.finish_reason and not chunk.index]
        if record.finish_reason and not failed:
            assert record.finish_reason in reasons, exchange.id


@pytest.mark.parametrize("name", APIS)
def test_recorded_errors_are_raised(name):
    need_exchanges()
    provider, api = name.split(".", 1)
    wrong = [exchange for exchange in load(provider, api) if exchange.status >= 400]

    async def run(server):
        async with StreamEngine(base_url=server.url, enable_metrics=False, max_reconnects=0) as engine:
            for exchange in wrong:
                server.default = recorded(exchange)
                with pytest.raises(StreamEngineError) as told:
                    [chunk async for chunk in engine.iterate(exchange.path, exchange.request)]
                assert (told.value.status_code, told.value.body) == (exchange.status, exchange.body)

    with FaultServer() as server:
        asyncio.run(run(server))
