"""Recorded traffic of Amazon Bedrock through real boto3: the application gets the same, and the record is right."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tellmeter import counts
from tellmeter.client.ask import Ask
from tellmeter.client.providers.base import Access, metering
from tellmeter.client.providers.bedrock import BedrockProvider
from tellmeter.secret import Secret
from tellmeter.testing import FaultServer
from tellmeter.testing.faults import Answer, Fault
from tellmeter.wire.calls import begin
from tellmeter.wire.event_stream import Frames
from tests.exchanges.test_bedrock import asked_of_the_client, tokens
from tests.support.bedrock import METHODS, ask, metered, model_of, runtime
from tests.support.exchanges import Recorded, load, need_exchanges, parts
from tests.support.metered import only, own_collector
from tests.support.replay_server import Streamed

_NOT_REPLAYED = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    need_exchanges()
    with FaultServer() as made:
        yield made


@pytest.fixture(scope="module")
def plain(server: FaultServer) -> Any:
    return runtime(server.url)


def played(exchange: Recorded) -> Fault:
    """The recording with its headers; what was no error in pieces."""
    headers = {name: value for name, value in exchange.headers.items() if name.lower() not in _NOT_REPLAYED}
    if exchange.status != 200:
        return Answer(exchange.status, exchange.body, headers)
    kind = headers.pop("content-type", "application/octet-stream")
    return Streamed(list(parts(exchange.body, 700)), content_type=kind, headers=headers)


def check(record: Any, exchange: Recorded) -> None:
    """What the record of a call says, against what the recording does."""
    stated = exchange.expected
    assert record.model == model_of(exchange)
    assert record.status_code == exchange.status
    assert record.status == ("success" if exchange.status == 200 else "error")
    assert (record.stream is not None) == (exchange.is_stream and exchange.status == 200)
    assert record.retries == 0
    assert len(record.tools_used) == (asked_of_the_client(exchange) if exchange.status == 200 else 0)
    if stated["finish_reason"]:
        assert record.finish_reason == stated["finish_reason"]
    wanted = tokens(stated)
    if wanted["output"] is None:  # an embedding's, or in a header: test_bedrock.py
        return
    found = (record.input_tokens, record.output_tokens, record.cached_tokens, record.cache_write_tokens)
    assert found == (wanted["input"], wanted["output"], wanted["cached"], wanted["written"])


@pytest.mark.parametrize("api", METHODS)
def test_boto3_gives_the_same_and_the_record_is_right(
    api: str, server: FaultServer, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = runtime(server.url)
    exchanges = load("bedrock", api)
    guarded = counts.total("guarded_errors")
    for exchange in exchanges:
        server.script(played(exchange), played(exchange))
        wanted = ask(plain, exchange)
        with own_collector(monkeypatch) as collector:
            assert ask(metered(seen, collector), exchange) == wanted, exchange.id
            collector.flush_sync()
            check(only(collector), exchange)
        ours, theirs = server.requests[-1], server.requests[-2]
        assert (ours.path, ours.body) == (theirs.path, theirs.body)
    assert len(exchanges) >= 20 and counts.total("guarded_errors") == guarded


def texts(exchange: Recorded) -> str:
    """The text of an answer, found without the code under test."""
    if not exchange.is_stream:
        content = json.loads(exchange.body)["output"]["message"]["content"]
        cited = [one for block in content for one in block.get("citationsContent", {}).get("content", ())]
        return "".join(block.get("text", "") for block in [*content, *cited])
    bodies = [json.loads(message.payload) for message in Frames().feed(exchange.body)]
    return "".join(body.get("delta", {}).get("text", "") for body in bodies)


async def generated(provider: BedrockProvider, exchange: Recorded) -> tuple[str, list[tuple[str, str, Any]]]:
    reply = await provider.generate(asked(exchange))
    return reply.text, [(call.id, call.name, call.parsed()) for call in reply.tool_calls]


async def streamed(provider: BedrockProvider, exchange: Recorded) -> tuple[str, list[tuple[str, str, Any]]]:
    text, calls = "", {}
    async for delta in provider.stream(asked(exchange)):
        text += delta.text
        if delta.tool is not None:
            call = calls.setdefault(delta.tool_index, [delta.tool.id, delta.tool.name, ""])
            call[2] += delta.tool.arguments
    return text, [(call[0], call[1], json.loads(call[2])) for call in calls.values()]


def asked(exchange: Recorded) -> Ask:
    return Ask(model=model_of(exchange), messages=[{"role": "user", "content": "hi"}])


def calls_in(exchange: Recorded) -> list[tuple[str, str, Any]]:
    """The calls for the caller's tools, found without the code under test."""
    if not exchange.is_stream:
        content = json.loads(exchange.body)["output"]["message"]["content"]
        uses = [block["toolUse"] for block in content if "toolUse" in block]
        return [(use["toolUseId"], use["name"], use["input"]) for use in uses if use.get("type") != "server_tool_use"]
    uses = {}
    for message in Frames().feed(exchange.body):
        body = json.loads(message.payload)
        use = body.get("start", {}).get("toolUse") or body.get("delta", {}).get("toolUse")
        if use is not None:
            one = uses.setdefault(body["contentBlockIndex"], {"input": ""})
            one.update({name: value for name, value in use.items() if name != "input"})
            one["input"] += use.get("input", "")
    return [
        (use["toolUseId"], use["name"], json.loads(use["input"] or "{}"))
        for use in uses.values()
        if use.get("type") != "server_tool_use"
    ]


@pytest.mark.parametrize("api", ["converse", "converse_stream"])
def test_the_provider_says_what_the_recording_says(
    api: str, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = BedrockProvider(Access(provider="aws.bedrock", base_url=server.url, api_key=Secret("key")))
    get = streamed if api.endswith("stream") else generated
    for exchange in load("bedrock", api):
        server.script(played(exchange))
        with own_collector(monkeypatch) as collector:
            token = metering.set(functools.partial(begin, lambda of=collector: of))
            try:
                if exchange.status == 200:
                    assert asyncio.run(get(provider, exchange)) == (texts(exchange), calls_in(exchange)), exchange.id
                else:
                    with pytest.raises(ClientError):
                        asyncio.run(get(provider, exchange))
            finally:
                metering.reset(token)
            collector.flush_sync()
            check(only(collector), exchange)


def test_embeddings(server: FaultServer) -> None:
    async def main() -> int:
        provider = BedrockProvider(Access(provider="aws.bedrock", base_url=server.url, api_key=Secret("key")))
        number = 0
        for exchange in load("bedrock", "invoke_model"):
            model = model_of(exchange)
            if "titan-embed" not in model and "cohere.embed" not in model:
                continue
            number += 1
            server.script(played(exchange))
            given = dict(exchange.request)
            sent = given.pop("texts", None) or [given.pop("inputText")]
            vectors, raw = await provider.embed(model, sent, given)
            assert server.requests[-1].json() == exchange.request
            body = json.loads(exchange.body)
            assert raw == body and len(vectors) == len(sent)
            found = body["embeddings"] if "embeddings" in body else [body["embedding"]]
            assert vectors == (found["float"] if isinstance(found, dict) else found)
        return number

    assert asyncio.run(main()) >= 5
