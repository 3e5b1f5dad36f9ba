"""The SDKs' clients: whom they ask, with what key, and on which event loop they live."""

import asyncio
import gc
import sys
import threading
import weakref

import pytest

from tellmeter import ConfigError, LLMClient, MetricsConfig, MissingExtra, ProviderError, Secret, Timeouts
from tellmeter.client import sdks as module
from tellmeter.client.endpoints import _ENDPOINTS
from tellmeter.client.sdks import SDKs
from tellmeter.counts import snapshot
from tellmeter.testing import FaultServer
from tellmeter.testing.contract_kit import poll
from tests.unit.client.asked import whole

OWN = ["anthropic", "aws.bedrock", "gcp.gemini", "gcp.vertex_ai", "openai"]


class Told:
    """In the place of a provider: what it was made with, and what became of it."""

    def __init__(self, access):
        self.access = access
        self.thread = threading.current_thread()
        self.closed_on = []

    async def aclose(self):
        self.closed_on.append(asyncio.get_running_loop())


def sdks(keys=None, urls=None, headers=None, timeouts=None):
    return SDKs(keys or {}, urls or {}, headers or {}, timeouts or Timeouts())


@pytest.fixture
def told(monkeypatch):
    """Every provider is a Told."""
    monkeypatch.setattr(SDKs, "_make", lambda self, provider: Told(self._access(provider)))
    for endpoint in _ENDPOINTS.values():
        for name in (*endpoint.keys, endpoint.url):
            monkeypatch.delenv(name, raising=False)


def access_of(made, provider):
    async def main():
        return (await made.get(provider)).access

    return asyncio.run(main())


def guarded():
    return snapshot().get("guarded_errors", {}).get("client", 0)


# ---------------------------------------------------------------------- keys and URLs


@pytest.mark.parametrize("provider", OWN)
def test_who_has_an_sdk_is_left_to_read_its_own_environment(told, monkeypatch, provider):
    monkeypatch.setenv("OPENAI_API_KEY", "environment")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "environment")
    monkeypatch.setenv("GOOGLE_API_KEY", "environment")
    access = access_of(sdks(), provider)
    assert (access.provider, access.api_key, access.base_url, access.headers) == (provider, None, None, {})


@pytest.mark.parametrize(
    ("provider", "variable", "base_url"),
    [
        ("groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1"),
        ("x_ai", "XAI_API_KEY", "https://api.x.ai/v1"),
        ("mistral_ai", "MISTRAL_API_KEY", "https://api.mistral.ai/v1"),
        ("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com"),
        ("openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"),
        ("cohere", "CO_API_KEY", "https://api.cohere.ai/compatibility/v1"),
        ("ollama", "OLLAMA_API_KEY", "http://localhost:11434/v1"),
        ("vllm", None, "http://localhost:8000/v1"),
    ],
)
def test_who_speaks_as_openai_does_has_a_url_and_its_own_variable(told, monkeypatch, provider, variable, base_url):
    access = access_of(sdks({provider: "argument"}), provider)
    assert (access.api_key, access.base_url) == (Secret("argument"), base_url)
    if variable:
        monkeypatch.setenv(variable, "environment")
        assert access_of(sdks(), provider).api_key == Secret("environment")
        assert access_of(sdks({provider: "argument"}), provider).api_key == Secret("argument")


@pytest.mark.parametrize(("provider", "variable"), [("groq", "GROQ_API_KEY"), ("x_ai", "XAI_API_KEY")])
def test_who_needs_a_key_is_not_asked_without_one(told, monkeypatch, provider, variable):
    monkeypatch.setenv("OPENAI_API_KEY", "canary")  # which is for nobody else
    with pytest.raises(ProviderError, match=f"set {variable}") as caught:
        access_of(sdks(), provider)
    assert (caught.value.category, caught.value.is_retryable) == ("authentication", False)
    assert access_of(sdks(urls={provider: "http://proxy.example"}), provider).api_key is None


@pytest.mark.parametrize("provider", ["ollama", "vllm"])
def test_who_needs_no_key_is_asked_without_one(told, monkeypatch, provider):
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    assert access_of(sdks(), provider).api_key is None


@pytest.mark.parametrize(("word", "provider"), [("gemini", "gcp.gemini"), ("xai", "x_ai"), ("openai", "openai")])
def test_arguments_come_before_all_else_whatever_word_they_use(told, word, provider):
    made = sdks({word: Secret("key")}, {word: "https://proxy.example/v1/"}, {word: {"x-mine": "yes"}})
    access = access_of(made, provider)
    assert (access.api_key, access.base_url) == (Secret("key"), "https://proxy.example/v1")
    assert access.headers == {"x-mine": "yes"}
    assert access_of(made, "anthropic").headers == {}


def test_a_server_of_ones_own(told):
    access = access_of(sdks(urls={"house": "http://10.0.0.1:8080/v1"}), "house")
    assert (access.provider, access.api_key, access.base_url) == ("house", None, "http://10.0.0.1:8080/v1")


@pytest.mark.parametrize("provider", ["azure.ai.openai", "azure.ai.inference", "house"])
def test_who_has_no_url_is_asked_for_one(told, provider):
    with pytest.raises(ConfigError, match=rf"'{provider}': it needs LLMClient\(base_urls="):
        access_of(sdks(), provider)


def test_the_timeouts_of_connections(told):
    access = access_of(sdks(timeouts=Timeouts(connect=3.0, total=7.0)), "openai")
    assert (access.connect_seconds, access.read_seconds) == (3.0, 7.0)
    access = access_of(sdks(timeouts=Timeouts(connect=None, total=None)), "openai")
    assert access.connect_seconds >= 86_400 and access.read_seconds >= 86_400


@pytest.mark.security(3)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": {"": "canary"}}, "without a slash"),
        ({"keys": {"open/ai": "canary"}}, "without a slash"),
        ({"keys": {5: "canary"}}, "without a slash"),
        ({"keys": {"openai": ""}}, "api_keys"),
        ({"keys": {"openai": b"canary"}}, "api_keys"),
        ({"urls": {"openai": "proxy.example/v1"}}, "base_urls"),
        ({"urls": {"openai": "file:///canary"}}, "base_urls"),
        ({"urls": {"openai": "https://"}}, "base_urls"),
        ({"urls": {"openai": "https://h/v1?key=canary"}}, "query"),
        ({"urls": {"openai": "https://h/v1#canary"}}, "query"),
        ({"urls": {"openai": "https://[canary/v1"}}, "base_urls"),
        ({"urls": {"openai": None}}, "base_urls"),
        ({"headers": {"a/b": {}}}, "without a slash"),
    ],
)
def test_what_cannot_be_is_said_at_once(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sdks(**arguments)
    assert "canary" not in str(caught.value)


def test_who_could_be_asked_now(told, monkeypatch):
    assert sdks().configured() == []
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    made = sdks({"openai": "k", "xai": None, "anthropic": "k"}, {"house": "http://h/v1"})
    found = made.configured()
    assert sorted(found) == ["anthropic", "gcp.gemini", "house", "openai"] and len(found) == len(set(found))
    assert made.words == {"openai", "x_ai", "anthropic", "house"}


# ---------------------------------------------------------------------- event loops


def test_one_client_a_loop_made_on_another_thread(told):
    made = sdks()

    async def main():
        one = await made.get("openai")
        assert await made.get("openai") is one
        assert await made.get("anthropic") is not one
        assert one.thread is not threading.current_thread()  # an import would hold the loop up
        return one

    assert asyncio.run(main()) is not asyncio.run(main())


def test_all_who_ask_at_once_get_the_same(told):
    async def main():
        made = sdks()
        return await asyncio.gather(*(made.get("openai") for _ in range(10)))

    assert len(set(map(id, asyncio.run(main())))) == 1


def test_a_loop_that_ends_takes_its_connections_along(told):
    made, seen = sdks(), []

    async def main():
        one = await made.get("openai")
        seen.append((one, asyncio.get_running_loop()))

    asyncio.run(main())
    ((one, loop),) = seen
    assert one.closed_on == [loop]


def test_closed_loops_are_let_go(told):
    made, seen = sdks(), []

    async def main():
        seen.append(weakref.ref(await made.get("openai")))

    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert [one() is None for one in seen] == [True, True, False]


def test_aclose_gives_everything_back_each_on_its_own_loop(told):
    made, there = sdks(), asyncio.new_event_loop()
    thread = threading.Thread(target=there.run_forever)
    thread.start()
    try:
        other = asyncio.run_coroutine_threadsafe(made.get("openai"), there).result(30)

        async def main():
            mine = await made.get("openai")
            await made.aclose()
            assert mine.closed_on == [asyncio.get_running_loop()]
            assert other.closed_on == [there]
            await made.aclose()
            assert len(mine.closed_on) == 1
            assert await made.get("openai") is not mine

        asyncio.run(main())
    finally:
        there.call_soon_threadsafe(there.stop)
        thread.join(30)
        there.run_until_complete(there.shutdown_asyncgens())
        there.close()


def test_aclose_passes_a_loop_that_does_not_run_by(told):
    made, still = sdks(), asyncio.new_event_loop()
    left = still.run_until_complete(made.get("openai"))
    asyncio.run(made.aclose())
    assert left.closed_on == []
    still.run_until_complete(still.shutdown_asyncgens())
    assert left.closed_on == [still]
    still.close()


def test_a_loop_that_does_not_answer_holds_nobody_up(told, monkeypatch):
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.05)
    made, there, go = sdks(), asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=there.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(made.get("openai"), there).result(30)
        there.call_soon_threadsafe(go.wait, 60)
        before = guarded()
        asyncio.run(made.aclose())
        assert not go.is_set() and guarded() == before + 1
    finally:
        go.set()
        there.call_soon_threadsafe(there.stop)
        thread.join(30)
        there.run_until_complete(there.shutdown_asyncgens())
        there.close()


def test_a_loop_that_stands_still_until_then_is_not_waited_for(told):
    made, there, go = sdks(), asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=there.run_forever)
    thread.start()
    try:
        one = asyncio.run_coroutine_threadsafe(made.get("openai"), there).result(30)
        there.call_soon_threadsafe(go.wait, 60)
        asyncio.run(made.aclose(standing=there))
        assert one.closed_on == []
        go.set()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), there).result(30)
        poll(lambda: one.closed_on == [there], lambda: one.closed_on)
    finally:
        go.set()
        there.call_soon_threadsafe(there.stop)
        thread.join(30)
        there.close()


def test_one_that_cannot_be_closed_does_not_keep_the_others_open(told, monkeypatch):
    made = sdks()

    async def fails():
        raise RuntimeError("canary")

    async def main():
        first, second = await made.get("openai"), await made.get("anthropic")
        first.aclose = fails
        await made.aclose()
        return second

    before = guarded()
    assert len(asyncio.run(main()).closed_on) == 1
    assert guarded() == before + 1


# ---------------------------------------------------------------------- the real ones


@pytest.mark.sdk
@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        ("anthropic", "AnthropicProvider"),
        ("aws.bedrock", "BedrockProvider"),
        ("gcp.gemini", "GeminiProvider"),
        ("gcp.vertex_ai", "GeminiProvider"),
        ("openai", "OpenAIProvider"),
        ("groq", "OpenAIProvider"),
        ("house", "OpenAIProvider"),
    ],
)
def test_each_has_its_sdk(provider, kind):
    made = sdks({provider: "canary-key"}, {provider: "http://127.0.0.1:9"})

    async def main():
        one = await made.get(provider)
        await made.aclose()
        return type(one).__name__

    assert asyncio.run(main()) == kind


@pytest.mark.sdk
def test_the_openai_sdk_reads_its_own_variables(monkeypatch):
    with FaultServer(whole("here")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with LLMClient(metrics_config=MetricsConfig(), metrics_sinks=[]) as client:
            assert client.generate_sync("Hi", model="gpt-4o").text == "here"
        assert server.requests[0].headers["authorization"] == "Bearer from-the-environment"


@pytest.mark.sdk
@pytest.mark.parametrize(
    ("provider", "package", "extra"),
    [("anthropic", "anthropic", "anthropic"), ("groq", "openai", "openai"), ("gcp.gemini", "google.genai", "gemini")],
)
def test_a_missing_sdk_says_what_to_install(monkeypatch, provider, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    if "." in package:
        parent, _, name = package.partition(".")
        monkeypatch.delattr(sys.modules[parent], name, raising=False)
    with pytest.raises(MissingExtra, match=rf"tellmeter\[{extra}\]"):
        asyncio.run(sdks({provider: "k"}).get(provider))
