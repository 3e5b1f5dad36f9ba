from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import httpx
import httpx2
import pytest

from tellmeter import counts
from tellmeter.wire.stream import stream_classes


class Noted:
    """Chunks as a meter has them."""

    def __init__(self, broken: bool) -> None:
        self.chunks: list[bytes] = []
        self.times: list[int] = []
        self.limit = 2
        self.read: list[bytes] = []
        self.broken = broken

    def fold(self) -> None:
        if self.broken:
            raise RuntimeError
        assert self.times == sorted(self.times) and len(self.times) == 2 * len(self.chunks)
        self.read += self.chunks
        self.chunks.clear()
        self.times.clear()


class Heard:
    """Stands where a Watch stands, and remembers what it is told."""

    def __init__(self, broken: bool = False) -> None:
        self.told: list[str] = []
        self.noted = Noted(broken)

    def chunks(self) -> Noted:
        return self.noted

    def exhausted(self) -> None:
        self.told.append("exhausted")

    def broke(self, error: BaseException) -> None:
        self.told.append(type(error).__name__)

    def closed(self) -> None:
        self.told.append("closed")

    def dropped(self, begun: bool) -> None:
        self.told.append(f"dropped {begun}")


class Inner(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    elapsed = 7

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.was_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"one"
        if self.error:
            raise self.error
        yield b"two"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self.was_closed = True

    async def aclose(self) -> None:
        self.was_closed = True


SYNC, ASYNC = stream_classes(httpx2)


def test_the_bytes_pass_and_the_end_is_told() -> None:
    heard, inner = Heard(), Inner()
    stream = SYNC(inner, heard)
    assert list(stream) == heard.noted.read == [b"one", b"two"]
    stream.close()
    assert heard.told == ["exhausted", "closed"] and inner.was_closed
    assert stream.elapsed == 7


def test_a_second_reading_is_the_sdks_own_and_not_counted() -> None:
    heard = Heard()
    stream = SYNC(Inner(), heard)
    assert list(stream) == list(stream)
    assert len(heard.noted.read) == 2


def test_an_error_of_the_network_is_told_and_goes_on() -> None:
    heard, error = Heard(), httpx2.ReadError("x")
    with pytest.raises(httpx2.ReadError) as caught:
        list(SYNC(Inner(error), heard))
    assert caught.value is error and heard.told == ["ReadError"]


def test_a_generator_closed_early_is_told_by_the_close_that_follows() -> None:
    heard = Heard()
    stream = SYNC(Inner(), heard)
    reading = iter(stream)
    next(reading)
    reading.close()
    assert heard.told == []
    stream.close()
    assert heard.told == ["closed"]


@pytest.mark.parametrize("begun", [False, True])
def test_dropped_without_a_close(begun: bool) -> None:
    heard = Heard()
    stream = SYNC(Inner(), heard)
    if begun:
        next(iter(stream))
    del stream
    gc.collect()
    assert heard.told == [f"dropped {begun}"]


def test_a_fault_of_the_meter_ends_the_metering_and_not_the_reading() -> None:
    before = counts.snapshot().get("guarded_errors", {}).get("stream", 0)
    assert list(SYNC(Inner(), Heard(broken=True))) == [b"one", b"two"]
    assert counts.snapshot()["guarded_errors"]["stream"] == before + 1


def test_the_async_stream_does_the_same() -> None:
    async def main() -> None:
        heard, inner = Heard(), Inner()
        stream = ASYNC(inner, heard)
        assert [chunk async for chunk in stream] == heard.noted.read == [b"one", b"two"]
        assert [chunk async for chunk in stream] == [b"one", b"two"]
        assert len(heard.noted.read) == 2
        await stream.aclose()
        assert heard.told == ["exhausted", "closed"] and inner.was_closed

        heard = Heard()
        with pytest.raises(asyncio.CancelledError):
            _ = [chunk async for chunk in ASYNC(Inner(asyncio.CancelledError()), heard)]
        assert heard.told == ["CancelledError"]

        heard = Heard(broken=True)
        assert [chunk async for chunk in ASYNC(Inner(), heard)] == [b"one", b"two"]

    asyncio.run(main())


def test_each_library_gets_streams_of_its_own_kind() -> None:
    assert issubclass(stream_classes(httpx)[0], httpx.SyncByteStream)
    assert issubclass(stream_classes(httpx2)[1], httpx2.AsyncByteStream)
    assert stream_classes(httpx2) is stream_classes(httpx2)
