import json

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from tellmeter.telemetry.request_attributes import _INSIDE, _NAMES, request_attributes

URL = "https://api.example.com/v1/chat/completions"


def found(body, url=URL):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request_attributes(httpx2.Request("POST", url, content=content))


def asked(body):
    return {name: value for name, value in found(body).items() if not name.startswith("server.")}


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        (
            {"temperature": 1, "top_p": 0.5, "max_completion_tokens": 20, "seed": 7, "n": 2, "frequency_penalty": -0.5},
            {
                "temperature": 1.0,
                "top_p": 0.5,
                "max_tokens": 20,
                "seed": 7,
                "choice.count": 2,
                "frequency_penalty": -0.5,
            },
        ),
        ({"max_output_tokens": 9, "n": 1, "presence_penalty": 0}, {"max_tokens": 9, "presence_penalty": 0.0}),
        ({"max_tokens": 5, "top_k": 40}, {"max_tokens": 5, "top_k": 40.0}),
        (
            {
                "generationConfig": {
                    "temperature": 0.1,
                    "topP": 0.2,
                    "topK": 3,
                    "maxOutputTokens": 4,
                    "candidateCount": 2,
                }
            },
            {"temperature": 0.1, "top_p": 0.2, "top_k": 3.0, "max_tokens": 4, "choice.count": 2},
        ),
        ({"inferenceConfig": {"maxTokens": 6, "topP": 0.3}}, {"max_tokens": 6, "top_p": 0.3}),
        ({"textGenerationConfig": {"maxTokenCount": 8}}, {"max_tokens": 8}),
        ({"options": {"num_predict": 3, "seed": 1}}, {"max_tokens": 3, "seed": 1}),
        ({"p": 0.7, "k": 2, "num_generations": 3}, {"top_p": 0.7, "top_k": 2.0, "choice.count": 3}),
        ({"temperature": None, "options": None, "generationConfig": []}, {}),
        ({"temperature": "warm", "max_tokens": 3}, {"max_tokens": 3}),
        ({"seed": 2**80, "top_k": 4}, {"top_k": 4.0}),
    ],
)
def test_parameters_are_found_whatever_the_provider_calls_them(body, attributes):
    assert asked(body) == {f"gen_ai.request.{name}": value for name, value in attributes.items()}


def test_the_size_of_an_embedding_is_told():
    assert asked({"dimensions": 256}) == {"gen_ai.embeddings.dimension.count": 256}


def test_only_names_of_the_conventions_are_used():
    known = {value for name, value in vars(gen_ai_attributes).items() if name.isupper() and isinstance(value, str)}
    assert set(_NAMES) <= known


def test_what_was_said_to_the_model_is_not_told():
    body = {
        "messages": [{"role": "user", "content": "canary"}],
        "system": "canary",
        "stop": ["canary"],
        "stop_sequences": ["canary"],
        "user": "canary",
        "tools": [{"name": "canary"}],
        "temperature": 0.0,
    }
    assert asked(body) == {"gen_ai.request.temperature": 0.0}


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        (URL, "api.example.com", 443),
        ("http://localhost:11434/api/chat", "localhost", 11434),
        ("http://10.0.0.1/v1/messages", "10.0.0.1", 80),
        ("https://api.example.com:8443/v1/messages?key=secret", "api.example.com", 8443),
    ],
)
def test_whom_the_request_went_to_is_told_without_path_and_query(url, host, port):
    assert found({}, url) == {"server.address": host, "server.port": port}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([name for _, all_names in _NAMES.values() for name in all_names] + list(_INSIDE))


@given(st.dictionaries(names, json_values | st.dictionaries(names, json_values, max_size=3), max_size=6))
def test_odd_values_are_left_out_alone(body):
    sure = {**body, "seed": 5}
    attributes = asked(sure)
    assert attributes["gen_ai.request.seed"] == 5
    assert {type(value) for value in attributes.values()} <= {int, float}


@given(st.binary(max_size=200))
def test_no_body_raises(body):
    assert found(body)["server.address"] == "api.example.com"
