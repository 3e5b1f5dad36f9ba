"""DogStatsDMetricsSink: metrics to the DogStatsD of a Datadog Agent beside the program."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Unpack

from ...errors import ConfigError
from ...pipeline.outcome import Delivered, Outcome, RetryLater
from ...records import AgentMetrics
from ..address import LANE_PARSERS, Parser, parse
from ..base import BatchingMetricsSink, LaneOptions
from .datagrams import UDP_BYTES, UDS_BYTES, datagrams
from .labels import Labels, listed, namespaced

_PORT = 8125
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?")
_HOST_AND_PORT = re.compile(r"(\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]]+))(:(?P<port>[^:]*))?/?")
_REASONS = {
    errno.ECONNREFUSED: "unreachable",
    errno.ENOENT: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENOBUFS: "busy",
    errno.EAGAIN: "busy",
    errno.EPIPE: "closed",
    errno.ECONNRESET: "closed",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
}


class Place(NamedTuple):
    """Where the Agent listens: a host and port, or the path of a Unix socket and its kinds, likeliest first."""

    host: str
    port: int
    path: str
    kinds: tuple[socket.SocketKind, ...]

    @property
    def shown(self) -> str:
        """As a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix://{self.path}" if self.path else f"udp://{host}:{self.port}"


class DogStatsDMetricsSink(BatchingMetricsSink):
    """Sends what records say to a Datadog Agent as DogStatsD lines: see docs/datadog.md for the metrics.

    The Agent adds up what all processes of the host send, so totals are exact for as many as there are.

    Over UDP, delivered means sent: nobody says what arrived. An Agent that is not there is only noticed where the
    system says so (on the same host), and then batches wait. A Unix socket refuses what the Agent has no room for, so
    use one where there is one. What is sent again after a failure is only what was not sent before.

    Args:
        host, port: of UDP. None takes `DD_DOGSTATSD_URL`, else `DD_AGENT_HOST` and `DD_DOGSTATSD_PORT`, else
            127.0.0.1 and 8125.
        socket_path: of a Unix socket in their place.
        url: `udp://host:8125`, `unix:///path`, `unixgram:///path` or `unixstream:///path` in place of all three.
        namespace, tags, tag_names, service, env, version: as `DatadogMetricsSink`.
        lane: settings for this sink alone, as `batch_timeout_seconds=1.0`; see `LaneOptions`.

    Raises:
        ConfigError: an argument that cannot work.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        socket_path: str | os.PathLike[str] | None = None,
        url: str | None = None,
        namespace: str = "llm",
        tags: Iterable[str] | None = None,
        tag_names: Iterable[str] = (),
        service: str | None = None,
        env: str | None = None,
        version: str | None = None,
        **lane: Unpack[LaneOptions],
    ) -> None:
        super().__init__(**lane)
        self._place = _place(host, port, socket_path, url)
        self._labels = Labels(tags, tag_names, (service, env, version))
        self._name = namespaced(namespace)
        self.destination = f"{self._place.shown}#{namespace}"
        self._socket: socket.socket | None = None
        self._pending: tuple[tuple[str, ...], list[bytes]] = ((), [])

    @classmethod
    def from_url(cls, url: str) -> DogStatsDMetricsSink:
        """The sink that a `dogstatsd:` URL names: `dogstatsd://host:8125`, `dogstatsd:///path/dsd.socket`.

        `dogstatsd://` alone is what the environment says.
        """
        address = parse(url)
        options = address.read(**_PARSERS)
        place = address.location.removeprefix("//")
        if place and place != "/":
            options["url"] = f"{'unix' if place.startswith('/') else 'udp'}://{place}"
        return cls(**options)

    def send(self, batch: Sequence[AgentMetrics], deadline: float) -> Outcome:
        """Send the batch, in as many datagrams as it takes. When it comes again, it goes on where it stopped."""
        ids = tuple(record.id for record in batch)
        if self._pending[0] != ids:
            most = UDS_BYTES if self._place.path else UDP_BYTES
            self._pending = ids, datagrams(batch, self._labels, self._name, most)[::-1]
        waiting = self._pending[1]
        try:
            while waiting:
                self._write(waiting[-1], deadline)
                waiting.pop()
        except TimeoutError:
            self.close()
            return RetryLater(reason="timeout")
        except socket.gaierror:
            return RetryLater(reason="dns")
        except OSError as error:
            self.close()
            return RetryLater(reason=_REASONS.get(error.errno or 0, "io_error"))
        self._pending = ((), [])
        return Delivered()

    def close(self) -> None:
        """Close the socket; a later `send` opens it anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def after_fork(self) -> None:
        """The socket and what was under way are the parent's."""
        self.close()
        self._pending = ((), [])

    def _write(self, datagram: bytes, deadline: float) -> None:
        if self._socket is None:
            self._socket = _connected(self._place, deadline)
        self._socket.settimeout(_left(deadline))
        if self._socket.type == socket.SOCK_STREAM:
            self._socket.sendall(struct.pack("<I", len(datagram)) + datagram)
        else:
            self._socket.send(datagram)
            # Where nobody listens on this host, the system knows by now; of another host it may be told later.
            refused = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if refused:
                raise OSError(refused, "refused")


def _place(host: str | None, port: int | None, socket_path: str | os.PathLike[str] | None, url: str | None) -> Place:
    given = [name for name, one in (("host", host or port), ("socket_path", socket_path), ("url", url)) if one]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them")
    if not given:
        url = os.environ.get("DD_DOGSTATSD_URL")
        host, text = os.environ.get("DD_AGENT_HOST"), os.environ.get("DD_DOGSTATSD_PORT")
        if text:
            port = _port(text, "DD_DOGSTATSD_PORT")
    if url:
        return place_of(url)
    if socket_path is not None:
        return _unix(os.fspath(socket_path), "socket_path", "unix")
    return _udp(host or "127.0.0.1", _port(_PORT if port is None else port, "port"), "host")


def place_of(url: str) -> Place:
    """Where a URL of an Agent leads.

    Raises:
        ConfigError: another scheme, no path, a port that is none.
    """
    address = parse(url)
    place = address.location.removeprefix("//")
    if address.options or "@" in place:
        raise ConfigError(f"{address.shown}: the address of an Agent has no parameters and no user")
    if address.scheme in ("unix", "unixgram", "unixstream"):
        return _unix(place, address.shown, address.scheme)
    if address.scheme != "udp":
        raise ConfigError(f"{address.shown}: it must begin with udp://, unix://, unixgram:// or unixstream://")
    found = _HOST_AND_PORT.fullmatch(place)
    if found is None:
        raise ConfigError(f"{address.shown}: this is no host and port")
    return _udp(found["ipv6"] or found["host"], _port(found["port"] or _PORT, address.shown), address.shown)


def _unix(path: str, named: str, scheme: str) -> Place:
    # 107 bytes and a NUL are what the system's structure holds.
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > 107:
        raise ConfigError(f"{named}: a Unix socket has an absolute path of at most 107 bytes")
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(f"{named}: this system has no Unix sockets")
    kinds = {
        "unix": (socket.SOCK_DGRAM, socket.SOCK_STREAM),
        "unixgram": (socket.SOCK_DGRAM,),
        "unixstream": (socket.SOCK_STREAM,),
    }
    return Place("", 0, path, kinds[scheme])


def _udp(host: str, port: int, named: str) -> Place:
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        raise ConfigError(f"{named}: {str(host)[:60]!r} is no host")
    return Place(host, port, "", (socket.SOCK_DGRAM,))


def _port(value: object, named: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536):
        raise ConfigError(f"{named}: {text[:40]!r} is no port")
    return int(text)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connected(place: Place, deadline: float) -> socket.socket:
    """A socket that leads there. Raises what the system does, TimeoutError by the deadline."""
    if not place.path:
        family, kind, _, _, address = _looked_up(place, deadline)
        return _connect(family, kind, address, deadline)
    for kind in place.kinds:
        try:
            return _connect(socket.AF_UNIX, kind, place.path, deadline)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE or kind is place.kinds[-1]:
                raise
    raise OSError(errno.EPROTOTYPE, "no kind of socket")


def _connect(family: int, kind: int, address: object, deadline: float) -> socket.socket:
    connection = socket.socket(family, kind)
    try:
        connection.settimeout(_left(deadline))
        connection.connect(address)  # type: ignore[arg-type]
    except BaseException:
        connection.close()
        raise
    return connection


def _looked_up(place: Place, deadline: float) -> tuple[int, int, int, str, object]:
    """The first address of the host. A name is looked up on a thread of its own: `getaddrinfo` knows no time limit."""
    flags = socket.AI_NUMERICHOST
    try:
        return socket.getaddrinfo(place.host, place.port, type=socket.SOCK_DGRAM, flags=flags)[0]
    except socket.gaierror:  # a name
        pass
    found: list[tuple[int, int, int, str, object]] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(place.host, place.port, type=socket.SOCK_DGRAM)[:1])
        except OSError:
            pass

    thread = threading.Thread(target=look_up, name="tellmeter-dogstatsd-lookup", daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if thread.is_alive():
        raise TimeoutError
    if not found:
        raise socket.gaierror
    return found[0]


_PARSERS: dict[str, Parser] = {
    **dict.fromkeys(("namespace", "service", "env", "version"), str),
    **dict.fromkeys(("tags", "tag_names"), listed),
    **LANE_PARSERS,
}
