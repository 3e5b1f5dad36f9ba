"""The page of metrics as an ASGI application: for Starlette and FastAPI, or by itself under any ASGI server."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ..guard import note
from ..registry.registry import MetricsRegistry
from .page import Answer, broken, busy, refusal, scrape
from .places import Place, Places

if TYPE_CHECKING:
    import asyncio

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_SEND_SECONDS = 30.0
_ASKING = (b"accept", b"accept-encoding")


def get_metrics_app(registry: MetricsRegistry | None = None) -> MetricsApp:
    """An ASGI application that serves the metrics of `registry`; of the process without one.

    As a route it answers at exactly that path, `/metrics`:

        FastAPI(routes=[Route("/metrics", get_metrics_app(), methods=["GET"])])  # Starlette the same

    Mounted, it answers too; but Starlette sends whoever asks for `/metrics` to `/metrics/` first (307), which some
    scrapers do not follow:

        app.mount("/metrics", get_metrics_app())

    By itself, as in `uvicorn program:metrics_app`, it answers at `/metrics` and `/`.

    It writes the page on a thread of its own, so that the event loop goes on. GET and HEAD only; at most 4 scrapes at
    a time, more get 503. Whoever can ask can read: protect the path as you protect others.
    """
    return MetricsApp(registry)


class MetricsApp:
    """What `get_metrics_app()` gives."""

    def __init__(self, registry: MetricsRegistry | None = None) -> None:
        self._registry = registry
        self._places = Places()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; other scopes end without an error."""
        kind = scope["type"]
        if kind == "http":
            await self._answer(scope, send)
        elif kind == "lifespan":
            await _live(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: Message, send: Send) -> None:
        method = scope["method"]
        # A router that chose this very object decided on the path.
        path = "" if scope.get("endpoint") is self else _path_below(scope)
        refused = refusal(method, path)
        if refused is not None:
            await _send(refused, method, send)
            return
        place = self._places.take()
        if place is None:
            await _send(busy(), method, send)
            return
        with place:
            await _send(await self._scraped(scope["headers"], place), method, send)

    async def _scraped(self, headers: Iterable[tuple[bytes, bytes]], place: Place) -> Answer:
        """Write the page on a new thread: the pools of the loop and of the server may be full of the program's work."""
        given = list(headers)
        asked = [b", ".join(value for name, value in given if name == wanted) for wanted in _ASKING]
        loop = _running_loop()
        if loop is None:
            return scrape(*asked, registry=self._registry)
        written: asyncio.Future[Answer] = loop.create_future()

        def hand_over(answer: Answer) -> None:
            if not written.done():  # a cancelled request waits for nothing
                written.set_result(answer)

        def write() -> None:
            answer = broken()
            try:
                answer = scrape(*asked, registry=self._registry)
            except BaseException as error:
                note("metrics_page", error)
            place.let_go()
            try:
                loop.call_soon_threadsafe(hand_over, answer)
            except RuntimeError:  # the loop was closed meanwhile
                pass

        place.share()
        try:
            threading.Thread(target=write, name="tellmeter-metrics", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter ends
            write()
        return await written


def _path_below(scope: Message) -> str:
    """The path without where the application is mounted; servers and routers give it with that, or without."""
    path: str = scope["path"]
    below = path.removeprefix((scope.get("root_path") or "").rstrip("/"))
    return path if below and not below.startswith("/") else below


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that this runs in; None under trio, where all is done at once, in the loop."""
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _send(answer: Answer, method: str, send: Send) -> None:
    """Send it piece by piece. A client that reads too slowly is given up: four of them would keep all others out."""
    import asyncio

    in_asyncio = _running_loop() is not None
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    chunks = answer.body(method) or (b"",)
    try:
        async with asyncio.timeout(_SEND_SECONDS) if in_asyncio else nullcontext():
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            for number, chunk in enumerate(chunks, 1):
                await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})
                if in_asyncio:
                    await asyncio.sleep(0)  # a client that reads fast lets no `send` wait, and the loop not turn
    except OSError:  # the client is gone, or too slow (TimeoutError)
        pass


async def _live(receive: Receive, send: Send) -> None:
    """Start and end with the server, which has nothing to wait for."""
    while True:
        kind = (await receive())["type"]
        if kind not in {"lifespan.startup", "lifespan.shutdown"}:
            return
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
