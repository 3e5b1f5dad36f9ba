"""The real SDK against a real server that does as told."""

import asyncio
import builtins
import importlib.metadata
import json
import sys
import types

import pytest
from google import genai

from tellmeter.client.ask import Ask
from tellmeter.client.providers.base import Access
from tellmeter.client.providers.gemini import GeminiProvider
from tellmeter.errors import ConfigError, MissingExtra
from tellmeter.secret import Secret
from tellmeter.testing.faults import Answer, Hang, Reset
from tellmeter.wire.http import module_of
from tests.support.provider_bench import HELLO, bench
from tests.support.replay_server import Streamed, sse

pytestmark = pytest.mark.sdk
MODEL = "gemini-2.5-flash"
ASK = Ask(model=MODEL, messages=HELLO)
USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 9, "totalTokenCount": 12}
JSON = {"content-type": "application/json"}


def answer(*parts, **more):
    return json.dumps({"candidates": [{"content": {"role": "model", "parts": list(parts)}, **more}]})


def ending(*parts):
    body = json.loads(answer(*parts, finishReason="STOP"))
    return json.dumps({**body, "usageMetadata": USAGE, "modelVersion": MODEL})


@pytest.fixture(params=["gcp.gemini", "gcp.vertex_ai"])
def made(request):
    with bench(GeminiProvider, request.param) as running:
        yield running


@pytest.fixture
def of_api():
    with bench(GeminiProvider, "gcp.gemini") as running:
        yield running


def test_an_answer(made):
    made.server.default = Answer(200, ending({"text": "well"}, {"functionCall": {"name": "find"}}).encode(), JSON)
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=False))
    assert (heard.text, heard.calls) == ("well", [("call_0", "find", "{}")])
    (record,) = asyncio.run(made.records())
    assert (record.provider, record.model, record.status) == (made.name, MODEL, "success")
    assert (record.input_tokens, record.output_tokens, record.retries) == (3, 9, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, genai.errors.ClientError), (503, genai.errors.ServerError), (400, genai.errors.ClientError)],
)
def test_refusals_are_the_sdks_and_nothing_is_sent_again(made, status, kind, stream):
    body = json.dumps({"error": {"code": status, "message": "no", "status": "S"}}).encode()
    made.server.default = Answer(status, body, JSON)
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=stream))
    assert isinstance(heard.error, kind) and heard.error.code == status
    assert len(made.server.requests) == 1
    (record,) = asyncio.run(made.records())
    assert (record.status, record.status_code, record.retries) == ("error", status, 0)


def test_a_connection_that_breaks_is_not_tried_again(made):
    made.server.default = Reset()
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=False))
    assert heard.error is not None and len(made.server.requests) == 1
    (record,) = asyncio.run(made.records())
    assert (record.status, record.error_category) == ("error", "network")


@pytest.mark.parametrize("stream", [False, True])
def test_silence_is_a_timeout(made, stream):
    made.server.default = Hang()
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=stream), read_seconds=0.1)
    assert "ReadTimeout" in type(heard.error).__name__
    (record,) = asyncio.run(made.records())
    assert record.status == "timeout"


def test_a_limit_of_the_callers_own_comes_before_the_providers(of_api):
    of_api.server.default = Hang()
    ask = Ask(model=MODEL, messages=HELLO, extra={"http_options": {"timeout": 100}})
    heard = of_api.run(lambda provider: of_api.hear(provider, ask, stream=False))
    assert "ReadTimeout" in type(heard.error).__name__


def test_a_stream_is_read_to_its_end(made):
    thought = answer({"text": "hm", "thought": True})
    made.server.script(Streamed(sse(thought, answer({"text": "one "}), answer({"text": "two"}), ending({"text": ""}))))
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=True))
    assert [delta.text for delta in heard.deltas] == ["", "one ", "two"] and heard.reasoning == "hm"
    (record,) = asyncio.run(made.records())
    assert (record.status, record.output_tokens, record.stream.status) == ("success", 9, "completed")


def test_a_stream_that_is_left_is_closed_when_the_generator_is(made):
    told = Streamed(sse(answer({"text": "one"}), answer({"text": "two"}), ending()), after=1)
    made.server.script(told)
    first, (record,) = made.run(made.leave(ASK))
    told.go.set()
    assert first.text == "one"
    assert (record.status, record.stream.status) == ("closed_early", "closed_early")


def test_an_error_inside_a_stream_is_the_sdks_after_what_came(made):
    error = json.dumps({"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}})
    made.server.script(Streamed(sse(answer({"text": "one"}), error)))
    heard = made.run(lambda provider: made.hear(provider, ASK, stream=True))
    assert heard.text == "one" and isinstance(heard.error, genai.errors.APIError)
    (record,) = asyncio.run(made.records())
    assert record.status == "error"


def test_nothing_is_sent_before_the_first_delta_is_asked_for(made):
    async def unused(provider):
        await provider.stream(ASK).aclose()

    made.run(unused)
    assert made.server.requests == []


def test_a_stream_may_be_read_by_another_task_than_began_it(of_api):
    of_api.server.script(Streamed(sse(answer({"text": "one"}), answer({"text": "two"}), ending())))

    async def work(provider):
        deltas = provider.stream(ASK)
        said = [(await asyncio.create_task(anext(deltas))).text for _ in range(2)]
        await asyncio.create_task(deltas.aclose())
        return said

    assert of_api.run(work) == ["one", "two"]


def test_key_address_and_headers_are_those_of_the_access(of_api, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "another")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    of_api.server.default = Answer(200, ending().encode(), JSON)
    of_api.run(lambda provider: of_api.hear(provider, ASK, stream=False), headers={"x-team": "a"})
    (request,) = of_api.server.requests
    assert (request.headers["x-goog-api-key"], request.headers["x-team"]) == ("k", "a")
    assert request.path.endswith(f"/models/{MODEL}:generateContent") and "/publishers/" not in request.path


def test_aiohttp_is_left_alone_where_it_is_installed(of_api, monkeypatch):
    module = sys.modules["google.genai._api_client"]
    monkeypatch.setattr(module, "has_aiohttp", True)
    monkeypatch.setattr(module, "aiohttp", types.SimpleNamespace(ClientResponse=int), raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", types.ModuleType("aiohttp"))
    of_api.server.default = Answer(200, ending({"text": "well"}).encode(), JSON)
    heard = of_api.run(lambda provider: of_api.hear(provider, ASK, stream=False))
    assert heard.text == "well"


def test_the_http_library_is_the_sdks(of_api):
    name = "httpx2" if int(importlib.metadata.version("google-genai").partition(".")[0]) >= 3 else "httpx"
    assert of_api.run(lambda provider: asyncio.sleep(0, module_of(provider._http).__name__)) == name


def test_a_missing_key_is_the_sdks_own_error(monkeypatch):
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="API key"):
        GeminiProvider(Access(provider="gcp.gemini"))


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    original = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == "google":
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'tellmeter\[gemini\]'"):
        GeminiProvider(Access(provider="gcp.gemini", api_key=Secret("k")))


@pytest.mark.parametrize("name", ["top_k", "topK"])
def test_either_spelling_of_a_field_of_the_sdks_config_goes_through(of_api, name):
    of_api.server.default = Answer(200, ending().encode(), JSON)
    ask = Ask(model=MODEL, messages=HELLO, max_tokens=5, extra={name: 3, "maxOutputTokens": 7})
    of_api.run(lambda provider: of_api.hear(provider, ask, stream=False))
    (request,) = of_api.server.requests
    assert request.json()["generationConfig"] == {"topK": 3, "maxOutputTokens": 7}


def test_a_field_that_the_sdks_config_does_not_have_is_named(of_api):
    ask = Ask(model=MODEL, messages=HELLO, extra={"logit_bias": "secret"})
    heard = of_api.run(lambda provider: of_api.hear(provider, ask, stream=False))
    assert isinstance(heard.error, ConfigError) and str(heard.error).startswith("logit_bias: ")
    assert "secret" not in str(heard.error) and of_api.server.requests == []


def test_one_call_is_one_request_though_the_answer_could_go_on(of_api):
    if "automatic_continuation" not in genai.types.GenerateContentConfig.model_fields:
        pytest.skip("this SDK does not continue answers")
    going_on = json.loads(answer({"text": "one"}, finishReason="CONTINUATION", continuationToken="dA=="))
    of_api.server.default = Answer(200, ending({"text": "two"}).encode(), JSON)
    of_api.server.script(Answer(200, json.dumps(going_on).encode(), JSON))
    heard = of_api.run(lambda provider: of_api.hear(provider, ASK, stream=False))
    assert heard.text == "one" and len(of_api.server.requests) == 1


@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2"])
def test_each_text_has_its_vector(of_api, model):
    body = {"embeddings": [{"values": [1.0, 2.0]}, {"values": [3.0, 4.0]}]}
    of_api.server.default = Answer(200, json.dumps(body).encode(), JSON)

    async def work(provider):
        with of_api.metered():
            return await provider.embed(model, ["a", "b"], {"outputDimensionality": 2})

    vectors, raw = of_api.run(work)
    assert vectors == [[1.0, 2.0], [3.0, 4.0]] and raw.embeddings
    asked = of_api.server.requests[0].json()["requests"]
    assert [one["content"]["parts"] for one in asked] == [[{"text": "a"}], [{"text": "b"}]]
    assert {one["outputDimensionality"] for one in asked} == {2}
    with pytest.raises(ConfigError, match="nonsense: the EmbedContentConfig"):
        of_api.run(lambda provider: provider.embed(model, ["a"], {"nonsense": 1}))


def test_all_pages_of_models(of_api):
    def page(*names, **more):
        body = {"models": [{"name": f"models/{name}"} for name in names], **more}
        return Answer(200, json.dumps(body).encode(), JSON)

    of_api.server.script(page("a", "b", nextPageToken="t"), page("c"))
    assert of_api.run(lambda provider: provider.models()) == ["a", "b", "c"]
    of_api.server.default = page(*map(str, range(1000)), nextPageToken="t")
    assert len(of_api.run(lambda provider: provider.models())) == 10_000
    assert len(of_api.server.requests) == 12


def test_the_connections_are_given_back(of_api):
    async def work(provider):
        await of_api.hear(provider, ASK, stream=False)
        await provider.aclose()
        return provider._http.is_closed

    of_api.server.default = Answer(200, ending().encode(), JSON)
    assert of_api.run(work)
