"""The URL that an HTTP sink sends to: taken apart, checked, and how it may be shown."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from ...errors import ConfigError, MissingExtra
from ...secret import Secret
from ..address import Address, Parser, parse, redact, without_secrets

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")  # a name, or an IPv6 address
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_USER = re.compile(r"://.*@", re.DOTALL)
_MANY = 2048


@dataclass(frozen=True, kw_only=True)
class HTTPUrl:
    """`target` is the path with its query, as it is sent; `user` what the URL held before an @, as `name:password`."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    user: Secret | None
    destination: str
    shown: str


def http_url(url: object, *, allow_link_local: bool = False, extra: str = "http") -> HTTPUrl:
    """Take a URL apart. `extra` is the one of tellmeter that brings httpx2 for who asks.

    Raises:
        ConfigError: no http or https URL, or a link-local address that is not allowed; no secrets in the message.
        MissingExtra: httpx2 is not installed.
    """
    try:
        import httpx2
    except ImportError:
        raise MissingExtra("httpx2", extra) from None
    if not isinstance(url, str) or not url.strip():
        raise ConfigError("a URL is needed, as https://metrics.example.com/v1/ingest")
    shown = without_user(url)
    try:
        found = httpx2.URL(url.strip())
    except (httpx2.InvalidURL, ValueError):
        raise ConfigError(f"{shown}: this is no URL of HTTP") from None
    if found.scheme not in _PORTS or not found.raw_host:
        raise ConfigError(f"{shown}: it must begin with http:// or https:// and a host")
    host = found.raw_host.decode("ascii")
    if not allow_link_local and is_link_local(_literal(host)):
        raise ConfigError(f"{shown}: a link-local address is refused unless allow_link_local=True")
    port = _PORTS[found.scheme] if found.port is None else found.port
    if not _HOST.fullmatch(host) or not 0 < port < 65536:
        raise ConfigError(f"{shown}: this is no host and port")
    target = found.raw_path.decode("ascii")
    place = f"{found.scheme}://" + (f"[{host}]" if ":" in host else host)
    path, mark, query = target.partition("?")
    return HTTPUrl(
        scheme=found.scheme,
        host=host,
        port=port,
        target=target,
        user=Secret(f"{found.username}:{found.password}") if found.userinfo else None,
        destination=f"{place}:{port}{path}",
        shown=place + ("" if found.port is None else f":{port}") + path + without_secrets(mark + query),
    )


def without_user(url: str) -> str:
    """Any text that should be a URL, as it may be shown."""
    return _USER.sub("://***@", redact(url.strip()))[:_MANY]


def split_options(url: str, parsers: dict[str, Parser]) -> tuple[str, dict[str, Any]]:
    """The URL without the options that are ours, and their values. All other parameters stay as they are written.

    Raises:
        ConfigError: a value that its parser refuses.
    """
    whole = parse(url.strip())
    base, mark, rest = url.strip().partition("?")
    query, _, _ = rest.partition("#")
    ours: dict[str, str] = {}
    others = []
    for part in query.split("&") if mark else ():
        name, _, value = part.partition("=")
        if unquote_plus(name) in parsers:
            ours[unquote_plus(name)] = unquote_plus(value)
        elif part:
            others.append(part)
    address = Address(scheme=whole.scheme, location=whole.location, options=ours, shown=without_user(url))
    return base + ("?" + "&".join(others) if others else ""), address.read(**parsers)


def is_link_local(address: str) -> bool:
    """Whether an IP address is 169.254.0.0/16 or fe80::/10, also inside an IPv6 address that stands for an IPv4 one."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and (found in _NAT64 or int(found) < 2**32):
            inner = ipaddress.IPv4Address(int(found) % 2**32)
        if inner is not None and inner.is_link_local:
            return True
    return found.is_link_local


def _literal(host: str) -> str:
    """The address that a host is, where it is none by name: `2852039166` and `0xa9fea9fe` are 169.254.169.254."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host
