import pytest

from tellmeter import ConfigError, Secret
from tellmeter.client.endpoints import _ALIASES, _ENDPOINTS, Place
from tellmeter.wire.providers import UNKNOWN, provider_of


def place(provider="openai", api_key=None, base_url=None, headers=None):
    return Place(provider, api_key, base_url, headers)


def test_the_providers_base_urls_are_hosts_that_are_known_as_theirs():
    for name, endpoint in _ENDPOINTS.items():
        if endpoint.base_url and "localhost:8000" not in endpoint.base_url:
            made = place(name)
            assert provider_of(made.host, made.port, {}, "", "") == name


def test_aliases_are_of_providers():
    assert set(_ALIASES.values()) <= set(_ENDPOINTS)
    assert place("Gemini").provider == "gcp.gemini"
    assert place(" mistral ").provider == "mistral_ai"


@pytest.mark.parametrize(
    ("provider", "header", "value"),
    [
        ("openai", "authorization", "Bearer k"),
        ("groq", "authorization", "Bearer k"),
        ("anthropic", "x-api-key", "k"),
        ("gemini", "x-goog-api-key", "k"),
    ],
)
def test_how_a_key_is_shown(provider, header, value, monkeypatch):
    headers = place(provider, "k").headers()
    assert headers[header] == value
    assert ("authorization" in headers) == (header == "authorization")
    assert ("anthropic-version" in headers) == (provider == "anthropic")
    assert place("azure", "k", "https://r.openai.azure.com/openai").headers()["api-key"] == "k"


def test_the_key_comes_from_the_environment_of_the_providers_own_sdk(monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    assert place("gemini").headers()["x-goog-api-key"] == "second"
    monkeypatch.setenv("GOOGLE_API_KEY", " first\n")
    assert place("gemini").headers()["x-goog-api-key"] == "first"
    assert place("gemini", Secret("given")).headers()["x-goog-api-key"] == "given"


def test_no_key_at_all_is_allowed(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "authorization" not in place("openai").headers()
    assert "authorization" not in place("", base_url="http://localhost:9/v1").headers()


def test_ones_own_headers_win():
    headers = place("anthropic", "k", headers={"Anthropic-Version": "2030-01-01", "X-API-Key": "other"}).headers()
    assert (headers["anthropic-version"], headers["x-api-key"]) == ("2030-01-01", "other")


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("https://h/v1", "/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/v1/", "chat/completions", "https://h/v1/chat/completions"),
        ("https://h", "/v1/messages", "https://h/v1/messages"),
        ("https://h/v1", "/v1/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/v1", "/v1beta/x", "https://h/v1/v1beta/x"),
        ("https://h/x", "/y?alt=sse", "https://h/x/y?alt=sse"),
        ("https://h", "@evil/y", "https://h/@evil/y"),
        ("https://h", "//evil/y", "https://h/evil/y"),
    ],
)
def test_paths_stand_below_the_base_url(base_url, path, url):
    assert place(base_url=base_url).url(path) == url


@pytest.mark.security(7)
@pytest.mark.parametrize("path", ["", "/", None, 5, "https://evil.example/x", "http://user:canary@evil.example/x"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ConfigError, match="path") as told:
        place().url(path)
    assert "canary" not in str(told.value)


@pytest.mark.security(3)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "nobody"}, "base_url"),
        ({"provider": "azure"}, "base_url"),
        ({"provider": ""}, "base_url"),
        ({"provider": 5}, "provider"),
        ({"base_url": "h/v1"}, "http"),
        ({"base_url": "ftp://u:canary@h"}, "http"),
        ({"base_url": "https://h/v1?key=canary"}, "query"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": 5}, "api_key"),
        ({"headers": ["canary"]}, "headers"),
        ({"headers": {"x": 5}}, "headers"),
        ({"headers": {"x": "canary\u4f60"}}, "headers"),
    ],
)
def test_what_cannot_work_is_said_at_once(options, message):
    with pytest.raises(ConfigError, match=message) as told:
        place(**options)
    assert "canary" not in str(told.value)


@pytest.mark.security(3)
def test_the_key_is_in_no_repr():
    made = place("openai", "canary")
    assert "canary" not in repr(made) + repr(vars(made)) + str(vars(made))


def test_unknown_hosts_are_nobodys():
    assert provider_of(place(base_url="http://127.0.0.1:9").host, 9, {}, "", "") == UNKNOWN


def test_the_base_url_may_come_from_the_sdks_own_variable(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", " https://proxy.example/v1/ ")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "")
    assert place("openai").base_url == "https://proxy.example/v1"
    assert place("openai", base_url="https://mine.example").base_url == "https://mine.example"
    assert place("anthropic").base_url == "https://api.anthropic.com"
    assert place("groq").base_url == "https://api.groq.com/openai/v1"
