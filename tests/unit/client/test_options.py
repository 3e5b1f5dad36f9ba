"""Options of a call, and the Ask that they make."""

import pytest

from tellmeter import ConfigError
from tellmeter.client.options import CallOptions, ask_of

JSON = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def test_options_become_the_fields_of_the_ask():
    tools = [{"type": "function", "function": {"name": "f"}}]
    ask = ask_of(
        "Hi",
        {
            "system": "Be kind.",
            "temperature": 0.0,
            "top_p": 1,
            "max_tokens": 1,
            "seed": 0,
            "stop": ["a", "b"],
            "tools": tools,
            "tool_choice": "auto",
            "response_format": JSON,
        },
    )
    assert ask.messages == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert (ask.temperature, ask.top_p, ask.max_tokens, ask.seed) == (0.0, 1, 1, 0)
    assert (ask.stop, ask.tools, ask.tool_choice, ask.response_format) == (("a", "b"), tools, "auto", JSON)
    assert ask.extra == {}


def test_none_is_as_if_it_were_not_given():
    names = CallOptions.__annotations__
    assert ask_of("Hi", dict.fromkeys(names)) == ask_of("Hi", {})


def test_one_text_stops_too():
    assert ask_of("Hi", {"stop": "END"}).stop == ("END",)


def test_whatever_else_is_given_goes_to_the_provider_and_raw_params_win():
    options = {"top_k": 5, "user": "a", "raw_params": {"user": "b", "temperature": 9}, "temperature": 0.5}
    ask = ask_of("Hi", options)
    assert (ask.extra, ask.temperature) == ({"top_k": 5, "user": "b", "temperature": 9}, 0.5)


def test_what_is_for_the_client_does_not_go_to_the_provider():
    options = {"tags": {"a": "b"}, "request_id": "x", "fallback_models": ["m"], "retry_policy": None, "timeouts": None}
    assert ask_of("Hi", options).extra == {}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, None),
        ("text", None),
        ({"type": "text"}, None),
        ("json", {"type": "json_object"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (JSON, JSON),
    ],
)
def test_formats(given, made):
    assert ask_of("Hi", {"response_format": given}).response_format == made


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", 10**10),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 1.1),
        ("response_format", "xml"),
        ("response_format", {"type": 5}),
        ("response_format", {}),
        ("response_format", ["json"]),
        ("stop", 5),
        ("tools", {"type": "function"}),
        ("raw_params", ["user"]),
        ("stream", True),
        ("stream", False),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(option, value):
    with pytest.raises(ConfigError, match=f"^{option}"):
        ask_of("Hi", {option: value})
