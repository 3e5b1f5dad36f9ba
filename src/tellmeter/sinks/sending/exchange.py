"""One HTTP exchange by its deadline: what was answered, or a short name for why nothing was."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple

import httpcore2

from .answers import HTTPAnswer, NoAnswer
from .network import AddressRefused, Network

_IDLE_SECONDS = 60.0
# The other side went away; whether it took the request, nobody knows.
_GONE = ("closed", "reset")
_BROKEN = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class HTTPRequest(NamedTuple):
    """What is asked. Its headers hold secrets, so it is never shown."""

    method: str
    url: httpcore2.URL
    headers: Mapping[str, str]
    body: bytes


def make_pool(network: Network, context: ssl.SSLContext | None, scheme: str, host: str) -> httpcore2.ConnectionPool:
    """The connections to one host, through the proxy that the environment names for it (as urllib reads it)."""
    from urllib.request import getproxies, proxy_bypass

    proxies = {} if proxy_bypass(host) else getproxies()
    named = proxies.get(scheme) or proxies.get("all")
    if not named:
        return httpcore2.ConnectionPool(
            ssl_context=context, max_connections=None, keepalive_expiry=_IDLE_SECONDS, network_backend=network
        )
    import httpx2

    proxy = httpx2.Proxy(named if "://" in named else f"http://{named}")
    url = httpcore2.URL(
        scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
    )
    kind = httpcore2.SOCKSProxy if proxy.url.scheme.startswith("socks") else httpcore2.HTTPProxy
    return kind(
        url,
        proxy.raw_auth,
        ssl_context=context,
        max_connections=None,
        keepalive_expiry=_IDLE_SECONDS,
        network_backend=network,
    )


def exchange(
    pool: httpcore2.ConnectionPool, request: HTTPRequest, deadline: float, answer_bytes: int
) -> HTTPAnswer | NoAnswer:
    """Ask once; again where a kept-alive connection turned out to be closed. `deadline` is of `time.monotonic`."""
    while True:
        connected = False

        def note(event: str, info: object) -> None:
            nonlocal connected
            connected = connected or event.endswith("connect_tcp.started")

        extensions = {
            # See Network: moments, not seconds; but for the wait for a free connection, of which there are no bounds.
            "timeout": {"connect": deadline, "read": deadline, "write": deadline, "pool": None},
            "trace": note,
        }
        try:
            return _ask(pool, request, extensions, answer_bytes)
        except Exception as error:
            failed = no_answer(error)
            if failed.reason not in _GONE or connected or time.monotonic() >= deadline:
                return failed


def _ask(
    pool: httpcore2.ConnectionPool, request: HTTPRequest, extensions: dict[str, object], answer_bytes: int
) -> HTTPAnswer | NoAnswer:
    sent = [(name.encode("ascii"), value.encode("ascii")) for name, value in request.headers.items()]
    content = request.body
    with pool.stream(request.method, request.url, headers=sent, content=content, extensions=extensions) as response:
        received = bytearray()
        try:
            for part in response.iter_stream():
                received += part
                if len(received) > answer_bytes:
                    break  # the connection is closed with what is left in it
        except (httpcore2.ProtocolError, httpcore2.NetworkError):
            if 200 <= response.status < 300:
                return NoAnswer("incomplete")
        except httpcore2.TimeoutException:
            if 200 <= response.status < 300:
                return NoAnswer("timeout")
        named: dict[str, str] = {}
        for name, value in response.headers:
            named.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        return HTTPAnswer(response.status, named, bytes(received[:answer_bytes]))


def no_answer(error: Exception) -> NoAnswer:
    """Why there was no answer. Messages of libraries may quote headers and URLs, those of OpenSSL are constants."""
    cause = error.__cause__ or error.__context__  # a pool raises again `from None`, which leaves only the latter
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, _BROKEN):
        return NoAnswer("tls", getattr(cause, "verify_message", None) or getattr(cause, "reason", "") or "no handshake")
    if isinstance(error, httpcore2.RemoteProtocolError):
        return NoAnswer("closed" if cause is None else "no_http")
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            # Reset while connecting (in TLS's handshake) is not the same as refused.
            return NoAnswer("reset" if isinstance(cause, _BROKEN) else reason)
    return NoAnswer("failed")


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (AddressRefused, "link_local"),
    (httpcore2.TimeoutException, "timeout"),
    (httpcore2.ProxyError, "proxy"),
    (httpcore2.ConnectError, "unreachable"),
    (httpcore2.NetworkError, "reset"),
    (socket.gaierror, "dns"),
    (OSError, "unreachable"),
)
