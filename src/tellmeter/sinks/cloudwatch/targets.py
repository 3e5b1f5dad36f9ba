"""Where lines go: standard output, a file, or the CloudWatch agent's TCP or UDP socket."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from .limits import UDP_BYTES

_WRITE_BYTES = 256 * 1024


class Target:
    """`shown` is where it leads, `most_bytes` the longest line that it takes."""

    shown: str = ""
    most_bytes: int | None = None

    def write(self, lines: Sequence[bytes], deadline: float) -> int:
        """Write until the deadline; how many of the lines are taken.

        Raises:
            OSError: none is.
            ValueError: none is, and none will be.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is open."""


class StreamTarget(Target):
    """A text stream; standard output, whichever that is at the time, without one."""

    shown = "stdout"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, lines: Sequence[bytes], deadline: float) -> int:
        """One write for all, so that lines of others are not between."""
        stream = sys.stdout if self._stream is None else self._stream
        if stream is None:
            raise ValueError
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(b"".join(lines).decode().encode(encoding, "replace").decode(encoding))
        stream.flush()
        return len(lines)

    def close(self) -> None:
        """It is not ours."""


class FileTarget(Target):
    """A file (0600) that is opened for each batch, so that it may be moved away at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shown = str(path)

    def write(self, lines: Sequence[bytes], deadline: float) -> int:
        """Append with one write; a disk that fills up takes some of the lines."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self._path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            # Whoever wrote last may have been cut off: end that line before ours.
            torn = size > 0 and hasattr(os, "pread") and os.pread(descriptor, 1, size - 1) != b"\n"
            written = os.write(descriptor, (b"\n" if torn else b"") + b"".join(lines)) - torn
        finally:
            os.close(descriptor)
        return _whole(lines, written)

    def close(self) -> None:
        """Nothing is kept open."""


class TCPTarget(Target):
    """The agent's TCP socket. Nothing answers there: what the system took is what counts as delivered."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self.shown = f"tcp://{host}:{port}"
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[bytes], deadline: float) -> int:
        """Write over a kept connection, which is made anew where the agent has closed it."""
        if self._socket is not None and _is_closed(self._socket):
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._place, timeout=_left(deadline))
        data, written = memoryview(b"".join(lines)), 0
        try:
            while written < len(data):
                self._socket.settimeout(_left(deadline))
                written += self._socket.send(data[written : written + _WRITE_BYTES])
        except OSError:
            self.close()  # the rest of a line would be taken for the beginning of one
            if not _whole(lines, written):
                raise
        return _whole(lines, written)

    def close(self) -> None:
        """Close the connection."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()


class UDPTarget(Target):
    """The agent's UDP socket, a datagram per line; nobody tells whether they arrive."""

    most_bytes = UDP_BYTES

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self.shown = f"udp://{host}:{port}"
        self._socket: socket.socket | None = None

    def write(self, lines: Sequence[bytes], deadline: float) -> int:
        """Send them."""
        if self._socket is None:
            self._socket = self._connected()
        written = 0
        try:
            for line in lines:
                self._socket.settimeout(_left(deadline))
                self._socket.send(line)
                written += 1
        except OSError as error:
            self.close()
            # A refusal is of a datagram before: who knows how many were lost.
            if not written or isinstance(error, ConnectionRefusedError):
                raise
        return written

    def close(self) -> None:
        """Close the socket."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _connected(self) -> socket.socket:
        """Connected, so that a port where nobody listens is noticed (from the second datagram on)."""
        kind, _, _, _, place = socket.getaddrinfo(*self._place, type=socket.SOCK_DGRAM)[0]
        opened = socket.socket(kind, socket.SOCK_DGRAM)
        try:
            opened.connect(place)
        except OSError:
            opened.close()
            raise
        return opened


def _whole(lines: Sequence[bytes], written: int) -> int:
    """How many lines so many bytes are."""
    for number, line in enumerate(lines):
        written -= len(line)
        if written < 0:
            return number
    return len(lines)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_closed(opened: socket.socket) -> bool:
    """Whether the other side has closed; the agent never says anything."""
    try:
        readable, _, _ = select.select([opened], [], [], 0)
        return bool(readable) and not opened.recv(4096)
    except (OSError, ValueError):
        return True
