"""StreamMeter: one running stream in constant memory, at a cost per chunk that nobody notices.

A chunk costs two clock readings and two appends; every few chunks `fold` reads what came in one go. Waiting for the
provider and the time that the consumer holds the stream are told apart, so a slow application is not blamed on the
provider. Another thread may look at any time: it reads what waits under the meter's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from operator import sub
from typing import Any, NamedTuple, Protocol, TypeVar

from ..counts import count
from ..records import StreamMetrics, uuid7
from .gaps import Gaps
from .report import StreamReport
from .tokens import estimated_tokens

# How much is folded at a time once the first token is there. A fold runs on cold code and costs about as much whatever
# its size (2.4 us a chunk for 16 chunks, 0.6 us for 64); what waits is the memory that a running stream takes.
FOLD_CHUNKS = 32
FOLD_BYTES = 8192
RAW_BYTES = 1 << 20
"""Of a stream's raw chunks, where they are asked for; the rest is counted."""

M = TypeVar("M", bound=StreamMetrics)

_LOCK_SECONDS = 1.0  # another thread that reads the stream takes microseconds
_MS = 1e6  # nanoseconds in a millisecond


class Stated(Protocol):
    """What a stream has said of itself so far."""

    @property
    def tools(self) -> Sequence[str]:
        """The names of the functions that were asked for."""


class Reader(Protocol):
    """What reads the bytes of a stream: counts its events, and those that carry content."""

    events: int
    content_events: int
    text_size: int

    @property
    def answer(self) -> Stated:
        """What it has said so far."""

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""

    def finish(self) -> None:
        """Read what is left: no more bytes come."""


class Mark(NamedTuple):
    """How far a stream was at a moment (`time.perf_counter_ns`), for the rates since then."""

    at: int
    bytes: int
    events: int


class StreamMeter:
    """Measures one stream. `started` is `time.perf_counter_ns` at the start of the call, `wall` Unix seconds then."""

    __slots__ = (
        "_lock",
        "_stream_id",
        "asked",
        "bytes",
        "chunks",
        "consumer_wait",
        "ended_stalled",
        "first_chunk",
        "first_content",
        "first_token",
        "gaps",
        "last_arrival",
        "limit",
        "max_gap",
        "opened",
        "provider_wait",
        "raw",
        "raw_size",
        "reader",
        "stall_after",
        "stalls",
        "started",
        "times",
        "wall",
        "wanted",
    )

    def __init__(self, reader: Reader, started: int, wall: float, opened: int = 0) -> None:
        self.reader = reader
        self.started = started
        self.wall = wall
        self.wanted = True  # whether the record tells of the stream
        self.opened = opened or started  # when the answer began: nobody waited for a chunk before
        self.bytes = 0
        self.first_chunk = 0
        self.first_token = 0
        self.last_arrival = 0
        self.provider_wait = 0
        self.consumer_wait = 0
        self.max_gap = 0
        self.gaps = Gaps()
        self.stall_after = 0  # nanoseconds of silence that are a stall; 0 for none
        self.stalls = 0
        self.ended_stalled = False
        self.raw: list[bytes] | None = None  # the chunks themselves, where they are asked for
        self.raw_size = 0
        self.first_content: Callable[[], None] | None = None  # called when it is found
        # What waits to be read. The stream appends to both itself and calls `fold` at `limit` chunks: an SDK does so
        # much between two chunks that even the call of `take` is expensive, its code is cold again.
        self.chunks: list[Any] = []
        self.times: list[int] = []  # for each chunk when it was asked for and when it came, one after the other
        self.asked = self.times  # where the time stands at which the next chunk was asked for: behind all pairs
        self.limit = 1  # every chunk is read at once until the first token is found, so that its time is exact
        self._stream_id = ""
        self._lock = threading.Lock()

    @property
    def stream_id(self) -> str:
        """Names this stream in every report and in the record."""
        if not self._stream_id:
            self._stream_id = uuid7()
        return self._stream_id

    @stream_id.setter
    def stream_id(self, name: str) -> None:
        self._stream_id = name

    def take(self, chunk: Any, asked: int, arrived: int) -> None:
        """Note one chunk: the consumer asked for it at `asked`, it came at `arrived` (`time.perf_counter_ns`)."""
        self.times += (asked, arrived)
        self.chunks.append(chunk)
        if len(self.chunks) >= self.limit:
            self.fold()

    def fold(self) -> None:
        """Read the chunks that wait, unless another thread is at it; what it leaves is read with the next ones."""
        if self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def catch_up(self) -> None:
        """Read the chunks that wait, after the other thread that may be at it."""
        locked = self._lock.acquire(timeout=_LOCK_SECONDS)
        try:
            self._fold()
        finally:
            if locked:
                self._lock.release()

    def _fold(self) -> None:
        # The stream may append meanwhile: times before their chunk, so that each chunk here has both of its times.
        number = len(self.chunks)
        if not number:
            return
        chunks, times = self.chunks[:number], self.times[: 2 * number]
        del self.chunks[:number], self.times[: 2 * number]
        data = self._read(chunks)
        asked, arrived = times[::2], times[1::2]
        waits = list(map(sub, arrived, asked))
        provider = sum(waits)
        self.provider_wait += provider
        last = arrived[-1]
        if self.stall_after and max(waits) >= self.stall_after:
            self.stalls += sum(wait >= self.stall_after for wait in waits)
        if self.last_arrival:
            self.consumer_wait += last - self.last_arrival - provider
        else:
            self.first_chunk = arrived[0]
            self.consumer_wait += last - asked[0] - provider
            del waits[0]  # the wait for the first chunk is no gap between chunks
        self.last_arrival = last
        if waits:
            self.gaps.note(waits)
            self.max_gap = self.gaps.largest
        if not self.first_token and self.reader.content_events:
            self.first_token = last
            if self.first_content is not None:
                self.first_content()
        if self.first_token:
            self.limit = min(FOLD_CHUNKS, FOLD_BYTES * number // (data + 1) + 1)

    def _read(self, chunks: list[Any]) -> int:
        """Have the bytes read; how many they are."""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.bytes += len(data)
        self.reader.feed(data)
        if self.raw is not None:
            self._keep(chunks)
        return len(data)

    def _keep(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self.raw_size += len(chunk)
            if self.raw is None or self.raw_size > RAW_BYTES:
                count("raw_chunks_left_out")
            else:
                self.raw.append(chunk)

    def finish(self, now: int = 0) -> None:
        """Read everything that is left: no more chunks come. `now` is when it ended, for the waits until then."""
        locked = self._lock.acquire(timeout=_LOCK_SECONDS)
        try:
            self._fold()
            self.reader.finish()
            if not self.first_token and self.reader.content_events:
                self.first_token = self.last_arrival
            if now:
                self._note_the_end(now)
        finally:
            if locked:
                self._lock.release()

    def _note_the_end(self, now: int) -> None:
        """Count who was waited for when it ended: a silent provider, or a consumer that did not ask any more."""
        provider, consumer = self._waits_until(now, *self.waiting())
        del self.asked[:]
        self.provider_wait += provider
        self.consumer_wait += consumer
        if self.last_arrival:
            self.max_gap = max(self.max_gap, provider)
        if 0 < self.stall_after <= provider:
            self.stalls += 1
            self.ended_stalled = True

    def waiting(self) -> tuple[str, int]:
        """Whom the stream waits for, "provider" or "consumer", and since when (`time.perf_counter_ns`)."""
        asked = self.asked
        times = asked[-1:] if len(asked) & 1 else asked[-2:]
        if len(times) == 1:
            return "provider", times[0]
        return "consumer", times[1] if times else self.last_arrival or self.opened

    def _waits_until(self, now: int, who: str, since: int) -> tuple[int, int]:
        """How long provider and consumer were waited for since the last chunk."""
        wait = max(0, now - since)
        if who == "consumer":
            return 0, wait
        return (wait, max(0, since - self.last_arrival) if self.last_arrival else 0) if who else (0, 0)

    def look(self, now: int, since: Mark | None = None, **known: Any) -> tuple[StreamReport, Mark]:
        """What is known of the running stream at `now`, and the mark of this moment."""
        locked = self._lock.acquire(timeout=_LOCK_SECONDS)
        try:
            self._fold()
            who, began = self.waiting()
            wait = max(0, now - began)
            seen = self.snapshot(
                now=now,
                status="streaming" if self.first_chunk else "pending",
                since=since,
                waiting=(who, began),
                kind=StreamReport,
                waiting_for=who,
                waiting_ms=wait / _MS,
                stalled=who == "provider" and 0 < self.stall_after <= wait,
                **known,
            )
            return seen, Mark(now, self.bytes, self.reader.events)
        finally:
            if locked:
                self._lock.release()

    def snapshot(
        self,
        *,
        now: int,
        status: str,
        provider: str = "unknown",
        model: str = "",
        output_tokens: int | None = None,
        last_error: str | None = None,
        since: Mark | None = None,
        waiting: tuple[str, int] = ("", 0),
        kind: Callable[..., M] = StreamMetrics,  # type: ignore[assignment]  # a default for a type variable
        **more: Any,
    ) -> M:
        """What is known at `now` (`time.perf_counter_ns`); `output_tokens` are the provider's where it said.

        `more` are fields of a `kind` that has more of them.
        """
        duration = max(0, now - self.started)
        seconds = duration / 1e9
        events = self.reader.events
        tokens = self.estimated_tokens if output_tokens is None else output_tokens
        generating = (self.last_arrival - self.first_token) / 1e9 if self.first_token else 0.0
        window = max(0, now - since.at) / 1e9 if since is not None else seconds
        seen_bytes, seen_events = (since.bytes, since.events) if since is not None else (0, 0)
        provider_now, consumer_now = self._waits_until(now, *waiting)
        return kind(
            stream_id=self.stream_id,
            provider=provider,
            model=model,
            start_time=self.wall * 1000.0,
            current_time=self.wall * 1000.0 + duration / _MS,
            duration_ms=duration / _MS,
            bytes_received=self.bytes,
            chunks_received=events,
            bytes_per_second=self.bytes / seconds if seconds else 0.0,
            chunks_per_second=events / seconds if seconds else 0.0,
            window_bytes_per_second=(self.bytes - seen_bytes) / window if window else 0.0,
            window_chunks_per_second=(events - seen_events) / window if window else 0.0,
            avg_chunk_size=self.bytes / events if events else 0.0,
            time_to_first_chunk_ms=(self.first_chunk - self.started) / _MS if self.first_chunk else None,
            time_to_first_token_ms=(self.first_token - self.started) / _MS if self.first_token else None,
            max_gap_ms=max(self.max_gap, provider_now if self.first_chunk else 0) / _MS,
            p50_gap_ms=self.gaps.percentile(0.50) / _MS,
            p95_gap_ms=self.gaps.percentile(0.95) / _MS,
            jitter_ms=self.gaps.deviation() / _MS,
            stalls=self.stalls + (0 < self.stall_after <= provider_now),
            provider_wait_ms=(self.provider_wait + provider_now) / _MS,
            consumer_wait_ms=(self.consumer_wait + consumer_now) / _MS,
            output_tokens=tokens,
            tokens_per_second=_rate(tokens, generating, seconds),
            error_count=1 if last_error else 0,
            last_error=last_error,
            status=status,
            **more,
        )

    @property
    def estimated_tokens(self) -> int:
        """Output tokens by what has come so far."""
        reader = self.reader
        return estimated_tokens(reader.content_events, reader.text_size, len(reader.answer.tools))


def _rate(tokens: int, generating: float, seconds: float) -> float:
    """Tokens a second after the first one; over the whole stream where all came at once."""
    if generating > 0 and tokens > 1:
        return (tokens - 1) / generating
    return tokens / seconds if seconds else 0.0
