"""The URL of a sink, taken apart; and how it may be shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from ..errors import ConfigError

# Two letters at least: one is a drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
# Up to the last @, for a password may hold any character, whether or not it should have been quoted.
_USER = re.compile(r"://(?!/)([^:@]*)(:?).*@", re.DOTALL)
_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:key|token|pass|pwd|secret|auth|sign|sig)[^=&]*=)[^&]*", re.IGNORECASE)

Parser = Callable[[str], Any]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """`scheme:location?options`. The location is as it was written; `shown` is the URL without its secrets."""

    scheme: str
    location: str
    options: dict[str, str]
    shown: str

    def read(self, **parsers: Parser) -> dict[str, Any]:
        """The options as values; each parser raises `ValueError` with what is allowed.

        Raises:
            ConfigError: an option that is not among the parsers, or a value that its parser refuses.
        """
        values = {}
        for name, text in self.options.items():
            if name not in parsers:
                known = f"its options are {', '.join(parsers)}" if parsers else "it has none"
                raise ConfigError(f"{name[:40]!r} is no option of {self.scheme}: URLs; {known}")
            try:
                values[name] = parsers[name](text)
            except ValueError as error:
                raise ConfigError(f"{name} = {text[:40]!r} in {self.shown}: it must be {error}") from None
        return values

    def file(self) -> Path:
        """The path of a file: `scheme:///relative`, `scheme:////absolute` (as in SQLAlchemy), `~` for the home folder.

        Raises:
            ConfigError: no path, or a host.
        """
        if not self.location.startswith("///") or len(self.location) == 3:
            raise ConfigError(
                f"{self.shown}: write {self.scheme}:///relative/path with three slashes, "
                f"or {self.scheme}:////absolute/path with four"
            )
        return file_path(self.location[3:])


def parse(url: object) -> Address:
    """Take a URL apart.

    Raises:
        ConfigError: text that is no URL.
    """
    found = _URL.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        raise ConfigError(f"{redact(str(url))[:80]!r} is no URL: it has no scheme, as sqlite: has")
    location, _, query = found[2].partition("?")
    pairs = [part.partition("=") for part in query.split("&") if part]
    return Address(
        scheme=found[1].lower(),
        location=location,
        options={unquote_plus(name): unquote_plus(value) for name, _, value in pairs},
        shown=redact(str(url)),
    )


def redact(url: str) -> str:
    """The URL as it may be shown: `***` for a password, a user without one (it may be a key), and secret options.

    What is not printable is replaced, so that a message stays one line.
    """

    def hide(found: re.Match[str]) -> str:
        return f"://{found[1]}:***@" if found[2] else "://***@"

    shown = without_secrets(_USER.sub(hide, url, count=1))
    return shown if shown.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in shown)


def without_secrets(query: str) -> str:
    """A query with `***` for the values of options that are secret by their names."""
    return _SECRET_OPTION.sub(r"\1***", query)


def file_path(text: str) -> Path:
    """The absolute path of what a user wrote.

    Raises:
        ConfigError: text that is no path of a file.
    """
    if not text or "\0" in text:
        raise ConfigError(f"{text!r} is no path of a file")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{text!r} is no path of a file: there is no such home folder") from None


def positive(text: str) -> float:
    """A number above 0."""
    number = _finite(text)
    if not number > 0:
        raise ValueError("a number above 0")
    return number


def whole(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise ValueError("a whole number above 0")
    return int(text)


def whole_or_zero(text: str) -> int:
    """A whole number, 0 included."""
    if text == "0":
        return 0
    try:
        return whole(text)
    except ValueError:
        raise ValueError("a whole number, 0 or more") from None


def flag(text: str) -> bool:
    """Yes or no."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("true or false")


# Options that every sink with a lane takes in its URL, as `?spool=folder&batch_size=500`; see `LaneOptions`.
LANE_PARSERS: dict[str, Parser] = {
    "batch_size": whole,
    "batch_timeout_seconds": positive,
    "max_queue": whole,
    "max_queue_bytes": whole,
    "when_full": str,
    "spool": str,
    "spool_max_bytes": whole,
    "dead_letters": str,
}


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if number - number == 0 else 0.0
