"""What a variable or an argument may hold, by a table: a bad variable is one warning, never an error."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..secret import Secret
from ..sinks.address import redact

logger = logging.getLogger(__name__)

# From a text, or from a value that is one already; raises ValueError that says what is allowed.
Parser = Callable[[Any], Any]


class Field(NamedTuple):
    """The variables of a setting, the first of which counts, and how its value is read. A secret is never shown."""

    variables: tuple[str, ...]
    parse: Parser
    secret: bool = False


class PartlyGood(ValueError):
    """A value of which a part can be used."""

    def __init__(self, allowed: str, good: Any) -> None:
        super().__init__(allowed)
        self.good = good


class Reader:
    """Reads settings from an environment, and warns once of each variable that cannot be used."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._told: set[str] = set()

    def read(self, field: Field) -> Any:
        """The value of the first variable that is set and can be used, or in part; None without one."""
        for variable in field.variables:
            if not (given := self._environ.get(variable, "").strip()):
                continue
            try:
                return field.parse(given)
            except ValueError as error:
                good = getattr(error, "good", None)
                if variable not in self._told:
                    self._told.add(variable)
                    fate = "it is ignored" if good is None else "the rest of it is used"
                    logger.warning("%s%s: it must be %s; %s", variable, _shown(given, field), error, fate)
                if good is not None:
                    return good
        return None


def check(name: str, value: object, field: Field) -> Any:
    """The value of an argument.

    Raises:
        ConfigError: a value that cannot work.
    """
    try:
        return field.parse(value)
    except ValueError as error:
        raise ConfigError(f"{name}{_shown(value, field)}: it must be {error}") from None


def _shown(value: object, field: Field) -> str:
    # The type of what is no text: its own repr may be anything.
    shown = repr(redact(value[:80])) if isinstance(value, str) else type(value).__name__
    return "" if field.secret else f" = {shown}"


def text(value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("a text that is not empty")
    return value.strip()


def secret(value: object) -> Secret:
    """A text that is never shown."""
    return value if isinstance(value, Secret) else Secret(text(value))


def flag(value: object) -> bool:
    """Yes or no, in the guide's words."""
    word = str(value).lower()
    if word not in _FLAGS:
        raise ValueError("true or false")
    return _FLAGS[word]


def strict_flag(value: object) -> bool:
    """Yes or no as the specification has it: true is "true" alone."""
    if (word := str(value).lower()) not in ("true", "false"):
        raise ValueError("true or false")
    return word == "true"


_FLAGS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}


def number(low: float, high: float, *, whole: bool = False) -> Parser:
    """A number from `low` to `high`."""
    allowed = f"{'a whole number' if whole else 'a number'} from {low:,g} to {high:,g}"

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(allowed)  # noqa: TRY004 - parsers raise one kind of error
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
        if not low <= found <= high or (whole and found != int(found)):  # NaN is in no range
            raise ValueError(allowed)
        return int(found) if whole else found

    return parse


def choice(*allowed: str) -> Parser:
    """One of some words, in any case."""

    def parse(value: object) -> str:
        word = value.lower() if isinstance(value, str) else ""
        if word not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return word

    return parse


def choices(*allowed: str) -> Parser:
    """Some of some words, with commas between them or in a list; "none" is none of them."""

    def parse(value: object) -> tuple[str, ...]:
        given: Iterable[object] = value.split(",") if isinstance(value, str) else _listed(value)
        words = [word.strip().lower() if isinstance(word, str) else None for word in given]
        good = tuple(dict.fromkeys(word for word in words if word in allowed))
        if any(word not in ("", "none", *allowed) for word in words):
            raise PartlyGood(f"some of {', '.join(allowed)}, or none", good or None)
        return good

    return parse


def _listed(value: object) -> Iterable[object]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError("a list of names")  # noqa: TRY004 - as above
    return value
