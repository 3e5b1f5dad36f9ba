"""What went wrong at CloudWatch, or on the way: one table of AWS's codes, one of botocore's exceptions."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...pipeline.outcome import Outcome, Rejected, RetryLater, TooLarge

_PAUSE = 60.0  # where somebody has to do something first


class Cause(NamedTuple):
    """What a request comes to; `advice` where only a person can help. `Rejected` may be the fault of one record."""

    outcome: Outcome
    advice: str = ""


_THROTTLED = Cause(RetryLater(reason="throttled"))
_BROKEN = Cause(RetryLater(reason="server_error"))
_REFUSED = Cause(Rejected("invalid_record"))
_TOO_LARGE = Cause(TooLarge())
_FORBIDDEN = Cause(
    RetryLater(_PAUSE, "forbidden"), "AWS denies it: allow cloudwatch:PutMetricData for this namespace (IAM policy)"
)
_UNAUTHORIZED = Cause(
    RetryLater(_PAUSE, "unauthorized"), "AWS does not take the credentials: check keys, session token, role and clock"
)
_NO_CREDENTIALS = Cause(
    RetryLater(_PAUSE, "no_credentials"), "no AWS credentials are found: set a role, profile= or AWS_ACCESS_KEY_ID"
)
_MISCONFIGURED = Cause(RetryLater(_PAUSE, "misconfigured"), "check region=, profile= and endpoint_url=")
_TLS = Cause(RetryLater(_PAUSE, "tls"), "TLS failed: check the certificate and the host's name, or set AWS_CA_BUNDLE")
_TIMEOUT = Cause(RetryLater(reason="timeout"))
_UNREACHABLE = Cause(RetryLater(reason="unreachable"))

# Without an "Exception" at their end. docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html and
# API_PutMetricData.html; what throttles is botocore's list (botocore.retries.standard).
CODES = {
    **dict.fromkeys(
        (
            "Throttling",
            "Throttled",
            "ThrottledRequest",
            "RequestThrottled",
            "TooManyRequests",
            "RequestLimitExceeded",
            "LimitExceeded",
            "BandwidthLimitExceeded",
            "EC2Throttled",
            "SlowDown",
        ),
        _THROTTLED,
    ),
    **dict.fromkeys(
        ("InternalServiceFault", "InternalServiceError", "InternalFailure", "InternalError", "ServiceUnavailable"),
        _BROKEN,
    ),
    **dict.fromkeys(
        (
            "InvalidParameterValue",
            "InvalidParameterCombination",
            "InvalidQueryParameter",
            "InvalidFormat",
            "MalformedQueryString",
            "MissingParameter",
            "MissingRequiredParameter",
            "Serialization",
            "Validation",
            "ValidationError",
        ),
        _REFUSED,
    ),
    **dict.fromkeys(("AccessDenied", "NotAuthorized", "OptInRequired", "UnauthorizedOperation"), _FORBIDDEN),
    **dict.fromkeys(
        (
            "AuthFailure",
            "ExpiredToken",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidSignature",
            "MissingAuthenticationToken",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
            "UnrecognizedClient",
        ),
        _UNAUTHORIZED,
    ),
    **dict.fromkeys(("RequestEntityTooLarge", "RequestTooLarge", "EntityTooLarge"), _TOO_LARGE),
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutError"), _TIMEOUT),
}
# Where the code says nothing.
STATUSES = {401: _UNAUTHORIZED, 403: _FORBIDDEN, 408: _TIMEOUT, 413: _TOO_LARGE, 425: _BROKEN, 429: _THROTTLED}
# Classes of botocore.exceptions by name, so that none of botocore has to be imported; the first that fits decides.
EXCEPTIONS = {
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError"), _NO_CREDENTIALS),
    **dict.fromkeys(
        (
            "CredentialRetrievalError",
            "MetadataRetrievalError",
            "RefreshWithMFAUnsupportedError",
            "SSOError",
            "TokenRetrievalError",
            "LoginError",
        ),
        _UNAUTHORIZED,
    ),
    **dict.fromkeys(
        ("ProfileNotFound", "NoRegionError", "InvalidRegionError", "ConfigNotFound", "ConfigParseError", "ValueError"),
        _MISCONFIGURED,
    ),
    "ParamValidationError": _REFUSED,
    "SSLError": _TLS,
    **dict.fromkeys(("ConnectTimeoutError", "ReadTimeoutError", "TimeoutError"), _TIMEOUT),
    "ProxyConnectionError": Cause(
        RetryLater(reason="proxy"), "its proxy does not work: check HTTP_PROXY and HTTPS_PROXY"
    ),
    "ResponseParserError": Cause(RetryLater(reason="bad_answer")),
    **dict.fromkeys(("HTTPClientError", "ConnectionError", "OSError"), _UNREACHABLE),
}


def cause_of(error: BaseException) -> Cause | None:
    """Why a request failed, of an exception of botocore; None for what is none of its ways to fail."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict) and "Error" in answer:
        return _cause_of_answer(answer)
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((EXCEPTIONS[name] for name in names if name in EXCEPTIONS), None)


def _cause_of_answer(answer: dict[str, Any]) -> Cause:
    code = str((answer.get("Error") or {}).get("Code") or "").rpartition(":")[2].rpartition("#")[2]
    said = answer.get("ResponseMetadata") or {}
    status = said.get("HTTPStatusCode") or 0
    cause = CODES.get(code) or CODES.get(code.removesuffix("Exception")) or STATUSES.get(status)
    if cause is None:
        cause = _REFUSED if 400 <= status < 500 else _BROKEN
    if isinstance(cause.outcome, RetryLater) and cause.outcome.after is None:
        after = _seconds((said.get("HTTPHeaders") or {}).get("retry-after"))
        if after is not None:
            return Cause(RetryLater(after, cause.outcome.reason), cause.advice)
    return cause


def _seconds(text: object) -> float | None:
    """Of a Retry-After; AWS's services give seconds, never a date."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    return None
