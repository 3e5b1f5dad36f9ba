"""Every exception that tellmeter raises.

TellmeterError
├── ConfigError (ValueError)      a setting, argument or URL that cannot work; says field, value, allowed range
├── MetricError (ValueError)      a metric's definition that cannot work, or a recording that a strict registry refuses
├── MissingExtra (ImportError)    an optional package is needed; says the exact `pip install` line
├── StoreError (OSError)          a store that cannot be read or written; says what to do
│   └── SchemaTooNew              the store was written by a newer tellmeter
├── StreamEngineError             a stream of the StreamEngine failed at the provider or on the way
└── LLMError                      a call of the LLMClient came to nothing; has category, provider, status_code, ...
    ├── ProviderError             the provider answered with an error, or could not be reached
    │   └── LLMTimeoutError (TimeoutError)   it did not answer in time
    ├── UnknownModelError (ValueError)       no provider is known for the model; names near ones
    ├── CircuitOpenError          the provider failed so often that it is given a rest; nothing was sent
    └── BudgetExceededError       a budget is spent; nothing was sent

None of them is ever raised into a metered call.
"""

from __future__ import annotations


class TellmeterError(Exception):
    """The base of every exception that tellmeter raises."""


class ConfigError(TellmeterError, ValueError):
    """A setting, argument or URL that cannot work."""


class MetricError(TellmeterError, ValueError):
    """A metric's definition that cannot work or contradicts another, or a recording that a strict registry refuses."""


class MissingExtra(TellmeterError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is needed here: pip install 'tellmeter[{extra}]'")
        self.package = package
        self.extra = extra


class StoreError(TellmeterError, OSError):
    """A store that cannot be read or written."""


class SchemaTooNew(StoreError):
    """The store was written by a newer tellmeter than this one."""


class StreamEngineError(TellmeterError):
    """A stream of the `StreamEngine` failed at the provider or on the way to it; what is below is its `__cause__`.

    status_code: the HTTP status, None where there was no answer.
    error_class: what the record of the call has as its `error_class`.
    body: what the provider said, up to 64 KiB. It may quote the prompt, so it is in no message and no repr.
    """

    def __init__(
        self, message: str, *, status_code: int | None = None, error_class: str = "StreamEngineError", body: bytes = b""
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.error_class = error_class
        self.body = body


class LLMError(TellmeterError):
    """A call of the `LLMClient` came to nothing. Its message quotes neither the prompt nor the provider.

    category: one of `tellmeter.failures.CATEGORIES` (rate_limit, timeout, ...), as in the record of the call.
    provider, model: whom it asked, and for what; "" where that is not known.
    status_code: the HTTP status, None where there was no answer.
    retry_after: seconds after which another try makes sense, as far as that is known.
    request_id: the id of the call, which is in its records too.
    is_retryable: whether the same call may succeed later.
    original_error: what the provider's SDK raised; it may quote the prompt. Also the `__cause__`.
    """

    def __init__(
        self,
        message: str,
        *,
        category: str = "unknown",
        provider: str = "",
        model: str = "",
        status_code: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        is_retryable: bool = False,
        original_error: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.category = category
        self.provider = provider
        self.model = model
        self.status_code = status_code
        self.retry_after = retry_after
        self.request_id = request_id
        self.is_retryable = is_retryable
        self.original_error = original_error


class ProviderError(LLMError):
    """The provider answered with an error, or could not be reached."""


class LLMTimeoutError(ProviderError, TimeoutError):
    """The provider did not answer in time. `limit` says which of the `Timeouts` it was."""

    limit: str = ""


class UnknownModelError(LLMError, ValueError):
    """No provider is known for the model. `near` are known names that look like it, the nearest first."""

    near: tuple[str, ...] = ()


class CircuitOpenError(LLMError):
    """The circuit breaker of the provider is open: it failed so often that it is given a rest. Nothing was sent."""


class BudgetExceededError(LLMError):
    """A `Budget` is spent. Nothing was sent. `retry_after` tells when its window has room again, where that is known.

    budget: its name. key: the value of the tag that it is kept for, "" without one.
    """

    budget: str = ""
    key: str = ""
