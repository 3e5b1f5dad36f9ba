from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tellmeter.streams.meter import StreamMeter

MS = 1_000_000


class Lines:
    """A reader whose events are lines, and whose content events are those that begin with `c`."""

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


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200))
def test_gap_percentiles_are_within_an_eighth(gaps: list[int]) -> None:
    meter = StreamMeter(Lines(), 0, 0.0)
    now = 1
    meter.take(b"c\n", 0, now)
    for gap in gaps:
        meter.take(b"c\n", now, now + gap)
        now += gap
    meter.finish()
    seen = meter.snapshot(now=now, status="completed")
    ordered = sorted(gaps)
    exact = ordered[max(0, -(-len(ordered) * 95 // 100) - 1)] / MS
    assert abs(seen.p95_gap_ms - exact) <= max(0.13 * exact, 0.033)  # 64 us is one bucket
    assert seen.max_gap_ms == ordered[-1] / MS
    assert seen.p50_gap_ms <= seen.p95_gap_ms <= seen.max_gap_ms


def test_memory_stays_constant() -> None:
    class Nothing:
        events = content_events = 1

        def feed(self, data: bytes) -> None: ...

        def finish(self) -> None: ...

    meter = StreamMeter(Nothing(), 0, 0.0)
    for number in range(10_000):
        meter.take(b"x" * 100, number * 10_000, number * 10_000 + 7_000)
        assert len(meter.chunks) <= 32 and len(meter.times) <= 64
    assert len(meter._gaps) < 10
