from __future__ import annotations

import asyncio
import builtins
import functools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, EventStreamError

from tellmeter import ConfigError, MetricsCollector, MissingExtra
from tellmeter.client.ask import Ask
from tellmeter.client.providers.base import Access, Delta, metering
from tellmeter.client.providers.bedrock import BedrockProvider
from tellmeter.secret import Secret
from tellmeter.testing import FaultServer
from tellmeter.testing.faults import Answer, Fault, Hang, Request, Reset
from tellmeter.wire.calls import begin
from tests.support.bedrock import EVENTS, FRAMES, OK, streamed
from tests.support.event_stream import exception
from tests.support.metered import only, own_collector

ASK = Ask(model="m.one-v1:0", messages=[{"role": "user", "content": "hi"}])
JSON = {"content-type": "application/json"}
WAIT = 10.0


def provider_at(url: str | None, **more: Any) -> BedrockProvider:
    given = {"base_url": url, "api_key": Secret("key-1"), **more}
    return BedrockProvider(Access(provider="aws.bedrock", **given))


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as made:
        yield made


@pytest.fixture(scope="module")
def provider(server: FaultServer) -> BedrockProvider:
    return provider_at(server.url, headers={"x-team": "blue", "Content-Type": "application/json; v=1"})


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    """What the provider's requests are recorded by."""
    with own_collector(monkeypatch) as made:
        token = metering.set(functools.partial(begin, lambda: made))
        yield made
        metering.reset(token)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's AWS settings."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def threads_gone() -> bool:
    deadline = time.monotonic() + WAIT
    while any(thread.name == "tellmeter-bedrock" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


async def all_of(provider: BedrockProvider) -> list[Delta]:
    return [delta async for delta in provider.stream(ASK)]


# ---------------------------------------------------------------------- who asks, and whom


def test_a_key_is_a_bearer_token_and_headers_are_added(server: FaultServer, provider: BedrockProvider) -> None:
    server.script(OK)
    reply = asyncio.run(provider.generate(ASK))
    assert (reply.text, reply.tool_calls, reply.raw["stopReason"]) == ("hello", (), "end_turn")
    request = server.requests[-1]
    assert request.path == "/model/m.one-v1%3A0/converse"
    assert request.headers["authorization"] == "Bearer key-1" and request.headers["x-team"] == "blue"
    assert request.headers["content-type"] == "application/json; v=1"
    assert "key-1" not in repr(provider) + repr(vars(provider))


def test_a_key_wins_over_the_environment(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "other")
    server.script(OK)
    asyncio.run(provider_at(server.url).generate(ASK))
    assert server.requests[-1].headers["authorization"] == "Bearer key-1"


def test_without_a_key_aws_has_credentials_and_region(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    server.script(OK)
    asyncio.run(provider_at(server.url, api_key=None, headers={"x-team": "blue"}).generate(ASK))
    signed = server.requests[-1].headers["authorization"]
    assert "/eu-west-3/bedrock/" in signed and "x-team" in signed


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://vpce-1.bedrock-runtime.ap-south-2.vpce.amazonaws.com", "ap-south-2"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://gateway.example/bedrock.eu-west-1.", "us-west-2"),
        (None, "us-west-2"),
    ],
)
def test_the_region(url: str | None, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    client = provider_at(url)._runtime()
    assert client.meta.region_name == region
    assert client.meta.endpoint_url == (url or f"https://bedrock-runtime.{region}.amazonaws.com")
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (10.0, 600.0, 1)


@pytest.mark.parametrize("missing", ["base_url", "api_key"])
def test_no_region_is_one_clear_error(missing: str, server: FaultServer) -> None:
    with pytest.raises(ConfigError, match="AWS_DEFAULT_REGION"):
        asyncio.run(provider_at(**{"url": server.url, missing: None}).generate(ASK))


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def no_boto3(name: str, *given: Any, **more: Any) -> Any:
        if name == "boto3":
            raise ImportError(name)
        return original(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", no_boto3)
    with pytest.raises(MissingExtra, match=r"tellmeter\[bedrock\]"):
        provider_at("http://x")


# ---------------------------------------------------------------------- answers


@pytest.mark.parametrize("fault", [Answer(500, b"{}"), Answer(429, b"{}"), Reset()], ids=["500", "429", "reset"])
def test_it_retries_nothing(fault: Fault, server: FaultServer, provider: BedrockProvider) -> None:
    for run in (provider.generate(ASK), all_of(provider)):
        before = server.received
        server.script(fault)
        with pytest.raises((ClientError, BotoCoreError)):
            asyncio.run(run)
        assert server.received == before + 1
    assert threads_gone()


def test_many_at_once(server: FaultServer, provider: BedrockProvider) -> None:
    together = threading.Barrier(24)

    def play(request: Request) -> Fault:
        together.wait(WAIT)
        return OK

    async def main() -> list[str]:
        return [reply.text for reply in await asyncio.gather(*(provider.generate(ASK) for _ in range(24)))]

    server.script(*[play] * 24)
    assert asyncio.run(main()) == ["hello"] * 24


def test_a_stream_gives_what_comes_as_it_comes(
    server: FaultServer, provider: BedrockProvider, collector: MetricsCollector
) -> None:
    go, before = threading.Event(), server.received

    async def main() -> list[str]:
        stream = provider.stream(ASK)
        await asyncio.sleep(0)
        assert server.received == before  # nobody has asked for anything
        texts = [(await anext(stream)).text]
        go.set()
        return texts + [delta.text async for delta in stream]

    server.script(streamed(after=2, go=go))
    assert asyncio.run(main()) == ["hel", "lo"]
    assert threads_gone()
    collector.flush_sync()
    record = only(collector)
    assert (record.status, record.output_tokens, record.stream.chunks_received) == ("success", 5, len(EVENTS))


def test_an_exception_inside_a_stream_is_botocores(server: FaultServer, provider: BedrockProvider) -> None:
    server.script(streamed([*FRAMES[:2], exception("modelStreamErrorException", {"message": "oh"})]))
    with pytest.raises(EventStreamError):
        asyncio.run(all_of(provider))
    assert threads_gone()


# ---------------------------------------------------------------------- callers that go away


def test_a_caller_that_leaves_a_stream_closes_it(
    server: FaultServer, provider: BedrockProvider, collector: MetricsCollector
) -> None:
    async def main() -> None:
        async with aclosing(provider.stream(ASK)) as stream:
            assert (await anext(stream)).text == "hel"

    server.script(streamed(FRAMES[:3], ending="hang"))
    asyncio.run(main())
    assert threads_gone()
    collector.flush_sync()
    assert only(collector).status == "closed_early"


def test_a_cancelled_wait_for_the_next_event_ends_at_once(
    server: FaultServer, provider: BedrockProvider, collector: MetricsCollector
) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), aclosing(provider.stream(ASK)) as stream:
                async for _ in stream:
                    pass

    server.script(streamed(FRAMES[:3], ending="hang"))  # for the 600 seconds of the read timeout
    asyncio.run(main())
    assert threads_gone()
    collector.flush_sync()
    assert only(collector).status == "cancelled"


def test_a_cancelled_wait_for_the_answer_leaves_nothing_behind_for_ever(
    server: FaultServer, provider: BedrockProvider
) -> None:
    async def main(streams: bool) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(all_of(provider) if streams else provider.generate(ASK), 0.2)

    for streams in (False, True):
        server.script(Hang())
        asyncio.run(main(streams))
    server.drop_connections()
    assert threads_gone()


def test_a_stream_that_opens_after_its_caller_went_is_closed(server: FaultServer, provider: BedrockProvider) -> None:
    go = threading.Event()

    def play(request: Request) -> Fault:
        go.wait(WAIT)
        return streamed(FRAMES[:2], ending="hang")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(all_of(provider), 0.2)

    server.script(play)
    asyncio.run(main())
    go.set()
    assert threads_gone()


# ---------------------------------------------------------------------- embeddings and models


@pytest.mark.parametrize(
    ("model", "texts", "sent", "answer"),
    [
        ("amazon.titan-embed-text-v2:0", ["a"], {"inputText": "a"}, {"embedding": [0.5, 1]}),
        ("amazon.titan-embed-text-v2:0", ["a"], {"inputText": "a"}, {"embeddingsByType": {"binary": [0.5, 1]}}),
        ("cohere.embed-english-v3", ["a"], {"texts": ["a"]}, {"embeddings": [[0.5, 1]]}),
        ("us.cohere.embed-v4:0", ["a"], {"texts": ["a"]}, {"embeddings": {"int8": [[5, 1]], "float": [[0.5, 1]]}}),
        ("eu.cohere.embed-v4:0", ["a"], {"texts": ["a"]}, {"embeddings": {"int8": [[0.5, 1]]}}),
    ],
)
def test_embeddings(
    model: str, texts: list[str], sent: Any, answer: Any, server: FaultServer, provider: BedrockProvider
) -> None:
    server.script(Answer(200, json.dumps(answer).encode(), JSON))
    vectors, raw = asyncio.run(provider.embed(model, texts, {"own": 1}))
    assert (vectors, raw) == ([[0.5, 1]], answer)
    body = server.requests[-1].json()
    assert sent.items() <= body.items() and body["own"] == 1
    assert body.get("input_type", "search_document") == "search_document"


@pytest.mark.parametrize(
    ("model", "texts", "told"),
    [
        ("other.embed-v1", ["a"], "titan-embed"),
        ("amazon.titan-embed-text-v1", ["a", "b"], "takes 1 to 1"),
        ("cohere.embed-english-v3", [], "takes 1 to 96"),
    ],
)
def test_embeddings_that_cannot_be(model: str, texts: list[str], told: str, provider: BedrockProvider) -> None:
    with pytest.raises(ConfigError, match=told):
        asyncio.run(provider.embed(model, texts, {}))


@pytest.mark.parametrize("allowed", [True, False])
def test_models(allowed: bool, server: FaultServer, provider: BedrockProvider) -> None:
    def play(request: Request) -> Fault:
        if request.path.startswith("/foundation-models"):
            return Answer(200, json.dumps({"modelSummaries": [{"modelArn": "a", "modelId": "m.one"}]}).encode(), JSON)
        assert request.path.startswith("/inference-profiles") and request.headers["authorization"] == "Bearer key-1"
        profiles = {"inferenceProfileSummaries": [{"inferenceProfileId": "us.m.one"}]}
        return Answer(200, json.dumps(profiles).encode(), JSON) if allowed else Answer(403, b"{}")

    server.script(play, play)
    assert asyncio.run(provider.models()) == ["m.one", *(["us.m.one"] if allowed else [])]


def test_models_are_listed_by_another_host() -> None:
    found = provider_at("https://bedrock-runtime.eu-central-1.amazonaws.com")
    asked: list[str] = []
    found._client = lambda service, url: asked.append(url) or 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(found.models())
    assert asked == ["https://bedrock.eu-central-1.amazonaws.com"]


def test_it_may_be_closed_twice_and_used_again(server: FaultServer) -> None:
    found = provider_at(server.url)

    async def main() -> str:
        await found.aclose()
        await found.generate(ASK)
        await found.aclose()
        await found.aclose()
        return (await found.generate(ASK)).text

    server.script(OK, OK)
    assert asyncio.run(main()) == "hello"
