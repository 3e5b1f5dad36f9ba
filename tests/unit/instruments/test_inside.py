from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from tellmeter import MetricsCollector, instrument, meter_stream, uninstrument
from tellmeter.instruments.inside import call_inside
from tellmeter.simulator.server import SimulatorServer
from tellmeter.simulator.traffic import Traffic
from tests.support.metered import own_collector, records
from tests.support.sse import SSE, stream

ASK: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
ASK_CLAUDE: Any = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsCollector]:
    with own_collector(monkeypatch) as made:
        instrument()
        yield made
    uninstrument()


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(Traffic(speed=0)) as running:
        yield running


def test_what_reads_a_watched_body_is_found_and_what_does_not_is_not(collector: MetricsCollector) -> None:
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers=SSE, stream=httpx2.ByteStream(b"".join(stream(3))))
    )
    url = "https://api.openai.com/v1/chat/completions"
    with httpx2.Client(transport=transport) as http, http.stream("POST", url, json=ASK) as response:
        (call,) = collector.open_calls.values()

        def texts(of: httpx2.Response) -> Iterator[str]:
            yield from of.iter_lines()

        def apart() -> Iterator[str]:
            yield "a"

        readers = [
            response,
            SimpleNamespace(inner=SimpleNamespace(http=response)),
            texts(response),
            (text for text in texts(response)),
            map(str.upper, texts(response)),
            enumerate(texts(response)),
        ]
        assert [call_inside(reader) for reader in readers] == [call] * len(readers)
        for other in (apart(), [response], {"r": response}, object(), None, http, httpx2, type(response)):
            assert call_inside(other) is None
        response.read()


def test_no_code_of_the_source_runs() -> None:
    class Trap:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    def own(trap: Any) -> Iterator[Any]:
        yield trap

    assert call_inside(own(Trap())) is None


def test_the_work_is_bounded() -> None:
    chain: Any = None
    for _ in range(10_000):
        chain = SimpleNamespace(next=chain, more=[SimpleNamespace() for _ in range(3)])
    wide = SimpleNamespace(**{f"n{number}": SimpleNamespace() for number in range(10_000)})
    assert call_inside(chain) is call_inside(wide) is None


@pytest.mark.sdk
def test_streams_of_the_sdks_are_recorded_once_by_the_wire(
    collector: MetricsCollector, server: SimulatorServer
) -> None:
    import anthropic
    import openai

    def texts(made: Any) -> Iterator[Any]:
        for event in made:
            yield event.choices

    async def main() -> None:
        async def async_texts(made: Any) -> AsyncIterator[Any]:
            async for event in made:
                yield event.choices

        async with openai.AsyncOpenAI(api_key="k", base_url=server.openai_url) as client:
            async with meter_stream(await client.chat.completions.create(**ASK)) as made:
                assert made.response.status_code == 200 and [event async for event in made]
            async for _ in meter_stream(async_texts(await client.chat.completions.create(**ASK))):
                pass

    with openai.OpenAI(api_key="k", base_url=server.openai_url) as client:
        assert list(meter_stream(client.chat.completions.create(**ASK)))
        assert list(meter_stream(texts(client.chat.completions.create(**ASK))))
        assert list(meter_stream(client.responses.create(model="gpt-4o", input="hi", stream=True)))
    with anthropic.Anthropic(api_key="k", base_url=server.url) as claude:
        with claude.messages.stream(**ASK_CLAUDE) as made:
            metered = meter_stream(made)
            assert list(metered) and metered.get_final_message().usage.output_tokens
        with claude.messages.stream(**ASK_CLAUDE) as made:
            assert "".join(meter_stream(made.text_stream))
    asyncio.run(main())
    found = records(collector)
    assert [record.method for record in found] == ["stream"] * 7
    assert all(record.request_id and record.status == "success" for record in found)  # which only the wire knows


@pytest.mark.sdk
def test_without_the_wire_the_items_tell(collector: MetricsCollector, server: SimulatorServer) -> None:
    import anthropic
    import openai

    uninstrument()
    with openai.OpenAI(api_key="k", base_url=server.openai_url) as client:
        made = client.chat.completions.create(**ASK, stream_options={"include_usage": True})
        usage = list(meter_stream(made))[-1].usage
    with anthropic.Anthropic(api_key="k", base_url=server.url) as claude, claude.messages.stream(**ASK_CLAUDE) as said:
        text = "".join(event.text for event in meter_stream(said) if event.type == "text")
        message = said.get_final_message()
    chat, claudes = records(collector)
    assert (chat.provider, chat.input_tokens, chat.output_tokens) == (
        "openai",
        usage.prompt_tokens,
        usage.completion_tokens,
    )
    assert (claudes.provider, claudes.output_tokens) == ("anthropic", message.usage.output_tokens)
    assert claudes.stream.bytes_received == len(text.encode())
    assert chat.finish_reason and claudes.finish_reason and chat.cost_usd and claudes.cost_usd
