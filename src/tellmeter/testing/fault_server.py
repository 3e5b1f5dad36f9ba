"""FaultServer: a local HTTP server that answers by a script, badly where it says so, and remembers what came."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable

from .faults import Answer, Fault, Play, Request, Talk

_KEPT_BYTES = 256 * 1024 * 1024  # of all requests that are remembered; the oldest go first
_KEPT_REQUESTS = 100_000
_END_SECONDS = 10.0


class FaultServer:
    """A server on 127.0.0.1 that answers by a script: for tests of whatever sends over HTTP.

        with FaultServer() as server:
            server.script(Answer(503, headers={"Retry-After": "1"}), Hang(), Reset())
            ...  # send to server.url
            requests = server.wait_for(4)

    The faults of the script are played in turn, one a request, then `default` for ever. Each is a `Fault` or a function
    that is given the `Request` and returns one; what such a function raises ends the connection, and shows up as the
    unhandled exception of a thread. A port that refuses connections is `stop_listening()`.

    Of the requests, the newest 256 MiB are remembered; a body above 64 MiB is answered with 413 and not read.

    Args:
        default: what is played when there is no script.
        tls: serve https with this context (`SSLContext(PROTOCOL_TLS_SERVER)` with a certificate loaded).
    """

    def __init__(self, default: Play | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.default: Play = Answer() if default is None else default
        self.connections = 0
        """How many connections were accepted."""
        self.received = 0
        """How many requests have arrived, those that are no longer remembered included."""
        self._tls = tls
        self._script: deque[Play] = deque()
        self._requests: deque[Request] = deque()
        self._kept_bytes = 0
        self._changed = threading.Condition()
        self._clients: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._closed = threading.Event()
        self._listening: socket.socket | None = None
        self._port = 0
        self.start_listening()

    @property
    def port(self) -> int:
        """The port; the same for as long as the server lives."""
        return self._port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`, or https, without a slash at its end."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """What has arrived, oldest first."""
        with self._changed:
            return list(self._requests)

    def script(self, *faults: Play) -> None:
        """Play these next, in turn, in place of what was left of an earlier script."""
        with self._changed:
            self._script = deque(faults)

    def wait_for(self, number: int, timeout: float = 10.0) -> list[Request]:
        """Wait until `number` requests have arrived since the start; the requests.

        Raises:
            TimeoutError: fewer have arrived within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.received >= number, timeout):
                raise TimeoutError(f"{self.received} of {number} requests arrived within {timeout:g} s")
            return list(self._requests)

    def start_listening(self) -> None:
        """Accept connections, on the same port as before."""
        if self._listening is not None or self._closed.is_set():
            return
        listening = socket.create_server(("127.0.0.1", self._port), backlog=128)
        listening.setblocking(False)
        self._listening, self._port = listening, listening.getsockname()[1]
        self._woken, self._waker = socket.socketpair()
        self._start(self._accept, listening, self._woken)

    def stop_listening(self) -> None:
        """As if the server were gone: open connections end, new ones are refused."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        self._waker.send(b"\0")
        with self._changed:
            gone = self._changed.wait_for(lambda: listening.fileno() < 0, _END_SECONDS)
        self._waker.close()
        assert gone, "the accepting thread did not end"
        self.drop_connections()

    def drop_connections(self) -> None:
        """End all open connections, as a server does that is tired of idle ones."""
        with self._changed:
            for client in self._clients:
                try:
                    # Not TLS's own shutdown, which is not safe beside the thread that reads.
                    socket.socket.shutdown(client, socket.SHUT_RDWR)
                except OSError:  # it has just ended
                    pass

    def close(self) -> None:
        """Free the port, end all connections and threads. A second call does nothing."""
        self._closed.set()
        self.stop_listening()
        self.drop_connections()
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(_END_SECONDS)

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                target(*arguments)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, name="tellmeter-fault-server", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _accept(self, listening: socket.socket, woken: socket.socket) -> None:
        with listening, woken, selectors.DefaultSelector() as selector:
            selector.register(listening, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while not any(key.fileobj is woken for key, _ in selector.select()):
                try:
                    client = listening.accept()[0]
                except OSError:  # it went away at once
                    continue
                client.setblocking(True)
                self.connections += 1
                with self._changed:
                    self._clients.add(client)
                self._start(self._serve, client, self.connections)
        with self._changed:
            self._changed.notify_all()

    def _serve(self, client: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                client = self._with_tls(client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client.makefile("rb") as reading:
                talk = Talk(client, reading, self._closed)
                while (request := talk.read_request(number)) is not None:
                    if not self._next(request).play(talk, request) or request.headers.get("connection") == "close":
                        break
        except (OSError, ValueError):  # the client is gone, or speaks no HTTP
            pass
        finally:
            with self._changed:
                self._clients.discard(client)
            client.close()

    def _with_tls(self, client: socket.socket) -> socket.socket:
        assert self._tls is not None
        # Without its handshake, which may hang: first it must be known to who drops connections.
        with self._changed:
            self._clients.discard(client)
            wrapped = self._tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            self._clients.add(wrapped)
        try:
            wrapped.do_handshake()
        except BaseException:
            with self._changed:
                self._clients.discard(wrapped)
            wrapped.close()
            raise
        return wrapped

    def _next(self, request: Request) -> Fault:
        with self._changed:
            play = self._script.popleft() if self._script else self.default
            self.received += 1
            self._requests.append(request)
            self._kept_bytes += len(request.body)
            while self._kept_bytes > _KEPT_BYTES or len(self._requests) > _KEPT_REQUESTS:
                self._kept_bytes -= len(self._requests.popleft().body)
            self._changed.notify_all()
        return play if isinstance(play, Fault) else play(request)
