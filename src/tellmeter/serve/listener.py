"""Listener: accepts the standalone server's connections, a few at a time, and leaves nothing to a forked child."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import weakref
from collections.abc import Callable

from ..guard import guarded, note
from .connection import Request, serve
from .page import Answer

CONNECTIONS = 8  # more wait, unseen, until one of these is answered or out of time
_PAUSE_SECONDS = 0.1


class Listener:
    """Serves what connects to a listening socket, which it owns, on daemon threads until `close()`."""

    def __init__(self, listening: socket.socket, respond: Callable[[Request], Answer]) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._respond = respond
        self._process = os.getpid()
        self._ended = threading.Event()
        self._room = threading.Semaphore(CONNECTIONS)
        self._clients: set[socket.socket] = set()
        self._woken, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        _listeners.add(self)
        self._thread = threading.Thread(target=self._accept, name="tellmeter-metrics-server", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it listens, in this process."""
        return self._process == os.getpid() and not self._ended.is_set()

    def close(self) -> None:
        """Free the port, drop the connections. A second call does nothing, nor does one in a forked child."""
        if not self.alive:
            return
        self._ended.set()
        self._room.release()
        self._waker.send(b"\0")
        self._thread.join()
        for client in list(self._clients):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has just ended
                pass
        self._close_own()

    def after_fork(self) -> None:
        """In the child: without these copies the port is free, and connections end, when the parent says so."""
        for client in self._clients:
            client.close()
        self._close_own()

    def _close_own(self) -> None:
        self._selector.close()
        for one in (self._listening, self._woken, self._waker):
            one.close()

    def _accept(self) -> None:
        while True:
            self._room.acquire()
            client = self._next()
            if client is None:
                return
            self._clients.add(client)
            try:
                threading.Thread(target=self._serve, args=(client,), name="tellmeter-metrics", daemon=True).start()
            except RuntimeError:  # no more threads
                self._end(client)

    def _next(self) -> socket.socket | None:
        """The next connection; None when it is over."""
        while not self._ended.is_set():
            self._selector.select()
            try:
                return self._listening.accept()[0]
            except BlockingIOError:  # it went away, or we are to end
                pass
            except OSError:  # no descriptors: it stays readable, and asking on and on would take a whole core
                self._ended.wait(_PAUSE_SECONDS)
        return None

    def _serve(self, client: socket.socket) -> None:
        try:
            serve(client, self._respond)
        except OSError:  # the client is gone, or too slow
            pass
        except BaseException as error:
            note("metrics_server", error)
        self._end(client)

    def _end(self, client: socket.socket) -> None:
        self._clients.discard(client)
        client.close()
        self._room.release()


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


def _after_fork() -> None:
    for listener in list(_listeners):
        guarded("fork", listener.after_fork, default=None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
