"""What went wrong, in one word: provider's codes, HTTP statuses and exceptions mapped to categories by tables.

Pure: it knows exceptions by the names in their class hierarchies, so that no SDK is imported to recognise its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

CATEGORIES = (
    "authentication",
    "permission_denied",
    "rate_limit",
    "quota",
    "validation",
    "context_length",
    "content_filter",
    "not_found",
    "conflict",
    "server_error",
    "overloaded",
    "network",
    "timeout",
    "cancelled",
    "circuit_open",
    "budget",
    "unknown",
)
"""All there are. "unknown" is what nothing below knows; a category is never empty."""

# Providers' codes and types, compared in lower case without punctuation: `RateLimitReached` is `rate_limit_reached`.
# They say more than the status: OpenAI sends 429 for an empty account too, and 400 for a prompt that is too long.
_CODES = {
    "authentication": (
        "authentication_error invalid_api_key invalid_authentication incorrect_api_key expired_api_key unauthenticated "
        "unauthorized expired_token_exception unrecognized_client_exception invalid_signature_exception "
        "missing_authentication_token_exception"
    ),
    "permission_denied": (
        "permission_error permission_denied access_denied access_denied_exception forbidden model_access_denied "
        "unsupported_country_region_territory organization_verification_required"
    ),
    "rate_limit": (
        "rate_limit_error rate_limit_exceeded rate_limit_reached rate_limited too_many_requests resource_exhausted "
        "requests tokens throttling_exception throttled ramp_limit_exceeded slow_down"
    ),
    "quota": (
        "insufficient_quota billing_error billing_hard_limit_reached billing_not_active exceeded_current_quota_error "
        "insufficient_balance insufficient_credits payment_required quota_exceeded service_quota_exceeded_exception "
        "contract_spend_limit_reached enforced_spend_limit_reached linked_organization_spend_limit_reached "
        "storage_quota_exceeded usage_limit_reached"
    ),
    "context_length": (
        "context_length_exceeded context_window_exceeded string_above_max_length too_many_prompt_tokens "
        "model_max_prompt_tokens_exceeded request_too_large prompt_too_long max_tokens_exceeded"
    ),
    "content_filter": (
        "content_filter content_policy_violation content_filtered responsible_ai_policy_violation moderation_blocked "
        "image_content_policy_violation safety guardrail_intervened cyber_policy_violation"
    ),
    "not_found": (
        "not_found not_found_error model_not_found deployment_not_found resource_not_found "
        "resource_not_found_exception invalid_model unknown_model"
    ),
    "conflict": "conflict conflict_error conflict_exception already_exists aborted",
    "overloaded": (
        "overloaded overloaded_error engine_overloaded engine_overloaded_error provider_overloaded service_unavailable "
        "service_unavailable_exception model_not_ready_exception unavailable server_overloaded"
    ),
    "timeout": "timeout timeout_error deadline_exceeded gateway_timeout model_timeout_exception",
    "validation": (
        "missing_required_parameter unsupported_parameter unsupported_value invalid_value invalid_type "
        "invalid_image_format unsupported_file tool_use_failed json_validate_failed validation_exception "
        "unknown_parameter invalid_function_parameters"
    ),
}
# Types that come with nearly every status, and that speak only where the status does not: in a stream.
_VAGUE = {
    "validation": (
        "invalid_request_error invalid_request invalid_argument bad_request validation_error failed_precondition"
    ),
    "server_error": (
        "server_error api_error internal_error internal_server_error internal internal_server_exception "
        "model_error_exception model_stream_error_exception upstream_error provider_error"
    ),
}

_STATUSES = {
    401: "authentication",
    402: "quota",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    413: "context_length",  # the remedy is the same: send less
    425: "network",  # the connection is too early (RFC 8470): the next request on it is not
    429: "rate_limit",
    499: "cancelled",
    529: "overloaded",  # Anthropic
}

# Exceptions by class name: of openai, anthropic, httpx, aiohttp, botocore, requests, google-genai and Python itself.
_EXCEPTIONS = {
    "cancelled": "CancelledError Cancelled GeneratorExit KeyboardInterrupt SystemExit",
    "timeout": (
        "TimeoutError TimeoutException APITimeoutError Timeout ServerTimeoutError ConnectTimeoutError ReadTimeoutError "
        "DeadlineExceeded GatewayTimeoutError RequestTimeoutError"
    ),
    "circuit_open": "CircuitOpen CircuitOpenError CircuitBreakerError",
    "budget": "BudgetExceeded BudgetExceededError BudgetError",
    "authentication": "AuthenticationError NoCredentialsError CredentialsError",
    "permission_denied": "PermissionDeniedError",
    "rate_limit": "RateLimitError",
    "quota": "PaymentRequiredError",
    "context_length": "ContentTooLargeError RequestTooLargeError ContextWindowExceededError",
    "content_filter": "ContentFilterFinishReasonError ContentPolicyViolationError",
    "validation": "BadRequestError UnprocessableEntityError ParamValidationError ValidationError",
    "not_found": "NotFoundError UnknownModelError",
    "conflict": "ConflictError",
    "overloaded": "OverloadedError ServiceUnavailableError",
    "server_error": "InternalServerError ServerError",
    "network": (
        "APIConnectionError TransportError ConnectionError ClientConnectionError ClientPayloadError gaierror SSLError "
        "HTTPClientError EndpointConnectionError ProtocolError IncompleteReadError StreamError"
    ),
}

_PUNCTUATION = re.compile(r"[^a-z0-9]+")

# What the SDKs raise for a status. Of those not in a table, 5xx are InternalServerError, the rest APIStatusError.
_OPENAI_CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
_ANTHROPIC_CLASSES = {
    **_OPENAI_CLASSES,
    402: "PaymentRequiredError",
    408: "RequestTimeoutError",
    412: "PreconditionFailedError",
    413: "ContentTooLargeError",
    431: "RequestHeaderFieldsTooLargeError",
    499: "ClientClosedRequestError",
    501: "HTTPNotImplementedError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
    529: "OverloadedError",
}


def _plain(name: str) -> str:
    return _PUNCTUATION.sub("", name.lower())


def _by_word(table: dict[str, str], plain: bool = True) -> dict[str, str]:
    return {_plain(word) if plain else word: category for category, words in table.items() for word in words.split()}


_CATEGORY_OF_CODE = _by_word(_CODES)
_CATEGORY_OF_VAGUE = _by_word(_VAGUE)
_CATEGORY_OF_EXCEPTION = _by_word(_EXCEPTIONS, plain=False)


def error_category(
    status_code: int | None,
    error_type: str | None = None,
    error_code: str | None = None,
    exception_class_names: Iterable[str] = (),
) -> str:
    """The category of a call that did not succeed; one of `CATEGORIES`.

    Args:
        status_code: The HTTP status, where there was an answer.
        error_type: The provider's own type of the error.
        error_code: The provider's own code, the more exact of the two; a number is the status of an error in a stream.
        exception_class_names: The names in the exception's class hierarchy, its own class first.
    """
    words = [_plain(word) for word in (error_code, error_type) if word]
    for word in words:
        if word in _CATEGORY_OF_CODE:
            return _CATEGORY_OF_CODE[word]
    statuses = [status_code or 0, *(int(word) for word in words if word.isdecimal() and len(word) == 3)]
    for status in statuses:
        if status >= 400:
            return _STATUSES.get(status) or ("server_error" if status >= 500 else "validation")
    for name in exception_class_names:
        if name in _CATEGORY_OF_EXCEPTION:
            return _CATEGORY_OF_EXCEPTION[name]
    return next((_CATEGORY_OF_VAGUE[word] for word in words if word in _CATEGORY_OF_VAGUE), "unknown")


def error_class(status_code: int | None, format_name: str) -> str:
    """The name of what the provider's official SDK raises for a status, for calls whose exception nobody saw.

    An error inside a stream comes with status 200: openai raises APIError for it, anthropic APIStatusError.
    """
    status = status_code or 0
    anthropic = format_name.startswith("anthropic")
    if status < 400:
        return "APIStatusError" if anthropic else "APIError"
    classes = _ANTHROPIC_CLASSES if anthropic else _OPENAI_CLASSES
    return classes.get(status) or ("InternalServerError" if status >= 500 else "APIStatusError")
