"""Every exception that tellmeter raises.

TellmeterError
├── ConfigError (ValueError)      a setting, argument or URL that cannot work; says field, value, allowed range
├── MetricError (ValueError)      a metric's definition that cannot work, or a recording that a strict registry refuses
├── MissingExtra (ImportError)    an optional package is needed; says the exact `pip install` line
├── StoreError (OSError)          a store that cannot be read or written; says what to do
│   └── SchemaTooNew              the store was written by a newer tellmeter
└── StreamEngineError             a stream of the StreamEngine failed at the provider or on the way

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
