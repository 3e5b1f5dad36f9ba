from __future__ import annotations

import msgspec

from tellmeter import AgentMetrics, StreamMetrics, StreamReport
from tellmeter.streams.report import EVENTS

GUIDE = [
    *("stream_id", "provider", "start_time", "current_time", "duration_ms", "bytes_received", "chunks_received"),
    *("bytes_per_second", "chunks_per_second", "avg_chunk_size", "error_count", "last_error", "status", "raw_chunks"),
]


def test_it_has_every_key_of_the_streaming_guide() -> None:
    report = StreamReport(event="stream.progress", status="streaming")
    assert isinstance(report, StreamMetrics)
    assert set(GUIDE) <= set(msgspec.structs.asdict(report))


def test_a_record_never_takes_one_for_its_stream() -> None:
    """It may have raw chunks."""
    assert AgentMetrics(model="m", stream=StreamReport(raw_chunks=(b"secret",))).stream is None


def test_the_events() -> None:
    assert EVENTS[0] == "stream.start" and len(set(EVENTS)) == 6
