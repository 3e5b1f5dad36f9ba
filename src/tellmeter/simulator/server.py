"""The simulator as a running server: in a thread, for tests, and under the command that has a process for it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .app import Simulator
from .exchanges import RecordedExchanges
from .faults import Fault, parse_fault
from .playing import Served
from .traffic import Traffic

if TYPE_CHECKING:
    import uvicorn

_ACCEPT_SECONDS = 0.02  # for connections that were accepted but are not yet known
_HOST = "127.0.0.1"  # it answers whoever asks, so it is for this machine only


class SimulatorServer:
    """A simulator on a free port of the loopback interface; `with SimulatorServer() as server: server.url`.

    It accepts connections when `start` (or `with`) returns, and is gone, with its port and thread, after `stop`.

    Arguments:
        traffic: how the providers behave; `Traffic(speed=0)` does not wait.
        faults: what happens to the next requests, in their order: `[500, "429;retry-after=0.1", "reset;after=5"]`.
        exchanges: recordings to answer with instead, as `RecordedExchanges`, or the file or folder that has them.
        pause: seconds between the events of a recorded stream.
        port: 0 takes a free one.

    Raises:
        MissingExtra: uvicorn is not installed.
        OSError: the port is taken.
    """

    def __init__(
        self,
        traffic: Traffic | None = None,
        *,
        faults: Iterable[Fault | str | int] = (),
        exchanges: RecordedExchanges | str | Path | None = None,
        pause: float = 0.0,
        port: int = 0,
    ) -> None:
        if exchanges is not None and not isinstance(exchanges, RecordedExchanges):
            exchanges = RecordedExchanges(exchanges)
        self.app = Simulator(traffic, faults=faults, exchanges=exchanges, pause=pause)
        self._wanted_port = port
        self.port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`: the `base_url` of Anthropic's and Google's SDKs, and boto3's `endpoint_url`."""
        return f"http://{_HOST}:{self.port}"

    @property
    def openai_url(self) -> str:
        """The OpenAI SDK's `base_url`."""
        return f"{self.url}/v1"

    @property
    def served(self) -> deque[Served]:
        """What was answered, oldest first; an entry grows while its answer is sent."""
        return self.app.served

    def script(self, *faults: Fault | str | int) -> None:
        """Add faults for the next requests."""
        self.app.faults.extend([parse_fault(fault) for fault in faults])

    def start(self) -> SimulatorServer:
        """Listen, and wait until connections are accepted."""
        make = _server_class()
        listener = _listen(self._wanted_port)
        self.port = listener.getsockname()[1]
        ready = threading.Event()
        self._server = make(self.app, ready)
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener, ready), name="tellmeter-simulator", daemon=True
        )
        self._thread.start()
        ready.wait()
        return self

    def _run(self, server: uvicorn.Server, listener: socket.socket, ready: threading.Event) -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        finally:
            ready.set()  # whatever happened, nobody waits for it
            listener.close()

    def stop(self) -> None:
        """Drop every connection, also in the middle of a stream, and end. A second call does nothing."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.should_exit = True
            self._thread.join()

    def __enter__(self) -> SimulatorServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _listen(port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is named, and with it every event waits for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # elsewhere it lets two servers have one port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _server_class() -> Any:
    """A maker of servers; uvicorn is imported when the first one is made."""
    try:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol
    except ImportError:
        raise MissingExtra("uvicorn", "demo") from None

    class Protocol(H11Protocol):
        """Lets the application have its connection, so that it can break it."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.app_state = {**self.app_state, "transport": transport}

    class Server(uvicorn.Server):
        def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
            super().__init__(config)
            self._ready = ready

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self._ready.set()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for server in self.servers:
                server.close()
            await asyncio.sleep(_ACCEPT_SECONDS)
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await super().shutdown(sockets)

    def make(app: Simulator, ready: threading.Event) -> uvicorn.Server:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a broken connection is what it is for
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=2048,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        return Server(config, ready)

    return make
