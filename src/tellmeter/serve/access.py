"""Access: who may read the metrics of the standalone server. Pure; it never shows a secret."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Mapping

from ..errors import ConfigError
from .page import Answer, line

BasicAuth = str | tuple[str, str]

_HOST = re.compile(r"(localhost|[0-9.]+|\[[0-9a-f:.]+\])(:[0-9]*)?", re.IGNORECASE)
_UNSENDABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class Access:
    """The check of each request: a bearer token, a user and password, either of both, or only a name of this machine.

    Without a secret the `Host` header must name this machine: a web page that a browser here shows can have its own
    name resolve to 127.0.0.1, and would read what the server says (DNS rebinding).

    Args:
        token: for `Authorization: Bearer <token>`.
        basic_auth: user and password, also as `user:password`.

    Raises:
        ConfigError: a token or password that no client could send, or an empty one.
    """

    __slots__ = ("_challenges", "_secrets")

    def __init__(self, token: str | None = None, basic_auth: BasicAuth | None = None) -> None:
        self._secrets: dict[str, bytes] = {}
        self._challenges: list[tuple[str, str]] = []
        if token is not None:
            self._secrets["bearer"] = _secret("token", token).strip()
            self._challenges.append(("www-authenticate", 'Bearer realm="metrics"'))
        if basic_auth is not None:
            self._secrets["basic"] = _user_and_password(basic_auth)
            self._challenges.append(("www-authenticate", 'Basic realm="metrics", charset="UTF-8"'))

    @property
    def secret(self) -> bool:
        """Whether a secret is asked for."""
        return bool(self._secrets)

    def refusal(self, headers: Mapping[str, str]) -> Answer | None:
        """The answer to a request that may not read: 401 or 403; None for all others.

        Args:
            headers: by their names in lower case; bytes as Latin-1.
        """
        if not self._secrets:
            if _names_this_machine(headers.get("host", "")):
                return None
            return line(403, "without a token or password, this server is read as localhost or 127.0.0.1 only")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        secret = self._secrets.get(scheme.lower())
        shown = given.strip().encode("latin-1", "replace")
        if scheme.lower() == "basic":
            shown = _decoded(shown)
        if secret is not None and hmac.compare_digest(shown, secret):
            return None
        return line(401, "a token or password is needed", *self._challenges)


def _secret(name: str, value: str) -> bytes:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name}: it must be a text that is not empty")
    if _UNSENDABLE.search(value):
        raise ConfigError(f"{name}: it has a character that no header can carry")
    return value.encode()


def _user_and_password(given: BasicAuth) -> bytes:
    parts = given.split(":", 1) if isinstance(given, str) else list(given)
    if len(parts) != 2 or not all(isinstance(part, str) for part in parts) or ":" in parts[0] or not parts[1].strip():
        raise ConfigError("basic_auth: it must be a user without a colon, and a password, as user:password")
    return _secret("basic_auth", ":".join(parts))


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _names_this_machine(host: str) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
