"""What the SDKs raise, as ProviderErrors: the real exceptions of real requests."""

import contextlib
import email.utils
import json
import sys
import time

import anthropic
import boto3
import botocore.exceptions
import openai
import pytest
from botocore.config import Config
from google import genai
from hypothesis import given
from hypothesis import strategies as st

from tellmeter import LLMTimeoutError, ProviderError
from tellmeter.client.explain import explain
from tellmeter.failures import CATEGORIES
from tellmeter.testing import FaultServer
from tellmeter.testing.faults import Answer, Hang, Reset
from tests.support.event_stream import event, exception
from tests.support.hostile import Raising
from tests.support.replay_server import Streamed, sse
from tests.unit.client.asked import JSON

pytestmark = pytest.mark.sdk
HTTP = sys.modules["httpx2" if int(openai.__version__.partition(".")[0]) >= 3 else "httpx"]
REQUEST = HTTP.Request("POST", "http://127.0.0.1/v1/chat/completions")
ASK = [{"role": "user", "content": "canary"}]
TOLD = ("canary", "AKIACANARY")


def ask_openai(url, seconds, stream):
    with openai.OpenAI(api_key="canary-key", base_url=url, max_retries=0, timeout=seconds) as sdk:
        list(sdk.chat.completions.create(model="canary-model", messages=ASK, stream=stream))


def ask_anthropic(url, seconds, stream):
    with anthropic.Anthropic(api_key="canary-key", base_url=url, max_retries=0, timeout=seconds) as sdk:
        list(sdk.messages.create(model="canary-model", messages=ASK, max_tokens=5, stream=stream))


def ask_gemini(url, seconds, stream):
    options = {"base_url": url, "timeout": int(seconds * 1000)}
    sdk = genai.Client(api_key="canary-key", http_options=options)
    with contextlib.closing(sdk._api_client._httpx_client):
        ask = sdk.models.generate_content_stream if stream else sdk.models.generate_content
        list(ask(model="canary-model", contents="canary"))


def ask_bedrock(url, seconds, stream):
    sdk = boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="AKIACANARY",
        aws_secret_access_key="canary-key",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=seconds, read_timeout=seconds),
    )
    with contextlib.closing(sdk):
        asked = {"modelId": "canary-model", "messages": [{"role": "user", "content": [{"text": "canary"}]}]}
        if stream:
            with contextlib.closing(sdk.converse_stream(**asked)["stream"]) as events:
                list(events)
        else:
            sdk.converse(**asked)


SDKS = {"openai": ask_openai, "anthropic": ask_anthropic, "gcp.gemini": ask_gemini, "aws.bedrock": ask_bedrock}


def refusal(provider, status, code, details=(), **headers):
    """An error as the provider writes it, with its own code."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    said = {
        "openai": {"error": {"message": "canary", "type": "some_error", "code": code}},
        "anthropic": {"type": "error", "error": {"type": code, "message": "canary"}},
        "gcp.gemini": {"error": {"code": status, "message": "canary", "status": code, "details": list(details)}},
        "aws.bedrock": {"message": "canary"},
    }
    if provider == "aws.bedrock":
        headers["x-amzn-errortype"] = code or "SomeException"
    return Answer(status, json.dumps(said[provider]).encode(), {**JSON, **headers})


def explained(provider, fault, *, seconds=10.0, stream=False):
    """What is made of what the SDK raises at that."""
    with FaultServer() as server:
        server.script(fault)
        try:
            SDKS[provider](server.url, seconds, stream)
        except Exception as error:
            return checked(explain(error, provider, "m"), error)
    raise AssertionError("nothing was raised")


def checked(told, error):
    """It, which has what every one of them has."""
    assert isinstance(told, ProviderError)
    assert told.original_error is error and told.model == "m" and told.category in CATEGORIES
    if told.category != "authentication" or told.status_code:
        assert told.category in str(told) and type(error).__name__ in str(told)
    assert not any(word in str(told) + repr(told) for word in TOLD)
    return told


# ---------------------------------------------------------------------- answers with an error

REFUSALS = [
    ("openai", 400, "context_length_exceeded", "context_length", False),
    ("openai", 400, "content_filter", "content_filter", False),
    ("openai", 401, "invalid_api_key", "authentication", False),
    ("openai", 403, None, "permission_denied", False),
    ("openai", 404, "model_not_found", "not_found", False),
    ("openai", 408, None, "timeout", True),
    ("openai", 409, None, "conflict", False),
    ("openai", 425, None, "network", True),
    ("openai", 429, None, "rate_limit", True),
    ("openai", 429, "insufficient_quota", "quota", False),
    ("openai", 500, None, "server_error", True),
    ("openai", 503, None, "server_error", True),
    ("anthropic", 400, "invalid_request_error", "validation", False),
    ("anthropic", 402, "billing_error", "quota", False),
    ("anthropic", 413, "request_too_large", "context_length", False),
    ("anthropic", 429, "rate_limit_error", "rate_limit", True),
    ("anthropic", 500, "api_error", "server_error", True),
    ("anthropic", 529, "overloaded_error", "overloaded", True),
    ("gcp.gemini", 400, "INVALID_ARGUMENT", "validation", False),
    ("gcp.gemini", 403, "PERMISSION_DENIED", "permission_denied", False),
    ("gcp.gemini", 429, "RESOURCE_EXHAUSTED", "rate_limit", True),
    ("gcp.gemini", 500, "INTERNAL", "server_error", True),
    ("gcp.gemini", 503, "UNAVAILABLE", "overloaded", True),
    ("gcp.gemini", 504, "DEADLINE_EXCEEDED", "timeout", True),
    ("aws.bedrock", 400, "ValidationException", "validation", False),
    ("aws.bedrock", 400, "ThrottlingException", "rate_limit", False),
    ("aws.bedrock", 400, "ServiceQuotaExceededException", "quota", False),
    ("aws.bedrock", 403, "AccessDeniedException", "permission_denied", False),
    ("aws.bedrock", 403, "ExpiredTokenException", "authentication", False),
    ("aws.bedrock", 408, "ModelTimeoutException", "timeout", True),
    ("aws.bedrock", 424, "ModelErrorException", "validation", False),
    ("aws.bedrock", 429, "ModelNotReadyException", "overloaded", True),
    ("aws.bedrock", 429, "ThrottlingException", "rate_limit", True),
    ("aws.bedrock", 500, "InternalServerException", "server_error", True),
    ("aws.bedrock", 503, "ServiceUnavailableException", "overloaded", True),
]


@pytest.mark.parametrize(("provider", "status", "code", "category", "is_retryable"), REFUSALS)
def test_answers_with_an_error(provider, status, code, category, is_retryable):
    told = explained(provider, refusal(provider, status, code))
    assert (told.status_code, told.category, told.is_retryable) == (status, category, is_retryable)
    assert told.retry_after is None and f"HTTP {status}" in str(told) and provider in str(told)


@pytest.mark.parametrize(
    ("provider", "fault"),
    [
        ("openai", Streamed(sse('{"error": {"message": "canary", "type": "server_error", "code": null}}'))),
        (
            "anthropic",
            Streamed(
                [b'event: error\ndata: {"type": "error", "error": {"type": "api_error", "message": "canary"}}\n\n']
            ),
        ),
        ("gcp.gemini", Streamed(sse('{"error": {"code": 500, "message": "canary", "status": "INTERNAL"}}'))),
    ],
)
def test_errors_inside_a_stream(provider, fault):
    told = explained(provider, fault, stream=True)
    assert (told.category, told.is_retryable, told.retry_after) == ("server_error", True, None)


@pytest.mark.parametrize(
    ("name", "category", "is_retryable"),
    [
        ("throttlingException", "rate_limit", True),
        ("modelStreamErrorException", "server_error", True),
        ("validationException", "validation", False),
        ("serviceUnavailableException", "overloaded", True),
    ],
)
def test_exceptions_inside_an_event_stream(name, category, is_retryable):
    pieces = [event("messageStart", {"role": "assistant"}), exception(name, {"message": "canary"})]
    told = explained("aws.bedrock", Streamed(pieces, content_type="application/vnd.amazon.eventstream"), stream=True)
    assert isinstance(told.original_error, botocore.exceptions.EventStreamError)
    assert (told.category, told.is_retryable) == (category, is_retryable)


# ---------------------------------------------------------------------- no answer


@pytest.mark.parametrize("provider", SDKS)
def test_a_connection_that_breaks_is_the_networks(provider):
    told = explained(provider, Reset())
    assert (type(told), told.category, told.status_code) == (ProviderError, "network", None)
    assert told.is_retryable and told.retry_after is None


@pytest.mark.parametrize("provider", SDKS)
def test_nobody_there_is_the_networks(provider):
    with FaultServer() as server:
        server.stop_listening()
        with pytest.raises(Exception) as caught:
            SDKS[provider](server.url, 10.0, False)
    told = checked(explain(caught.value, provider, "m"), caught.value)
    assert (type(told), told.category, told.is_retryable) == (ProviderError, "network", True)


@pytest.mark.parametrize("provider", SDKS)
def test_silence_is_a_timeout(provider):
    told = explained(provider, Hang(), seconds=0.2)
    assert isinstance(told, LLMTimeoutError) and isinstance(told, TimeoutError)
    assert (told.category, told.limit, told.status_code, told.is_retryable) == ("timeout", "read", None, True)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        HTTP.ConnectTimeout("canary"),
        caused(openai.APITimeoutError(REQUEST), HTTP.ConnectTimeout("canary")),
        caused(anthropic.APITimeoutError(REQUEST), HTTP.ConnectTimeout("canary")),
        botocore.exceptions.ConnectTimeoutError(endpoint_url="canary"),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
)
def test_a_connection_that_does_not_come_is_another_timeout(error):
    told = checked(explain(error, "openai", "m"), error)
    assert isinstance(told, LLMTimeoutError)
    assert (told.limit, told.category, told.is_retryable) == ("connect", "timeout", True)


def test_a_chain_without_an_end_has_one_here():
    error, other = openai.APITimeoutError(REQUEST), ValueError()
    error.__cause__, other.__cause__ = other, error
    assert explain(error, "openai", "m").limit == "read"


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (openai.OpenAIError("canary"), "authentication"),
        (botocore.exceptions.NoCredentialsError(), "authentication"),
        (botocore.exceptions.PartialCredentialsError(provider="p", cred_var="v"), "authentication"),
        (botocore.exceptions.ParamValidationError(report="canary"), "validation"),
        (TypeError("canary() got an unexpected keyword argument"), "unknown"),
        (openai.APIConnectionError(request=REQUEST), "network"),
        (HTTP.RemoteProtocolError("canary"), "network"),
        (ValueError("canary"), "unknown"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_what_is_raised_without_an_answer(error, category):
    told = checked(explain(error, "openai", "m"), error)
    assert (told.category, told.is_retryable) == (category, category == "network")


def test_no_key_is_a_matter_of_authentication(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for make in (
        openai.OpenAI,
        lambda: anthropic.Anthropic(base_url="http://127.0.0.1:9").messages.create(
            model="m", messages=ASK, max_tokens=1
        ),
    ):
        with pytest.raises(Exception) as caught:
            make()
        told = checked(explain(caught.value, "openai", "m"), caught.value)
        assert (told.category, told.is_retryable) == ("authentication", False)
        assert "no key: set OPENAI_API_KEY, or give LLMClient(api_keys={'openai': ...})" in str(told)


# ---------------------------------------------------------------------- when again, and whether

SOON = email.utils.formatdate(time.time() + 3600, usegmt=True)
AGO = email.utils.formatdate(time.time() - 3600, usegmt=True)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "aws.bedrock", "gcp.gemini"])
@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry_after": "7"}, 7, 7),
        ({"retry_after": "0.5"}, 0.5, 0.5),
        ({"retry_after": SOON}, 1, 3600),
        ({"retry_after": AGO}, 0, 0),
        ({"retry_after": "9", "retry_after_ms": "1500"}, 1.5, 1.5),
        ({"retry_after": "9", "retry_after_ms": "soon"}, 9, 9),
        ({"retry_after": "1e300"}, 86_400, 365 * 86_400),
    ],
)
def test_when_to_try_again(provider, headers, low, high):
    told = explained(provider, refusal(provider, 429, None, **headers))
    assert low <= told.retry_after <= high


@pytest.mark.parametrize("value", ["", "-1", "nan", "-inf", "soon", "1;2", "9" * 65, "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_what_says_nothing_is_none(value):
    assert (
        explained("openai", refusal("openai", 429, None, retry_after=value, retry_after_ms=value)).retry_after is None
    )


RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        ([{"@type": "other"}, {"@type": RETRY_INFO, "retryDelay": "34.074824224s"}], 34.074824224),
        ([{"@type": RETRY_INFO, "retryDelay": "7s"}], 7.0),
        ([{"@type": RETRY_INFO, "retryDelay": "0s"}], 0.0),
        ([{"@type": RETRY_INFO, "retryDelay": "-7s"}], None),
        ([{"@type": RETRY_INFO, "retryDelay": "7"}], None),
        ([{"@type": RETRY_INFO, "retryDelay": "9999999999999s"}], None),
        ([{"@type": RETRY_INFO, "retryDelay": {"seconds": 7}}], None),
        ([7, None, "retryDelay", []], None),
    ],
)
def test_google_says_it_in_the_body(details, seconds):
    told = explained("gcp.gemini", refusal("gcp.gemini", 429, "RESOURCE_EXHAUSTED", details))
    assert told.retry_after == seconds
    told = explained("gcp.gemini", refusal("gcp.gemini", 429, "RESOURCE_EXHAUSTED", details, retry_after="3"))
    assert told.retry_after == 3.0


@pytest.mark.parametrize("provider", SDKS)
@pytest.mark.parametrize(("status", "word", "is_retryable"), [(400, "true", True), (500, "FALSE", False)])
def test_the_provider_has_the_last_word(provider, status, word, is_retryable):
    assert explained(provider, refusal(provider, status, None, x_should_retry=word)).is_retryable is is_retryable
    assert explained(provider, refusal(provider, status, None, x_should_retry="maybe")).is_retryable is not is_retryable


@given(st.integers(400, 499), st.sampled_from([None, "requests", "insufficient_quota", "slow_down", "upstream_error"]))
def test_below_500_only_three_statuses_are_worth_another_try(status, code):
    response = HTTP.Response(status, request=REQUEST, json={})
    error = openai.APIStatusError("canary", response=response, body={"code": code, "message": "canary"})
    told = checked(explain(error, "openai", "m"), error)
    assert not told.is_retryable or status in (408, 425, 429)
    assert told.is_retryable == (status in (408, 425, 429) and told.category != "quota")


# ---------------------------------------------------------------------- anything

FIELDS = st.sampled_from(["error", "type", "code", "status", "details", "retryDelay", "Error", "Code", "headers"])
HEADERS = st.sampled_from(["HTTPHeaders", "HTTPStatusCode", "retry-after", "retry-after-ms", "x-should-retry"])
NAMES = st.text() | FIELDS | HEADERS
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
    max_leaves=8,
)
ATTRIBUTES = st.sampled_from(["status_code", "code", "status", "type", "body", "response", "details"])


class Broken(Exception):
    """Somebody's exception, of which a property does not work."""

    @property
    def type(self):
        raise RuntimeError("canary")

    def __str__(self):
        raise RuntimeError("canary")


@given(
    st.dictionaries(ATTRIBUTES, JUNK | st.just(Raising())),
    st.sampled_from([Broken, ValueError, TypeError, ConnectionError]),
)
def test_any_exception_is_explained(attributes, kind):
    error = kind(Raising())
    for name, value in attributes.items():
        with contextlib.suppress(AttributeError):
            setattr(error, name, value)
    checked(explain(error, "openai", "m"), error)


@given(st.integers(200, 999), JUNK, st.dictionaries(st.sampled_from(["retry-after", "x-should-retry"]), st.text()))
def test_any_answer_is_explained(status, body, headers):
    given = {name: value.encode("utf-8", "replace") for name, value in headers.items()}
    response = HTTP.Response(status, request=REQUEST, headers=given)
    for error in (
        openai.APIStatusError("canary", response=response, body=body),
        anthropic.APIStatusError("canary", response=response, body=body),
        genai.errors.APIError(status, {"error": {"message": "canary"}, "details": body}, response),
        botocore.exceptions.ClientError({"Error": {"Code": body}, "ResponseMetadata": {"HTTPHeaders": body}}, "x"),
    ):
        told = checked(explain(error, "openai", "m"), error)
        assert told.retry_after is None or 0.0 <= told.retry_after <= 365 * 86_400
