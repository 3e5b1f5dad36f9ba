from __future__ import annotations

import sys
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from tellmeter import counts
from tellmeter.streams.meter import StreamMeter
from tellmeter.wire.answer import Answer
from tests.unit.streams.made import MS, Bytes


class Lines:
    """A reader whose events are lines, and whose content events are those that begin with `c`."""

    text_size = 0
    answer = Answer()

    def __init__(self) -> None:
        self.data = b""
        self.finished = False

    def feed(self, data: bytes) -> None:
        self.data += data

    def finish(self) -> None:
        self.finished = True

    @property
    def events(self) -> int:
        return self.data.count(b"\n")

    @property
    def content_events(self) -> int:
        return sum(line.startswith(b"c") for line in self.data.split(b"\n"))


def test_the_first_token_is_the_first_content_and_not_the_first_chunk() -> None:
    meter = StreamMeter(Lines(), started=0, wall=1000.0)
    meter.take(b"role\n", 0, 10 * MS)
    meter.take(b"content\n", 10 * MS, 30 * MS)
    meter.finish()
    seen = meter.snapshot(now=40 * MS, status="completed", provider="openai", model="m")
    assert (seen.time_to_first_chunk_ms, seen.time_to_first_token_ms) == (10.0, 30.0)
    assert (seen.chunks_received, seen.bytes_received, seen.duration_ms) == (2, 13, 40.0)
    assert (seen.start_time, seen.current_time) == (1_000_000.0, 1_000_040.0)
    assert (seen.provider, seen.model, seen.status) == ("openai", "m", "completed")


def test_a_slow_consumer_is_not_the_providers_fault() -> None:
    meter = StreamMeter(Lines(), started=0, wall=0.0)
    meter.take(b"c\n", 0, 5 * MS)
    meter.take(b"c\n", 1005 * MS, 1007 * MS)  # the consumer held the first chunk for a second
    meter.take(b"c\n", 1007 * MS, 1307 * MS)  # the provider was silent for 300 ms
    meter.finish()
    seen = meter.snapshot(now=1307 * MS, status="completed")
    assert (seen.provider_wait_ms, seen.consumer_wait_ms) == (307.0, 1000.0)
    assert seen.max_gap_ms == 300.0
    assert seen.jitter_ms == 149.0  # the standard deviation of 2 and 300


def test_nothing_received_is_no_time_and_no_rate() -> None:
    meter = StreamMeter(Lines(), started=0, wall=0.0)
    meter.finish()
    seen = meter.snapshot(now=0, status="abandoned")
    assert seen.time_to_first_chunk_ms is None and seen.time_to_first_token_ms is None
    assert seen.chunks_per_second == seen.tokens_per_second == seen.avg_chunk_size == 0.0


def test_the_providers_token_count_replaces_ours() -> None:
    meter = StreamMeter(Lines(), started=0, wall=0.0)
    for number in range(5):
        meter.take(b"c\n", number * 100 * MS, (number + 1) * 100 * MS)
    meter.finish()
    assert meter.snapshot(now=500 * MS, status="completed").output_tokens == 5
    told = meter.snapshot(now=500 * MS, status="completed", output_tokens=41)
    assert told.output_tokens == 41
    assert told.tokens_per_second == 100.0  # 40 tokens in the 0.4 s after the first


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 10**10), st.integers(0, 10**10)), max_size=80))
def test_folding_late_changes_nothing_but_the_first_tokens_time(chunks: list[tuple[bytes, int, int]]) -> None:
    eager, lazy = StreamMeter(Lines(), 0, 0.0), StreamMeter(Lines(), 0, 0.0)
    now = 0
    for data, hold, wait in chunks:
        asked, now = now + hold, now + hold + wait
        eager.take(data, asked, now)
        eager.fold()
        lazy.take(data, asked, now)
    eager.finish()
    lazy.finish()
    one, two = (meter.snapshot(now=now, status="completed") for meter in (eager, lazy))
    for name in one.__struct_fields__:
        if name not in ("stream_id", "tokens_per_second"):
            assert getattr(one, name) == getattr(two, name), name
    assert (one.provider_wait_ms + one.consumer_wait_ms) * MS <= now * (1 + 1e-9) + 1


def test_memory_stays_constant() -> None:
    class Nothing:
        events = content_events = text_size = 1
        answer = Answer()

        def feed(self, data: bytes) -> None: ...

        def finish(self) -> None: ...

    meter = StreamMeter(Nothing(), 0, 0.0)
    for number in range(10_000):
        meter.take(b"x" * 100, number * 10_000, number * 10_000 + 7_000)
        assert len(meter.chunks) <= 32 and len(meter.times) <= 64
    assert len(meter.gaps._buckets) < 10


def test_a_silence_is_a_stall_whether_it_ended_or_not() -> None:
    meter = StreamMeter(Bytes(), started=0, wall=0.0)
    meter.stall_after = 100 * MS
    meter.take(b"c", 0, 150 * MS)  # before the first chunk, too
    meter.take(b"c", 400 * MS, 420 * MS)  # the consumer's silence is none
    meter.times.append(500 * MS)
    seen, _ = meter.look(550 * MS)
    assert (seen.stalls, seen.waiting_for, seen.waiting_ms, seen.stalled) == (1, "provider", 50.0, False)
    seen, _ = meter.look(600 * MS)
    assert seen.stalled
    assert (seen.stalls, seen.max_gap_ms, seen.provider_wait_ms, seen.consumer_wait_ms) == (2, 100.0, 270.0, 330.0)
    meter.finish(700 * MS)
    ended = meter.snapshot(now=700 * MS, status="error")
    assert (ended.stalls, ended.max_gap_ms, ended.provider_wait_ms, ended.consumer_wait_ms) == (2, 200.0, 370.0, 330.0)
    assert meter.ended_stalled


def test_a_consumer_that_never_comes_back_is_waited_for() -> None:
    meter = StreamMeter(Bytes(), started=0, wall=0.0, opened=10 * MS)
    assert meter.waiting() == ("consumer", 10 * MS)
    meter.times.append(20 * MS)
    assert meter.waiting() == ("provider", 20 * MS)
    meter.times.append(30 * MS)
    assert meter.waiting() == ("consumer", 30 * MS)
    meter.chunks.append(b"c")
    meter.fold()
    assert meter.waiting() == ("consumer", 30 * MS)
    meter.finish(90 * MS)
    seen = meter.snapshot(now=90 * MS, status="closed_early")
    assert (seen.provider_wait_ms, seen.consumer_wait_ms, seen.stalls) == (10.0, 60.0, 0)


def test_rates_since_the_last_look() -> None:
    meter = StreamMeter(Bytes(), started=0, wall=0.0)
    meter.take(b"c" * 10, 0, 500 * MS)
    first, mark = meter.look(1000 * MS)
    meter.take(b"c" * 30, 1000 * MS, 1200 * MS)
    second, _ = meter.look(1500 * MS, mark)
    assert (first.window_bytes_per_second, first.bytes_per_second) == (10.0, 10.0)
    assert (second.window_bytes_per_second, second.window_chunks_per_second) == (60.0, 60.0)
    assert round(second.bytes_per_second, 3) == 26.667
    assert first.stream_id == second.stream_id != ""


def test_raw_chunks_are_kept_as_they_came_up_to_a_bound() -> None:
    meter = StreamMeter(Bytes(), started=0, wall=0.0)
    meter.raw = []
    pieces = [b"a", b"bc" * 400_000, b"d" * 300_000, b"e"]
    before = counts.snapshot().get("raw_chunks_left_out", {}).get("", 0)
    for number, piece in enumerate(pieces):
        meter.take(piece, number, number)
    meter.finish()
    assert meter.raw == [b"a", pieces[1]]
    assert counts.snapshot()["raw_chunks_left_out"][""] == before + 2


def test_the_first_content_is_told_once() -> None:
    told = []
    meter = StreamMeter(Lines(), started=0, wall=0.0)
    meter.first_content = lambda: told.append(meter.first_token)
    meter.take(b"role\n", 0, 10)
    assert told == []
    meter.take(b"content\n", 10, 20)
    meter.take(b"content\n", 20, 30)
    meter.finish()
    assert told == [20]


def test_others_may_look_while_it_runs() -> None:
    """The stream appends from one thread, and several others read what waits: nothing is lost or counted twice."""
    meter = StreamMeter(Bytes(), started=0, wall=0.0)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen, mark = meter.look(time.perf_counter_ns())
            assert seen.bytes_received == mark.bytes and seen.waiting_for in ("provider", "consumer")

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for one in lookers:
        one.start()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(20_000):
            meter.times.append(time.perf_counter_ns())
            meter.times.append(time.perf_counter_ns())
            meter.chunks.append(b"ab")
            if len(meter.chunks) >= meter.limit:
                meter.fold()
    finally:
        sys.setswitchinterval(before)
        stop.set()
        for one in lookers:
            one.join()
    meter.finish()
    seen = meter.snapshot(now=time.perf_counter_ns(), status="completed")
    assert (seen.bytes_received, seen.chunks_received) == (40_000, 40_000)
    assert not meter.times and not meter.chunks
    assert meter.gaps._count == 19_999
