"""Response bodies that are watched as the application reads them: the bytes pass, the SDK's objects stay its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from ..call import status_of
from ..guard import note
from .exchange import Chunks, Exchange

clock = time.perf_counter_ns


class Watch:
    """Tells an exchange what happens to its body; whatever fails here is counted and stays here."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def chunks(self) -> Chunks:
        """Where the chunks that go to the application are noted."""
        return self._exchange.chunks()

    def exhausted(self) -> None:
        """The body was read to its end."""
        self._tell(lambda: self._exchange.ended("completed"))

    def broke(self, error: BaseException) -> None:
        """Reading the body raised."""
        self._tell(lambda: self._exchange.ended(status_of(error), error))

    def closed(self) -> None:
        """The body was closed."""
        self._tell(self._exchange.closed)

    def dropped(self, begun: bool) -> None:
        """Nobody holds the body any more, and nobody closed it; a generator that had begun is closed with it."""
        self._tell(lambda: self._exchange.ended("closed_early" if begun else "abandoned"))

    def _tell(self, what: Any) -> None:
        try:
            what()
        except Exception as error:
            note("stream", error)


def fold(noted: Chunks) -> None:
    """Have what was noted read; whatever fails is counted and stays here."""
    try:
        noted.fold()
    except Exception as error:
        note("stream", error)
        noted.chunks.clear()
        noted.times.clear()


@lru_cache(maxsize=8)
def stream_classes(module: ModuleType) -> tuple[type, type]:
    """The sync and async watched streams for an HTTP library, which checks for its own base classes."""

    class WatchedStream(module.SyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, inner: Any, watch: Watch) -> None:
            self._inner = inner
            self._watch = watch
            self._begun = False

        def __iter__(self) -> Iterator[bytes]:
            if self._begun:  # an SDK that drains what follows the answer, to use the connection again
                yield from self._inner
                return
            self._begun = True
            noted = self._watch.chunks()
            chunks, add_chunk, add_time = noted.chunks, noted.chunks.append, noted.times.append
            try:
                add_time(clock())
                for chunk in self._inner:
                    add_time(clock())
                    add_chunk(chunk)
                    if len(chunks) >= noted.limit:
                        fold(noted)
                    yield chunk
                    add_time(clock())
            except GeneratorExit:  # the close that follows tells how it ended
                raise
            except BaseException as error:
                self._watch.broke(error)
                raise
            self._watch.exhausted()

        def close(self) -> None:
            self._watch.closed()
            self._inner.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __del__(self) -> None:
            self._watch.dropped(self._begun)

    class WatchedAsyncStream(module.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, inner: Any, watch: Watch) -> None:
            self._inner = inner
            self._watch = watch
            self._begun = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            iterator = self._inner.__aiter__()
            if self._begun:  # an SDK that drains what follows the answer, to use the connection again
                async for chunk in iterator:
                    yield chunk
                return
            self._begun = True
            noted = self._watch.chunks()
            chunks, add_chunk, add_time = noted.chunks, noted.chunks.append, noted.times.append
            try:
                add_time(clock())
                async for chunk in iterator:
                    add_time(clock())
                    add_chunk(chunk)
                    if len(chunks) >= noted.limit:
                        fold(noted)
                    yield chunk
                    add_time(clock())
            except GeneratorExit:
                raise
            except BaseException as error:
                self._watch.broke(error)
                raise
            else:
                self._watch.exhausted()
            finally:
                # As httpx2 does for its own streams: a generator left open would be closed in another task.
                if hasattr(iterator, "aclose"):
                    await iterator.aclose()

        async def aclose(self) -> None:
            self._watch.closed()
            await self._inner.aclose()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def __del__(self) -> None:
            self._watch.dropped(self._begun)

    return WatchedStream, WatchedAsyncStream
