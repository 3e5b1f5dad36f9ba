import botocore.exceptions
import botocore.retries.standard
import pytest
from botocore.exceptions import ClientError

from tellmeter.pipeline.outcome import Rejected, RetryLater, TooLarge
from tellmeter.sinks.cloudwatch.errors import CODES, EXCEPTIONS, cause_of


def answered(code, status=400, headers=None):
    said = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return ClientError({"Error": {"Code": code, "Message": "x"}, "ResponseMetadata": said}, "PutMetricData")


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("Throttling", 400, RetryLater(reason="throttled")),
        ("ThrottlingException", 400, RetryLater(reason="throttled")),
        ("RequestLimitExceeded", 503, RetryLater(reason="throttled")),
        ("InternalServiceFault", 500, RetryLater(reason="server_error")),
        ("ServiceUnavailable", 503, RetryLater(reason="server_error")),
        ("InvalidParameterValue", 400, Rejected("invalid_record")),
        ("InvalidParameterValueException", 400, Rejected("invalid_record")),
        ("com.amazonaws.cloudwatch#InvalidParameterCombinationException", 400, Rejected("invalid_record")),
        ("MissingParameter", 400, Rejected("invalid_record")),
        ("MissingRequiredParameterException", 400, Rejected("invalid_record")),
        ("SerializationException", 400, Rejected("invalid_record")),
        ("AccessDenied", 403, RetryLater(60.0, "forbidden")),
        ("AccessDeniedException", 400, RetryLater(60.0, "forbidden")),
        ("UnrecognizedClientException", 400, RetryLater(60.0, "unauthorized")),
        ("InvalidClientTokenId", 403, RetryLater(60.0, "unauthorized")),
        ("ExpiredToken", 403, RetryLater(60.0, "unauthorized")),
        ("ExpiredTokenException", 400, RetryLater(60.0, "unauthorized")),
        ("SignatureDoesNotMatch", 403, RetryLater(60.0, "unauthorized")),
        ("RequestEntityTooLarge", 413, TooLarge()),
        ("413", 413, TooLarge()),
        ("429", 429, RetryLater(reason="throttled")),
        ("401", 401, RetryLater(60.0, "unauthorized")),
        ("", 418, Rejected("invalid_record")),
        ("", 502, RetryLater(reason="server_error")),
        ("NeverSeen", 200, RetryLater(reason="server_error")),
    ],
)
def test_codes(code, status, outcome):
    assert cause_of(answered(code, status)).outcome == outcome


@pytest.mark.parametrize(
    ("header", "after"), [("120", 120.0), ("0", 0.0), ("soon", None), ("-1", None), ("9" * 40, None)]
)
def test_retry_after(header, after):
    outcome = cause_of(answered("Throttling", 503, {"retry-after": header})).outcome
    assert outcome == RetryLater(after, "throttled")


def test_a_pause_is_longer_than_what_the_server_asks_for():
    assert cause_of(answered("AccessDenied", 403, {"retry-after": "1"})).outcome.after == 60.0


def made(name):
    kind = getattr(botocore.exceptions, name)
    error = kind.__new__(kind)
    Exception.__init__(error, "x")
    return error


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("NoCredentialsError", RetryLater(60.0, "no_credentials")),
        ("PartialCredentialsError", RetryLater(60.0, "no_credentials")),
        ("CredentialRetrievalError", RetryLater(60.0, "unauthorized")),
        ("UnauthorizedSSOTokenError", RetryLater(60.0, "unauthorized")),
        ("SSOTokenLoadError", RetryLater(60.0, "unauthorized")),
        ("ProfileNotFound", RetryLater(60.0, "misconfigured")),
        ("NoRegionError", RetryLater(60.0, "misconfigured")),
        ("InvalidRegionError", RetryLater(60.0, "misconfigured")),
        ("ParamValidationError", Rejected("invalid_record")),
        ("EndpointConnectionError", RetryLater(reason="unreachable")),
        ("ConnectionClosedError", RetryLater(reason="unreachable")),
        ("HTTPClientError", RetryLater(reason="unreachable")),
        ("ConnectTimeoutError", RetryLater(reason="timeout")),
        ("ReadTimeoutError", RetryLater(reason="timeout")),
        ("SSLError", RetryLater(60.0, "tls")),
        ("ProxyConnectionError", RetryLater(reason="proxy")),
    ],
)
def test_exceptions_of_botocore(name, outcome):
    assert cause_of(made(name)).outcome == outcome


def test_what_is_no_failure_of_a_request_is_no_cause():
    assert cause_of(KeyError("x")) is None
    assert cause_of(AssertionError()) is None


def test_the_tables_know_what_botocore_calls_throttling():
    known = botocore.retries.standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES
    ours = [code for code in known if (CODES.get(code) or CODES.get(code.removesuffix("Exception")))]
    missing = set(known) - set(ours)
    assert missing <= {
        "ProvisionedThroughputExceededException",
        "TransactionInProgressException",
        "PriorRequestNotComplete",
    }


def test_every_pause_says_what_to_do():
    for cause in [*CODES.values(), *EXCEPTIONS.values()]:
        if isinstance(cause.outcome, RetryLater) and cause.outcome.after:
            assert cause.advice
