"""Who answers for a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import ConfigError
from tellmeter.client import routing
from tellmeter.client.endpoints import _ENDPOINTS
from tellmeter.client.routing import Route, Routes

TABLE = {
    "fast": "groq/llama-3.3-70b-versatile",
    "llama-*": "together",
    "llama-local": "vllm",
    "gpt-4o": "azure/my-deployment",
    "house*": "house",
    "deep/*": "deepseek/deepseek-chat",
}
TEXTS = st.text() | st.from_regex(r"[a-z.-]{0,6}(/[a-z*\[.-]{0,6}){0,3}", fullmatch=True) | st.sampled_from([*TABLE])


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("o3-mini", "openai"),
        ("ft:gpt-4o-mini:me::1", "openai"),
        ("text-embedding-3-small", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-flash", "gcp.gemini"),
        ("grok-4", "x_ai"),
        ("mistral-large-latest", "mistral_ai"),
        ("deepseek-chat", "deepseek"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"),
        ("us.amazon.nova-pro-v1:0", "aws.bedrock"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0", "aws.bedrock"),
        ("arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/anthropic.claude-v2", "aws.bedrock"),
        ("models/gemini-2.5-flash", "gcp.gemini"),
        ("accounts/fireworks/models/qwen3-8b", "fireworks_ai"),
        ("llama-3.3-70b", None),
        ("gpt-oss-120b", None),
        ("", None),
        ("meta-llama/Llama-3.3-70B-Instruct", None),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", None),
        ("/gpt-4o", None),
        ("gpt-4o/", None),
    ],
)
def test_without_a_table_the_vendors_names_say_it(model, provider):
    assert Routes().find(model) == (provider and Route(provider, model))


@pytest.mark.parametrize(
    ("model", "route"),
    [
        ("openai/gpt-4o", ("openai", "gpt-4o")),
        ("groq/gpt-4o", ("groq", "gpt-4o")),
        ("gemini/gemini-2.5-flash", ("gcp.gemini", "gemini-2.5-flash")),
        ("gcp.gemini/gemini-2.5-flash", ("gcp.gemini", "gemini-2.5-flash")),
        ("XAI/grok-4", ("x_ai", "grok-4")),
        ("openrouter/anthropic/claude-sonnet-4.5", ("openrouter", "anthropic/claude-sonnet-4.5")),
        ("house/anything", ("house", "anything")),
        ("house/", ("house", "house/")),  # by the pattern
        ("fast", ("groq", "llama-3.3-70b-versatile")),
        ("llama-3", ("together_ai", "llama-3")),
        ("llama-local", ("together_ai", "llama-local")),  # the first that fits
        ("gpt-4o", ("azure.ai.openai", "my-deployment")),
        ("gpt-4o-mini", ("openai", "gpt-4o-mini")),
        ("house-9b", ("house", "house-9b")),
        ("deep/r1", ("deepseek", "deepseek-chat")),
        ("nobody/gpt-4o", None),
    ],
)
def test_the_slash_comes_before_the_table_and_that_before_the_names(model, route):
    routes = Routes(TABLE, {"house"})
    assert routes.find(model) == (route and Route(*route))
    assert routes.find(model) == (route and Route(*route))  # and again


def test_a_word_of_the_users_own_comes_before_a_usual_one():
    assert Routes().find("mistral/m") == Route("mistral_ai", "m")
    assert Routes(providers={"mistral"}).find("mistral/m") == Route("mistral", "m")


@given(TEXTS)
def test_any_text_is_somebodys_or_nobodys(model):
    for routes in (Routes(), Routes(TABLE, {"house"})):
        found = routes.find(model)
        if found is not None:
            assert found.provider in {*_ENDPOINTS, "house", "voyage_ai"} and isinstance(found.model, str)
        assert routes.find(model) == found


def test_what_was_found_does_not_pile_up():
    routes = Routes()
    for number in range(5000):
        assert routes.find(f"gpt-{number}") == Route("openai", f"gpt-{number}")
    assert len(routes._found) <= routing._MOST_FOUND


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"m": "nobody"}, "no provider 'nobody' is known"),
        ({"m": "nobody/m"}, "base_url"),
        ({"m": ""}, "models"),
        ({"": "openai"}, "models"),
        ({"m": None}, "models"),
        ({5: "openai"}, r"models\[5\]"),
    ],
)
def test_a_table_that_cannot_be_is_refused(models, told):
    with pytest.raises(ConfigError, match=told):
        Routes(models)


def test_words_for_providers():
    routes = Routes(providers={"house"})
    assert [routes.provider(word) for word in ("house", "gemini", "openai")] == ["house", "gcp.gemini", "openai"]
    with pytest.raises(ConfigError, match="no provider 'nobody' is known"):
        routes.provider("nobody")


def test_near_names_are_of_the_price_list_and_of_the_table():
    error = Routes({"my-clever-model": "openai", "sonnar*": "openai"}).unknown("my-cleverr-model")
    assert error.near[0] == "my-clever-model" and "near names are my-clever-model" in str(error)
    error = Routes().unknown("sonnar-pro")
    assert "sonar-pro" in error.near and len(error.near) <= routing.NEAR
    assert (error.category, error.model, error.is_retryable) == ("not_found", "sonnar-pro", False)


def test_who_is_near_nobody_is_told_what_to_write(monkeypatch):
    error = Routes().unknown("\ud800" * 10_000)
    assert error.near == () and "provider/model" in str(error) and len(str(error)) < 2500
    monkeypatch.setattr(routing, "_known_names", list)
    assert Routes().unknown("sonnar-pro").near == ()


def test_without_a_price_list_there_are_no_names_to_compare_with(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "genai_prices.data", None)
    assert Routes({"mine": "openai"}).unknown("mime").near == ("mine",)
