"""MetricsServer: the page of metrics for programs without a web framework, on a thread, for this machine by default."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Mapping
from types import TracebackType

from ..errors import ConfigError
from ..registry.registry import MetricsRegistry
from .access import Access, BasicAuth
from .connection import Request
from .listener import Listener
from .page import METHODS, Answer, answer, line
from .places import Places

HOST_VARIABLE = "PROMETHEUS_HOST"
PORT_VARIABLE = "PROMETHEUS_PORT"
HOST = "127.0.0.1"
PORT = 9090  # a Prometheus on the same machine has it too, by its own default: then one of them needs another
_BACKLOG = 64


def start_metrics_server(
    host: str | None = None,
    port: int | None = None,
    *,
    registry: MetricsRegistry | None = None,
    token: str | None = None,
    basic_auth: BasicAuth | None = None,
) -> MetricsServer:
    """Serve the metrics of `registry` (of the process without one) at `http://host:port/metrics`, until `close()`.

    It listens when this returns. A forked child holds nothing of it.

    Args:
        host: the address to listen on; `PROMETHEUS_HOST`, else 127.0.0.1.
        port: 0 takes a free one; `PROMETHEUS_PORT`, else 9090, which is also Prometheus' own default.
        registry: whose metrics.
        token: whoever asks must send `Authorization: Bearer <token>`.
        basic_auth: or a user and password, as `("user", "password")` or `user:password`.

    Raises:
        ConfigError: the port is taken, the address is not ours, or others than this machine could read it without a
            token or password.
    """
    return MetricsServer(host, port, registry=registry, token=token, basic_auth=basic_auth).start()


class MetricsServer:
    """What `start_metrics_server()` gives, with the same arguments; `with MetricsServer(port=0) as server: server.url`.

    It serves 8 connections at a time, each for a limited time, and writes at most 4 pages at a time.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        registry: MetricsRegistry | None = None,
        token: str | None = None,
        basic_auth: BasicAuth | None = None,
    ) -> None:
        self.host, self.port = address(host, port, os.environ)
        self._registry = registry
        self._access = Access(token, basic_auth)
        self._places = Places()
        self._listener: Listener | None = None

    def __repr__(self) -> str:
        return f"<MetricsServer {self.url}>"

    @property
    def url(self) -> str:
        """Where the metrics are; with port 0 only once it is started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def start(self) -> MetricsServer:
        """Listen. A second call does nothing."""
        if self._listener is None or not self._listener.alive:
            listening = _listen(self.host, self.port, self._access)
            self.port = listening.getsockname()[1]
            self._listener = Listener(listening, self._respond)
        return self

    def close(self) -> None:
        """Free the port and drop the connections. A second call does nothing."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def __enter__(self) -> MetricsServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _respond(self, request: Request) -> Answer:
        refused = self._access.refusal(request.headers)
        if refused is not None:
            return refused
        if request.path == "/" and request.method in METHODS:
            return line(200, "tellmeter: the metrics are at /metrics")
        return answer(
            request.method,
            request.path,
            request.headers.get("accept"),
            request.headers.get("accept-encoding"),
            places=self._places,
            registry=self._registry,
        )


def address(host: str | None, port: int | None, environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port as they are given, else as the environment says, else the defaults.

    Raises:
        ConfigError: a port that is none.
    """
    if host is None:
        host = environ.get(HOST_VARIABLE, "").strip() or HOST
    name = "port"
    if port is None and (text := environ.get(PORT_VARIABLE, "").strip()):
        if not text.isdecimal():
            raise _wrong_port(PORT_VARIABLE, text)
        name, port = PORT_VARIABLE, int(text)
    port = PORT if port is None else port
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise _wrong_port(name, port)
    if not isinstance(host, str) or not host:
        raise ConfigError(f"host = {host!r}: it must be an address, as 127.0.0.1")
    return host, port


def _wrong_port(name: str, value: object) -> ConfigError:
    return ConfigError(f"{name} = {value!r}: it must be a whole number from 0 to 65,535")


def _listen(host: str, port: int, access: Access) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # "localhost" has both; more clients try the first one only.
        family, *_, where = min(found, key=lambda one: one[0] != socket.AF_INET)
    except (OSError, UnicodeError):
        raise ConfigError(f"{host}: there is no such host") from None
    ours_alone = ipaddress.ip_address(str(where[0]).partition("%")[0]).is_loopback
    if not ours_alone and not access.secret:
        raise ConfigError(
            f"{host}:{port}: others than this machine could read the metrics there; give a token (token=, --token-env) "
            f"or a password (basic_auth=, --basic-auth-env), or listen on {HOST}"
        )
    try:
        return socket.create_server(
            where, family=family, backlog=_BACKLOG, dualstack_ipv6=where[0] == "::" and socket.has_dualstack_ipv6()
        )
    except OSError as error:
        cure = ""
        if error.errno == errno.EADDRINUSE:
            cure = f"; another program listens there, so choose another port (port=, --port, {PORT_VARIABLE})"
        told = os.strerror(error.errno) if error.errno else type(error).__name__
        raise ConfigError(f"{host}:{port}: {told}{cure}") from None
