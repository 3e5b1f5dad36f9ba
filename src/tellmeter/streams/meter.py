"""StreamMeter: one running stream in constant memory, at a cost per chunk that nobody notices.

A chunk costs two clock readings and two appends; every few chunks `fold` reads what came in one go. Waiting for the
provider and the time that the consumer holds the stream are told apart, so a slow application is not blamed on the
provider.
"""

from __future__ import annotations

import math
from bisect import bisect
from operator import mul, sub
from typing import Protocol

from ..records import StreamMetrics, uuid7

# How much is folded at a time once the first token is there. A fold runs on cold code and costs about as much whatever
# its size (2.4 us a chunk for 16 chunks, 0.6 us for 64); what waits is the memory that a running stream takes.
FOLD_CHUNKS = 32
FOLD_BYTES = 8192

_MS = 1e6  # nanoseconds in a millisecond


class Reader(Protocol):
    """What reads the bytes of a stream: counts its events, and those that carry content."""

    events: int
    content_events: int

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""

    def finish(self) -> None:
        """Read what is left: no more bytes come."""


class StreamMeter:
    """Measures one stream. `started` is `time.perf_counter_ns` at the start of the call, `wall` Unix seconds then."""

    __slots__ = (
        "_gap_count",
        "_gap_squares",
        "_gap_total",
        "_gaps",
        "bytes",
        "chunks",
        "consumer_wait",
        "first_chunk",
        "first_token",
        "last_arrival",
        "limit",
        "max_gap",
        "provider_wait",
        "reader",
        "started",
        "times",
        "wall",
    )

    def __init__(self, reader: Reader, started: int, wall: float) -> None:
        self.reader = reader
        self.started = started
        self.wall = wall
        self.bytes = 0
        self.first_chunk = 0
        self.first_token = 0
        self.last_arrival = 0
        self.provider_wait = 0
        self.consumer_wait = 0
        self.max_gap = 0
        # What waits to be read. The stream appends to both itself and calls `fold` at `limit` chunks: an SDK does so
        # much between two chunks that even the call of `take` is expensive, its code is cold again.
        self.chunks: list[bytes] = []
        self.times: list[int] = []  # for each chunk when it was asked for and when it came, one after the other
        self.limit = 1  # every chunk is read at once until the first token is found, so that its time is exact
        self._gaps: dict[int, int] = {}
        self._gap_count = 0
        self._gap_total = 0
        self._gap_squares = 0

    def take(self, chunk: bytes, asked: int, arrived: int) -> None:
        """Note one chunk: the consumer asked for it at `asked`, it came at `arrived` (`time.perf_counter_ns`)."""
        self.chunks.append(chunk)
        self.times += (asked, arrived)
        if len(self.chunks) >= self.limit:
            self.fold()

    def fold(self) -> None:
        """Read the chunks that wait."""
        chunks, times = self.chunks, self.times
        if not chunks:
            return
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        asked, arrived = times[: 2 * len(chunks) : 2], times[1 : 2 * len(chunks) : 2]
        del times[: 2 * len(chunks)]  # the consumer may have asked for the next one already
        chunks.clear()
        self.bytes += len(data)
        self.reader.feed(data)
        waits = list(map(sub, arrived, asked))
        provider = sum(waits)
        self.provider_wait += provider
        last = arrived[-1]
        if self.last_arrival:
            self.consumer_wait += last - self.last_arrival - provider
        else:
            self.first_chunk = arrived[0]
            self.consumer_wait += last - asked[0] - provider
            del waits[0]  # the wait for the first chunk is no gap between chunks
        self.last_arrival = last
        if waits:
            self._note_gaps(waits)
        if not self.first_token and self.reader.content_events:
            self.first_token = last
        if self.first_token:
            self.limit = min(FOLD_CHUNKS, FOLD_BYTES * len(asked) // (len(data) + 1) + 1)

    def _note_gaps(self, waits: list[int]) -> None:
        self._gap_total += sum(waits)
        self._gap_squares += sum(map(mul, waits, waits))
        self._gap_count += len(waits)
        waits.sort()
        self.max_gap = max(self.max_gap, waits[-1])
        gaps = self._gaps
        short = bisect(waits, _SHORT)  # what came together, in one step
        gaps[0] = gaps.get(0, 0) + short
        for wait in waits[short:]:
            bits = wait.bit_length()
            bucket = bits << 2 | (wait >> bits - 3 & 3)
            gaps[bucket] = gaps.get(bucket, 0) + 1

    def finish(self) -> None:
        """Read everything that is left; no more chunks come."""
        self.fold()
        self.reader.finish()
        if not self.first_token and self.reader.content_events:
            self.first_token = self.last_arrival

    def snapshot(
        self,
        *,
        now: int,
        status: str,
        provider: str = "unknown",
        model: str = "",
        output_tokens: int | None = None,
        last_error: str | None = None,
    ) -> StreamMetrics:
        """What is known at `now` (`time.perf_counter_ns`); `output_tokens` are the provider's where it said."""
        duration = max(0, now - self.started)
        seconds = duration / 1e9
        events = self.reader.events
        tokens = self.reader.content_events if output_tokens is None else output_tokens
        generating = (self.last_arrival - self.first_token) / 1e9 if self.first_token else 0.0
        bytes_rate = self.bytes / seconds if seconds else 0.0
        chunk_rate = events / seconds if seconds else 0.0
        return StreamMetrics(
            stream_id=uuid7(),
            provider=provider,
            model=model,
            start_time=self.wall * 1000.0,
            current_time=self.wall * 1000.0 + duration / _MS,
            duration_ms=duration / _MS,
            bytes_received=self.bytes,
            chunks_received=events,
            bytes_per_second=bytes_rate,
            chunks_per_second=chunk_rate,
            window_bytes_per_second=bytes_rate,
            window_chunks_per_second=chunk_rate,
            avg_chunk_size=self.bytes / events if events else 0.0,
            time_to_first_chunk_ms=(self.first_chunk - self.started) / _MS if self.first_chunk else None,
            time_to_first_token_ms=(self.first_token - self.started) / _MS if self.first_token else None,
            max_gap_ms=self.max_gap / _MS,
            p50_gap_ms=self._gap_percentile(0.50),
            p95_gap_ms=self._gap_percentile(0.95),
            jitter_ms=self._gap_deviation() / _MS,
            provider_wait_ms=self.provider_wait / _MS,
            consumer_wait_ms=self.consumer_wait / _MS,
            output_tokens=tokens,
            tokens_per_second=_rate(tokens, generating, seconds),
            error_count=1 if last_error else 0,
            last_error=last_error,
            status=status,
        )

    def _gap_deviation(self) -> float:
        """The standard deviation of the gaps, in nanoseconds."""
        number = self._gap_count
        if not number:
            return 0.0
        # In whole numbers, so that nothing is lost to cancellation.
        return math.sqrt(number * self._gap_squares - self._gap_total**2) / number

    def _gap_percentile(self, share: float) -> float:
        """The gap that `share` of the gaps do not exceed, in ms; at most 13 % off, as its bucket is."""
        below = 0
        for bucket in sorted(self._gaps):
            below += self._gaps[bucket]
            if below >= share * self._gap_count:
                return min(_middle(bucket), self.max_gap) / _MS
        return 0.0


def _rate(tokens: int, generating: float, seconds: float) -> float:
    """Tokens a second after the first one; over the whole stream where all came at once."""
    if generating > 0 and tokens > 1:
        return (tokens - 1) / generating
    return tokens / seconds if seconds else 0.0


# Gaps are kept in buckets, four to a power of two: 4 * bits + the two bits after the first one. What is shorter than
# 64 us came together with the chunk before it and has a bucket of its own.
_SHORT = (1 << 16) - 1


def _middle(bucket: int) -> int:
    """The middle of a bucket in nanoseconds."""
    if not bucket:
        return _SHORT // 2
    bits, quarter = bucket >> 2, bucket & 3
    width = 1 << (bits - 3)
    return (4 + quarter) * width + width // 2
