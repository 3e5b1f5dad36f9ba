"""Every recorded answer of every provider through the LLMClient, over real connections: text, tools, tokens, dollars.

Not with the older SDKs as well: what is the providers' own is tested with them, provider by provider.
"""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from tellmeter import InMemoryMetricsSink, LLMClient, LLMError, MetricsConfig, RetryPolicy
from tellmeter.registry.registry import MetricsRegistry
from tellmeter.testing import FaultServer
from tests.support.exchanges import EXCHANGES, load, need_exchanges
from tests.support.priced import COUNTS, PROVIDERS, asked_model, by_genai_prices, usage_of
from tests.support.replay_server import recorded
from tests.support.texts import text_of, tools_of, value_of

APIS = ("chat.completions", "messages", "generate_content", "stream_generate_content", "converse", "converse_stream")
NAMES = sorted({file.name.removesuffix(".jsonl").removesuffix(".stream") for file in EXCHANGES.glob("*.jsonl")})
NAMES = [name for name in NAMES if name.split(".", 1)[1] in APIS]
# Providers by the OpenAI-compatible way, whoever they are.
COMPATIBLE = {"bedrock_mantle": "mantle", "gemini": "gemini-openai"}
# What google-genai raises for answers that it cannot read: a JSON array for a stream, numbers for names.
UNREADABLE = ("AttributeError", "UnknownApiResponseError")


def provider_of(exchange):
    if exchange.api == "chat.completions" and exchange.provider in COMPATIBLE:
        return COMPATIBLE[exchange.provider]
    return PROVIDERS[exchange.provider][0]


def test_the_recordings_are_there():
    need_exchanges()
    assert len(NAMES) > 20


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # anthropic's, of models that were
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.asyncio
async def test_every_recorded_answer(name, monkeypatch):
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "k")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    exchanges, wrong = load(*name.split(".", 1)), []
    provider = provider_of(exchanges[0])
    memory = InMemoryMetricsSink()
    with FaultServer() as server:
        client = LLMClient(
            api_keys={provider: "canary-key"},
            base_urls={provider: server.url},
            metrics_config=MetricsConfig(),
            metrics_sinks=[memory],
            registry=MetricsRegistry(),
            retry_policy=RetryPolicy(max_attempts=1),
            circuit_breaker=None,
        )
        async with client:
            for exchange in exchanges:
                server.script(recorded(exchange))
                try:
                    await check(client, memory, provider, exchange)
                except Exception as fault:
                    wrong.append(f"{exchange.id} {type(fault).__name__} {str(fault)[:300]}")
                await memory.clear()
    assert not wrong, "\n".join(wrong)


async def check(client, memory, provider, exchange):
    model = asked_model(exchange)
    ask = {"model": f"{provider}/{model}", "max_tokens": 1000}
    text, tools, usage, cost, error = "", (), None, None, None
    try:
        if exchange.is_stream:
            response = client.stream_with_usage("Hi", **ask)
            texts = [part async for part in response]
            whole = await response.get_response()
            assert "".join(texts) == response.get_text() == whole.text
        else:
            whole = await client.generate("Hi", **ask)
        text, tools, usage, cost = whole.text, whole.tool_calls, whole.usage, whole.cost_usd
        breakdown = whole.cost_breakdown
    except LLMError as raised:
        error = raised
    (record,) = await memory.get_metrics()
    assert record.model == model
    assert record.method == ("stream" if exchange.is_stream else "generate"), exchange.id
    said = exchange.expected
    if type(error and error.__cause__).__name__ in UNREADABLE:
        assert PROVIDERS[exchange.provider][0].startswith("gcp.")
        return
    if error is not None:
        assert exchange.status >= 400 or said["stream_error"] or said["error_type"] or said["error_code"], repr(
            error.__cause__
        )
        assert record.status == "error"
        assert error.status_code == (exchange.status if exchange.status >= 400 else None)
        assert error.category == record.error_category != "unknown"
        return
    assert exchange.status == 200 and record.status == "success"
    assert text == text_of(exchange)
    assert [(one.name, value_of(one.arguments)) for one in tools] == tools_of(exchange)
    assert (usage["total_tokens"], usage.cached_tokens) == (record.total_tokens, record.cached_tokens)
    assert cost == record.cost_usd
    if said["usage_raw"] is None:
        return
    expected = usage_of(exchange)
    raw = json.dumps(said["usage_raw"])
    if provider != "gemini-openai" and "toolUsePrompt" not in raw:  # its thinking is in the total alone
        assert record.input_tokens == expected.input_tokens
        assert record.output_tokens == expected.output_tokens
        assert said["cached_tokens"] is None or record.cached_tokens == expected.cached_tokens
    if provider not in COMPATIBLE.values() and record.price_version != "provider" and "AUDIO" not in raw:
        counted = {name: getattr(record, name) for name in COUNTS}
        usage = msgspec.structs.replace(expected, **counted)
        assert cost == by_genai_prices(exchange, usage, datetime.fromtimestamp(record.timestamp, UTC))
    if cost is not None and "input_cost" in breakdown:
        assert breakdown["input_cost"] + breakdown["output_cost"] == pytest.approx(cost)
        assert breakdown["total_cost"] == cost
