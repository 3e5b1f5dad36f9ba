"""Secret: a token, key or password that shows itself to nobody who does not ask for it by name."""

from __future__ import annotations

import hmac
import os
import re
from typing import Any

from .errors import ConfigError

_HIDDEN = "***"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Secret:
    """A text that is `***` in every repr, log line, format and copy; `reveal()` is the only way to it.

    Equality takes the same time wherever two secrets differ. Pickling is refused: what another process needs, it reads
    from its own environment. JSON encoders refuse it too.

    Raises:
        ConfigError: a value that is no text, or empty.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str) or not value:
            raise ConfigError("a secret must be a text that is not empty")
        self.__value = value

    @classmethod
    def of(cls, name: str, value: str | Secret | None) -> Secret | None:
        """The argument `name` as a secret; None where there is none.

        Raises:
            ConfigError: a value that is neither a text nor a secret, or empty.
        """
        if value is None or isinstance(value, Secret):
            return value
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{name}: it must be a text that is not empty, or a Secret")
        return cls(value)

    @classmethod
    def from_env(cls, name: str) -> Secret:
        """The value of an environment variable, without white space around it (files of secrets end in a line break).

        Raises:
            ConfigError: the variable is not set or empty, or `name` is no name.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            # Not shown: somebody may have put the secret itself there.
            raise ConfigError("a secret's place is the name of an environment variable: letters, digits and _")
        value = os.environ.get(name, "").strip()
        if not value:
            raise ConfigError(f"the environment variable {name} is not set, or empty: it must hold the secret")
        return cls(value)

    def reveal(self) -> str:
        """The text itself."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({_HIDDEN!r})"

    def __str__(self) -> str:
        return _HIDDEN

    def __format__(self, spec: str) -> str:
        return format(_HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self.__value), _bytes(other.__value))

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a Secret is never pickled: read it from the environment where it is needed")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
