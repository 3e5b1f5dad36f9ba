"""Every recorded exchange of Anthropic's Messages through the LLMClient's provider: what it says, sends and records."""

import asyncio
import json
from collections import Counter

import anthropic
import pytest

from tellmeter.client.ask import Ask
from tellmeter.client.providers.anthropic import AnthropicProvider
from tests.exchanges.test_sdk_replay import check
from tests.support.exchanges import load, need_exchanges, transports
from tests.support.provider_bench import bench
from tests.support.replay_server import recorded
from tests.support.sdk import http_of

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")]


def ask_of(exchange):
    """The recorded request as arguments of the provider's own, which win over what is made of the rest."""
    given = {name: value for name, value in exchange.request.items() if name not in ("model", "stream")}
    return Ask(model=exchange.request["model"], messages=[{"role": "user", "content": "not this"}], extra=given)


def replay(exchanges, work):
    """`await work(bench, provider, exchange)` for each; what fails, with the exchange's id."""
    wrong = []
    with bench(AnthropicProvider, "anthropic") as made:

        async def all_of_them(provider):
            for exchange in exchanges:
                made.server.script(recorded(exchange))
                try:
                    await work(made, provider, exchange)
                except AssertionError as fault:
                    wrong.append(f"{exchange.id}: {str(fault)[:300]}")

        made.run(all_of_them)
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def exchanges():
    need_exchanges()
    found = load("anthropic", "messages")
    assert len(found) > 160
    return found


def blocks(exchange):
    """The blocks of an answer as the SDK's own stream helper puts them together, or as they are."""
    if not exchange.is_stream:
        return json.loads(exchange.body)["content"]

    async def final():
        library = http_of(anthropic.Anthropic)
        http = library.AsyncClient(transport=transports(library, exchange)[1])
        sdk = anthropic.AsyncAnthropic(api_key="k", max_retries=0, http_client=http)
        async with sdk, sdk.messages.stream(model="m", max_tokens=1, messages=[]) as stream:
            message = await stream.get_final_message()
        return [block.model_dump(mode="json") for block in message.content]

    return asyncio.run(final())


def test_texts_and_calls_are_those_of_the_bare_sdk(exchanges):
    seen = Counter()
    bare = {exchange.id: blocks(exchange) for exchange in exchanges if exchange.status == 200}

    async def work(made, provider, exchange):
        heard = await made.hear(provider, ask_of(exchange), stream=exchange.is_stream)
        assert heard.error is None
        said = bare[exchange.id]
        assert heard.text == "".join(block["text"] for block in said if block["type"] == "text")
        wanted = [(block["id"], block["name"], block["input"]) for block in said if block["type"] == "tool_use"]
        assert [(call, name, json.loads(arguments)) for call, name, arguments in heard.calls] == wanted
        if exchange.is_stream:
            assert heard.reasoning == "".join(block["thinking"] for block in said if block["type"] == "thinking")
        seen.update(texts=bool(heard.text), calls=bool(heard.calls), thoughts=bool(heard.reasoning))

    replay([exchange for exchange in exchanges if exchange.status == 200], work)
    assert min(seen.values()) >= 5, seen


def test_the_record_is_that_of_the_recording_and_errors_are_the_sdks(exchanges):
    async def work(made, provider, exchange):
        heard = await made.hear(provider, ask_of(exchange), stream=exchange.is_stream)
        (record,) = await made.records()
        check(record, exchange, heard.error)
        failed = exchange.status >= 400
        assert isinstance(heard.error, anthropic.APIStatusError if failed else type(None)), heard.error
        assert not failed or heard.error.status_code == exchange.status

    replay(exchanges, work)


def test_the_providers_own_arguments_arrive_as_they_are(exchanges):
    async def work(made, provider, exchange):
        await made.hear(provider, ask_of(exchange), stream=exchange.is_stream)
        sent = made.server.requests[-1].json()
        wanted = {**exchange.request, "stream": exchange.is_stream}
        assert {"stream": False, **sent} == wanted

    replay(exchanges, work)
