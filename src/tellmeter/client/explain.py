"""What an SDK raised, as a ProviderError: category, status, when to try again. No SDK is imported to know its own."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..call import class_names, status_of
from ..errors import LLMTimeoutError, ProviderError
from ..failures import error_category
from ..sinks.sending.answers import retry_after
from .endpoints import endpoint_of
from .reliability.retries import RETRIED

# Statuses below 500 that say nothing about the request itself (RFC 9110, 15.5.9; RFC 8470; RFC 6585).
_PASSING = frozenset({408, 425, 429})
# google.rpc.RetryInfo: a duration in JSON, as "34.074824224s".
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
# httpx's and httpx2's, botocore's, aiohttp's. openai's own class is an APIConnectionError for every timeout.
_CONNECTING = re.compile(r"Connect(ion)?Timeout")
# What the SDKs raise before anything is sent, because they have no key.
_NO_KEY = frozenset({"OpenAIError", "AnthropicError", "NoCredentialsError", "PartialCredentialsError"})
# Where they raise what has no class of its own: anthropic's TypeError, google-genai's ValueError.
_NO_KEY_SAID = ("Could not resolve authentication method", "No API key was provided")


def explain(error: BaseException, provider: str, model: str) -> ProviderError:
    """The ProviderError that stands for an SDK's exception, its `original_error`. Its message quotes nothing of it."""
    names = class_names(error)
    status = _status(error)
    if status is None and _is_without_key(error, names[0]):
        return no_key(provider, model, error)
    category = error_category(status, *_codes(error), names)
    headers = _headers(error)
    kind = LLMTimeoutError if status is None and status_of(error) == "timeout" else ProviderError
    said = f"HTTP {status}, " if status is not None else ""
    told = kind(
        f"{provider} did not answer for {model!r}: {category} ({said}{names[0]})",
        category=category,
        provider=provider,
        model=model,
        status_code=status,
        retry_after=_retry_after(error, headers),
        is_retryable=_is_retryable(category, status, headers),
        original_error=error,
    )
    if isinstance(told, LLMTimeoutError):
        told.limit = "connect" if any(map(_CONNECTING.match, _chain_names(error))) else "read"
    return told


def no_key(provider: str, model: str, error: BaseException | None = None) -> ProviderError:
    """The error that says that there is no key, and where one is looked for."""
    variables = endpoint_of(provider).keys
    places = ["set up AWS credentials (AWS_ACCESS_KEY_ID, a profile, a role)"] if provider == "aws.bedrock" else []
    places += [f"set {variables[0]}"] if variables else []
    places.append(f"give LLMClient(api_keys={{{provider!r}: ...}})")
    return ProviderError(
        f"{provider} has no key: {', or '.join(places)}",
        category="authentication",
        provider=provider,
        model=model,
        original_error=error,
    )


def _is_without_key(error: BaseException, name: str) -> bool:
    message = error.args[0] if error.args and isinstance(error.args[0], str) else ""
    return name in _NO_KEY or any(said in message for said in _NO_KEY_SAID)


def _is_retryable(category: str, status: int | None, headers: Mapping[str, str]) -> bool:
    """`x-should-retry` is how the providers of the Stainless SDKs overrule the status."""
    word = headers.get("x-should-retry", "").lower()
    if word in ("true", "false"):
        return word == "true"
    if status is not None and status < 500 and status not in _PASSING and category not in ("overloaded", "network"):
        return status < 400 and category in RETRIED
    return category in RETRIED


def _chain_names(error: BaseException) -> Iterable[str]:
    seen = 0
    one: BaseException | None = error
    while one is not None and seen < 8:
        yield from class_names(one)
        one, seen = one.__cause__ or one.__context__, seen + 1


def _status(error: BaseException) -> int | None:
    """The HTTP status: openai, anthropic (`status_code`), google-genai (`code`), botocore (`response`)."""
    metadata = _get(_get(error, "response"), "ResponseMetadata")
    for found in (_get(error, "status_code"), _get(metadata, "HTTPStatusCode"), _get(error, "code")):
        if isinstance(found, int) and not isinstance(found, bool) and 100 <= found <= 999:
            return found
    return None


def _codes(error: BaseException) -> tuple[str | None, str | None]:
    """The provider's own type and code of the error."""
    inner = _get(_get(error, "body"), "error")
    if not isinstance(inner, Mapping):
        inner = _get(error, "body")
    kind = _get(error, "type") or _get(inner, "type") or _get(error, "status")
    code = _get(_get(_get(error, "response"), "Error"), "Code") or _get(inner, "code") or _get(error, "code")
    return _word(kind), _word(code)


def _word(found: Any) -> str | None:
    return found if isinstance(found, str) and len(found) <= 100 else None


def _headers(error: BaseException) -> dict[str, str]:
    response = _get(error, "response")
    found = _get(_get(response, "ResponseMetadata"), "HTTPHeaders") or _get(response, "headers")
    try:
        return {str(name).lower(): str(value) for name, value in dict(found or {}).items()}
    except Exception:  # they may be anything
        return {}


def _retry_after(error: BaseException, headers: Mapping[str, str]) -> float | None:
    exact = retry_after(headers.get("retry-after-ms"), 0.0)
    if exact is not None:
        return exact / 1000.0
    stated = retry_after(headers.get("retry-after"), time.time())
    return stated if stated is not None else _retry_info(_get(error, "details"))


def _retry_info(details: Any) -> float | None:
    """What Google writes into the body: a list of details, one of which is a RetryInfo."""
    found = _get(_get(details, "error"), "details") or details
    for detail in found if isinstance(found, list) else ():
        match = _DURATION.fullmatch(_word(_get(detail, "retryDelay")) or "")
        if match is not None:
            return float(match[1])
    return None


def _get(given: Any, name: str) -> Any:
    try:
        return given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
    except Exception:  # a property of somebody's exception
        return None
