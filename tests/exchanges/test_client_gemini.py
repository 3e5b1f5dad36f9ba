"""Every recorded exchange of the Gemini API and of Vertex AI through the LLMClient's provider: what it says and records."""

import json
from collections import Counter

import pytest
from google import genai

from tellmeter.client.ask import Ask
from tellmeter.client.providers.gemini import GeminiProvider
from tellmeter.wire.http import module_of
from tests.support.exchanges import load, need_exchanges, transports
from tests.support.provider_bench import HELLO, bench
from tests.support.replay_server import recorded

pytestmark = pytest.mark.sdk
PROVIDERS = {"gemini": "gcp.gemini", "vertex": "gcp.vertex_ai"}


@pytest.fixture(scope="module", params=list(PROVIDERS))
def exchanges(request):
    need_exchanges()
    found = load(request.param, "generate_content") + load(request.param, "stream_generate_content")
    assert len(found) > 20
    return found


def model_of(exchange):
    return exchange.path.rpartition("/models/")[2].partition(":")[0]


def is_stream(exchange):
    return exchange.api == "stream_generate_content"


def replay(exchanges, work):
    """`await work(bench, provider, exchange)` for each; what fails, with the exchange's id."""
    wrong = []
    with bench(GeminiProvider, PROVIDERS[exchanges[0].provider]) as made:

        async def all_of_them(provider):
            for exchange in exchanges:
                made.server.script(recorded(exchange))
                try:
                    await work(made, provider, exchange)
                except AssertionError as fault:
                    wrong.append(f"{exchange.id}: {str(fault)[:300]}")

        made.run(all_of_them)
    assert not wrong, "\n".join(wrong)


async def bare(exchange, library):
    """What the SDK alone says: text, calls (name and arguments), exception; by its own shortcuts for them."""
    transport = transports(library, exchange)[1]
    texts, calls = [], []
    async with library.AsyncClient(transport=transport) as http:
        options = genai.types.HttpOptions(httpx_async_client=http)
        models = genai.Client(api_key="k", vertexai=exchange.provider == "vertex", http_options=options).aio.models
        asked = {"model": "m", "contents": "x"}
        try:
            if is_stream(exchange):
                async for answer in await models.generate_content_stream(**asked):
                    texts.append(answer.text or "")
                    calls += answer.function_calls or ()
            else:
                answer = await models.generate_content(**asked)
                texts.append(answer.text or "")
                calls += answer.function_calls or ()
        except Exception as error:
            return "".join(texts), calls, error
    return "".join(texts), calls, None


def test_texts_calls_and_errors_are_those_of_the_bare_sdk(exchanges):
    seen = Counter()

    async def work(made, provider, exchange):
        text, calls, error = await bare(exchange, module_of(provider._http))
        heard = await made.hear(provider, Ask(model=model_of(exchange), messages=HELLO), stream=is_stream(exchange))
        assert (type(heard.error), str(heard.error)) == (type(error), str(error))
        assert heard.text == text
        wanted = [(call.id or f"call_{number}", call.name, call.args or {}) for number, call in enumerate(calls)]
        assert [(call, name, json.loads(arguments)) for call, name, arguments in heard.calls] == wanted
        seen.update(texts=bool(text), calls=bool(calls), errors=bool(error))

    replay(exchanges, work)
    assert seen["texts"] >= 10 and seen["calls"] >= 3, seen


def test_the_record_is_that_of_the_recording(exchanges):
    async def work(made, provider, exchange):
        await made.hear(provider, Ask(model=model_of(exchange), messages=HELLO), stream=is_stream(exchange))
        (record,) = await made.records()
        said = exchange.expected
        assert (record.model, record.provider, record.retries) == (model_of(exchange), made.name, 0)
        assert (record.status_code, record.response_model) == (exchange.status, said["model"])
        assert record.method == ("stream" if is_stream(exchange) else "generate")
        failed = exchange.status >= 400 or bool(said["stream_error"])
        assert record.status == ("error" if failed else "success")
        raw = said["usage_raw"]
        if raw is None:
            return
        thought = said["reasoning_tokens"] or 0
        assert record.input_tokens == (said["input_tokens"] or 0) + raw.get("toolUsePromptTokenCount", 0)
        assert (record.output_tokens, record.reasoning_tokens) == ((said["output_tokens"] or 0) + thought, thought)
        assert record.cached_tokens == (said["cached_tokens"] or 0)
        # Vertex AI has the number of the word where it is asked to.
        assert record.finish_reason == {1: "STOP"}.get(said["finish_reason"], said["finish_reason"])

    # The SDK asks for server-sent events, and cannot read the array that the API has without them.
    replay([exchange for exchange in exchanges if exchange.status != 200 or exchange.body[:1] != b"["], work)


@pytest.mark.parametrize("provider", list(PROVIDERS))
def test_recorded_embeddings(provider):
    need_exchanges()
    recordings = [one for one in load(provider, "embeddings") if one.status == 200 and "predict" not in one.path]
    with bench(GeminiProvider, PROVIDERS[provider]) as made:

        async def all_of_them(sdk):
            for exchange in recordings:
                made.server.script(recorded(exchange))
                answer = json.loads(exchange.body)
                wanted = answer.get("embeddings") or [answer["embedding"]]
                with made.metered():
                    vectors, raw = await sdk.embed(model_of(exchange), ["x"] * len(wanted), {})
                assert vectors == [one["values"] for one in wanted] and raw.embeddings
                (record,) = await made.records()
                assert (record.method, record.status, record.provider) == ("embed", "success", made.name)

        made.run(all_of_them)
