import pytest

from tellmeter.failures import _EXCEPTIONS, CATEGORIES, error_category, error_class


def names(error):
    return tuple(kind.__name__ for kind in type(error).__mro__)


@pytest.mark.parametrize(
    ("status", "kind", "code", "category"),
    [
        (401, "invalid_request_error", "invalid_api_key", "authentication"),
        (401, "authentication_error", "invalid_request_error", "authentication"),
        (401, None, "401", "authentication"),
        (401, None, None, "authentication"),
        (403, "permission_error", None, "permission_denied"),
        (429, "insufficient_quota", "insufficient_quota", "quota"),
        (429, None, "RateLimitReached", "rate_limit"),
        (429, "rate_limit_error", None, "rate_limit"),
        (429, None, "429", "rate_limit"),
        (429, None, None, "rate_limit"),
        (413, "tokens", "rate_limit_exceeded", "rate_limit"),
        (402, None, None, "quota"),
        (400, "invalid_request_error", "context_length_exceeded", "context_length"),
        (400, "too_many_prompt_tokens", "400", "context_length"),
        (400, None, "content_filter", "content_filter"),
        (400, "invalid_request_error", "tool_use_failed", "validation"),
        (400, "invalid_request_error", "model_not_found", "not_found"),
        (400, "invalid_request_error", None, "validation"),
        (400, None, "invalid-argument", "validation"),
        (422, None, None, "validation"),
        (418, None, None, "validation"),
        (404, "not_found_error", None, "not_found"),
        (404, "NOT_FOUND", "404", "not_found"),
        (404, "invalid_request_error", "DeploymentNotFound", "not_found"),
        (408, None, None, "timeout"),
        (409, None, None, "conflict"),
        (413, "request_too_large", None, "context_length"),
        (413, None, None, "context_length"),
        (500, "server_error", None, "server_error"),
        (502, None, None, "server_error"),
        (503, None, None, "server_error"),
        (529, "overloaded_error", None, "overloaded"),
        (529, None, None, "overloaded"),
        (400, "ThrottlingException", None, "rate_limit"),
        # Inside a stream, whose status says nothing.
        (200, "overloaded_error", None, "overloaded"),
        (200, "invalid_request_error", None, "validation"),
        (200, "api_error", None, "server_error"),
        (200, None, "502", "server_error"),
        (200, None, "429", "rate_limit"),
        (200, None, "server_error", "server_error"),
        (200, None, None, "unknown"),
        (None, None, None, "unknown"),
        (200, "something_new", "quite_else", "unknown"),
    ],
)
def test_codes_and_statuses(status, kind, code, category):
    assert error_category(status, kind, code) == category


@pytest.mark.parametrize(
    ("exceptions", "category"),
    [
        (names(TimeoutError()), "timeout"),
        (names(ConnectionResetError()), "network"),
        (("ReadTimeout", "TimeoutException", "TransportError", "RequestError"), "timeout"),
        (("ConnectError", "NetworkError", "TransportError", "RequestError"), "network"),
        (("RemoteProtocolError", "ProtocolError", "TransportError"), "network"),
        (("APITimeoutError", "APIConnectionError", "APIError"), "timeout"),
        (("APIConnectionError", "APIError"), "network"),
        (("RateLimitError", "APIStatusError", "APIError"), "rate_limit"),
        (("CancelledError", "BaseException"), "cancelled"),
        (names(KeyboardInterrupt()), "cancelled"),
        (names(GeneratorExit()), "cancelled"),
        (("CircuitOpenError", "Exception"), "circuit_open"),
        (("BudgetExceeded", "Exception"), "budget"),
        (names(FileNotFoundError()), "unknown"),
        (names(ValueError()), "unknown"),
        ((), "unknown"),
    ],
)
def test_exceptions(exceptions, category):
    assert error_category(None, exception_class_names=exceptions) == category
    assert error_category(200, exception_class_names=exceptions) == category


def test_a_status_says_more_than_an_exception():
    assert error_category(429, None, None, ("APIStatusError", "TimeoutError")) == "rate_limit"


def test_every_category_is_known():
    assert set(_EXCEPTIONS) <= set(CATEGORIES)
    for status in range(400, 600):
        assert error_category(status) in CATEGORIES


def test_classes_of_the_sdks_that_are_installed():
    anthropic = pytest.importorskip("anthropic", minversion="2")  # before, 413 and 503 had other names
    openai = pytest.importorskip("openai")
    http = pytest.importorskip("httpx2")
    request = http.Request("POST", "https://x.test")
    for client, form in (
        (openai.OpenAI(api_key="x"), "openai_chat"),
        (anthropic.Anthropic(api_key="x"), "anthropic_messages"),
    ):
        for status in (*range(400, 452), 499, 500, 501, 502, 503, 504, 520, 529, 599):
            raised = client._make_status_error("m", body={}, response=http.Response(status, request=request))
            assert error_class(status, form) == type(raised).__name__, (form, status)


def test_errors_inside_streams():
    assert error_class(200, "openai_chat") == "APIError"
    assert error_class(200, "anthropic_messages") == "APIStatusError"
    assert error_class(None, "openai_responses") == "APIError"
