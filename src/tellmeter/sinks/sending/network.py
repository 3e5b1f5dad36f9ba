"""The network below an HTTP sink: every step ends by one deadline, and only checked addresses are connected to.

httpx2's clients time each read alone, so a server that dribbles holds them for ever, and take no network of one's own.
httpcore2, which they are made of, takes one (`ConnectionPool(network_backend=...)`, public): this is it.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore2

from .url import is_link_local

_PIECE = 16 * 1024  # of a body: as much as is written between two looks at the clock
_Address = tuple[str, int]


class AddressRefused(Exception):
    """The host is at a link-local address, as cloud metadata services are."""


class Network(httpcore2.NetworkBackend):
    """TCP connections for `httpcore2.ConnectionPool`.

    `timeout` is no number of seconds here but the moment (of `time.monotonic`) at which the whole exchange must end:
    httpcore2 hands the values of a request's `timeout` extension through as they are.

    Args:
        longest: seconds that one step (connecting, one read, one write) may take at most.
        allow_link_local: connect to link-local addresses too.
    """

    def __init__(self, longest: float, allow_link_local: bool) -> None:
        self.streams: set[Stream] = set()
        self.longest = longest
        self.allow_link_local = allow_link_local
        self._tcp = httpcore2.SyncBackend()
        self._lookups: dict[_Address, _Lookup] = {}

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> Stream:
        """Connect to the first of the host's addresses that answers.

        Raises:
            AddressRefused: an address of it is link-local.
            httpcore2.ConnectError, httpcore2.ConnectTimeout: no address answers (in time).
            OSError: the name is not known (`socket.gaierror`).
        """
        until = _moment(timeout)
        addresses = self._resolve(host, port, until)
        if not self.allow_link_local and any(map(is_link_local, addresses)):
            raise AddressRefused
        for number, address in enumerate(addresses):
            # Each gets its share of the time: the first one may be a black hole.
            share = self.seconds(until, httpcore2.ConnectTimeout) / (len(addresses) - number)
            try:
                inner = self._tcp.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(addresses) - 1:
                    raise
            else:
                return Stream(inner, self)
        raise httpcore2.ConnectError("the host has no address")

    def seconds(self, until: float, late: type[Exception]) -> float:
        """What is left for one step; raises `late` when nothing is."""
        left = until - time.monotonic()
        if left <= 0:
            raise late("out of time")
        return min(left, self.longest)

    def forget(self) -> None:
        """In a forked child: close its copies of the sockets, which says nothing to the server."""
        streams, self.streams = list(self.streams), set()
        for stream in streams:
            found = stream.get_extra_info("socket")
            if isinstance(found, socket.socket):
                found.close()

    def _resolve(self, host: str, port: int, until: float) -> list[str]:
        key = (host, port)
        try:
            return _addresses(host, port, socket.AI_NUMERICHOST)
        except OSError:  # a name
            pass
        lookup = self._lookups.get(key)
        if lookup is None:  # else one is still on its way, from an attempt that gave up waiting
            lookup = self._lookups[key] = _Lookup(host, port)
        addresses = lookup.wait(self.seconds(until, httpcore2.ConnectTimeout))
        self._lookups.pop(key, None)
        if isinstance(addresses, OSError):
            raise addresses
        return addresses


class Stream(httpcore2.NetworkStream):
    """A connection whose every step is bound by the deadline given with it."""

    def __init__(self, inner: httpcore2.NetworkStream, network: Network) -> None:
        self._inner = inner
        self._network = network
        network.streams.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """At least one byte; none at the end."""
        return self._inner.read(max_bytes, self._network.seconds(_moment(timeout), httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of it."""
        for start in range(0, len(buffer), _PIECE):
            left = self._network.seconds(_moment(timeout), httpcore2.WriteTimeout)
            self._inner.write(buffer[start : start + _PIECE], left)

    def close(self) -> None:
        """Close the socket."""
        self._network.streams.discard(self)
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """The same connection under TLS; this one is closed where that fails."""
        try:
            left = self._network.seconds(_moment(timeout), httpcore2.ConnectTimeout)
            inner = self._inner.start_tls(ssl_context, server_hostname, left)
        except BaseException:
            self.close()
            raise
        self._network.streams.discard(self)
        return Stream(inner, self._network)

    def get_extra_info(self, info: str) -> Any:
        """As the connection below knows it."""
        return self._inner.get_extra_info(info)


class _Lookup:
    """One name looked up on a thread of its own: `getaddrinfo` knows no time limit."""

    def __init__(self, host: str, port: int) -> None:
        self._done = threading.Event()
        self._found: list[str] | OSError = []
        try:
            threading.Thread(target=self._run, args=(host, port), name="tellmeter-dns", daemon=True).start()
        except RuntimeError:  # at the interpreter's exit there are no new threads
            self._run(host, port)

    def wait(self, seconds: float) -> list[str] | OSError:
        """The addresses, or why there are none."""
        if not self._done.wait(seconds):
            raise httpcore2.ConnectTimeout("the name was not looked up in time")
        return self._found

    def _run(self, host: str, port: int) -> None:
        try:
            self._found = _addresses(host, port)
        except OSError as error:
            self._found = error
        finally:
            self._done.set()


def _addresses(host: str, port: int, flags: int = 0) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except ValueError:  # a label that is too long for DNS
        raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _moment(timeout: float | None) -> float:
    assert timeout is not None, "every request has its deadline"
    return timeout
